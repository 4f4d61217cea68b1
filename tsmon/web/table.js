// All nodes: only the rows in view are asked for and made, whatever their number; in sections that fold.

import { isFiltered, offer, showFlags, tableQuery } from "./address.js";
import { read } from "./api.js";
import { bars } from "./charts.js";
import { $, copyable, make, PRINT, pill, replace, SMALL } from "./dom.js";
import { nodeLink } from "./first.js";
import { age, at, clock, counted, milliseconds, percent } from "./words.js";

const PAGE = 50;
const FIRST = 6; // rows that a phone shows at first: its page is to be scrolled, not a box in it
const HEAD = 36; // pixels of the columns' names and of a section's head
const BARS_AGE = 60_000;
const FACETS_AGE = 60_000;
const DAY = 86_400_000;

export class Table {
  constructor(opened) {
    this.opened = opened;
    this.pages = new Map(); // number -> nodes
    this.bars = new Map(); // id -> { at, row, bounds }
    this.sections = [];
    this.total = 0; // nodes
    this.rows = 0; // without those of folded sections
    this.most = FIRST; // on a phone
    this.facets = 0; // when the lists of tags and owners were made
    this.known = false; // nothing has been answered yet
    this.turn = 0; // answers to older questions are dropped
    this.select(-1);
    this.box = $("scroll");
    this.box.addEventListener("scroll", () => requestAnimationFrame(() => this.look()));
    addEventListener("resize", () => this.look());
    PRINT.addEventListener("change", () => this.show());
    $("table").addEventListener("keydown", (event) => this.key(event));
    $("rows").addEventListener("click", (event) => this.click(event));
    $("more-rows").addEventListener("click", () => {
      this.most += PAGE;
      this.look();
    });
  }

  // What the keyboard is at: a node, wherever its row goes.
  select(index) {
    this.selected = index;
    this.selectedId = this.node(index)?.id ?? null;
    if (this.known) this.look();
  }

  get rowHeight() {
    return SMALL.matches ? 76 : 42;
  }

  // The filters changed: from the top.
  async ask() {
    this.selected = -1;
    this.selectedId = null;
    this.most = FIRST;
    this.box.scrollTop = 0;
    await this.refresh();
  }

  // The same rows again: those in view at once, the others when they come into view.
  async refresh() {
    const numbers = this.inView();
    this.box.setAttribute("aria-busy", "true");
    try {
      const fresh = await this.load(numbers[0], numbers.length, true);
      if (fresh) this.take(fresh);
    } finally {
      this.box.removeAttribute("aria-busy");
    }
  }

  // Rows may come and go above: what is looked at, and what is selected, stays where it is.
  take(fresh) {
    const anchor = this.anchor;
    this.pages = fresh;
    const selected = this.indexOf(this.selectedId);
    if (selected >= 0) this.selected = selected;
    this.show();
    const index = anchor ? this.indexOf(anchor.id) : -1;
    if (index < 0 || this.topOf(index) === anchor.top) return;
    this.box.scrollTop += this.topOf(index) - anchor.top;
    this.show();
  }

  indexOf(id) {
    for (const [number, nodes] of this.pages) {
      const at = nodes?.findIndex((node) => node.id === id) ?? -1;
      if (at >= 0) return number * PAGE + at;
    }
    return -1;
  }

  topOf(index) {
    const part = this.layout().findLast((one) => one.from <= index && one.count) ?? { top: 0, from: 0 };
    return part.top + (part.section ? HEAD : 0) + (index - part.from) * this.rowHeight;
  }

  // One question for all pages that are wanted; null when a later one was asked meanwhile.
  async load(number, count, again) {
    const turn = again ? ++this.turn : this.turn;
    const now = Date.now();
    const wanted = [...Array(count).keys()].flatMap((step) => this.pages.get(number + step) ?? [null]);
    const stale = wanted.some((node) => now - (this.bars.get(node?.id)?.at ?? 0) > BARS_AGE);
    const facets = now - this.facets > FACETS_AGE;
    const { answer } = await read("table", {
      ...tableQuery(),
      limit: PAGE * count,
      offset: PAGE * number,
      bars: stale || null,
      facets: facets || null,
    });
    if (turn !== this.turn) return null;
    this.total = answer.total;
    this.rows = answer.rows;
    this.sections = answer.sections;
    this.known = true;
    for (const row of answer.bars ?? []) this.bars.set(row.id, { at: now, row, bounds: answer.bounds });
    if (answer.tags) {
      this.facets = now;
      offer("tag", answer.tags);
      offer("user", answer.users);
    }
    showFlags(answer.flags);
    const fresh = new Map();
    for (let step = 0; step < count; step += 1)
      fresh.set(number + step, answer.nodes.slice(step * PAGE, (step + 1) * PAGE));
    return fresh;
  }

