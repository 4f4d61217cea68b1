// State bars and latency lines, as SVG.

import { draw, make, SMALL } from "./dom.js";
import { clock, length, local, milliseconds } from "./words.js";

const WORDS = { o: "online", x: "offline", m: "partly offline", u: "unknown", "-": "not there" };
const LEAST = 0.12; // of the height: what was short is small, but it is seen

// What each bucket says, as shares of its time: [online, offline, unknown]; null where the node was not there.
export function shares({ states, uptime, coverage }) {
  return [...states].map((letter, at) => {
    if (letter === "-") return null;
    const seen = (coverage?.[at] ?? (letter === "u" ? 0 : 100)) / 100;
    const up = (uptime?.[at] ?? (letter === "x" ? 0 : 100)) / 100;
    return letter === "u" ? [0, 0, 1] : [seen * up, seen * (1 - up), 1 - seen];
  });
}

const least = (share, height) => (share > 0 ? Math.max(LEAST, share) * height : 0);

// One column a bucket: red hangs from the top, as high as the share that was offline; what nobody saw is hatched.
export function bars(row, bounds, { height = 20, name = "" } = {}) {
  const parts = shares(row);
  const counts = {};
  for (const letter of row.states) counts[letter] = (counts[letter] ?? 0) + 1;
  const said = Object.entries(counts).map(
    ([letter, count]) => `${WORDS[letter]} ${Math.round((100 * count) / row.states.length)} %`,
  );
  const svg = draw("svg", {
    class: "bars",
    viewBox: `0 0 ${parts.length * 4} ${height}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${name} ${said.join(", ")}`.trim(),
  });
  parts.forEach((part, at) => {
    const column = (kind, y, tall) =>
      tall > 0
        ? draw("rect", {
            class: kind,
            x: at * 4,
            y,
            width: 3,
            height: tall,
            fill: kind === "u" ? "url(#hatch)" : null,
          })
        : null;
    const [red, hatched] = part ? [least(part[1], height), least(part[2], height)] : [0, 0];
    const sum = Math.max(height, red + hatched);
    const [bad, dark] = [(red / sum) * height, (hatched / sum) * height];
    svg.append(
      draw(
        "g",
        {},
        part ? column("o", bad + dark, height - bad - dark) : column("none", height * 0.88, height * 0.12),
        column("x", 0, bad),
        column("u", bad, dark),
        draw(
          "rect",
          {
            class: "all",
            x: at * 4,
            y: 0,
            width: 4,
            height,
            "data-from": bounds[at],
            "data-to": bounds[at + 1],
          },
          draw("title", {}, words(row.states[at], part, bounds[at], bounds[at + 1])),
        ),
      ),
    );
  });
  return svg;
}

