// The dashboard: wires the parts, the address bar, the keyboard and the live stream.

import { Live, read } from "./api.js";
import { $, make } from "./dom.js";
import { loadSparks, showCritical, showSummary } from "./first.js";
import { Log, TYPES } from "./log.js";
import { Drawer } from "./node.js";
import { Table } from "./table.js";
import { clock, tickAll } from "./words.js";

const FIELDS = ["q", "state", "node_type", "tag", "sort", "severity", "event_type", "log_host", "log_q"];
const CHECKS = ["project_only", "checks"];
const EVENT = "event";
const LOST_AFTER = 5000; // a restart is over sooner
const RETRY = 5000;
const value = (id) => $(id).value;

const table = new Table(
  () => ({
    q: value("q"),
    state: value("state"),
    node_type: value("node_type"),
    tag: value("tag"),
    sort: value("sort"),
    project_only: $("project_only").checked,
  }),
  (name) => drawer.open(name),
);
const log = new Log(() => ({
  severity: value("severity"),
  event_type: value("event_type"),
  hostname: value("log_host"),
  q: value("log_q"),
  checks: $("checks").checked || value("event_type") === "health_check",
}));
const drawer = new Drawer(() => remember(true));

let critical = {};
let running = false;
let again = false;
let nudge = 0; // the refresh that is due

// Everything that is shown, one at a time: a burst of news is one refresh more.
async function refresh() {
  if (document.hidden) return;
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    const [summary, found, alerts, ready] = await Promise.all([
      read("summary"),
      read("critical"),
      read("alerts"),
      read("../readyz").catch((error) => ({ answer: error.answer ?? {} })),
    ]);
    critical = found.answer;
    lastLook = summary.answer.as_of;
    showSummary(summary.answer, critical, alerts.answer.alerts, ready.answer.warnings ?? []);
    showCritical(critical);
    await Promise.all([table.refresh(), log.page === 1 ? log.refresh() : null, drawer.refresh()]);
    failure = null;
    showLive();
    if (await loadSparks(critical)) showCritical(critical);
  } catch (error) {
    fail(error);
  } finally {
    running = false;
    if (again) {
      again = false;
      setTimeout(refresh, 250);
    }
  }
}

let lostSince = 0; // when tsmon stopped answering
let lastLook = null; // when tsmon saw what is shown
let failure = null; // of the last refresh: a living stream does not make up for it
let stream = { word: "connecting", text: "connecting" };

function state(word, text = word) {
  stream = { word, text };
  showLive();
}

function fail(error) {
  const answered = error.status !== undefined;
  failure = { text: `${answered ? "error" : "no answer from tsmon"}: ${error.message}`, answered };
  showLive();
  clearTimeout(nudge);
  nudge = setTimeout(refresh, RETRY);
}

function showLive() {
  const { word, text } = failure ? { word: "stale", text: failure.text } : stream;
  $("live").dataset.state = word;
  $("live-text").textContent = text;
  document.body.dataset.live = word;
  if (word !== "stale") lostSince = 0;
  else if (!lostSince) lostSince = Date.now();
  showLost();
}

// A page without tsmon must not go on saying that all is well: what it shows is what was known once.
function showLost() {
  if (!lostSince || Date.now() - lostSince < LOST_AFTER) return;
  const words = `tsmon ${failure?.answered ? "answers with errors" : "does not answer"} since ${clock(new Date(lostSince).toISOString())}`;
  $("headline").textContent = words;
  $("headline").dataset.status = "unknown";
  $("blind").hidden = false;
  $("blind").textContent = lastLook
    ? `The last known state is below, as of ${clock(lastLook)}.`
    : "Nothing is known yet.";
  $("favicon").setAttribute("href", "web/unknown.svg");
  document.title = `? ${words} · tsmon`;
}

// -- the address bar ---------------------------------------------------------------------------------------

function remember(push = false) {
  const query = new URLSearchParams();
  for (const id of FIELDS) if (value(id)) query.set(id, value(id));
  for (const id of CHECKS) if ($(id).checked) query.set(id, "1");
  if (drawer.name !== null) query.set("node", drawer.name);
  if (log.from) query.set(EVENT, log.from);
  const text = query.size ? `?${query}` : location.pathname;
  if (text !== (location.search || location.pathname))
    history[push ? "pushState" : "replaceState"](null, "", text);
}

