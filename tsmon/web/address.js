// What is looked at stands in the address bar: filters, sections, the open node with its period, the log's page.

import { $, make, replace } from "./dom.js";

export const FLAGS = {
  alerting: "alerting",
  flapping: "flapping",
  relayed: "relay",
  key_soon: "key soon",
  silenced: "silenced",
};
const TABLE = ["q", "state", "node_type", "tag", "user", "role", "group", "sort"];
const LOG = ["severity", "event_type", "log_host", "log_q"];
const CHECKS = ["project_only", "checks"];
const WINDOWS = ["24h", "7d", "30d", "90d", "365d"];
const yes = (text) => ["1", "true", "yes"].includes((text ?? "").toLowerCase());

const view = { flags: new Set(), folded: new Set(), wall: false, incident: "" };
const value = (id) => $(id).value;

export const isWall = () => view.wall;
export const incident = () => view.incident;

// The question that the table asks.
export function tableQuery() {
  const query = { project_only: $("project_only").checked };
  for (const id of TABLE) query[id] = value(id);
  for (const flag of view.flags) query[flag] = true;
  if (query.group) query.folded = [...view.folded].join(",");
  return query;
}

export const isFiltered = () =>
  $("project_only").checked ||
  view.flags.size > 0 ||
  TABLE.some((id) => !["sort", "group"].includes(id) && value(id));

export const logQuery = () => ({
  severity: value("severity"),
  event_type: value("event_type"),
  hostname: value("log_host"),
  q: value("log_q"),
  checks: $("checks").checked || value("event_type") === "health_check",
});

export const isLogFiltered = () => $("checks").checked || LOG.some((id) => value(id));

// What came over the stream fits the log's filters, as the server would say.
export function fitsLog(event) {
  const query = logQuery();
  const text = `${event.message} ${event.hostname ?? ""}`.toLowerCase();
  return (
    (!query.severity || event.severity === query.severity) &&
    (!query.event_type || event.event_type === query.event_type) &&
    (!query.hostname || event.hostname === query.hostname) &&
    (query.checks || event.event_type !== "health_check") &&
    text.includes(query.q.toLowerCase())
  );
}

export function toggleFlag(name) {
  if (!view.flags.delete(name)) view.flags.add(name);
}

export function toggleFold(name) {
  if (!view.folded.delete(name)) view.folded.add(name);
}

// Only what fits these filters: `{state: "offline"}`.
export function filterBy(filters) {
  clearFilters();
  for (const [name, chosen] of Object.entries(filters)) {
    if (name in FLAGS) view.flags.add(name);
    else choose(name, chosen);
  }
}

export function clearFilters() {
  for (const id of TABLE) if (id !== "group") $(id).value = "";
  $("project_only").checked = false;
  view.flags.clear();
}

// A list offers only what there is; what the address names is kept though it is gone.
function choose(id, text) {
  const list = $(id);
  if (list.tagName === "SELECT" && text && ![...list.options].some((option) => option.value === text))
    list.append(make("option", { value: text }, text));
  list.value = text;
}

export function offer(id, names) {
  const chosen = value(id);
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  replace(
    $(id),
    make("option", { value: "" }, "all"),
    ...all.map((name) => make("option", { value: name }, name)),
  );
  $(id).value = chosen;
}

export function showFlags(counts) {
  replace(
    $("flags"),
    ...Object.entries(FLAGS)
      .filter(([name]) => counts[name] || view.flags.has(name))
      .map(([name, words]) =>
        make(
          "button",
          {
            type: "button",
            "data-flag": name,
            "data-key": name,
            "aria-pressed": String(view.flags.has(name)),
          },
          `${words} ${counts[name]}`,
        ),
      ),
  );
}

export function remember(drawer, log, push = false) {
  const query = new URLSearchParams();
  if (view.wall) query.set("view", "wall");
  for (const id of [...TABLE, ...LOG]) if (value(id)) query.set(id, value(id));
  for (const id of CHECKS) if ($(id).checked) query.set(id, "1");
  for (const flag of view.flags) query.set(flag, "1");
  if (view.folded.size) query.set("folded", [...view.folded].join(","));
  if (drawer.name !== null) {
    query.set("node", drawer.name);
    if (drawer.window !== "24h") query.set("window", drawer.window);
  }
  if (log.from) query.set("event", log.from);
  else if (log.page > 1) query.set("page", log.page);
  const text = query.size ? `?${query}` : location.pathname;
  if (text !== (location.search || location.pathname))
    history[push ? "pushState" : "replaceState"](null, "", text);
}

export function recall(drawer, log) {
  const query = new URLSearchParams(location.search);
  for (const id of [...TABLE, ...LOG]) choose(id, query.get(id) ?? "");
  for (const id of CHECKS) $(id).checked = yes(query.get(id));
  view.flags = new Set(Object.keys(FLAGS).filter((flag) => yes(query.get(flag))));
  view.folded = new Set((query.get("folded") ?? "").split(",").filter(Boolean));
  view.wall = query.get("view") === "wall";
  view.incident = query.get("incident") ?? "";
  document.body.dataset.view = view.wall ? "wall" : "";
  log.from = /^[1-9]\d{0,15}$/.test(query.get("event") ?? "") ? Number(query.get("event")) : 0;
  log.page = /^[1-9]\d{0,5}$/.test(query.get("page") ?? "") ? Number(query.get("page")) : 1;
  drawer.setWindow(WINDOWS.includes(query.get("window")) ? query.get("window") : "24h");
  if (query.get("node")) drawer.open(query.get("node"));
  else drawer.close();
}
