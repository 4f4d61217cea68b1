// The first glance: one sentence with the truth, the figures, the incidents, the critical nodes.

import { isWall, incident as named } from "./address.js";
import { sparkline } from "./charts.js";
import { $, copyable, make, mark, pill, replace, SMALL, shortName } from "./dom.js";
import { age, at, clock, counted, local, milliseconds, percent, plain, prose } from "./words.js";

const MOST_ROWS = 5;
const MOST_CARDS = 8; // healthy nodes beyond so many are a name each
const MOST_NAMES = { small: 2, wide: 60 }; // of a role; more are a number that opens
const MOST_DOWN = 24;
const MOST_NAMED = 3; // of an incident
const ICONS = { healthy: "ok", degraded: "warn", critical: "bad", unknown: "unknown" };
const glance = { sparks: {}, all: false, opened: new Set() };

export function keepSparks(sparks) {
  glance.sparks = sparks;
}

export function showAllIncidents(all) {
  glance.all = all;
}

// The names of a role's healthy nodes, or their number.
export function toggleRole(key) {
  if (!glance.opened.delete(key)) glance.opened.add(key);
}

export function showSummary(answer) {
  const { summary, warnings } = answer;
  replace($("headline"), ...prose(summary.headline));
  const level = summary.as_of ? summary.level : "unknown";
  $("headline").dataset.status = level;
  document.body.dataset.level = level;
  document.body.dataset.blind = summary.blind ? "yes" : "no";
  $("blind").hidden = !summary.blind;
  $("blind").textContent = summary.blind
    ? `${capital(summary.blind.message)}. ${summary.total_nodes ? "Last known state below." : "It has seen no node yet."}`
    : "";
  // Heard by who cannot see the page: only when something changed.
  if ($("spoken").textContent !== plain(summary.headline)) $("spoken").textContent = plain(summary.headline);
  $("demo").hidden = !summary.demo;
  $("tailnet").textContent = summary.tailnet ?? "";
  replace(
    $("foot"),
    `tsmon ${summary.version} · source ${summary.source} · `,
    summary.as_of ? age(summary.as_of, "last look ", " ago") : "not seen yet",
    make("span", { class: "paper" }, ` (${local(summary.as_of)})`),
    ` · times are ${Intl.DateTimeFormat().resolvedOptions().timeZone || "this machine's"}`,
  );
  showNumbers(summary, answer.incidents.incidents);
  replace($("warnings"), ...warnings.map((text) => make("li", {}, `▲ ${text}`)));
  const icon = `web/${ICONS[level]}.svg`;
  if ($("favicon").getAttribute("href") !== icon) $("favicon").setAttribute("href", icon);
  replace($("wall-seen"), summary.as_of ? age(summary.as_of, "seen ", " ago") : "not seen yet");
  $("wall-count").textContent = `${summary.online_nodes} of ${counted(summary.total_nodes, "node")} online`;
  return `${{ healthy: "●", degraded: "▲", critical: "✕", unknown: "?" }[level]} ${plain(summary.headline)}`;
}

function showNumbers(summary, incidents) {
  const critical = incidents.some((one) => one.severity === "critical" && !one.calm);
  const figures = [
    ["nodes", summary.total_nodes, "", "?#nodes-title", ""],
    ["online", summary.online_nodes, "", "?state=online", "state=online"],
    ["offline", summary.offline_nodes, "offline", "?state=offline", "state=offline"],
    ["unknown", summary.unknown_nodes, "unknown", "?state=unknown", "state=unknown"],
    [
      "critical health",
      percent(summary.critical_nodes.health_percentage),
      "",
      "?project_only=1",
      "project_only",
    ],
    ["alerts", summary.active_alerts, critical ? "alerts" : "warnings", "?alerting=1", "alerting"],
  ];
  replace(
    $("numbers"),
    ...figures.map(([name, value, kind, href, filter]) =>
      make(
        "div",
        { "data-key": name, "data-kind": value ? kind : null },
        make("dt", {}, value === 1 ? name.replace(/s$/, "") : name),
        make("dd", {}, make("a", { href, "data-filter": filter }, value.toLocaleString())),
      ),
    ),
  );
}

