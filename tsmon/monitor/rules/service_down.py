"""A checked port that does not answer while its node is online (rules 13.2 to 13.4)."""

from tsmon.monitor.alerts import Alert, AlertBook, service_subject
from tsmon.monitor.rules.step import EPSILON, Step, observed_since, severity_of, until_due
from tsmon.monitor.services.service import Service, ServiceKey
from tsmon.monitor.state import Node


class ServicesDown:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        for service in step.services.values():
            if service.down_since is not None:
                self._down(service, step)
        for alert in self.book.of_kind("service_down"):
            self._end(alert, step)

    def _down(self, service: Service, step: Step) -> None:
        node = step.nodes.get(service.owner)
        alert = self.book.find("service_down", service_subject(service.owner, str(service.check)))
        if not service.down:
            # Held: its node is offline or unknown. What was not notified yet begins again when it is asked.
            if alert is not None and alert.state == "pending":
                self.book.end(alert, step.now, "held")
            return
        if node is not None and node.role.alert == "none":
            return
        if alert is None:
            alert = self.book.raise_(
                "service_down",
                severity_of(node) if node is not None else "warning",
                step.now,
                node=node,
                since=service.down_since,
                waited=observed_since(service.down_since, step),
                **_identity(service, node),
            )
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
        if node is not None:
            alert = self.book.rename(alert, node)
        if alert.state == "firing":
            self.book.update(alert, message=service.words)
        elif _due_in(alert, node, step) <= EPSILON:
            self.book.fire(alert, step.now, service.words)

    def _end(self, alert: Alert, step: Step) -> None:
        owner = alert.node_id or alert.hostname or ""
        service = step.services.get(ServiceKey(owner, alert.subject))
        node = step.nodes.get(owner)
        if service is None:
            gone = node is None and alert.node_id is not None
            self.book.end(alert, step.now, "removed" if gone else "not_configured", untold=not gone)
        elif node is not None and node.role.alert == "none":
            self.book.end(alert, step.now, "role_changed", untold=True)
        elif service.down_since is None:
            self.book.end(alert, step.now, "recovered", at=service.since)


def _identity(service: Service, node: Node | None) -> dict[str, str]:
    named = {"subject": str(service.check)}
    return named if node is not None else named | {"hostname": service.owner}


def _due_in(alert: Alert, node: Node | None, step: Step) -> float:
    if node is not None:
        return until_due(alert, node)
    return step.limits.offline_after - alert.waited
