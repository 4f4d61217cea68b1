"""Node keys that expire: one alert per key, which fires again at each step (rule 8.11)."""

from tsmon.base.clock import rfc3339
from tsmon.monitor.alerts import Alert, AlertBook, AlertSeverity
from tsmon.monitor.rules.step import Step
from tsmon.monitor.state import Node


class Keys:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        raised = {alert.node_id for alert in self.book.of_kind("key_expiring")}
        for node in step.nodes.values():
            expiry = node.facts.key_expiry
            alert = self.book.find("key_expiring", node.id) if node.id in raised else None
            if alert is not None:
                self._key_told(alert, node, step)
            elif expiry is not None and self._tells_keys(node) and not node.facts.expired:
                due = _key_step(node, step)
                if due is not None:
                    alert = self.book.raise_(
                        "key_expiring", "warning", step.now, node=node, since=step.now.wall, key_expiry=expiry
                    )
                    self._fire_key(alert, node, due, step)
        for alert in self.book.of_kind("key_expiring"):
            if alert.node_id not in step.nodes:
                self.book.end(alert, step.now, "removed")

    def _key_told(self, alert: Alert, node: Node, step: Step) -> None:
        expiry = node.facts.key_expiry
        if node.facts.expired or (
            expiry == alert.key_expiry and expiry is not None and expiry <= step.now.wall
        ):
            self.book.end(alert, step.now, "expired", untold=True)
        elif expiry != alert.key_expiry:
            self.book.end(alert, step.now, "renewed")
        elif not self._tells_keys(node):
            self.book.end(alert, step.now, "role_changed", untold=True)
        else:
            alert = self.book.rename(alert, node)
            due = _key_step(node, step)
            if due is not None and alert.step is not None and due < alert.step:
                self._fire_key(alert, node, due, step)

    def _fire_key(self, alert: Alert, node: Node, due: float, step: Step) -> None:
        last = due == min(node.role.key_expiry_steps)
        severity: AlertSeverity = "critical" if last and node.role.alert == "critical" else "warning"
        words = f"the key of {node.hostname} expires at {rfc3339(alert.key_expiry)}"
        self.book.fire(alert, step.now, words, step=due, severity=severity)

    @staticmethod
    def _tells_keys(node: Node) -> bool:
        return bool(node.role.key_expiry_steps) and (node.role.alert != "none" or node.facts.is_self)

    @staticmethod
    def is_own_key(alert: Alert, node: Node) -> bool:
        return alert.kind == "key_expiring" and node.facts.is_self


def _key_step(node: Node, step: Step) -> float | None:
    """The smallest step (seconds before the expiry) that has been reached."""
    expiry = node.facts.key_expiry
    if expiry is None:
        return None
    left = expiry - step.now.wall
    return min((due for due in node.role.key_expiry_steps if 0 < left <= due), default=None)