const capital = (text) => (/^\w+:\/\//.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

// -- incidents ---------------------------------------------------------------------------------------------

export function showIncidents({ incidents, total }, blind) {
  // The band says that tsmon is blind; once is enough.
  const rows = blind ? incidents.filter((one) => one.kind !== "monitor_blind") : incidents;
  const shown = glance.all ? rows : rows.slice(0, MOST_ROWS);
  replace(
    $("alerts"),
    ...(rows.length
      ? shown.map(incidentRow)
      : [
          make("li", { class: "calm", "data-key": "calm" }, blind ? "Nothing else fires." : "Nothing fires."),
        ]),
  );
  const rest = rows.length - shown.length;
  $("more-alerts").hidden = rows.length <= MOST_ROWS;
  $("more-alerts").textContent = glance.all ? "Fewer" : `${rest} more`;
  $("alerts-count").textContent = total ? counted(total, "incident") : "";
}

function incidentRow(one) {
  const notes = [];
  if (one.count > 1) notes.push(nodeNames(one));
  if (one.cause) notes.push(one.cause);
  for (const message of one.notified.slice(0, 3))
    notes.push(make("span", {}, `notified: ${message.channel} `, at(message.at, clock(message.at))));
  const part = (number) => (number < one.count ? `${number} of them ` : "");
  if (one.acknowledged) notes.push(`${part(one.acknowledged)}acknowledged by ${one.acknowledged_by}`);
  if (one.silenced_until)
    notes.push(
      make(
        "span",
        {},
        `${part(one.silenced)}silenced until `,
        at(one.silenced_until, clock(one.silenced_until)),
      ),
    );
  if (one.count === 1 && !one.acknowledged_by) notes.push(copyable(`tsmon ack ${one.id}`));
  const href =
    one.count === 1 && one.nodes.length
      ? { href: `?node=${encodeURIComponent(one.nodes[0])}`, "data-node": one.nodes[0] }
      : {
          href: "?alerting=1",
          "data-filter": one.cause.startsWith("tag:") ? `alerting&tag=${one.cause}` : "alerting",
        };
  return make(
    "li",
    {
      id: `incident-${one.id}`,
      "data-severity": one.severity,
      "data-calm": one.calm ? "yes" : null,
      "aria-current": named() === one.id ? "true" : null,
    },
    make("span", { class: "sign", role: "img", "aria-label": one.severity }, mark(one.severity)),
    make("span", { class: "text", title: one.nodes.join(", ") }, ...prose(one.message)),
    make("span", { class: "notes" }, ...notes.flatMap((note, index) => (index ? [" · ", note] : [note]))),
    one.nodes.length ? make("a", { class: "show", ...href }, "show") : null,
  );
}

function nodeNames({ nodes, count }) {
  const names = nodes.slice(0, MOST_NAMED).flatMap((name, at) => [at ? ", " : "", nodeLink(name, 40)]);
  const rest = count - Math.min(MOST_NAMED, nodes.length);
  return make("span", {}, ...names, rest ? ` and ${rest.toLocaleString()} more` : "");
}

// What is said of a node, with its name as a link: where it stands at the begin, or before the sentence. A node
// may be called like any word.
export function about(what, message) {
  if (!what.hostname || !what.node_id) return prose(message);
  const name = nodeLink(what.hostname);
  const rest = message.slice(what.hostname.length);
  if (message.startsWith(what.hostname) && /^[\s:,']/.test(rest)) return [name, ...prose(rest)];
  return [name, " · ", ...prose(message)];
}

export const nodeLink = (hostname, most = 60) =>
  make(
    "a",
    {
      href: `?node=${encodeURIComponent(hostname)}`,
      "data-node": hostname,
      class: hostname.length > 30 ? "long" : null,
      title: hostname.length > most ? hostname : null,
    },
    shortName(hostname, most),
  );

// -- the critical nodes ------------------------------------------------------------------------------------

export function showCritical(critical) {
  const roles = Object.entries(critical);
  const all = roles.flatMap(([, entry]) => entry.nodes);
  if (
    !all.length &&
    roles.every(([, entry]) => !entry.was_filled) &&
    roles.some(([, e]) => e.status === "missing")
  ) {
    replace($("critical"), welcome());
    return;
  }
  const crowded = all.length > MOST_CARDS;
  $("critical").dataset.columns = "";
  if (isWall()) {
    replace($("critical"), ...wallTiles(all));
    return;
  }
  replace($("critical"), ...roles.map(([key, entry]) => role(key, entry, crowded)));
}

const welcome = () =>
  make(
    "div",
    { class: "welcome", "data-key": "welcome" },
    make("p", {}, make("strong", {}, "Which nodes matter most?")),
    make(
      "p",
      {},
      "tsmon watches all of them. Name the critical ones, and they stand here, are pinged every minute, and alert first:",
    ),
    copyable("tsmon config init"),
  );

function role(key, entry, crowded) {
  const well = entry.nodes.filter((node) => node.state === "online");
  const rest = entry.nodes.filter((node) => node.state !== "online");
  rest.sort((a, b) => (a.state === "offline" ? 0 : 1) - (b.state === "offline" ? 0 : 1));
  const empty = !entry.nodes.length;
  const status = entry.status === "missing" && !entry.was_filled ? "none" : entry.status;
  return make(
    "section",
    {
      class: entry.nodes.length > 2 ? "role wide" : "role",
      "data-key": key,
      "data-state": status,
    },
    make(
      "h3",
      {},
      key,
      make("span", { class: "tally" }, empty ? "" : `${entry.online} of ${entry.total}`),
      status === "none" ? make("span", { class: "pill" }, "not set up") : pill(entry.status),
    ),
    empty
      ? make(
          "p",
          { class: "quiet" },
          ...(status === "missing"
            ? ["No node of the tailnet fits this role any more."]
            : status === "none"
              ? ["Say which nodes matter with ", copyable("tsmon config init"), "."]
              : ["Not seen yet."]),
        )
      : null,
    make(
      "div",
      { class: "tiles" },
      ...rest.slice(0, MOST_DOWN).map(card),
      ...(crowded ? [] : well.map(card)),
    ),
    rest.length > MOST_DOWN
      ? make("p", { class: "quiet" }, `and ${rest.length - MOST_DOWN} more of them`)
      : null,
    ...(crowded && well.length ? names(key, well) : []),
  );
}

function names(key, well) {
  const most = SMALL.matches ? MOST_NAMES.small : MOST_NAMES.wide;
  const opened = glance.opened.has(key) || well.length <= most;
  const button = make(
    "button",
    {
      type: "button",
      class: "fold",
      "data-key": "fold",
      "data-role": key,
      "aria-expanded": String(opened),
    },
    `${well.length.toLocaleString()} online`,
  );
  return [
    well.length > most ? button : null,
    opened ? make("ul", { class: "chips" }, ...well.map(chip)) : null,
  ];
}

function card(node) {
  return make(
    "article",
    { class: "card", "data-key": node.id, "data-state": node.state },
    make("div", { class: "name" }, nodeLink(node.hostname, 40), " ", pill(node.state), silent(node)),
    make(
      "p",
      {},
      node.since ? age(node.since, `${node.state} for `) : `${node.state} since before tsmon knew it`,
      was(node),
    ),
    uptimes(node),
    coverage(node),
    pulse(node),
  );
}

const uptimes = (node) =>
  make(
    "dl",
    { class: "uptimes" },
    ...[
      ["24 h", node.uptime_24h],
      ["7 d", node.uptime_7d],
      ["30 d", node.uptime_30d],
    ].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, percent(value)))),
  );

