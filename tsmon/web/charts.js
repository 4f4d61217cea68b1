// State bars and latency lines, as SVG.

import { draw, make } from "./dom.js";
import { clock, local, milliseconds } from "./words.js";

const WORDS = { o: "online", x: "offline", m: "mixed", u: "unknown", "-": "not there" };
const TALL = { o: 1, x: 0.45, m: 0.7, u: 1, "-": 0.12 }; // height tells what colour tells

export function bars(states, bounds, { height = 20, name = "" } = {}) {
  const counts = {};
  for (const letter of states) counts[letter] = (counts[letter] ?? 0) + 1;
  const told = Object.entries(counts).map(
    ([letter, count]) => `${WORDS[letter]} ${Math.round((100 * count) / states.length)} %`,
  );
  const svg = draw("svg", {
    class: "bars",
    viewBox: `0 0 ${states.length * 4} ${height}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${name} ${told.join(", ")}`.trim(),
  });
  [...states].forEach((letter, at) => {
    const tall = TALL[letter] * height;
    svg.append(
      draw(
        "rect",
        { class: letter, x: at * 4, y: height - tall, width: 3, height: tall },
        draw("title", {}, `${local(bounds[at])} – ${local(bounds[at + 1])}: ${WORDS[letter]}`),
      ),
    );
  });
  return svg;
}

export const legend = () =>
  make(
    "ul",
    { class: "legend" },
    ...["o", "m", "x", "u"].map((letter) =>
      make("li", {}, make("span", { class: `swatch ${letter}`, "aria-hidden": "true" }), WORDS[letter]),
    ),
  );

export function sparkline(points, { width = 220, height = 34 } = {}) {
  const known = points.filter((point) => point[1] !== null);
  if (known.length < 2) return null;
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

// The latency chart of the drawer: drag to zoom, double-click (or the button) for all of it again.
export function latencyChart(answer, onZoom) {
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
  const [width, height, left, bottom] = [760, 190, 84, 22];
  const first = Date.parse(points[0][0]);
  const last = Date.parse(points.at(-1)[0]);
  const span = Math.max(1, last - first);
  const top = nice(Math.max(...points.map((point) => point[1] ?? 0)));
  const x = (time) => left + ((time - first) / span) * (width - left);
  const y = (ms) => 12 + (height - bottom - 12) * (1 - ms / top);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `latency from ${local(points[0][0])} to ${local(points.at(-1)[0])}: ${figures(answer)}`,
  });
  for (const part of [0, 0.5, 1]) {
    svg.append(
      draw("line", { class: "grid", x1: left, x2: width, y1: y(top * part), y2: y(top * part) }),
      draw("text", { x: left - 6, y: y(top * part) + 4, "text-anchor": "end" }, milliseconds(top * part)),
    );
  }
  for (const part of [0, 1 / 3, 2 / 3, 1]) {
    const time = first + span * part;
    svg.append(
      draw(
        "text",
        { x: x(time), y: height - 4, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle" },
        clock(new Date(time).toISOString()),
      ),
    );
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
  }
  for (const run of runs(points)) {
    svg.append(
      draw("polyline", { points: run.map((point) => `${x(Date.parse(point[0]))},${y(point[1])}`).join(" ") }),
    );
  }
  zoomable(svg, { left, width, time: (at) => first + ((at - left) / (width - left)) * span }, onZoom);
  box.append(
    svg,
    make("figcaption", {}, make("span", { class: "hint" }, "drag to zoom · "), figures(answer)),
  );
  return box;
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
  const band = draw("rect", { class: "band", y: 0, height: 168, width: 0 });
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
