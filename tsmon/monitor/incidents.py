"""Firing alerts joined to incidents, by the rule by which messages join them. Pure, wall time passed in."""

from collections.abc import Iterable
from typing import NamedTuple

from tsmon.monitor.alerts import Alert, AlertSeverity, node_of
from tsmon.monitor.cause import common_cause
from tsmon.monitor.state import View

OUTAGES = ("node_offline", "node_detached", "node_missing", "node_flapping")
WINDOW = 300.0
"""Seconds after the message in which siblings make an update; recoveries wait as long for each other."""


def stream_of(alert: Alert) -> str:
    """Alerts of one stream may share a message; those of different ones are different stories."""
    if alert.kind in OUTAGES:
        return "outage"
    return "monitor" if alert.is_own else alert.kind


def topic_of(alert: Alert) -> tuple[str, str]:
    """What an alert is about: of all alerts of one topic only the last word counts (rule 9.16). That a node
    is down, detached or flapping is one topic.
    """
    about = "state" if alert.kind in ("node_offline", "node_detached", "node_flapping") else alert.kind
    return about, alert.subject if alert.is_own else alert.subject or alert.node_id or ""


class Incident(NamedTuple):
    """Firing alerts that fell together."""

    alerts: tuple[Alert, ...]
    """Worst first, then the critical nodes', then by hostname; never empty."""
    cause: str
    """What their nodes have in common: `tag:rack-a`; "" when nothing."""
    critical: bool
    """A critical node is among them."""
    noun: str
    """What the nodes are, as one of them is called: `server`, or `node` when they differ."""

    @property
    def id(self) -> int:
        """That of its oldest alert: it stays while siblings come and go."""
        return min(alert.id for alert in self.alerts)

    @property
    def severity(self) -> AlertSeverity:
        return self.alerts[0].severity

    @property
    def kind(self) -> str:
        """That of all its alerts; of several kinds of outage the most frequent."""
        kinds = [alert.kind for alert in self.alerts]
        return max(kinds, key=kinds.count)

    @property
    def since(self) -> float | None:
        """When the first of its conditions began; None when that was before tsmon knew the node."""
        begins = [alert.since for alert in self.alerts if alert.since is not None]
        return min(begins, default=None)

    @property
    def is_calm(self) -> bool:
        """Somebody takes care of all of it, or wants to hear nothing of it."""
        return all(alert.acknowledged_by or alert.silenced_until is not None for alert in self.alerts)


def join_alerts(alerts: Iterable[Alert], view: View, group_wait: float) -> list[Incident]:
    """The incidents of the alerts that fire: worst first, then those of critical nodes, then the oldest.

    A group takes the alerts of its stream that fire until `WINDOW` after its message, which goes out
    `group_wait` seconds after its first one.
    """
    firing = sorted(
        (alert for alert in alerts if alert.state == "firing"),
        key=lambda alert: (alert.fired_at or alert.pending_at, alert.id),
    )
    groups: list[list[Alert]] = []
    latest: dict[str, list[Alert]] = {}
    for alert in firing:
        stream, fired = stream_of(alert), alert.fired_at or alert.pending_at
        group = latest.get(stream)
        if group is None or fired >= (group[0].fired_at or group[0].pending_at) + group_wait + WINDOW:
            group = latest[stream] = []
            groups.append(group)
        group.append(alert)
    found = [_incident(group, view) for group in groups]
    return sorted(found, key=_order)


def _order(incident: Incident) -> tuple[bool, bool, bool, int]:
    return incident.is_calm, incident.severity != "critical", not incident.critical, incident.id


def _incident(group: list[Alert], view: View) -> Incident:
    nodes = {alert.id: node for alert in group if (node := node_of(alert, view)) is not None}

    def order(alert: Alert) -> tuple[bool, bool, str]:
        node = nodes.get(alert.id)
        return alert.severity != "critical", node is None or not node.role.critical, alert.hostname or ""

    cause = ""
    if len(group) > 1:
        down = {node.id for node in nodes.values()}
        cause = common_cause(nodes.values(), (node for id_, node in view.nodes.items() if id_ not in down))
    roles = {node.role.name for node in nodes.values()}
    return Incident(
        tuple(sorted(group, key=order)),
        cause,
        any(node.role.critical for node in nodes.values()),
        roles.pop() if len(roles) == 1 and roles <= {"server", "device"} else "node",
    )
