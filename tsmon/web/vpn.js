// The dashboard: reads the JSON API, follows the live stream, writes text nodes only.

const API = new URL("health-monitoring/", document.baseURI);
const PAGE_OF_NODES = 200;
const $ = (id) => document.getElementById(id);
const state = { page: 1, limit: PAGE_OF_NODES, etags: new Map(), stale: false };

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const MARKS = { online: "●", offline: "✕", unknown: "?", degraded: "▲", missing: "✕", ok: "●", warning: "▲", critical: "✕" };
const pill = (word) => make("span", { class: "pill", "data-state": word }, `${MARKS[word] ?? ""} ${word}`);

function age(text) {
  if (!text) return "–";
  const seconds = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
const local = (text) => (text ? new Date(text).toLocaleString() : "–");
const when = (text, shown) => make("time", { datetime: text, title: text }, shown);
const percent = (value) => (value === null ? "–" : `${value} %`);
const milliseconds = (value) => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);

async function read(path) {
  const response = await fetch(new URL(path, API), { headers: { Accept: "application/json" } });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error?.message ?? `answered ${response.status}`);
  return answer;
}

function sentence(summary, nodes) {
  if (summary.blind) {
    const since = new Date(summary.blind.since).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    return `tsmon cannot see the tailnet since ${since}`;
  }
  const down = nodes.filter((node) => node.critical && node.state === "offline");
  if (down.length) {
    const since = down[0].since ? ` since ${new Date(down[0].since).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}` : "";
    return down.length === 1 ? `${down[0].hostname} is down${since}` : `${down.length} critical nodes are down`;
  }
  const critical = summary.critical_nodes;
  if (critical.total === 0) return `${summary.online_nodes} of ${summary.total_nodes} nodes online`;
  if (critical.online === critical.total) return `All ${critical.total} critical nodes online`;
  return `${critical.online} of ${critical.total} critical nodes online`;
}

function showSummary(summary, critical, alerts) {
  const nodes = Object.values(critical).flatMap((entry) => entry.nodes);
  const words = sentence(summary, nodes);
  $("summary-title").textContent = words;
  $("summary-title").dataset.status = summary.status;
  $("blind").hidden = !summary.blind;
  $("blind").textContent = summary.blind ? `${summary.blind.message}. Last known state below.` : "";
  $("demo").hidden = !summary.demo;
  $("tailnet").textContent = summary.tailnet ?? "";
  $("foot").textContent = `tsmon ${summary.version} · source ${summary.source} · as of ${local(summary.as_of)}`;
  const worst = { healthy: "ok", degraded: "warn", critical: "bad", unknown: "unknown" }[summary.status];
  $("favicon").href = `web/${worst}.svg`;
  document.title = `${MARKS[{ healthy: "ok", degraded: "warning", critical: "critical", unknown: "unknown" }[summary.status]]} ${words} · tsmon`;
  const numbers = [
    ["nodes", summary.total_nodes],
    ["online", summary.online_nodes],
    ["offline", summary.offline_nodes],
    ["unknown", summary.unknown_nodes],
    ["critical health", percent(summary.critical_nodes.health_percentage)],
    ["active alerts", summary.active_alerts],
  ];
  $("numbers").replaceChildren(...numbers.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  $("alerts").replaceChildren(...alerts.alerts.map((alert) =>
    make("li", { "data-severity": alert.severity },
      when(alert.fired_at, `${age(alert.fired_at)}${alert.acknowledged_by ? ", acknowledged" : ""}${alert.silenced_until ? ", silenced" : ""}`),
      `${MARKS[alert.severity]} ${alert.message || alert.kind}`)));
}

function card(key, entry) {
  const bodies = entry.nodes.map((node) => make("div", {},
    make("div", { class: "name" }, node.hostname),
    make("p", {}, pill(node.state), node.since ? ` for ${age(node.since).replace("now", "less than a minute")}` : ""),
    make("p", {}, `24 h ${percent(node.uptime_24h)} · 7 d ${percent(node.uptime_7d)} · 30 d ${percent(node.uptime_30d)}`),
    make("p", {}, `seen ${percent(node.coverage_24h)} of 24 h`),
    make("p", {}, `${milliseconds(node.latency_ms)}${node.path ? ` ${node.path}` : ""}`)));
  if (!bodies.length) bodies.push(make("p", {}, pill("missing"), " no node fits this role"));
  return make("article", { class: "card" }, make("h3", {}, key), ...bodies);
}

const LETTERS = { o: "online", x: "offline", m: "mixed", u: "unknown", "-": "not there" };
function bars(states, bounds) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "bars");
  svg.setAttribute("viewBox", `0 0 ${states.length * 3} 18`);
  svg.setAttribute("role", "img");
  const counts = [...new Set(states)].map((letter) => LETTERS[letter]).join(", ");
  svg.setAttribute("aria-label", `Last 24 hours: ${counts}`);
  [...states].forEach((letter, n) => {
    const bar = document.createElementNS(space, "rect");
    const tall = { o: 18, x: 7, m: 12, u: 18, "-": 0 }[letter];
    for (const [name, value] of Object.entries({ x: n * 3, y: 18 - tall, width: 2.4, height: tall, class: letter })) bar.setAttribute(name, value);
    const title = document.createElementNS(space, "title");
    title.textContent = `${local(bounds[n])} – ${local(bounds[n + 1])}: ${LETTERS[letter]}`;
    bar.append(title);
    svg.append(bar);
  });
  return svg;
}

