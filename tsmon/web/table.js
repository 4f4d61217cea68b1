// All nodes: only the rows in view are asked for and made, whatever their number.

import { read } from "./api.js";
import { bars } from "./charts.js";
import { $, make, pill, replace } from "./dom.js";
import { nodeLink } from "./first.js";
import { age, at, clock, milliseconds, percent } from "./words.js";

const PAGE = 50;
const PRINT = matchMedia("print");
const BARS_AGE = 60_000;
const FIELDS =
  "id,hostname,state,node_type,ip,os,last_seen,uptime_24h,latency_ms,path,tags,key_expiry,critical,since,last_state,alert,flapping,silenced_until,shared";

export class Table {
  constructor(query, opened) {
    this.query = query; // () => the filters and the order
    this.opened = opened;
    this.pages = new Map(); // number -> nodes
    this.bars = new Map(); // id -> { at, states, bounds }
    this.total = 0;
    this.known = false; // nothing has been answered yet
    this.turn = 0; // answers to older questions are dropped
    this.selected = -1;
    this.box = $("scroll");
    this.box.addEventListener("scroll", () => requestAnimationFrame(() => this.look()));
    addEventListener("resize", () => this.look());
    PRINT.addEventListener("change", () => this.show());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => this.click(event));
  }

  get rowHeight() {
    return matchMedia("(max-width: 720px)").matches ? 76 : 42;
  }

  // The filters changed: from the top, with what is shown dimmed until the answer is there.
  async ask() {
    this.selected = -1;
    this.box.scrollTop = 0;
    await this.refresh();
  }

  // The same rows anew: those in view at once, the others when they come into view.
  async refresh() {
    const turn = ++this.turn;
    const wanted = this.inView();
    const fresh = new Map();
    this.box.setAttribute("aria-busy", "true");
    try {
      for (const number of wanted) {
        const { answer, total } = await read("nodes", {
          ...this.query(),
          fields: FIELDS,
          limit: PAGE,
          offset: number * PAGE,
        });
        if (turn !== this.turn) return;
        fresh.set(number, answer);
        this.total = total;
        this.known = true;
      }
    } finally {
      if (turn === this.turn) this.box.removeAttribute("aria-busy");
    }
    this.pages = fresh;
    this.show();
    await this.loadBars();
  }

  async look() {
    const missing = this.inView().filter((number) => !this.pages.has(number) && number * PAGE < this.total);
    this.show();
    const turn = this.turn;
    for (const number of missing) {
      this.pages.set(number, null); // it is on its way
      const { answer } = await read("nodes", {
        ...this.query(),
        fields: FIELDS,
        limit: PAGE,
        offset: number * PAGE,
      }).catch(() => ({ answer: null }));
      if (turn !== this.turn) return;
      if (answer) this.pages.set(number, answer);
      else this.pages.delete(number);
      this.show();
    }
    await this.loadBars();
  }

  range() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.rowHeight) - 6);
    const last = Math.ceil((this.box.scrollTop + Math.max(this.box.clientHeight, 400)) / this.rowHeight) + 6;
    return [first, last];
  }

  inView() {
    const [first, last] = this.range();
    const numbers = [];
    for (let number = Math.floor(first / PAGE); number <= Math.floor(last / PAGE); number += 1)
      numbers.push(number);
    return this.total
      ? numbers.filter((number) => number === 0 || number * PAGE < this.total)
      : numbers.slice(0, 1);
  }

  async loadBars() {
    for (const number of this.inView()) {
      const nodes = this.pages.get(number);
      if (!nodes?.length) continue;
      if (nodes.every((node) => Date.now() - (this.bars.get(node.id)?.at ?? 0) < BARS_AGE)) continue;
      const turn = this.turn;
      const query = { ...this.query(), window: "24h", buckets: 48, limit: PAGE, offset: number * PAGE };
      const found = await read("history", query).catch(() => null);
      if (!found || turn !== this.turn) return;
      for (const row of found.answer.nodes)
        this.bars.set(row.id, { at: Date.now(), states: row.states, bounds: found.answer.bounds });
      this.show();
    }
  }

  // How many rows from the top are known: paper shows no more, and says so.
  loaded() {
    let number = 0;
    while (this.pages.get(number)?.length) number += 1;
    return Math.min(this.total, number * PAGE);
  }

  node(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  show() {
    const [from, to] = PRINT.matches ? [0, this.loaded()] : this.range();
    const first = Math.min(from, Math.max(0, this.total - 1));
    const last = Math.min(to, this.total);
    const rows = [];
    for (let index = first; index < last; index += 1) rows.push(this.row(this.node(index), index));
    $("above").style.height = `${first * this.rowHeight}px`;
    $("below").style.height = `${Math.max(0, this.total - last) * this.rowHeight}px`;
    replace($("rows"), ...rows);
    $("printed").textContent =
      this.loaded() < this.total ? `The first ${this.loaded()} of ${this.total.toLocaleString()} nodes.` : "";
    $("table").setAttribute("aria-rowcount", String(this.total + 1));
    $("count").textContent = !this.known
      ? ""
      : this.total === 1
        ? "1 node"
        : `${this.total.toLocaleString()} nodes`;
    const { sort, ...filters } = this.query();
    const filtered = Object.values(filters).some(Boolean);
    $("no-nodes").hidden = !this.known || this.total > 0;
    $("no-nodes-text").textContent = filtered
      ? "No node fits these filters."
      : "tsmon has not seen a node yet.";
    $("clear").hidden = !filtered;
    $("table").hidden = this.total === 0;
  }

  row(node, index) {
    const attributes = {
      role: "row",
      class: "row",
      "aria-rowindex": String(index + 2),
      "data-index": String(index),
      "aria-selected": String(index === this.selected),
    };
    if (!node)
      return make("div", { ...attributes, class: "row waiting" }, make("span", { role: "cell" }, "…"));
    const cell = (name, ...content) => make("span", { role: "cell", class: `c-${name}` }, ...content);
    const bar = this.bars.get(node.id);
    return make(
      "div",
      attributes,
      cell(
        "state",
        pill(node.state),
        node.flapping ? make("span", { class: "note", title: "comes and goes" }, "flapping") : null,
      ),
      cell(
        "host",
        nodeLink(node.hostname),
        node.critical
          ? make(
              "span",
              { class: "note star", title: "critical" },
              "★",
              make("span", { class: "hide" }, "critical"),
            )
          : null,
        node.silenced_until ? make("span", { class: "note" }, "silenced") : null,
        node.state === "unknown" && node.last_state
          ? make("span", { class: "note" }, `was ${node.last_state}`)
          : null,
      ),
      cell("type", node.node_type),
      cell(
        "ip",
        node.ip
          ? make(
              "button",
              { type: "button", class: "copy", "data-copy": node.ip, title: "Copy the address" },
              node.ip,
            )
          : "–",
      ),
      cell("os", node.os),
      cell(
        "bars",
        bar
          ? bars(bar.states, bar.bounds, { name: `${node.hostname}, last 24 hours:` })
          : make("span", { class: "blank" }),
      ),
      cell("uptime", percent(node.uptime_24h)),
      cell(
        "latency",
        milliseconds(node.latency_ms),
        node.path && node.path !== "direct"
          ? make("span", { class: "note" }, node.path.replace("_", " "))
          : null,
      ),
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
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard?.writeText(copy.dataset.copy).then(
        () => say(`${copy.dataset.copy} copied`),
        () => say("the browser does not let this page copy"),
      );
      return;
    }
    if (event.target.closest("a")) return;
    const row = event.target.closest("[data-index]");
    const node = row && this.node(Number(row.dataset.index));
    if (node) this.opened(node.hostname);
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[
      event.key
    ];
    if (event.key === "Enter" && this.selected >= 0 && event.target === this.box) {
      const node = this.node(this.selected);
      if (node) this.opened(node.hostname);
    } else if (step !== undefined) {
      event.preventDefault();
      this.selected = Math.max(0, Math.min(this.total - 1, this.selected + step));
      const [top, height] = [this.selected * this.rowHeight, this.rowHeight];
      const head = 36;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + height + head > this.box.scrollTop + this.box.clientHeight)
        this.box.scrollTop = top + height + head - this.box.clientHeight;
      this.look();
    }
  }
}

export function say(words) {
  $("toast").textContent = words;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    $("toast").textContent = "";
  }, 3000);
}