function recall() {
  const query = new URLSearchParams(location.search);
  for (const id of FIELDS) $(id).value = query.get(id) ?? "";
  for (const id of CHECKS) $(id).checked = ["1", "true", "yes"].includes((query.get(id) ?? "").toLowerCase());
  showSort();
  log.from = /^[1-9]\d{0,15}$/.test(query.get(EVENT) ?? "") ? Number(query.get(EVENT)) : 0;
  if (query.get("node")) drawer.open(query.get("node"));
  else drawer.close();
}

function showSort() {
  const sort = value("sort");
  for (const button of document.querySelectorAll("[data-sort]")) {
    const chosen = sort.replace("-", "") === button.dataset.sort;
    button
      .closest("[role=columnheader]")
      .setAttribute("aria-sort", !chosen ? "none" : sort.startsWith("-") ? "descending" : "ascending");
  }
}

// -- looks -------------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
function theme(word) {
  document.documentElement.dataset.theme = word;
  $("theme").textContent = `Theme: ${word}`;
  try {
    localStorage.setItem("tsmon-theme", word);
  } catch {
    /* a browser that keeps nothing forgets the choice */
  }
}
function storedTheme() {
  try {
    return localStorage.getItem("tsmon-theme");
  } catch {
    return null;
  }
}

// -- what people do ----------------------------------------------------------------------------------------

let typing = 0;
const soon = (work, wait) => {
  clearTimeout(typing);
  typing = setTimeout(work, wait);
};
const attempt = (work) => work().catch(fail);

for (const id of ["q", "tag"])
  $(id).addEventListener("input", () =>
    soon(() => {
      remember();
      attempt(() => table.ask());
    }, 150),
  );
for (const id of ["state", "node_type", "project_only"])
  $(id).addEventListener("input", () => {
    remember();
    attempt(() => table.ask());
  });
for (const id of ["severity", "event_type", "checks"])
  $(id).addEventListener("input", () => {
    log.page = 1;
    log.from = 0;
    remember();
    attempt(() => log.refresh());
  });
for (const id of ["log_host", "log_q"])
  $(id).addEventListener("input", () =>
    soon(() => {
      log.page = 1;
      log.from = 0;
      remember();
      attempt(() => log.refresh());
    }, 150),
  );
for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const name = button.dataset.sort;
    const now = value("sort");
    $("sort").value = now === name ? `-${name}` : now === `-${name}` ? "" : name;
    showSort();
    remember();
    attempt(() => table.ask());
  });
}
$("clear").addEventListener("click", () => {
  for (const id of ["q", "state", "node_type", "tag", "sort"]) $(id).value = "";
  $("project_only").checked = false;
  showSort();
  remember();
  attempt(() => table.ask());
});
document.addEventListener("click", (event) => {
  const found = event.target.closest?.("[data-node]");
  if (!found || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  drawer.open(found.dataset.node);
});
document.addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !writing && !drawer.box.open) {
    event.preventDefault();
    $("q").focus();
    $("q").select();
  } else if (event.key === "Escape" && event.target === $("q")) {
    $("q").value = "";
    $("scroll").focus();
    remember();
    attempt(() => table.ask());
  } else if (event.key === "ArrowDown" && event.target === $("q")) {
    event.preventDefault();
    $("scroll").focus();
    table.key(event);
  }
});
$("theme").addEventListener("click", () =>
  theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]),
);
$("newest").addEventListener("click", () => {
  log.page = 1;
  log.from = 0;
  remember();
  attempt(() => log.refresh());
});
addEventListener("popstate", () => {
  recall();
  attempt(() => table.ask());
});

$("event_type").append(...TYPES.map((type) => make("option", {}, type)));
theme(THEMES.includes(storedTheme()) ? storedTheme() : "auto");
recall();
new Live((kind) => {
  if (kind === "alert") return; // its event came with it
  clearTimeout(nudge);
  nudge = setTimeout(refresh, kind === "refresh" ? 0 : 200);
}, state);
refresh();
setInterval(() => {
  tickAll(lostSince > 0);
  showLost();
}, 2000);
