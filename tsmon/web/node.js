// One node: a drawer with an address of its own (?node=…).

import { read } from "./api.js";
import { bars, latencyChart, legend } from "./charts.js";
import { $, make, pill, replace } from "./dom.js";
import { entry } from "./log.js";
import { age, at, bytes, clock, length, percent, prose } from "./words.js";

const WINDOWS = { "24h": [48, 24], "7d": [84, 168], "30d": [90, 720], "90d": [90, 2160] };
const REASONS = {
  stopped: "Tailscale is stopped there",
  key_expired: "its node key expired",
  control: "the control plane calls it offline",
  unreachable: "it answers no ping although the control plane calls it online",
};

export class Drawer {
  constructor(changed) {
    this.changed = changed; // the open node, or null: for the address bar
    this.name = null;
    this.window = "24h";
    this.zoom = [null, null];
    this.box = $("drawer");
    this.box.addEventListener("close", () => {
      if (this.name !== null) {
        this.name = null;
        this.changed(null);
      }
    });
    this.box.addEventListener("click", (event) => {
      if (event.target === this.box) this.box.close();
    });
    $("drawer-close").addEventListener("click", () => this.box.close());
    for (const button of $("windows").querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.window = button.value;
        this.zoom = [null, null];
        this.refresh();
      });
    }
  }

  open(name) {
    if (this.name === name) return;
    this.name = name;
    this.zoom = [null, null];
    this.changed(name);
    $("drawer-title").textContent = name;
    replace($("drawer-state"));
    for (const part of ["facts", "node-bars", "outages", "node-latency", "node-events"])
      replace($(part), make("p", { class: "blank" }));
    if (!this.box.open) this.box.showModal();
    this.refresh();
  }

  close() {
    if (this.box.open) this.box.close();
  }

  async refresh() {
    const name = this.name;
    if (name === null) return;
    const path = encodeURIComponent(name);
    for (const button of $("windows").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === this.window));
    try {
      const { answer: node } = await read(`nodes/${path}`);
      if (this.name !== name) return;
      this.show(node);
      const [buckets, hours] = WINDOWS[this.window];
      const [uptime, history, latency, events] = await Promise.all([
        read(`uptime/${path}`, { hours }).catch(() => null),
        read("history", { window: this.window, buckets, q: node.hostname, limit: 200 }).catch(() => null),
        read(`latency/${path}`, { window: this.window }).catch(() => null),
        read("logs", { node_id: node.id, checks: false }).catch(() => null),
      ]);
      if (this.name !== name) return;
      this.showTime(node, uptime?.answer, history?.answer);
      this.latency = latency?.answer;
      if (!$("node-latency").querySelector("[data-drag]")) this.showLatency(); // never under the reader's hand
      replace(
        $("node-events"),
        ...(events?.answer.logs.length
          ? events.answer.logs.map((event) => entry(event))
          : [make("li", { class: "empty" }, "Nothing has happened to it yet.")]),
      );
      for (const link of $("node-events").querySelectorAll("a")) link.replaceWith(...link.childNodes);
    } catch (error) {
      replace(
        $("drawer-state"),
        make(
          "p",
          { class: "empty" },
          error.status === 404 ? `The tailnet has no node ${name}, and tsmon has known none.` : error.message,
        ),
      );
    }
  }

  show(node) {
    $("drawer-title").textContent = node.hostname;
    replace(
      $("drawer-state"),
      pill(node.state),
      " ",
      node.since ? age(node.since, "for ") : "since before tsmon knew it",
      node.reason ? ` · ${REASONS[node.reason]}` : null,
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
      ...row("silenced until", node.silenced_until ? at(node.silenced_until) : ""),
    );
  }

  showTime(node, uptime, history) {
    const row = history?.nodes.find((found) => found.id === node.id);
    replace(
      $("node-bars"),
      row
        ? bars(row.states, history.bounds, { height: 44, name: `${node.hostname}, ${this.window}:` })
        : make("p", { class: "empty" }, "No history in this window."),
      row
        ? make(
            "div",
            { class: "bounds" },
            make("span", {}, clock(history.bounds[0])),
            legend(),
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
          )
        : null,
    );
    const outages = uptime?.outage_list ?? [];
    replace(
      $("outages"),
      ...(outages.length
        ? outages.map((outage) =>
            make(
              "li",
              {},
              at(outage.start),
              make(
                "span",
                {},
                outage.end ? `${length(outage.duration_s)}` : `${length(outage.duration_s)} so far`,
              ),
            ),
          )
        : [make("li", { class: "empty" }, "No outage in this window.")]),
    );
  }

  showLatency() {
    if (!this.latency) {
      replace($("node-latency"), make("p", { class: "empty" }, "No latency."));
      return;
    }
    const [from, to] = this.zoom;
    const points =
      from === null
        ? this.latency.points
        : this.latency.points.filter((point) => Date.parse(point[0]) >= from && Date.parse(point[0]) <= to);
    const chart = latencyChart({ ...this.latency, points, part: from !== null }, (begin, end) => {
      this.zoom = [begin, end];
      this.showLatency();
    });
    $("node-latency").replaceChildren(
      chart,
      ...(from === null
        ? []
        : [
            make(
              "button",
              {
                type: "button",
                click: () => {
                  this.zoom = [null, null];
                  this.showLatency();
                },
              },
              "Show all of it",
            ),
          ]),
    );
  }
}