function words(letter, part, from, to) {
  const share = (value) => `${value < 0.001 ? "under 0.1" : (100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  const more = [];
  if (part?.[1] > 0) more.push(`offline ${share(part[1])} of it (${length(part[1] * seconds)})`);
  if (part?.[2] > 0.005 && letter !== "u") more.push(`not seen ${share(part[2])}`);
  return `${local(from)} – ${local(to)}: ${[WORDS[letter], ...more].join(", ")}`;
}

// A year as a calendar: a column a week, a square a day.
export function calendar(row, bounds, name) {
  const parts = shares(row);
  const first = (new Date(bounds[0]).getDay() + 6) % 7; // weeks begin on Monday
  const weeks = Math.ceil((parts.length + first) / 7);
  const svg = draw("svg", {
    class: "calendar",
    viewBox: `0 0 ${weeks * 14 + 30} ${7 * 14 + 16}`,
    role: "img",
    "aria-label": `${name} a year, day by day`,
  });
  ["Mon", "Wed", "Fri"].forEach((day, at) => {
    svg.append(draw("text", { x: 0, y: at * 28 + 10 }, day));
  });
  let month = -1;
  parts.forEach((part, at) => {
    const place = at + first;
    const [x, y] = [30 + Math.floor(place / 7) * 14, (place % 7) * 14];
    const begin = new Date(bounds[at]);
    if (begin.getMonth() !== month && place % 7 === 0) {
      month = begin.getMonth();
      svg.append(draw("text", { x, y: 7 * 14 + 12 }, begin.toLocaleDateString([], { month: "short" })));
    }
    const kind = !part ? "none" : part[2] > 0.99 ? "u" : part[1] > 0.05 ? "x" : part[1] > 0 ? "m" : "o";
    svg.append(
      draw(
        "rect",
        {
          class: kind,
          x,
          y,
          width: 12,
          height: 12,
          rx: 2,
          fill: kind === "u" ? "url(#hatch)" : null,
          "data-from": bounds[at],
          "data-to": bounds[at + 1],
        },
        draw("title", {}, words(row.states[at], part, bounds[at], bounds[at + 1])),
      ),
    );
  });
  return svg;
}

export const legend = (letters = "oxu") =>
  make(
    "ul",
    { class: "legend" },
    ...[...letters].map((letter) =>
      make(
        "li",
        {},
        make("span", { class: `swatch ${letter === "-" ? "gone" : letter}`, "aria-hidden": "true" }),
        WORDS[letter],
      ),
    ),
  );

export function sparkline(points, { width = 220, height = 34 } = {}) {
  if (points.filter((point) => point[1] !== null).length < 2) return null;
  const known = points.filter((point) => point[1] !== null);
  const top = Math.max(...known.map((point) => point[1])) * 1.15;
  const first = Date.parse(points[0][0]);
  const span = Math.max(1, Date.parse(points.at(-1)[0]) - first);
  const place = (point) =>
    `${((Date.parse(point[0]) - first) / span) * width},${height - (point[1] / top) * height}`;
  return draw(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `latency over 24 hours, at most ${milliseconds(top / 1.15)}`,
    },
    ...runs(points).map((run) => draw("polyline", { points: run.map(place).join(" ") })),
  );
}

// A lost ping is a gap, not a line through it.
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point[1] === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length > 1);
}

const PATHS = { direct: "direct", relay: "over a relay", peer_relay: "over a peer relay" };

// The latency chart of the drawer, over the same time as the bars above it: outages shaded, lost pings below, the
// path as colour. Drag to zoom, double-click (or the button) for all of it again.
export function latencyChart(answer, { from, to, outages }, onZoom) {
  const points = answer.points;
  const box = make("figure", { class: "latency" });
  if (points.filter((point) => point[1] !== null).length < 2) {
    box.append(
      make(
        "p",
        { class: "empty" },
        "No latency has been measured in this window: only nodes whose role says so are pinged.",
      ),
    );
    return box;
  }
  const [width, height, left, bottom] = [760, SMALL.matches ? 380 : 200, 84, SMALL.matches ? 44 : 32];
  const span = Math.max(1, to - from);
  const top = nice(Math.max(...points.map((point) => point[1] ?? 0)));
  const x = (time) => left + ((Math.min(to, Math.max(from, time)) - from) / span) * (width - left);
  const y = (ms) => 12 + (height - bottom - 12) * (1 - ms / top);
  const iso = (time) => new Date(time).toISOString();
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `latency from ${local(iso(from))} to ${local(iso(to))}: ${figures(answer)}`,
  });
  for (const outage of outages) {
    const [begin, end] = [Date.parse(outage.start), outage.end ? Date.parse(outage.end) : to];
    if (end < from || begin > to) continue;
    svg.append(
      draw(
        "rect",
        {
          class: "outage",
          x: x(begin),
          y: 12,
          width: Math.max(1.5, x(end) - x(begin)),
          height: height - bottom - 12,
        },
        draw(
          "title",
          {},
          `offline from ${local(outage.start)}${outage.end ? ` to ${local(outage.end)}` : ""}`,
        ),
      ),
    );
  }
  for (const part of [0, 0.5, 1]) {
    svg.append(
      draw("line", { class: "grid", x1: left, x2: width, y1: y(top * part), y2: y(top * part) }),
      draw("text", { x: left - 6, y: y(top * part) + 4, "text-anchor": "end" }, milliseconds(top * part)),
    );
  }
  for (const part of [0, 1 / 3, 2 / 3, 1]) {
    const time = from + span * part;
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    svg.append(draw("text", { x: x(time), y: height - 4, "text-anchor": anchor }, clock(iso(time))));
  }
  let path = null;
  for (const point of points) {
    if (point[2] !== null && point[2] !== path) {
      if (path !== null) {
        const at = x(Date.parse(point[0]));
        svg.append(
          draw(
            "line",
            { class: "change", x1: at, x2: at, y1: height - bottom - 10, y2: height - bottom },
            draw("title", {}, `${local(point[0])}: ${path} → ${point[2]}`),
          ),
        );
      }
      path = point[2];
    }
    if (point[1] === null)
      svg.append(
        draw(
          "rect",
          { class: "lost", x: x(Date.parse(point[0])) - 1, y: height - bottom + 2, width: 2.5, height: 7 },
          draw("title", {}, `${local(point[0])}: every ping was lost`),
        ),
      );
  }
  for (const run of runs(points)) {
    for (const piece of byPath(run)) {
      const places = piece.points.map((point) => `${x(Date.parse(point[0]))},${y(point[1])}`);
      svg.append(draw("polyline", { class: piece.kind, points: places.join(" ") }));
    }
  }
  zoomable(
    svg,
    { left, width, height: height - bottom, time: (at) => from + ((at - left) / (width - left)) * span },
    onZoom,
  );
  const paths = [...new Set(points.map((point) => point[2]).filter(Boolean))];
  const swatch = (kind, words) =>
    make("li", {}, make("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), words);
  box.append(
    svg,
    make(
      "ul",
      { class: "legend" },
      ...paths.map((name) => swatch(name, PATHS[name] ?? name)),
      outages.length ? swatch("outage", "offline") : null,
      points.some((point) => point[1] === null) ? swatch("lost", "lost pings") : null,
    ),
    make("figcaption", {}, make("span", { class: "hint" }, "drag to zoom · "), figures(answer)),
  );
  return box;
}

// A run in pieces of one path: the way to a point is drawn as the path by which it was reached.
function byPath(run) {
  const found = [];
  for (let at = 1; at < run.length; at += 1) {
    const kind = run[at][2] ?? "direct";
    if (found.at(-1)?.kind === kind) found.at(-1).points.push(run[at]);
    else found.push({ kind, points: [run[at - 1], run[at]] });
  }
  return found;
}

// Of a part only the averages are known: the shortest and the longest ping are those of the whole window.
function figures(answer) {
  const known = answer.points.map((point) => point[1]).filter((value) => value !== null);
  if (answer.part)
    return `in this part: avg ${milliseconds(known.reduce((sum, value) => sum + value, 0) / known.length)} · slowest average ${milliseconds(Math.max(...known))}`;
  return (
    `min ${milliseconds(answer.min)} · avg ${milliseconds(answer.avg)} · p95 ${milliseconds(answer.p95)} · longest ping ${milliseconds(answer.max)}` +
    (answer.loss_percentage === null ? "" : ` · lost ${answer.loss_percentage} %`)
  );
}

function zoomable(svg, scale, onZoom) {
  let begin = null;
  const band = draw("rect", { class: "band", y: 0, height: scale.height, width: 0 });
  svg.append(band);
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(
      scale.width,
      Math.max(scale.left, ((event.clientX - box.left) / box.width) * scale.width),
    );
  };
  svg.addEventListener("pointerdown", (event) => {
    begin = place(event);
    svg.dataset.drag = "yes";
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (begin === null) return;
    const at = place(event);
    band.setAttribute("x", Math.min(begin, at));
    band.setAttribute("width", Math.abs(at - begin));
  });
  svg.addEventListener("pointercancel", () => {
    begin = null;
    delete svg.dataset.drag;
    band.setAttribute("width", 0);
  });
  svg.addEventListener("pointerup", (event) => {
    delete svg.dataset.drag;
    const end = place(event);
    if (begin !== null && Math.abs(end - begin) > 8)
      onZoom(scale.time(Math.min(begin, end)), scale.time(Math.max(begin, end)));
    begin = null;
    band.setAttribute("width", 0);
  });
  svg.addEventListener("dblclick", () => onZoom(null, null));
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}