function coverage(node) {
  const watched = (Date.now() - Date.parse(node.watched_since)) / 1000;
  if (watched < 86_400) return make("p", { class: "quiet" }, age(node.watched_since, "watched for "));
  if (node.coverage_24h === null || node.coverage_24h >= 99.5) return null;
  return make("p", { class: "quiet" }, `seen for ${percent(node.coverage_24h)} of the last day`);
}

function pulse(node) {
  const line = sparkline(glance.sparks[node.id] ?? []);
  // Its place is there before it is: nothing moves when the first ping is answered.
  if (!line && node.latency_ms === null) return make("div", { class: "pulse" });
  const latency =
    node.latency_ms === null ? "" : `${milliseconds(node.latency_ms)} ${node.path?.replace("_", " ") ?? ""}`;
  return make("div", { class: "pulse" }, line, make("span", { class: "quiet" }, latency));
}

const chip = (node) =>
  make(
    "li",
    { "data-key": node.id, "data-state": node.state },
    make("span", { "aria-hidden": "true" }, mark(node.state)),
    nodeLink(node.hostname, 40),
    silent(node),
    sparkline(glance.sparks[node.id] ?? [], { width: 80, height: 16 }),
  );

// As many as fit a screen that nobody scrolls: those in trouble first, the rest is a number.
function wallTiles(all) {
  const order = { offline: 0, unknown: 1, online: 2 };
  const nodes = [...all].sort((a, b) => order[a.state] - order[b.state]);
  const [widest, rows] = innerWidth < innerHeight ? [2, 5] : [4, 3];
  const most = widest * rows;
  // Three tiles fill the screen as well as twelve.
  const columns = Math.min(widest, nodes.length <= 3 ? nodes.length : Math.ceil(Math.sqrt(nodes.length)));
  $("critical").dataset.columns = columns;
  const shown = nodes.length > most ? nodes.slice(0, most - 1) : nodes;
  const rest = nodes.slice(shown.length);
  const online = rest.filter((node) => node.state === "online").length;
  return [
    ...shown.map((node) =>
      make(
        "article",
        { class: "card", "data-key": node.id, "data-state": node.state },
        make("div", { class: "name" }, nodeLink(node.hostname, 40)),
        make("p", {}, pill(node.state), " ", node.since ? age(node.since, "for ", "", true) : "", was(node)),
        make("div", { class: "more" }, uptimes(node), pulse(node)),
      ),
    ),
    rest.length
      ? make(
          "article",
          {
            class: "card rest",
            "data-key": "rest",
            "data-state": online === rest.length ? "online" : "degraded",
          },
          make("div", { class: "name" }, `${online} online`),
          make("p", {}, online === rest.length ? "" : `${rest.length - online} more are not`),
        )
      : null,
  ];
}

// What is unknown now was known once.
export const was = (node) =>
  node.state === "unknown" && node.last_state ? `, was ${node.last_state}` : null;

const silent = (node) => (node.silenced_until ? make("span", { class: "note" }, "silenced") : null);
