"""How the JSON answers are made of a view, of alerts, events and history. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.history.uptime import Bars, Outage, Uptime
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import LatencyRow
from tsmon.monitor.incidents import Incident
from tsmon.monitor.services.service import ServiceKey
from tsmon.monitor.state import Event, Node, Predecessor, View
from tsmon.monitor.wording import REASON_WORDS, how_known
from tsmon.server.answers import (
    AlertAnswer,
    BlindAnswer,
    CriticalEntry,
    CriticalSummary,
    EventAnswer,
    HistoryNode,
    LatencyAnswer,
    NodeAnswer,
    NodeDetail,
    OutageAnswer,
    PredecessorAnswer,
    ServiceCounts,
    SeverityCounts,
    SummaryAnswer,
    UptimeAnswer,
)
from tsmon.server.control_answers import control_facts
from tsmon.server.incidents import SightReturned, headline

DAY = 86400.0
WINDOWS = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}

Figures = Mapping[str, tuple[float | None, float | None, float | None, float | None]]
"""By node ID: uptime of 24 h, 7 d, 30 d, and coverage of 24 h."""
NO_FIGURES = (None, None, None, None)


def summary_answer(
    view: View,
    alerts: Sequence[Alert],
    incidents: Sequence[Incident],
    sight: SightReturned | None,
    *,
    source: str,
    version: str,
    demo: bool,
) -> SummaryAnswer:
    health = view.health()
    line, level = headline(view, health, incidents, sight)
    blind = view.blind
    return SummaryAnswer(
        total_nodes=health.total,
        online_nodes=health.online,
        offline_nodes=health.offline,
        unknown_nodes=health.unknown,
        excluded_nodes=view.excluded,
        critical_nodes=CriticalSummary(
            health.critical_total,
            health.critical_online,
            health.critical_offline,
            health.critical_unknown,
            health.health_percentage,
        ),
        status=health.status,
        blind=None if blind is None else BlindAnswer(blind.reason, rfc3339(blind.since), blind.message),
        active_alerts=sum(alert.state == "firing" for alert in alerts),
        as_of=rfc3339(view.as_of),
        source=source,
        tailnet=view.tailnet.name if view.tailnet is not None else None,
        version=version,
        demo=demo,
        headline=line,
        level=level,
        sees_again_since=None if sight is None else rfc3339(sight.since),
    )


class NodeAlerts:
    """Which firing alert stands for a node: the worst, then the oldest."""

    def __init__(self, alerts: Iterable[Alert]) -> None:
        self._of: dict[str, list[Alert]] = {}
        for alert in alerts:
            if alert.state == "firing" and alert.node_id is not None:
                self._of.setdefault(alert.node_id, []).append(alert)

    def worst(self, node_id: str) -> Alert | None:
        return min(self._of.get(node_id, ()), key=alert_order, default=None)

    def is_flapping(self, node_id: str) -> bool:
        return any(alert.kind == "node_flapping" for alert in self._of.get(node_id, ()))

    def silenced_until(self, node_id: str) -> float | None:
        times = (alert.silenced_until for alert in self._of.get(node_id, ()))
        return max((time for time in times if time is not None), default=None)


def alert_order(alert: Alert) -> tuple[bool, float, int]:
    """Worst and oldest first."""
    return alert.severity != "critical", alert.fired_at or alert.pending_at, alert.id


def node_answer(node: Node, view: View, alerts: NodeAlerts, figures: Figures) -> NodeAnswer:
    shown = view.shown(node)
    facts, reach, role = node.facts, node.reach, node.role
    up_24h, up_7d, up_30d, coverage = figures.get(node.id, NO_FIGURES)
    measured = view.measured(node)
    before = [_predecessor(one) for one in node.predecessors]
    worst = alerts.worst(node.id)
    device = view.inventory.devices.get(node.id) if view.inventory is not None else None
    return NodeAnswer(
        hostname=facts.hostname,
        ip=facts.ip,
        online=None if shown.state == "unknown" else shown.state == "online",
        node_type=role.node_type,
        os=facts.os,
        last_seen=rfc3339(view.last_seen(node)),
        uptime_24h=up_24h,
        id=facts.id,
        dns_name=facts.dns_name,
        ips=facts.ips,
        state=shown.state,
        reason=shown.reason,
        reachable=None if view.blind is not None else reach.reachable,
        since=rfc3339(shown.since),
        last_state=shown.last_state,
        last_state_at=rfc3339(shown.last_state_at),
        critical=role.critical,
        role=role.name,
        shared=facts.shared,
        tags=facts.tags,
        user=facts.user,
        uptime_7d=up_7d,
        uptime_30d=up_30d,
        coverage_24h=coverage,
        watched_since=rfc3339(max(node.watched_since, view.now - WINDOWS["30d"])),
        latency_ms=measured.latency_ms,
        path=measured.path,
        relay=facts.relay or None,
        key_expiry=rfc3339(facts.key_expiry),
        exit_node_option=facts.exit_node_option,
        routes=facts.routes,
        alert=str(worst.id) if worst is not None else None,
        flapping=alerts.is_flapping(node.id),
        silenced_until=rfc3339(alerts.silenced_until(node.id)),
        services=_service_counts(node, view) if node.role.checks else None,
        successor_of=next(iter(before), None),
        predecessors=tuple(before),
        control=control_facts(device) if device is not None else None,
    )


def _service_counts(node: Node, view: View) -> ServiceCounts:
    found = [view.services.get(ServiceKey(node.id, str(check))) for check in node.role.checks]
    known = [one for one in found if one is not None and view.blind is None and one.state != "unknown"]
    down = sum(one.down for one in known)
    return ServiceCounts(len(known) - down, down, len(found) - len(known))


def _predecessor(one: Predecessor) -> PredecessorAnswer:
    return PredecessorAnswer(
        id=one.id, hostname=one.hostname, first_seen=rfc3339(one.first_seen), until=rfc3339(one.until)
    )


def node_detail(
    node: Node, view: View, alerts: NodeAlerts, figures: Figures, version: str | None
) -> NodeDetail:
    facts = node.facts
    worst = alerts.worst(node.id)
    answer = node_answer(node, view, alerts, figures)
    if node.removed_at is not None:
        answer = _gone(answer, node, node.removed_at)
    return NodeDetail(
        **msgspec.structs.asdict(answer),
        reason_words=how_known(node) if answer.reason is not None else None,
        successor=node.successor or None,
        os_hostname=facts.os_hostname,
        first_seen=rfc3339(node.first_seen),
        created=rfc3339(facts.created),
        removed_at=rfc3339(node.removed_at),
        address=facts.cur_addr or None,
        rx_bytes=facts.rx_bytes,
        tx_bytes=facts.tx_bytes,
        last_handshake=rfc3339(facts.last_handshake),
        active=facts.active,
        exit_node=facts.exit_node,
        version=version,
        current_alert=alert_answer(worst, view.now) if worst is not None else None,
    )


def _gone(answer: NodeAnswer, node: Node, removed_at: float) -> NodeAnswer:
    """Of a removed node nothing is known now; what was known last stays."""
    at = rfc3339(removed_at)
    known = (node.last_state, rfc3339(node.last_state_at)) if node.state == "unknown" else (node.state, at)
    return msgspec.structs.replace(
        answer,
        state="unknown",
        online=None,
        reason=None,
        reachable=None,
        since=at,
        last_state=known[0],
        last_state_at=known[1],
        last_seen=known[1] if known[0] == "online" else rfc3339(node.last_online),
        latency_ms=None,
        path=None,
    )


def critical_answer(
    view: View, keys: Mapping[str, str], alerts: NodeAlerts, figures: Figures
) -> dict[str, CriticalEntry]:
    """One entry per critical role key, always present."""
    entries: dict[str, CriticalEntry] = {}
    for key in keys:
        nodes = sorted(
            (node for node in view.nodes.values() if node.role.key == key), key=lambda node: node.hostname
        )
        states = [view.shown(node).state for node in nodes]
        entries[key] = CriticalEntry(
            status=_entry_status(states, view, detached=any(node.detached for node in nodes)),
            online=states.count("online"),
            total=len(nodes),
            was_filled=bool(nodes) or key in view.missing_roles,
            nodes=[node_answer(node, view, alerts, figures) for node in nodes],
        )
    return entries


def _entry_status(
    states: Sequence[str], view: View, *, detached: bool
) -> Literal["online", "offline", "degraded", "unknown", "missing"]:
    if not states:
        # Of a tailnet that was never seen nothing can be missed.
        return "missing" if view.nodes else "unknown"
    kinds = set(states)
    if kinds == {"online"}:
        return "online"
    if kinds == {"unknown"}:
        return "unknown"
    if kinds == {"offline"} and not detached:
        return "offline"
    return "degraded"


def alert_answer(alert: Alert, now: float) -> AlertAnswer:
    return AlertAnswer(
        id=str(alert.id),
        kind=alert.kind,
        severity=alert.severity,
        state=alert.state,
        node_id=alert.node_id,
        hostname=alert.hostname,
        node_type=alert.node_type,
        since=rfc3339(alert.since),
        fired_at=rfc3339(alert.fired_at),
        resolved_at=rfc3339(alert.resolved_at),
        duration_s=round(alert.duration(now)),
        last_seen=rfc3339(alert.last_seen),
        message=alert.message,
        cause=alert.cause,
        acknowledged_by=alert.acknowledged_by,
        silenced_until=rfc3339(alert.silenced_until),
        notified=alert.notified,
    )


def event_answer(event: Event) -> EventAnswer:
    return EventAnswer(
        id=str(event.id),
        timestamp=rfc3339(event.timestamp),
        recorded_at=rfc3339(event.recorded_at),
        event_type=event.event_type,
        severity=event.severity,
        node_id=event.node_id,
        hostname=event.hostname,
        node_type=event.node_type,
        message=event.message,
        details=event.details,
    )


def severity_counts(counts: Mapping[str, int]) -> SeverityCounts:
    ok, warning, critical = (counts.get(severity, 0) for severity in ("ok", "warning", "critical"))
    return SeverityCounts(sum(counts.values()), ok, warning, critical)


def uptime_answer(
    hostname: str,
    hours: int,
    uptime: Uptime,
    outages: Sequence[Outage],
    *,
    now: float,
    kind: str,
    limit: int,
    reasons: Mapping[int, str],
) -> UptimeAnswer:
    """`reasons` are by the second in which an outage began."""
    start = now - hours * 3600
    lengths = [min(o.end if o.end is not None else now, now) - max(o.start, start) for o in outages]
    return UptimeAnswer(
        hostname=hostname,
        hours=hours,
        uptime_percentage=uptime.uptime_percentage,
        coverage=uptime.coverage,
        outages=len(outages),
        longest_outage_s=round(max(lengths, default=0)),
        online_s=round(uptime.online_s),
        offline_s=round(uptime.offline_s),
        unknown_s=round(uptime.unknown_s),
        history=kind,
        outage_list=[
            _outage_answer(outage, now, reasons.get(round(outage.start)))
            for outage in reversed(outages[-limit:])
        ],
    )


def _outage_answer(outage: Outage, now: float, reason: str | None) -> OutageAnswer:
    length = round((outage.end if outage.end is not None else now) - outage.start)
    words = REASON_WORDS.get(reason or "")
    return OutageAnswer(rfc3339(outage.start), rfc3339(outage.end), length, reason, words)


def history_node(node: Node, bars: Bars) -> HistoryNode:
    return HistoryNode(node.id, node.hostname, bars.states, bars.uptime, bars.coverage)


def latency_answer(hostname: str, rows: Sequence[LatencyRow]) -> LatencyAnswer:
    """One point per collect interval; `avg` and `p95` are of the intervals' means, loss is 0 to 100."""
    means = sorted(row.mean_ms for row in rows if row.mean_ms is not None)
    return LatencyAnswer(
        hostname=hostname,
        points=[(rfc3339(row.time), _ms(row.mean_ms), row.path) for row in rows],
        min=_ms(min((row.min_ms for row in rows if row.min_ms is not None), default=None)),
        avg=_ms(sum(means) / len(means)) if means else None,
        p95=_ms(means[min(len(means) - 1, int(len(means) * 0.95))]) if means else None,
        max=_ms(max((row.max_ms for row in rows if row.max_ms is not None), default=None)),
        loss_percentage=round(100 * sum(row.loss for row in rows) / len(rows), 2) if rows else None,
    )


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
