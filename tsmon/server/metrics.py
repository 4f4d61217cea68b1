"""`/metrics`: what Prometheus scrapes, made of the view. docs/metrics.md describes each.

A node whose state is unknown has no `tsmon_node_online`, and while tsmon is blind no `tsmon_node_state`
either: no alert may fire because tsmon is blind, and of several monitors a blind one has no vote.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from tsmon.monitor.alerts import ALERT_KINDS, Alert
from tsmon.monitor.control.inventory import Inventory
from tsmon.monitor.state import Node, View
from tsmon.server.beyond_metrics import route_families, service_families
from tsmon.server.families import counter, gauge, labelled
from tsmon.server.params import NoQuery
from tsmon.server.render import NO_FIGURES, Figures
from tsmon.server.replies import Body, reply

_NODE = ["hostname", "node_type", "os"]
_STATES = ("online", "offline", "unknown")
_SEVERITIES = ("warning", "critical")


class ChannelFigures(msgspec.Struct, frozen=True):
    """The state and the counts of one notification channel."""

    name: str
    failing: bool
    waiting: int
    delivered: int
    failed: int


class OwnFigures(msgspec.Struct, frozen=True, kw_only=True):
    """tsmon's own figures; times in seconds, Unix seconds where they are moments."""

    version: str
    monitor: str
    """This tsmon's name among those of one tailnet."""
    started: float
    polls: int
    poll_failures: int
    poll_seconds: float
    store_failing: bool
    store_waiting: int
    stream_clients: int
    channels: tuple[ChannelFigures, ...] = ()
    outbox_requests: int | None = None
    """None: InfluxDB is not configured."""
    outbox_lines: int = 0
    outbox_oldest: float | None = None
    lines_dropped: int = 0
    lines_quarantined: int = 0
    influx_failing: bool = False


class Scrape(msgspec.Struct, frozen=True):
    """Everything that one scrape tells of."""

    view: View
    alerts: tuple[Alert, ...]
    figures: Figures
    own: OwnFigures
    per_node: bool


Encoder = Callable[[CollectorRegistry], bytes]


