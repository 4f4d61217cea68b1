// Checked ports, who routes what, whom the tailnet lock keeps out: a part of the page, and of a node's drawer.

import { bars } from "./charts.js";
import { $, make, pill, replace, shortName } from "./dom.js";
import { age, at, counted, length, milliseconds, percent } from "./words.js";

const AGE = 30_000;
const MOST_OUTAGES = 5;
const WORDS = {
  ok: "answers",
  refused: "refuses",
  no_answer: "no answer",
  bad_answer: "answers badly",
  unknown: "unknown",
};
const PILLS = { ok: "online", unknown: "unknown" };

const state = (service) => pill(PILLS[service.state] ?? "offline", WORDS[service.state]);

const figures = (service) => [
  service.latency_ms === null ? "" : `${milliseconds(service.latency_ms)}, `,
  service.uptime_24h === null ? "" : `${percent(service.uptime_24h)} of 24 h, `,
  service.since ? age(service.since, "for ") : "",
];

export class Beyond {
  constructor() {
    this.askedAt = 0;
  }

  // Whether the next look is to bring it.
  query() {
    return Date.now() - this.askedAt < AGE ? null : true;
  }

  take({ services, routes }) {
    if (!services || !routes) return;
    this.askedAt = Date.now();
    this.showServices(services);
    this.showRoutes(routes);
  }

  showServices({ services, total, can_check, why_not }) {
    $("services-part").hidden = !total;
    if (!total) return;
    const down = services.filter((one) => !PILLS[one.state]).length;
    replace(
      $("services-count"),
      `${counted(total, "check")}, `,
      down ? make("b", {}, `${down} down`) : "none down",
    );
    $("services-error").hidden = can_check;
    $("services-error").textContent = can_check ? "" : `No port can be asked: ${why_not}`;
    if (down && !this.opened) {
      this.opened = true; // once: who folds it has seen it
      $("services-part").querySelector("details").open = true;
    }
    replace(
      $("services"),
      ...services.map((one) =>
        make(
          "li",
          { "data-key": `${one.node_id ?? one.service} ${one.check}` },
          make("span", { title: one.hostname }, `${shortName(one.hostname, 40)} ${one.check}`),
          state(one),
          make("span", {}, one.detail && one.state !== "ok" ? one.detail : ""),
          make("span", { class: "quiet" }, ...figures(one)),
        ),
      ),
      total > services.length ? make("li", { class: "quiet" }, `and ${total - services.length} more`) : null,
    );
  }

  showRoutes({ routes, exit_nodes, locked_out }) {
    const some = routes.length + exit_nodes.length + locked_out.length;
    $("routes-part").hidden = !some;
    const lost = routes.filter((route) => !route.router).length;
    replace(
      $("routes-count"),
      [
        routes.length ? counted(routes.length, "subnet") : "",
        exit_nodes.length ? counted(exit_nodes.length, "exit node") : "",
        locked_out.length ? `${locked_out.length} locked out` : "",
      ]
        .filter(Boolean)
        .join(", "),
      lost ? make("b", {}, `, ${lost} without a router`) : null,
    );
    replace(
      $("routes"),
      ...locked_out.map((one) =>
        line(`lock-${one.node_id}`, shortName(one.hostname, 40), pill("warning", "locked out"), [
          "its key waits for a signature",
        ]),
      ),
      ...routes.map((route) =>
        line(
          `route-${route.prefix}`,
          route.prefix,
          route.router ? pill("online", route.routers.join(", ")) : pill("offline", "no router"),
          [
            route.router ? "" : `${route.last_router} was the last, `,
            route.standbys?.length ? `standby ${route.standbys.join(", ")}, ` : "",
            route.moves_24h ? `${counted(route.moves_24h, "move")} in 24 h, ` : "",
            route.since ? age(route.since, "for ") : "",
          ],
        ),
      ),
      ...exit_nodes.map((one) =>
        line(
          `exit-${one.hostname}`,
          shortName(one.hostname, 40),
          pill(one.online === null ? "unknown" : one.online ? "online" : "offline"),
          ["exit node"],
        ),
      ),
    );
  }
}

const line = (key, name, word, words) =>
  make("li", { "data-key": key }, make("span", {}, name), word, make("span", { class: "quiet" }, ...words));

// The services of the node that the drawer shows, over its window; null leaves them as they are.
export function showNodeServices(node, answer) {
  $("node-services-part").hidden = !node.services;
  if (!answer) return;
  replace(
    $("node-services"),
    ...answer.services.map((one) =>
      make(
        "li",
        { "data-key": one.check },
        make("span", {}, one.check),
        state(one),
        make("span", { class: "quiet" }, ...figures(one)),
        one.bars ? bars(one.bars, answer.bounds, { name: `${one.check}:` }) : null,
        ...one.outages
          .slice(0, MOST_OUTAGES)
          .map((outage) =>
            make(
              "span",
              { class: "quiet outage" },
              at(outage.start),
              outage.end ? ` for ${length(outage.duration_s)}` : " until now",
            ),
          ),
      ),
    ),
  );
}
