// The event log: newest first, 20 a page, live on the first one.

import { link, read } from "./api.js";
import { $, make, pill, replace } from "./dom.js";
import { about } from "./first.js";
import { at } from "./words.js";

export const TYPES = [
  "health_check",
  "node_online",
  "node_offline",
  "alert",
  "alert_resolved",
  "node_added",
  "node_removed",
  "node_changed",
  "monitor_blind",
  "monitor_restored",
  "monitor_started",
  "monitor_stopped",
  "operator",
  "channel_failed",
];

export class Log {
  constructor(filters) {
    this.filters = filters; // () => the query
    this.page = 1;
    this.from = 0; // the event that the address names: the log begins with it
    this.newest = 0;
    this.arrived = new Map(); // id of an event that came while the page was open -> when
    this.turn = 0;
    $("older").addEventListener("click", () => this.go(1));
    $("newer").addEventListener("click", () => this.go(-1));
    $("csv").addEventListener("click", () => this.save());
  }

  go(step) {
    this.page += step;
    this.refresh();
    $("log-title").scrollIntoView({ block: "start" });
  }

  async refresh() {
    const turn = ++this.turn;
    // Later pages stand still while new events arrive.
    const first = this.from || (this.page > 1 ? this.newest : 0);
    const before = first ? { before: first + 1 } : {};
    const { answer } = await read("logs", { ...this.filters(), ...before, page: this.page });
    if (turn !== this.turn) return;
    const fresh = Number(answer.logs[0]?.id ?? 0);
    const known = this.newest;
    if (this.page === 1 && !this.from) this.newest = fresh;
    if (known && !this.from)
      for (const { id } of answer.logs) if (Number(id) > known) this.arrived.set(id, Date.now());
    replace(
      $("log"),
      ...answer.logs.map((event) => entry(event, Date.now() - (this.arrived.get(event.id) ?? 0) < 3000)),
    );
    const {
      page,
      total_pages: pages,
      total_entries: total,
      has_next: next,
      has_prev: previous,
    } = answer.pagination;
    if (this.from) $(`event-${this.from}`)?.setAttribute("aria-current", "true");
    $("newest").hidden = !this.from;
    $("no-log").hidden = answer.logs.length > 0;
    const { checks, ...filters } = this.filters();
    $("no-log").textContent = Object.values(filters).some(Boolean)
      ? "Nothing has been recorded that fits these filters."
      : "Nothing has been recorded yet.";
    $("page").textContent = total
      ? `page ${page} of ${Math.max(pages, 1)} · ${total.toLocaleString()} entries`
      : "";
    $("older").disabled = !next;
    $("newer").disabled = !previous;
  }

  // The whole filtered log; the API makes CSV for who asks with this header.
  async save() {
    const response = await fetch(link("logs", this.filters()), { headers: { Accept: "text/csv" } });
    if (!response.ok) return;
    const url = URL.createObjectURL(await response.blob());
    make("a", { href: url, download: "tsmon-log.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

export const entry = (event, isNew = false) =>
  make(
    "li",
    { class: isNew ? "new" : null, id: `event-${event.id}` },
    make("a", { href: `?event=${event.id}`, title: "A link to this event" }, at(event.timestamp)),
    pill(event.severity),
    make("span", { class: "type" }, event.event_type),
    make("span", { class: "text" }, ...about(event, event.message)),
  );
