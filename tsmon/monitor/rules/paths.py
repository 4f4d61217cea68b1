"""Degraded paths: a pinged node that is slow, or reached only through a relay, for a quarter of an hour
(rule 8.13)."""

from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.rules.step import EPSILON, Limits, Step, alerts_for
from tsmon.monitor.state import Node

PATH_AFTER = 900.0


class Paths:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        for alert in self.book.of_kind("path_degraded"):
            node = step.nodes.get(alert.node_id or "")
            if node is None or node.state != "online" or not _is_watched(node, step.limits):
                # Its outage or its removal is reported instead; or nobody asks for it any more.
                self.book.end(alert, step.now, "path_unknown", untold=True)
            elif not _what_degrades(node, step.limits):
                self.book.end(alert, step.now, "recovered")
            else:
                self._path_lasts(self.book.rename(alert, node), node, step)
        if step.limits.path_latency is None and not step.limits.path_relay:
            return
        for node in step.nodes.values():
            watched = node.state == "online" and _is_watched(node, step.limits)
            wrong = watched and _what_degrades(node, step.limits)
            if wrong and self.book.find("path_degraded", node.id) is None:
                self.book.raise_("path_degraded", "warning", step.now, node=node, since=step.now.wall)

    def _path_lasts(self, alert: Alert, node: Node, step: Step) -> None:
        if alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
            if alert.waited >= PATH_AFTER - EPSILON:
                self.book.fire(alert, step.now, f"{node.hostname} is {_what_degrades(node, step.limits)}")


def _is_watched(node: Node, limits: Limits) -> bool:
    wanted = limits.path_latency is not None or limits.path_relay
    return wanted and node.role.ping and alerts_for(node)


def _what_degrades(node: Node, limits: Limits) -> str:
    """What is wrong with the path to a node, "" when nothing is."""
    reach = node.reach
    if limits.path_relay and reach.path in ("relay", "peer_relay"):
        return f"reached only through a relay ({node.facts.relay or reach.path})"
    limit = limits.path_latency
    if limit is not None and reach.latency_ms is not None and reach.latency_ms > 1000 * limit:
        return f"slow to answer: {reach.latency_ms:.0f} ms (limit {1000 * limit:.0f} ms)"
    return ""