  async look() {
    this.show();
    const missing = this.inView().filter((number) => !this.pages.has(number) && number * PAGE < this.rows);
    if (!missing.length) return;
    for (const number of missing) this.pages.set(number, null); // it is on its way
    const fresh = await this.load(missing[0], missing.at(-1) - missing[0] + 1, false).catch(() => null);
    for (const number of missing) {
      if (fresh) this.pages.set(number, fresh.get(number));
      else this.pages.delete(number);
    }
    this.show();
  }

  // Heads and rows with their places, from the top.
  layout() {
    if (!this.sections.length) return [{ top: 0, from: 0, count: this.rows }];
    const parts = [];
    let top = 0;
    let from = 0;
    for (const section of this.sections) {
      const count = section.folded ? 0 : section.total;
      parts.push({ top, section, from, count });
      top += HEAD + count * this.rowHeight;
      from += count;
    }
    return parts;
  }

  // What is in view: [first, last) in pixels of the rows.
  span() {
    if (PRINT.matches) return [0, Number.POSITIVE_INFINITY];
    if (SMALL.matches) return [0, Number.POSITIVE_INFINITY];
    const spare = 6 * this.rowHeight;
    return [this.box.scrollTop - spare, this.box.scrollTop + Math.max(this.box.clientHeight, 400) + spare];
  }

  rowsIn(part, [first, last]) {
    const begin = part.top + (part.section ? HEAD : 0);
    const most = PRINT.matches ? this.loaded() : SMALL.matches ? this.most : this.rows;
    const from = Math.max(0, Math.floor((first - begin) / this.rowHeight));
    const to = Math.min(part.count, Math.ceil((last - begin) / this.rowHeight), most - part.from);
    return [from, Math.max(from, to)];
  }

  inView() {
    const span = this.span();
    const indexes = [];
    for (const part of this.layout()) {
      const [from, to] = this.rowsIn(part, span);
      if (to > from) indexes.push(part.from + from, part.from + to - 1);
    }
    const first = Math.floor((indexes[0] ?? 0) / PAGE);
    const last = Math.floor((indexes.at(-1) ?? 0) / PAGE);
    return [...Array(Math.min(last - first + 1, 20)).keys()].map((step) => first + step);
  }

  // How many rows from the top are known: paper shows no more, and says so.
  loaded() {
    let number = 0;
    while (this.pages.get(number)?.length) number += 1;
    return Math.min(this.rows, number * PAGE);
  }

