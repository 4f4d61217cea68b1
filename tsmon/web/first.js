// The first glance: one sentence with the truth, the numbers, the critical nodes, the alerts.

import { read } from "./api.js";
import { sparkline } from "./charts.js";
import { $, make, pill, replace } from "./dom.js";
import { age, at, clock, local, milliseconds, percent, prose } from "./words.js";

const MOST_SPARKS = 12;
const SPARK_AGE = 300_000;
const sparks = new Map(); // hostname -> { at, points }

export function sentence(summary, critical, alerts) {
  if (summary.blind) return `tsmon cannot see the tailnet since ${clock(summary.blind.since)}`;
  if (!summary.as_of) return "Waiting for the first look at the tailnet";
  const nodes = Object.values(critical).flatMap((entry) => entry.nodes);
  const missing = Object.entries(critical)
    .filter(([, entry]) => entry.status === "missing" && entry.total > 0)
    .map(([key]) => key);
  const down = nodes.filter((node) => node.state === "offline");
  if (down.length === 1 && !missing.length) {
    const [node] = down;
    const detached = alerts.some((alert) => alert.kind === "node_detached" && alert.node_id === node.id);
    const words = detached ? "is off the control plane, but answers pings" : "is down";
    return `${node.hostname} ${words}${node.since ? ` since ${clock(node.since)}` : ""}`;
  }
  if (down.length > 1)
    return `${down.length} critical nodes are down: ${names(down.map((node) => node.hostname))}`;
  const { total, online } = summary.critical_nodes;
  if (total === 0) return `${summary.online_nodes} of ${summary.total_nodes} nodes online`;
  if (online === total)
    return total === 1 ? "The critical node is online" : `All ${total} critical nodes online`;
  return `${online} of ${total} critical nodes online`;
}

const names = (all) =>
  all.length > 4 ? `${all.slice(0, 4).join(", ")} and ${all.length - 4} more` : all.join(", ");

export function showSummary(summary, critical, alerts, warnings) {
  const words = sentence(summary, critical, alerts);
  const title = $("headline");
  if (title.textContent !== words) title.textContent = words;
  title.dataset.status = summary.as_of ? summary.status : "unknown";
  $("blind").hidden = !summary.blind;
  $("blind").textContent = summary.blind
    ? `${capital(summary.blind.message)}. ${summary.total_nodes ? "Last known state below." : "It has seen no node yet."}`
    : "";
  document.body.dataset.blind = summary.blind ? "yes" : "no";
  $("demo").hidden = !summary.demo;
  $("tailnet").textContent = summary.tailnet ?? "";
  replace(
    $("foot"),
    `tsmon ${summary.version} · source ${summary.source} · `,
    summary.as_of ? age(summary.as_of, "last look ", " ago") : "not seen yet",
    make("span", { class: "paper" }, ` (${local(summary.as_of)})`),
  );
  replace(
    $("numbers"),
    ...[
      ["nodes", summary.total_nodes, ""],
      ["online", summary.online_nodes, ""],
      ["offline", summary.offline_nodes, summary.critical_nodes.offline ? "offline" : ""],
      ["unknown", summary.unknown_nodes, "unknown"],
      ["critical health", percent(summary.critical_nodes.health_percentage), ""],
      [
        "alerts",
        summary.active_alerts,
        alerts.some((alert) => alert.severity === "critical") ? "alerts" : "",
      ],
    ].map(([name, value, kind]) =>
      make("div", { "data-kind": value ? kind : null }, make("dt", {}, name), make("dd", {}, String(value))),
    ),
  );
  replace($("alerts"), ...alerts.map(alertRow));
  replace($("warnings"), ...warnings.map((text) => make("li", {}, `▲ ${text}`)));
  const worst =
    summary.status === "critical"
      ? "bad"
      : { healthy: "ok", degraded: "warn", unknown: "unknown" }[summary.status];
  const icon = `web/${worst}.svg`;
  if ($("favicon").getAttribute("href") !== icon) $("favicon").setAttribute("href", icon);
  document.title = `${{ ok: "●", warn: "▲", bad: "✕", unknown: "?" }[worst]} ${words} · tsmon`;
}