class Metrics:
    """The route; a scrape is made in threads, its nodes once for as long as nothing about them changes."""

    def __init__(self, take: Callable[[], Awaitable[Scrape]]) -> None:
        """`take` gives the present scrape."""
        self._take = take
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._lock = asyncio.Lock()
        self._last: tuple[Scrape, str, bytes] | None = None

    async def metrics(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        """Handles GET /metrics."""
        scrape = await self._take()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        nodes = await self._of_nodes(scrape, encode, content_type)
        rest = await asyncio.to_thread(lambda: encode(_Registry(lambda: self._rest(scrape))))
        body = Body(nodes + rest, "text/plain")
        response = await reply(request, body, {"Vary": "Accept, Accept-Encoding"})
        response.headers["Content-Type"] = content_type  # with the version of the format
        return response

    async def _of_nodes(self, scrape: Scrape, encode: Encoder, content_type: str) -> bytes:
        if not scrape.per_node:
            return b""
        async with self._lock:  # scrapers that come at once share the work
            if self._last is not None:
                last, kind, data = self._last
                if last.view is scrape.view and last.figures is scrape.figures and kind == content_type:
                    return data
            data = await asyncio.to_thread(lambda: encode(_Registry(lambda: _nodes(scrape))))
            data = data.removesuffix(b"# EOF\n")  # of OpenMetrics: more follows
            self._last = scrape, content_type, data
            return data

    def _rest(self, scrape: Scrape) -> Iterator[Metric]:
        yield from _tailnet(scrape)
        yield from _own(scrape.own)
        yield from self._process.collect()


class _Registry(CollectorRegistry):
    """What the encoders take: they ask it to collect."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()


def _tailnet(scrape: Scrape) -> Iterator[Metric]:
    view, health = scrape.view, scrape.view.health()
    # Not `monitor` and `tailnet`: those are labels of the target in Prometheus, which `up` has, too.
    named = {
        "monitor_name": scrape.own.monitor,
        "tailnet_name": view.tailnet.name if view.tailnet is not None else "",
    }
    yield InfoMetricFamily("tsmon_monitor", "Who watches which tailnet.", value=named)
    yield from gauge("blind", "1 while tsmon cannot see the tailnet.", float(view.blind is not None))
    reason = [([view.blind.reason], 1.0)] if view.blind is not None else []
    yield labelled("blind_reason", "Why tsmon cannot see the tailnet, while it cannot.", ["reason"], reason)
    yield from gauge(
        "last_trusted_snapshot_timestamp_seconds", "When the tailnet was last seen for sure.", view.as_of
    )
    yield labelled(
        "nodes",
        "Nodes by state.",
        ["state"],
        (([state], float(getattr(health, state))) for state in _STATES),
    )
    yield labelled(
        "critical_nodes",
        "Critical nodes by state; a role that lost its node counts as one more offline node.",
        ["state"],
        (([state], float(getattr(health, f"critical_{state}"))) for state in _STATES),
    )
    ratio = None if health.health_percentage is None else health.health_percentage / 100
    yield from gauge(
        "critical_health_ratio", "Critical nodes online / critical nodes whose state is known.", ratio
    )
    if view.inventory is not None:
        yield from _control(view, view.inventory)
    yield from route_families(view)
    counts = {(kind, severity): 0 for kind in ALERT_KINDS for severity in _SEVERITIES}
    for alert in scrape.alerts:
        if alert.state == "firing":
            counts[alert.kind, alert.severity] += 1
    yield labelled(
        "alerts_firing",
        "Alerts that fire, by kind and severity.",
        ["kind", "severity"],
        (([kind, severity], float(count)) for (kind, severity), count in counts.items()),
    )


def _control(view: View, inventory: Inventory) -> Iterator[Metric]:
    seen = sum(id_ in view.nodes for id_ in inventory.devices)
    counts = {"true": seen, "false": len(inventory.devices) - seen}
    yield labelled(
        "control_nodes",
        "Machines that the control server knows, by whether this monitor sees them.",
        ["seen"],
        (([word], float(count)) for word, count in counts.items()),
    )
    yield from gauge(
        "control_failing", "1 while the control server's API gives no answer.", float(bool(inventory.error))
    )
    yield from gauge(
        "control_answer_timestamp_seconds", "When the control server's API last answered.", inventory.as_of
    )


def _nodes(scrape: Scrape) -> Iterator[Metric]:
    view = scrape.view
    rows = list(_named(view))
    states = [(labels, node, view.shown(node).state) for labels, node in rows]
    yield labelled(
        "node_online",
        "1 online, 0 offline; absent while the state is unknown.",
        _NODE,
        ((labels, float(state == "online")) for labels, _, state in states if state != "unknown"),
    )
    yield labelled(
        "node_state",
        "1 for the state that the node is in; absent while tsmon is blind.",
        [*_NODE, "state"],
        (
            ([*labels, name], float(state == name))
            for labels, _, state in states
            if view.blind is None or state != "unknown"
            for name in _STATES
        ),
    )
    yield labelled(
        "node_critical",
        "1 for a critical node.",
        _NODE,
        ((labels, float(node.role.critical)) for labels, node in rows),
    )
    yield labelled(
        "node_uptime_ratio", "Time online / time observed.", ["hostname", "window"], _uptimes(scrape, rows)
    )
    yield labelled(
        "node_coverage_ratio",
        "Time observed / time since the node was first seen, over 24 h.",
        ["hostname"],
        (
            ([labels[0]], coverage / 100)
            for labels, node in rows
            if (coverage := scrape.figures.get(node.id, NO_FIGURES)[3]) is not None
        ),
    )
    measured = [(labels, view.measured(node)) for labels, node in rows]
    yield labelled(
        "node_latency_seconds",
        "Round trip of the last ping, of the last 5 minutes; absent while the node is not online.",
        ["hostname"],
        (
            ([labels[0]], found.latency_ms / 1000)
            for labels, found in measured
            if found.latency_ms is not None
        ),
    )
    yield labelled(
        "node_path_info",
        "How the last ping reached the node: direct, relay or peer_relay.",
        ["hostname", "path"],
        (([labels[0], found.path], 1.0) for labels, found in measured if found.path is not None),
    )
    yield labelled(
        "node_last_seen_timestamp_seconds",
        "When the node was last online.",
        ["hostname"],
        (([labels[0]], seen) for labels, node in rows if (seen := view.last_seen(node)) is not None),
    )
    yield labelled(
        "node_key_expiry_timestamp_seconds",
        "When the node key expires; absent for keys that do not.",
        ["hostname"],
        (([labels[0]], expiry) for labels, node in rows if (expiry := node.facts.key_expiry) is not None),
    )
    yield from service_families(view, {node.id: labels[0] for labels, node in rows})


def _uptimes(scrape: Scrape, rows: list[tuple[list[str], Node]]) -> Iterator[tuple[list[str], float]]:
    for labels, node in rows:
        figures = scrape.figures.get(node.id, NO_FIGURES)
        for window, uptime in zip(("24h", "7d", "30d"), figures[:3], strict=True):
            if uptime is not None:
                yield [labels[0], window], uptime / 100


def _named(view: View) -> Iterator[tuple[list[str], Node]]:
    """Each node with its labels. Machines shared in may have one's own name: no two series may be alike, and
    every monitor of the tailnet must give each the same name."""
    seen: set[str] = set()
    for node in sorted(view.nodes.values(), key=lambda node: node.id):
        name = node.hostname if node.hostname not in seen else f"{node.hostname} ({node.id})"
        seen.add(name)
        yield [name, node.role.node_type, node.facts.os], node


def _own(own: OwnFigures) -> Iterator[Metric]:
    yield InfoMetricFamily("tsmon_build", "This tsmon.", value={"version": own.version})
    yield from gauge("start_time_seconds", "When tsmon started.", own.started)
    yield counter("polls", "Reads of the source.", own.polls)
    yield counter("poll_failures", "Reads of the source that failed.", own.poll_failures)
    yield from gauge(
        "poll_duration_seconds", "How long the last poll took, to its end in the store.", own.poll_seconds
    )
    yield from gauge(
        "store_failing", "1 while the embedded store cannot be written.", float(own.store_failing)
    )
    yield from gauge("store_waiting_batches", "Batches that wait in memory for the store.", own.store_waiting)
    yield from gauge("stream_clients", "Clients of the live stream.", own.stream_clients)
    yield labelled(
        "channel_failing",
        "1 while a notification channel does not deliver.",
        ["channel"],
        (([channel.name], float(channel.failing)) for channel in own.channels),
    )
    yield labelled(
        "channel_waiting_messages",
        "Messages that wait for a channel.",
        ["channel"],
        (([channel.name], float(channel.waiting)) for channel in own.channels),
    )
    results = CounterMetricFamily(
        "tsmon_notifications", "Tries of messages, by channel and result.", labels=["channel", "result"]
    )
    for channel in own.channels:
        results.add_metric([channel.name, "delivered"], channel.delivered)
        results.add_metric([channel.name, "failed"], channel.failed)
    yield results
    if own.outbox_requests is None:
        return
    yield from gauge("influx_failing", "1 while InfluxDB does not take samples.", float(own.influx_failing))
    yield from gauge("influx_outbox_requests", "Requests that wait for InfluxDB.", own.outbox_requests)
    yield from gauge("influx_outbox_lines", "Lines that wait for InfluxDB.", own.outbox_lines)
    yield from gauge(
        "influx_outbox_oldest_timestamp_seconds",
        "When the oldest waiting request was made.",
        own.outbox_oldest,
    )
    yield counter(
        "influx_lines_dropped", "Lines dropped because the outbox was full or too old.", own.lines_dropped
    )
    yield counter("influx_lines_quarantined", "Lines that InfluxDB refused.", own.lines_quarantined)
