"""row_unreadable: a node whose row in the status cannot be decoded may be down unseen (rule 8.15)."""

from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.rules.step import EPSILON, Step, alerts_for, until_due
from tsmon.monitor.state import Node


class UnreadableRows:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        """Raise, fire and end."""
        for alert in self.book.of_kind("row_unreadable"):
            self._lasts(alert, step.nodes.get(alert.node_id or ""), step)
        for node in step.nodes.values():
            if node.unreadable and alerts_for(node) and self.book.find("row_unreadable", node.id) is None:
                self.book.raise_(
                    "row_unreadable",
                    "warning",
                    step.now,
                    node=node,
                    since=step.now.wall,
                    last_seen=node.last_online,
                    delay=step.limits.blind_after,
                )

    def _lasts(self, alert: Alert, node: Node | None, step: Step) -> None:
        if node is None:
            self.book.end(alert, step.now, "removed")
        elif not node.unreadable:
            self.book.end(alert, step.now, "recovered")
        elif not alerts_for(node):
            self.book.end(alert, step.now, "role_changed", untold=True)
        elif alert.state == "pending" and node.missing_since is None:
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
            if until_due(alert, node) <= EPSILON:
                words = f"the row of {node.hostname} in the status cannot be read: its state is not known"
                self.book.fire(alert, step.now, words)
