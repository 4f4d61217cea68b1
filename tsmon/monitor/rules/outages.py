"""Outages: node_offline and node_detached (rules 8.3 and 8.4)."""

from tsmon.base.clock import rfc3339
from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.rules.step import EPSILON, Step, alerts_for, observed_since, severity_of, until_due
from tsmon.monitor.state import Node

ASK_PATIENCE = 60.0
"""Seconds after which a due outage is reported although its last ping had no outcome (rule 3.9)."""


class Outages:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> list[str]:
        """Raise, fire and end. Returns the nodes that are to be pinged before their outage is notified."""
        fell = {event.node_id for event in step.events if event.event_type == "node_offline"}
        asks: list[str] = []
        for node in step.nodes.values():
            if node.state != "offline" or not alerts_for(node) or node.missing_since is not None:
                continue
            if self.book.find("node_flapping", node.id) is None:
                self._outage(node, step, asks, fresh=node.id in fell)
        for alert in self.book.of_kind("node_offline", "node_detached"):
            self._end_of_outage(alert, step)
        return asks

    def _outage(self, node: Node, step: Step, asks: list[str], *, fresh: bool) -> None:
        alert = self.book.find("node_offline", node.id)
        if alert is None:
            # Only an outage that tsmon saw begin has been waited for: of one that is found (a first start, a
            # changed role) nobody knows how long it was observed, and its delay begins now.
            waited = observed_since(node.since, step) if fresh else 0.0
            alert = self.book.raise_(
                "node_offline",
                severity_of(node),
                step.now,
                node=node,
                since=node.since,
                last_seen=node.last_online,
                waited=waited,
            )
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed, since=node.since)
        alert = self.book.rename(alert, node)
        if alert.state == "firing":
            self._told_outage(alert, node, step)
        elif until_due(alert, node) <= EPSILON:
            # Control may be late or wrong; a ping costs a second and may spare somebody a call at night.
            ask = node.role.ping and step.can_ping and node.reason == "control" and not node.reach.asked
            if ask and until_due(alert, node) > -ASK_PATIENCE:
                asks.append(node.id)
            else:
                self.fire(alert, node, step)

    def fire(self, alert: Alert, node: Node, step: Step) -> None:
        """The outage is notified: for the first time, or as the other kind."""
        if node.detached:
            words = _detached_words(node)
            if any(other.detached and other.id != node.id for other in step.nodes.values()):
                words += "; others too: the monitor's own map may be stale"
            self.book.fire(alert, step.now, words, kind="node_detached", severity="warning")
        else:
            self.book.fire(
                alert, step.now, _offline_words(node), kind="node_offline", severity=severity_of(node)
            )

    def _told_outage(self, alert: Alert, node: Node, step: Step) -> None:
        """It goes on: its words name the present reason."""
        if alert.kind == "node_detached" and not node.detached:
            self.fire(alert, node, step)
        elif alert.kind == "node_offline" and node.detached:
            words = _detached_words(node)
            self.book.update(alert, kind="node_detached", severity="warning", message=words)
        elif alert.kind == "node_offline":
            self.book.update(alert, severity=severity_of(node), message=_offline_words(node))

    def _end_of_outage(self, alert: Alert, step: Step) -> None:
        node = step.nodes.get(alert.node_id or "")
        if node is None:
            self.book.end(alert, step.now, "removed")
        elif node.state == "online" and node.missing_since is None:
            self.book.end(alert, step.now, "recovered")
        elif not alerts_for(node):
            self.book.end(alert, step.now, "role_changed", untold=True)


def _detached_words(node: Node) -> str:
    return f"{node.hostname} is off the control plane but still answers pings"


def _offline_words(node: Node) -> str:
    words = f"{node.hostname} is offline since {rfc3339(node.since) or 'before tsmon knew it'}"
    if node.reason == "unreachable":
        words += ": three pings in a row got no answer though control calls it online"
        words += "" if node.reach.cross_checked else " (no other node was there to cross-check)"
    elif node.reason == "key_expired":
        words += ": its key expired"
    return words