const capital = (text) => (/^\w+:\/\//.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

function alertRow(alert) {
  const notes = [];
  if (alert.acknowledged_by) notes.push(`acknowledged by ${alert.acknowledged_by}`);
  if (alert.silenced_until)
    notes.push(make("span", {}, "silenced until ", at(alert.silenced_until, clock(alert.silenced_until))));
  if (alert.notified) notes.push("notified");
  return make(
    "li",
    {
      "data-severity": alert.severity,
      "data-calm": alert.acknowledged_by || alert.silenced_until ? "yes" : null,
    },
    pill(alert.severity),
    make("span", { class: "text" }, ...about(alert, alert.message || alert.kind)),
    make(
      "span",
      { class: "quiet" },
      `alert ${alert.id} · `,
      age(alert.since ?? alert.fired_at, "for "),
      ...notes.flatMap((note) => [" · ", note]),
    ),
  );
}

// What is said of a node, with its name as a link.
export function about(what, message) {
  if (!what.hostname || !what.node_id) return prose(message);
  const name = nodeLink(what.hostname);
  const found = ` ${message} `.indexOf(` ${what.hostname} `);
  if (found < 0) return [name, " · ", ...prose(message)];
  return [...prose(message.slice(0, found)), name, ...prose(message.slice(found + what.hostname.length))];
}

export const nodeLink = (hostname) =>
  make("a", { href: `?node=${encodeURIComponent(hostname)}`, "data-node": hostname }, hostname);

export function showCritical(critical) {
  replace(
    $("critical"),
    ...Object.entries(critical).map(([key, entry]) =>
      make(
        "article",
        { class: "card", "data-state": entry.status },
        make("h3", {}, key, pill(entry.status)),
        ...(entry.nodes.length
          ? entry.nodes.map((node) => body(node, entry.nodes.length > 1))
          : [
              make(
                "p",
                { class: "quiet" },
                entry.status === "missing" ? "No node of the tailnet fits this role." : "Not seen yet.",
              ),
            ]),
      ),
    ),
  );
}

function body(node, several) {
  return make(
    "div",
    { class: "body" },
    make("div", { class: "name" }, nodeLink(node.hostname), several ? pill(node.state) : null, silent(node)),
    make(
      "p",
      {},
      node.since ? age(node.since, `${node.state} for `) : `${node.state} since before tsmon knew it`,
      was(node),
    ),
    make(
      "dl",
      { class: "uptimes" },
      ...[
        ["24 h", node.uptime_24h],
        ["7 d", node.uptime_7d],
        ["30 d", node.uptime_30d],
      ].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, percent(value)))),
    ),
    make(
      "p",
      { class: "quiet" },
      node.coverage_24h === null || node.coverage_24h >= 99.5
        ? null
        : `seen for ${percent(node.coverage_24h)} of the last day`,
    ),
    node.reachable === null && !sparks.has(node.hostname)
      ? null
      : make(
          "div",
          { class: "pulse" },
          sparkline(sparks.get(node.hostname)?.points ?? []),
          make(
            "span",
            { class: "quiet" },
            node.latency_ms === null ? "" : `${milliseconds(node.latency_ms)} ${node.path ?? ""}`,
          ),
        ),
  );
}

// What is unknown now was known once.
export const was = (node) =>
  node.state === "unknown" && node.last_state ? `, was ${node.last_state}` : null;

const silent = (node) => (node.silenced_until ? make("span", { class: "note" }, " silenced") : null);

// The latency of the critical nodes, a few at a time and not more often than it changes.
export async function loadSparks(critical) {
  const nodes = Object.values(critical)
    .flatMap((entry) => entry.nodes)
    .filter((node) => node.reachable !== null)
    .slice(0, MOST_SPARKS);
  const old = nodes.filter((node) => Date.now() - (sparks.get(node.hostname)?.at ?? 0) > SPARK_AGE);
  for (const node of old) {
    const found = await read(`latency/${encodeURIComponent(node.hostname)}`, { window: "24h" }).catch(
      () => null,
    );
    sparks.set(node.hostname, { at: Date.now(), points: found?.answer.points ?? [] });
  }
  return old.length > 0;
}