function showNodes(nodes, history, total) {
  const byId = new Map(history.nodes.map((node) => [node.id, node.states]));
  $("rows").replaceChildren(...nodes.map((node) => make("tr", {},
    make("td", {}, pill(node.state)),
    make("td", { class: "host" }, node.hostname),
    make("td", {}, node.node_type),
    make("td", {}, node.ip ?? "–"),
    make("td", {}, node.os),
    make("td", {}, byId.has(node.id) ? bars(byId.get(node.id), history.bounds) : "–"),
    make("td", { class: "number" }, percent(node.uptime_24h)),
    make("td", { class: "number" }, milliseconds(node.latency_ms)),
    make("td", {}, when(node.last_seen, age(node.last_seen))))));
  $("count").textContent = `${nodes.length} of ${total}`;
  $("no-nodes").hidden = nodes.length > 0;
  $("more").hidden = nodes.length >= total;
}

function showLog(answer) {
  $("log").replaceChildren(...answer.logs.map((event) => make("li", {},
    when(event.timestamp, local(event.timestamp)),
    pill(event.severity),
    make("span", { class: "type" }, event.event_type),
    make("span", { class: "text" }, event.message))));
  const { page, total_pages: pages, has_next: next, has_prev: previous } = answer.pagination;
  $("no-log").hidden = answer.logs.length > 0;
  $("page").textContent = `page ${page} of ${Math.max(pages, 1)}`;
  $("older").disabled = !next;
  $("newer").disabled = !previous;
}

function nodeQuery() {
  const query = new URLSearchParams({ project_only: $("project").checked, limit: state.limit });
  if ($("q").value) query.set("q", $("q").value);
  if ($("state").value) query.set("state", $("state").value);
  return query;
}

async function refreshTop() {
  const [summary, critical, alerts] = await Promise.all([read("summary"), read("critical"), read("alerts")]);
  showSummary(summary, critical, alerts);
  $("critical").replaceChildren(...Object.entries(critical).map(([key, entry]) => card(key, entry)));
}

async function refreshNodes() {
  const query = nodeQuery();
  const response = await fetch(new URL(`nodes?${query}`, API));
  const [nodes, history] = [await response.json(), await read(`history?window=24h&buckets=48&${query}`)];
  showNodes(nodes, history, Number(response.headers.get("X-Total-Count") ?? nodes.length));
}

async function refreshLog() {
  const query = new URLSearchParams({ page: state.page });
  if ($("severity").value) query.set("severity", $("severity").value);
  if ($("event_type").value) query.set("event_type", $("event_type").value);
  let answer = await read(`logs?${query}`);
  if (!$("checks").checked && !$("event_type").value) {
    answer = { ...answer, logs: answer.logs.filter((event) => event.event_type !== "health_check") };
  }
  showLog(answer);
}

let running = false;
let again = false;
async function refresh() {
  if (document.hidden) return;
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    await Promise.all([refreshTop(), refreshNodes(), refreshLog()]);
    mark(source?.readyState === EventSource.OPEN ? "live" : "polling");
  } catch (error) {
    mark("stale", `no answer from tsmon: ${error.message}`);
  } finally {
    running = false;
    if (again) {
      again = false;
      setTimeout(refresh, 250);
    }
  }
}

function mark(word, text) {
  $("live").dataset.state = word;
  $("live").textContent = text ?? word;
}

function remember() {
  const query = new URLSearchParams();
  for (const id of ["q", "state", "severity", "event_type"]) if ($(id).value) query.set(id, $(id).value);
  for (const id of ["project", "checks"]) if ($(id).checked) query.set(id, "1");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

function recall() {
  const query = new URLSearchParams(location.search);
  for (const id of ["q", "state", "severity", "event_type"]) if (query.has(id)) $(id).value = query.get(id);
  for (const id of ["project", "checks"]) $(id).checked = query.has(id);
}

const TYPES = ["health_check", "node_online", "node_offline", "alert", "alert_resolved", "node_added", "node_removed",
  "node_changed", "monitor_blind", "monitor_restored", "monitor_started", "monitor_stopped", "operator", "channel_failed"];
$("event_type").append(...TYPES.map((type) => make("option", {}, type)));
recall();
for (const id of ["q", "state", "project"]) {
  $(id).addEventListener("input", () => { state.limit = PAGE_OF_NODES; remember(); refresh(); });
}
for (const id of ["severity", "event_type", "checks"]) {
  $(id).addEventListener("input", () => { state.page = 1; remember(); refresh(); });
}
$("older").addEventListener("click", () => { state.page += 1; refresh(); });
$("newer").addEventListener("click", () => { state.page -= 1; refresh(); });
$("more").addEventListener("click", () => { state.limit += PAGE_OF_NODES; refresh(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target === document.body) { event.preventDefault(); $("q").focus(); }
});
document.addEventListener("visibilitychange", refresh);

let source = null;
let soon = 0;
function follow() {
  source = new EventSource(new URL("stream", API));
  const nudge = () => { clearTimeout(soon); soon = setTimeout(refresh, 150); };
  source.addEventListener("snapshot", nudge);
  source.addEventListener("open", () => mark("live"));
  source.addEventListener("error", () => mark("stale", "reconnecting"));
}
follow();
refresh();
setInterval(refresh, 30000);
