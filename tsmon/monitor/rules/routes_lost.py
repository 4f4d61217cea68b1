"""Prefixes without a router, tailnets without an exit node, machines that the tailnet lock keeps out (rules
13.6 to 13.8)."""

from typing import NamedTuple

from tsmon.monitor.alerts import AlertBook
from tsmon.monitor.rules.step import EPSILON, Step, observed_since, severity_of, until_due


class Last(NamedTuple):
    """Who routed something last, and since when nobody does (Unix seconds)."""

    id: str
    name: str
    since: float


class RoutesLost:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        table = step.routes
        lost = {route.prefix: route for route in table.subnets.values() if route.lost}
        for alert in self.book.of_kind("route_lost"):
            if alert.subject not in lost:
                self.book.end(alert, step.now, "recovered")
        for route in lost.values():
            words = f"nobody routes {route.prefix} any more: {route.last_name} was the last"
            self._lost(
                "route_lost", route.prefix, Last(route.last, route.last_name, route.since), words, step
            )
        if table.exit_lost and table.exit_since is not None:
            last = Last(table.exit_last, table.exit_last_name, table.exit_since)
            words = f"no exit node is online any more: {last.name} was the last"
            self._lost("exit_node_lost", "exit", last, words, step)
        else:
            for alert in self.book.of_kind("exit_node_lost"):
                self.book.end(alert, step.now, "recovered")
        self._locked_out(step)

    def _lost(self, kind: str, subject: str, last: Last, words: str, step: Step) -> None:
        node = step.nodes.get(last.id) or step.removed.get(last.id)
        severity = severity_of(node) if node is not None else "warning"
        alert = self.book.find(kind, subject)
        if alert is None:
            alert = self.book.raise_(
                kind,
                severity,
                step.now,
                subject=subject,
                node_id=last.id,
                hostname=last.name,
                node_type=node.role.node_type if node is not None else None,
                since=last.since,
                waited=observed_since(last.since, step),
            )
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
        due = until_due(alert, node) if node is not None else step.limits.offline_after - alert.waited
        if alert.state == "pending" and due <= EPSILON:
            self.book.fire(alert, step.now, words)

    def _locked_out(self, step: Step) -> None:
        waiting = {machine.id: machine for machine in step.locked_out}
        for alert in self.book.of_kind("locked_out"):
            if alert.node_id not in waiting:
                self.book.end(alert, step.now, "signed")
        for machine in waiting.values():
            if self.book.find("locked_out", machine.id) is None:
                alert = self.book.raise_(
                    "locked_out",
                    "warning",
                    step.now,
                    node_id=machine.id,
                    hostname=machine.hostname,
                    since=step.now.wall,
                )
                words = f"{machine.hostname} is locked out: its key waits for a signature of the tailnet lock"
                self.book.fire(alert, step.now, words)