  node(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  show() {
    if (this.selected >= 0) this.selectedId = this.node(this.selected)?.id ?? this.selectedId;
    const span = this.span();
    const made = [];
    let above = 0;
    let bottom = 0; // of the last one that is made
    let end = 0; // of all
    const add = (element, top, height) => {
      if (!made.length) above = top;
      made.push(element);
      bottom = top + height;
    };
    for (const part of this.layout()) {
      const height = part.section ? HEAD : 0;
      if (part.section && part.top < span[1] && part.top + HEAD > span[0])
        add(this.head(part.section), part.top, HEAD);
      const [from, to] = this.rowsIn(part, span);
      for (let index = from; index < to; index += 1) {
        const place = part.from + index;
        add(this.row(this.node(place), place), part.top + height + index * this.rowHeight, this.rowHeight);
      }
      end = part.top + height + part.count * this.rowHeight;
    }
    const flows = SMALL.matches || PRINT.matches;
    $("above").style.height = `${flows ? 0 : above}px`;
    $("below").style.height = `${flows ? 0 : Math.max(0, end - bottom)}px`;
    replace($("rows"), ...made);
    this.anchor = this.first();
    this.showCounts();
  }

  // The first node in view with the place of its row; null at the very top, where the worst is to appear.
  first() {
    if (SMALL.matches || this.box.scrollTop < HEAD) return null;
    for (const part of this.layout()) {
      const [from, to] = this.rowsIn(part, [this.box.scrollTop, Number.POSITIVE_INFINITY]);
      if (to <= from) continue;
      const index = part.from + from;
      const node = this.node(index);
      return node ? { id: node.id, top: this.topOf(index) } : null;
    }
    return null;
  }

  showCounts() {
    $("printed").textContent =
      this.loaded() < this.rows ? `The first ${this.loaded()} of ${this.rows.toLocaleString()} nodes.` : "";
    $("table").setAttribute("aria-rowcount", String(this.rows + 1));
    const active = $("rows").querySelector("[aria-selected=true]");
    if (active) $("table").setAttribute("aria-activedescendant", active.id);
    else $("table").removeAttribute("aria-activedescendant");
    $("count").textContent = this.known ? counted(this.total, "node") : "";
    $("more-rows").hidden = !SMALL.matches || this.most >= this.rows;
    $("more-rows").textContent = `Show ${Math.min(PAGE, this.rows - this.most)} more`;
    $("no-nodes").hidden = !this.known || this.total > 0;
    $("no-nodes-text").textContent = isFiltered()
      ? "No node fits these filters."
      : "tsmon has not seen a node yet.";
    $("clear").hidden = !isFiltered();
    $("table").hidden = this.known && this.total === 0;
  }

  head(section) {
    const { name, total, online, alerting, folded } = section;
    return make(
      "div",
      { role: "row", class: "section", "data-key": `section-${name}` },
      make(
        "span",
        { role: "gridcell" },
        make(
          "button",
          { type: "button", "data-fold": name, "aria-expanded": String(!folded) },
          make("strong", {}, name || "none"),
          ` ${online.toLocaleString()} of ${total.toLocaleString()} online`,
          alerting ? make("span", { class: "note loud" }, `${counted(alerting, "alert")}`) : null,
        ),
      ),
    );
  }

  row(node, index) {
    const attributes = {
      role: "row",
      id: node ? `row-${encodeURIComponent(node.id)}` : `wait-${index}`,
      "aria-rowindex": String(index + 2),
      "data-index": String(index),
      "aria-selected": String(index === this.selected),
    };
    if (!node)
      return make("div", { ...attributes, class: "row waiting" }, make("span", { role: "gridcell" }, "…"));
    const cell = (name, ...content) => make("span", { role: "gridcell", class: `c-${name}` }, ...content);
    const asleep = node.state === "offline" && !node.alert && !node.critical;
    const found = this.bars.get(node.id);
    return make(
      "div",
      { ...attributes, class: asleep ? "row asleep" : "row" },
      cell("state", pill(asleep ? "asleep" : node.state, node.state)),
      cell("host", nodeLink(node.hostname, innerWidth < 1100 ? 30 : 40), ...notes(node)),
      cell("type", node.node_type),
      cell("ip", node.ip ? copyable(node.ip) : "–"),
      cell("os", node.os),
      cell(
        "bars",
        found
          ? bars(found.row, found.bounds, { name: `${node.hostname}, last 24 hours:` })
          : make("span", { class: "blank" }),
      ),
      cell("uptime", watched(node)),
      cell("latency", milliseconds(node.latency_ms), relayed(node)),
      cell(
        "seen",
        node.state === "online" ? "now" : node.last_seen ? age(node.last_seen, "", " ago", true) : "never",
      ),
      cell("tags", node.tags.map((tag) => tag.replace(/^tag:/, "")).join(", ")),
      cell(
        "key",
        node.key_expiry ? at(node.key_expiry, clock(node.key_expiry).split(" ").slice(0, 2).join(" ")) : "–",
      ),
    );
  }

  click(event) {
    const bar = event.target.closest("rect[data-from]");
    const row = event.target.closest("[data-index]");
    const node = row && this.node(Number(row.dataset.index));
    if (!node || event.target.closest("a, button")) return;
    if (bar) this.opened(node.hostname, [Date.parse(bar.dataset.from), Date.parse(bar.dataset.to)]);
    else this.opened(node.hostname);
  }

  key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (event.target !== $("table")) return;
    if (event.key === "Enter" && this.selected >= 0) {
      const node = this.node(this.selected);
      if (node) this.opened(node.hostname);
    } else if (step !== undefined) {
      event.preventDefault();
      const index = Math.max(0, Math.min(this.rows - 1, this.selected + step));
      this.reveal(index);
      this.select(index);
    }
  }

  reveal(index) {
    const top = this.topOf(index);
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.rowHeight + HEAD > this.box.scrollTop + this.box.clientHeight)
      this.box.scrollTop = top + this.rowHeight + HEAD - this.box.clientHeight;
  }
}

function notes(node) {
  const note = (words, title) => make("span", { class: "note", title: title ?? null }, words);
  return [
    node.critical
      ? make(
          "span",
          { class: "note star", title: "critical" },
          "★",
          make("span", { class: "hide" }, "critical"),
        )
      : null,
    node.flapping ? note("flapping", "comes and goes") : null,
    node.silenced_until ? note("silenced") : null,
    services(node.services),
    node.state === "unknown" && node.last_state ? note(`was ${node.last_state}`) : null,
  ];
}

// Of its checked ports: what is down is said, else how many are well.
function services(counts) {
  if (!counts) return null;
  const { ok, down, unknown } = counts;
  const all = ok + down + unknown;
  const title = `${ok} of ${all} checked ports answer`;
  if (down) return make("span", { class: "note loud", title }, `${down} of ${all} services down`);
  return make("span", { class: "note", title }, ok ? `${ok}/${all} services` : "services unknown");
}

const relayed = (node) =>
  node.path && node.path !== "direct" ? make("span", { class: "note" }, node.path.replace("_", " ")) : null;

// 100 % of ten seconds is not 100 % of a day.
function watched(node) {
  const watchedFor = Date.now() - Date.parse(node.watched_since);
  if (watchedFor >= DAY || node.uptime_24h === null) return percent(node.uptime_24h);
  return make("span", { title: `watched since ${clock(node.watched_since)}` }, percent(node.uptime_24h), "*");
}
