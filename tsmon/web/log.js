// The event log: newest first, 20 a page; what is new waits until it is asked for.

import { fitsLog, logQuery, offer } from "./address.js";
import { link, read } from "./api.js";
import { $, make, pill, replace, SMALL } from "./dom.js";
import { about } from "./first.js";
import { at } from "./words.js";

export class Log {
  constructor() {
    this.page = 1;
    this.from = 0; // the event that the address names: the log begins with it
    this.newest = 0;
    this.waiting = new Set(); // ids of events that came since
    this.missed = false; // there are some, and nobody said how many
    this.turn = 0;
    this.loaded = false;
    $("csv").addEventListener("click", () => this.save());
  }

  // An event of the stream.
  hear(event) {
    const id = Number(event.id);
    if (this.loaded && id > this.newest && fitsLog(event)) this.waiting.add(id);
    this.showWaiting();
  }

  // What a page hears that has no stream: the id of the newest event.
  look(newest) {
    this.missed = this.loaded && newest > this.heard && !this.waiting.size;
    this.heard = Math.max(this.heard, newest);
    this.showWaiting();
  }

  heard = 0;

  showWaiting() {
    const some = this.waiting.size > 0;
    $("news").hidden = !some || this.page > 1 || this.from > 0;
    if (some) $("news").textContent = `${this.waiting.size} new ↑`;
  }

  async refresh() {
    const turn = ++this.turn;
    // Later pages stand still while new events arrive.
    const first = this.from || (this.page > 1 ? this.newest : 0);
    const before = first ? { before: first + 1 } : {};
    const size = { per_page: SMALL.matches ? 8 : 20 };
    const { answer } = await read("logs", { ...logQuery(), ...before, ...size, page: this.page });
    if (turn !== this.turn) return;
    const known = this.newest;
    if (!first) this.newest = Math.max(Number(answer.logs[0]?.id ?? 0), ...this.waiting);
    if (this.page === 1 && !this.from) this.waiting.clear();
    if (!this.loaded) offer("event_type", answer.filters.event_types);
    this.loaded = true;
    replace(
      $("log"),
      ...answer.logs.map((event) =>
        entry(event, {
          id: `event-${event.id}`,
          class: known > 0 && Number(event.id) > known && !first ? "new" : null,
        }),
      ),
    );
    this.showWaiting();
    this.showPages(answer.pagination);
    const named = this.from > 0 && $(`event-${this.from}`);
    if (named) named.setAttribute("aria-current", "true");
    $("newest").hidden = !this.from;
    $("no-log").hidden = answer.logs.length > 0 && (!this.from || Boolean(named));
    const { checks, ...filters } = logQuery();
    const filtered = Object.values(filters).some(Boolean);
    if (this.from && this.page === 1)
      $("no-log").textContent =
        `There is no event ${this.from}${filtered ? " that fits these filters" : ""}.`;
    else
      $("no-log").textContent = filtered
        ? "Nothing has been recorded that fits these filters."
        : "Nothing has been recorded yet.";
  }

  showPages({ page, total_pages: pages, total_entries: total, has_next: next, has_prev: previous }) {
    $("page").textContent = total
      ? `page ${page} of ${Math.max(pages, 1)} · ${total.toLocaleString()} ${total === 1 ? "entry" : "entries"}`
      : "";
    $("older").disabled = !next;
    $("newer").disabled = !previous;
  }

  // The whole filtered log; the API makes CSV for who asks with this header.
  async save() {
    const response = await fetch(link("logs", logQuery()), { headers: { Accept: "text/csv" } });
    if (!response.ok) return;
    const url = URL.createObjectURL(await response.blob());
    make("a", { href: url, download: "tsmon-log.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

// A laptop that goes to sleep is no "ok" in green: what happened is the word, how bad it is the colour.
const WORDS = { node_offline: ["asleep", "offline"], node_removed: ["asleep", "removed"] };

function severity(event) {
  const [state, word] = (event.severity === "ok" && WORDS[event.event_type]) || [
    event.severity,
    event.severity,
  ];
  return pill(state, word);
}

export const entry = (event, attributes) =>
  make(
    "li",
    attributes,
    make(
      "a",
      { href: `?event=${event.id}`, "data-event": event.id, title: "A link to this event" },
      at(event.timestamp),
    ),
    severity(event),
    make("span", { class: "type" }, event.event_type),
    make("span", { class: "text" }, ...about(event, event.message)),
  );
