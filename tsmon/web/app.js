// The dashboard: wires its parts.

import * as address from "./address.js";
import { read } from "./api.js";
import { showUnseen } from "./control.js";
import { $, SMALL, say } from "./dom.js";
import {
  keepSparks,
  showAllIncidents,
  showCritical,
  showIncidents,
  showSummary,
  toggleRole,
} from "./first.js";
import { Log } from "./log.js";
import { Drawer } from "./node.js";
import { Refresh } from "./refresh.js";
import { Beyond } from "./services.js";
import { Table } from "./table.js";
import { startTheme } from "./theme.js";
import { age, clock, prose } from "./words.js";

const SPARK_AGE = 300_000;
const shown = { glance: null, title: "? tsmon", sparksAt: 0, revealed: false, started: false };

const log = new Log();
const beyond = new Beyond();
const drawer = new Drawer(
  () => {
    remember(true);
    showTitle();
  },
  () => shown.started && refresh.now(),
);
const table = new Table((name, zoom) => drawer.open(name, zoom));
const refresh = new Refresh(work, (event) => log.hear(event));
const remember = (push = false) => address.remember(drawer, log, push);

// One look: what is first seen with the open node, and the rows. The log is asked once; what is new is said by
// the stream.
async function work() {
  const sparks = Date.now() - shown.sparksAt > SPARK_AGE;
  const node = drawer.query();
  const further = address.isWall() ? null : beyond.query();
  const { answer } = await read("glance", { sparks: sparks || null, beyond: further, ...node });
  if (answer.sparks) {
    keepSparks(answer.sparks);
    shown.sparksAt = Date.now();
  }
  shown.glance = answer;
  showGlance();
  drawer.take(answer.node, answer.node_services, node);
  if (further) {
    beyond.take(answer);
    showUnseen(answer.coverage);
  }
  if (address.isWall()) {
    await showLastChange();
    return answer.summary.as_of;
  }
  log.look(Number(answer.newest_event));
  await Promise.all([table.refresh(), log.loaded ? null : log.refresh()]);
  reveal();
  return answer.summary.as_of;
}

function showGlance() {
  const { summary, incidents, critical } = shown.glance;
  shown.title = showSummary(shown.glance);
  showIncidents(incidents, summary.blind);
  showCritical(critical);
  showTitle();
}

// A node's page is about the node.
function showTitle() {
  const words = drawer.name === null ? shown.title : `${shown.title.slice(0, 1)} ${drawer.name}`;
  document.title = `${words} · tsmon`;
}

async function showLastChange() {
  const { answer } = await read("logs", { per_page: 1, checks: false });
  const [last] = answer.logs;
  $("wall-last").replaceChildren(
    ...(last ? [age(last.timestamp, "", " ago"), ": ", ...prose(last.message)] : []),
  );
}

// What the address names is brought into view, once.
function reveal() {
  if (shown.revealed) return;
  shown.revealed = true;
  const named = (log.from && $(`event-${log.from}`)) || $(`incident-${address.incident()}`);
  named?.scrollIntoView({ block: "center" });
}

// -- what people do ----------------------------------------------------------------------------------------

let typing = 0;
const soon = (work, wait) => {
  clearTimeout(typing);
  typing = setTimeout(work, wait);
};

function askTable() {
  remember();
  refresh.attempt(() => table.ask());
}

function askLog(page = 1, from = 0) {
  log.page = page;
  log.from = from;
  remember();
  return refresh.attempt(() => log.refresh());
}

for (const id of ["q"]) $(id).addEventListener("input", () => soon(askTable, 80));
for (const id of ["state", "node_type", "tag", "user", "group", "project_only"])
  $(id).addEventListener("input", askTable);
for (const id of ["severity", "event_type", "checks"]) $(id).addEventListener("input", () => askLog());
for (const id of ["log_host", "log_q"]) $(id).addEventListener("input", () => soon(askLog, 150));

function showSort() {
  const sort = $("sort").value;
  for (const button of document.querySelectorAll("[data-sort]")) {
    const chosen = sort.replace("-", "") === button.dataset.sort;
    button
      .closest("[role=columnheader]")
      .setAttribute("aria-sort", !chosen ? "none" : sort.startsWith("-") ? "descending" : "ascending");
  }
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const name = button.dataset.sort;
    const now = $("sort").value;
    $("sort").value = now === name ? `-${name}` : now === `-${name}` ? "" : name;
    showSort();
    askTable();
  });
}

function filterBy(text) {
  address.filterBy(Object.fromEntries(new URLSearchParams(text)));
  if (text === "project_only") $("project_only").checked = true;
  showSort();
  askTable();
  $("nodes-title").scrollIntoView({ block: "start" });
}

// On a phone the filters are folded away.
function openFilters(id, open) {
  $(id).dataset.open = open ? "yes" : "no";
  document.querySelector(`[data-opens="${id}"]`).setAttribute("aria-expanded", String(open));
}

function recall() {
  address.recall(drawer, log);
  showSort();
  openFilters("node-filters", address.isFiltered());
  openFilters("log-filters", address.isLogFiltered());
}

SMALL.addEventListener("change", () => {
  if (!shown.glance) return;
  showGlance();
  refresh.attempt(() => log.refresh());
});

function copy(text) {
  navigator.clipboard?.writeText(text).then(
    () => say(`${text} copied`),
    () => say("the browser does not let this page copy"),
  );
}

// What is made again with every look is listened to from above.
const CLICKS = {
  "[data-copy]": (found) => copy(found.dataset.copy),
  "[data-node]": (found) => drawer.open(found.dataset.node),
  "[data-opens]": (found) => openFilters(found.dataset.opens, found.getAttribute("aria-expanded") !== "true"),
  "[data-role]": (found) => {
    toggleRole(found.dataset.role);
    showGlance();
  },
  "[data-event]": (found) => askLog(1, Number(found.dataset.event)),
  "[data-filter]": (found) => filterBy(found.dataset.filter),
  "[data-flag]": (found) => {
    address.toggleFlag(found.dataset.flag);
    askTable();
  },
  "[data-fold]": (found) => {
    address.toggleFold(found.dataset.fold);
    remember();
    refresh.attempt(() => table.refresh());
  },
};

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  for (const [selector, act] of Object.entries(CLICKS)) {
    const found = event.target.closest?.(selector);
    if (!found) continue;
    event.preventDefault();
    act(found);
    return;
  }
});

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !writing && !drawer.box.open) {
    event.preventDefault();
    $("q").focus();
    $("q").select();
  } else if (event.key === "Escape" && event.target === $("q")) {
    $("q").value = "";
    $("table").focus();
    askTable();
  } else if (event.key === "ArrowDown" && event.target === $("q")) {
    event.preventDefault();
    $("table").focus();
    table.select(0);
  }
});

$("clear").addEventListener("click", () => {
  address.clearFilters();
  showSort();
  askTable();
});
$("more-alerts").addEventListener("click", () => {
  showAllIncidents($("more-alerts").textContent !== "Fewer");
  showGlance();
});
$("newest").addEventListener("click", () => askLog());
$("news").addEventListener("click", () => askLog());
for (const [id, step] of [
  ["older", 1],
  ["newer", -1],
])
  $(id).addEventListener("click", async () => {
    await askLog(log.page + step, log.from);
    $("log-title").scrollIntoView({ block: "start" });
  });

addEventListener("popstate", () => {
  recall();
  refresh.now();
  refresh.attempt(() => log.refresh());
});

setInterval(() => {
  $("wall-clock").textContent = clock(new Date().toISOString());
}, 1000);

startTheme();
recall();
shown.started = true;
refresh.start();
