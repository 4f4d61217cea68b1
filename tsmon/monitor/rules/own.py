"""The monitor itself: blind, isolated, unable to store (rules 8.6, 8.7 and 8.12)."""

from tsmon.monitor.alerts import Alert, AlertBook, AlertSeverity
from tsmon.monitor.rules.step import EPSILON, Step
from tsmon.monitor.sight import describe
from tsmon.monitor.state import Blind

ISOLATED_AFTER = 300.0


class Own:
    """Over an `AlertBook`."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book
        self._blind_counted = 0.0

    def look_at_sight(self, step: Step) -> None:
        alert = self.book.find("monitor_blind")
        if step.blind is not None:
            self._blind(alert, step.blind, step)
            return
        self._blind_counted = 0.0
        if alert is None or not step.trusted:
            return
        steady = alert.steady + step.elapsed
        if steady >= step.limits.blind_after / 2 - EPSILON:
            # Notified now, but what people read is when sight returned, and how long it was gone.
            self.book.end(alert, step.now, "recovered", at=step.now.wall - steady)
        else:
            self.book.update(alert, steady=steady)

    def _blind(self, alert: Alert | None, blind: Blind, step: Step) -> None:
        isolated = self.book.find("monitor_isolated")
        if isolated is not None:
            self.book.end(isolated, step.now, "blind", untold=True)
        counted, self._blind_counted = self._blind_counted, step.blind_for
        if alert is None:
            alert = self.book.raise_("monitor_blind", "warning", step.now, since=blind.since)
        identity: dict[str, str | None] = {}
        severity = alert.severity
        if step.self_stopped and step.self_node is not None:
            node = step.self_node
            identity = {"node_id": node.id, "hostname": node.hostname, "node_type": node.role.node_type}
            severity = "critical" if node.role.alert == "critical" else severity
        waited = alert.waited + step.blind_for - counted
        alert = self.book.update(alert, waited=waited, steady=0.0, severity=severity, **identity)
        if alert.state == "pending" and waited >= step.limits.blind_after - EPSILON:
            self.book.fire(alert, step.now, describe(blind))

    def look_at_path(self, step: Step) -> None:
        alert = self.book.find("monitor_isolated")
        since = step.isolated_since
        if since is None:
            # After a restart isolation is not known: only an answer ends the alert.
            if alert is not None and step.pings_answered:
                self.book.end(alert, step.now, "recovered")
            return
        if alert is None:
            alert = self.book.raise_("monitor_isolated", "warning", step.now, since=since.wall)
        waited = max(alert.waited, step.now.mono - since.mono)
        alert = self.book.update(alert, waited=waited)
        if alert.state == "pending" and waited >= ISOLATED_AFTER - EPSILON:
            words = "no node answers the monitor's pings: its own path to the tailnet is suspect"
            self.book.fire(alert, step.now, words)

    def look_at_storage(self, step: Step) -> None:
        for subject, error, severity in (
            ("embedded", step.storage_error, "critical"),
            ("influx", step.influx_error, "warning"),
        ):
            alert = self.book.find("storage_failing", subject)
            if error and alert is None:
                level: AlertSeverity = "critical" if severity == "critical" else "warning"
                alert = self.book.raise_(
                    "storage_failing", level, step.now, since=step.now.wall, subject=subject
                )
                self.book.fire(alert, step.now, error)
            elif alert is not None and error is None:
                self.book.end(alert, step.now, "not_configured", untold=True)
            elif alert is not None and not error:
                self.book.end(alert, step.now, "recovered")
