// One node: a drawer with an address of its own (?node=…).

import { bars, calendar, latencyChart, legend } from "./charts.js";
import { controlRows } from "./control.js";
import { $, copyable, make, pill, replace } from "./dom.js";
import { entry } from "./log.js";
import { showNodeServices } from "./services.js";
import { age, at, bytes, clock, counted, length, local, percent, prose } from "./words.js";

const MOST_OUTAGES = 10;
const MOST_EVER = 10_000;
const LONG_AGE = 60_000; // so old may be what is long in the making

export class Drawer {
  // `changed()`: another node, or none, is open, or another window; `asks()`: what is shown is to be asked.
  constructor(changed, asks) {
    this.changed = changed;
    this.asks = asks;
    this.name = null;
    this.window = "24h";
    this.zoom = [null, null];
    this.every = false; // all outages are shown
    this.parts = null; // what the window shows, as it was asked last
    this.box = $("drawer");
    this.box.addEventListener("close", () => {
      if (this.name !== null) {
        this.name = null;
        this.changed();
      }
    });
    // Who marks text beyond the edge does not want to leave.
    let pressed = null;
    this.box.addEventListener("pointerdown", (event) => {
      pressed = event.target;
    });
    this.box.addEventListener("click", (event) => {
      if (event.target === this.box && pressed === this.box) this.box.close();
    });
    $("drawer-close").addEventListener("click", () => this.box.close());
    for (const button of $("windows").querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.setWindow(button.value);
        this.changed();
        this.asks();
      });
    }
    $("node-bars").addEventListener("click", (event) => {
      const bar = event.target.closest("[data-from]");
      if (bar) this.look(Date.parse(bar.dataset.from), Date.parse(bar.dataset.to));
    });
    $("outages-more").addEventListener("click", () => {
      this.every = true;
      this.parts = null;
      this.asks();
    });
    $("whole").addEventListener("click", () => this.look(null, null));
  }

  setWindow(window) {
    if (this.window !== window) {
      this.window = window;
      this.zoom = [null, null];
      this.parts = null;
    }
    for (const button of $("windows").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === window));
  }

  // At a stretch of the window, or all of it again.
  look(from, to) {
    this.zoom = [from, to];
    this.showTime();
  }

  open(name, zoom = [null, null]) {
    if (this.name === name) return;
    this.name = name;
    this.zoom = zoom;
    this.every = false;
    this.parts = null;
    this.changed();
    $("drawer-title").textContent = name;
    replace($("drawer-state"));
    for (const part of ["facts", "node-bars", "outages", "node-latency", "node-events"])
      replace($(part), make("p", { class: "blank" }));
    if (!this.box.open) this.box.showModal();
    this.asks();
  }

  close() {
    if (this.box.open) this.box.close();
  }

  // What the next look is to bring of the open node: its history once a minute, or when it began to be wanted.
  query() {
    if (this.name === null) return {};
    const old = this.parts === null || Date.now() - this.parts.at > LONG_AGE;
    return {
      node: this.name,
      window: this.window,
      outages: this.every ? MOST_EVER : MOST_OUTAGES,
      with_history: old || null,
    };
  }

  // What the question `asked` brought.
  take(page, services, asked) {
    if (!page || this.name !== asked.node || this.window !== asked.window) return;
    const { detail: node, history } = page;
    if (!node) {
      const words = `The tailnet has no node ${this.name}, and tsmon has known none.`;
      replace($("drawer-state"), make("p", { class: "empty" }, words));
      return;
    }
    this.show(node);
    showNodeServices(node, services);
    const of = `${node.since} ${node.alert}`;
    if (history) {
      const { uptime, latency, events } = history;
      this.parts = { at: Date.now(), of, node, history, uptime, latency, events };
      this.showTime();
    } else if (asked.with_history) {
      replace($("node-bars"), make("p", { class: "empty" }, "The history cannot be read now."));
    } else if (this.parts && this.parts.of !== of) {
      this.parts = null; // it went or came: so did its history
      this.asks();
    }
  }

  show(node) {
    $("drawer-title").textContent = node.hostname;
    replace(
      $("drawer-state"),
      pill(node.state),
      " ",
      node.since ? age(node.since, "for ") : "since before tsmon knew it",
      node.reason_words ? ` · ${node.reason_words}` : null,
      node.state === "unknown" && node.last_state
        ? make("span", {}, ` · was ${node.last_state} `, age(node.last_state_at, "", " ago"))
        : null,
      node.removed_at ? make("span", {}, " · removed ", at(node.removed_at)) : null,
      node.current_alert
        ? make(
            "p",
            { class: "alert", "data-severity": node.current_alert.severity },
            `alert ${node.current_alert.id}: `,
            ...prose(node.current_alert.message),
          )
        : null,
    );
    replace(
      $("commands"),
      node.current_alert && !node.current_alert.acknowledged_by
        ? copyable(`tsmon ack ${node.current_alert.id}`)
        : null,
      copyable(`tsmon silence --host ${node.hostname} --for 2h`),
    );
    const row = (name, ...value) =>
      value.every((part) => part === null || part === "" || part === undefined)
        ? []
        : [make("div", {}, make("dt", {}, name), make("dd", {}, ...value))];
    replace(
      $("facts"),
      ...row("type", `${node.node_type}${node.critical ? ", critical" : ""}`),
      ...row("role", node.role),
      ...row("addresses", node.ips.join(", ")),
      ...row("name in DNS", node.dns_name),
      ...row("hostname there", node.os_hostname),
      ...row("system", node.os, node.version ? `, Tailscale ${node.version}` : ""),
      ...row("owner", node.user),
      ...row("tags", node.tags.join(", ")),
      ...row("routes", node.routes.join(", ")),
      ...row("exit node", node.exit_node_option ? "offered" : ""),
      ...row(
        "path",
        [node.path?.replace("_", " "), node.address, node.relay ? `home relay ${node.relay}` : null]
          .filter(Boolean)
          .join(" · "),
      ),
      ...row(
        "traffic",
        node.rx_bytes || node.tx_bytes ? `${bytes(node.rx_bytes)} in, ${bytes(node.tx_bytes)} out` : "",
      ),
      ...row("last handshake", node.last_handshake ? age(node.last_handshake, "", " ago") : ""),
      ...row("key expires", node.key_expiry ? at(node.key_expiry) : "never"),
      ...row("known since", node.first_seen ? at(node.first_seen) : ""),
      ...row("was before", (node.predecessors ?? []).map((one) => one.hostname ?? one).join(", ")),
      ...row("follows", node.successor_of?.hostname ?? node.successor_of ?? ""),
      ...row("pinged every", node.pinged_every ? length(node.pinged_every) : ""),
      ...row("silenced until", node.silenced_until ? at(node.silenced_until) : ""),
      ...controlRows(node.control).flatMap(([name, value]) => row(name, ...[value ?? ""].flat())),
    );
  }

  showTime() {
    if (!this.parts || $("node-latency").querySelector("[data-drag]")) return; // never under the reader's hand
    const { node, uptime, history, latency, events } = this.parts;
    const row = history.bars;
    const name = `${node.hostname}, ${this.window}:`;
    const picture = this.window === "365d" ? calendar : (...of) => bars(of[0], of[1], { height: 44, name });
    replace(
      $("node-bars"),
      row ? picture(row, history.bounds, name) : make("p", { class: "empty" }, "No history in this window."),
      row
        ? make(
            "div",
            { class: "bounds" },
            make("span", {}, clock(history.bounds[0])),
            legend(this.window === "365d" ? "omxu-" : "oxu"),
            make("span", {}, "now"),
          )
        : null,
      uptime
        ? make(
            "p",
            {},
            make("strong", {}, percent(uptime.uptime_percentage)),
            ` up, seen for ${percent(uptime.coverage)} of the time`,
            uptime.history === "influxdb" ? " (from InfluxDB)" : "",
            Date.now() - Date.parse(node.watched_since) < 86_400_000
              ? age(node.watched_since, " · watched for ")
              : null,
          )
        : null,
    );
    const [from, to] = this.zoom;
    const whole = from === null;
    const bounds = whole ? [Date.parse(history.bounds[0]), Date.parse(history.bounds.at(-1))] : this.zoom;
    const inside = (begin, end) =>
      whole || (Date.parse(end ?? new Date().toISOString()) >= from && Date.parse(begin) <= to);
    $("whole").hidden = whole;
    replace(
      $("stretch"),
      whole ? "" : `${local(new Date(from).toISOString())} – ${local(new Date(to).toISOString())}`,
    );
    this.showOutages(uptime, inside, whole);
    this.showLatency(latency, uptime?.outage_list ?? [], bounds, whole);
    const found = events.filter((event) => inside(event.timestamp, event.timestamp));
    replace(
      $("node-events"),
      ...(found.length
        ? found.map((event) => unlinked(entry(event, { "data-key": event.id })))
        : [
            make(
              "li",
              { class: "empty" },
              whole ? "Nothing has happened to it yet." : "Nothing of its last 20 events.",
            ),
          ]),
    );
  }

  showOutages(uptime, inside, whole) {
    const list = (uptime?.outage_list ?? []).filter((outage) => inside(outage.start, outage.end));
    $("outages-count").textContent = uptime?.outages
      ? `${counted(uptime.outages, "outage")}, the longest ${length(uptime.longest_outage_s)}`
      : "";
    replace(
      $("outages"),
      ...(list.length
        ? list.map((outage) =>
            make(
              "li",
              { "data-key": outage.start },
              make(
                "span",
                {},
                at(outage.start),
                " to ",
                outage.end ? at(outage.end, clock(outage.end)) : "now",
              ),
              make("span", {}, `${length(outage.duration_s)}${outage.end ? "" : " so far"}`),
              make("span", { class: "quiet" }, outage.reason_words ?? ""),
            ),
          )
        : [
            make(
              "li",
              { class: "empty" },
              whole ? "No outage in this window." : "No outage in this stretch.",
            ),
          ]),
    );
    $("outages-more").hidden = this.every || (uptime?.outages ?? 0) <= MOST_OUTAGES;
    $("outages-more").textContent = `All ${uptime?.outages}`;
  }

  showLatency(latency, outages, [from, to], whole) {
    if (!latency) {
      replace($("node-latency"), make("p", { class: "empty" }, "No latency."));
      return;
    }
    const points = latency.points.filter(
      (point) => Date.parse(point[0]) >= from && Date.parse(point[0]) <= to,
    );
    $("node-latency").replaceChildren(
      latencyChart({ ...latency, points, part: !whole }, { from, to, outages }, (begin, end) =>
        this.look(begin, end),
      ),
    );
  }
}

function unlinked(item) {
  for (const link of item.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  return item;
}
