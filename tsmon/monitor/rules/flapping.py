"""Flapping: a node that comes and goes is one alert until it has settled (rule 8.8)."""

from collections import deque
from collections.abc import Iterable

from tsmon.base.clock import Moment
from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.rules.outages import Outages
from tsmon.monitor.rules.step import EPSILON, Step, alerts_for, severity_of
from tsmon.monitor.state import Event, Node


class Flapping:
    """Over an `AlertBook`; what settles offline goes on as an outage."""

    def __init__(self, book: AlertBook, outages: Outages, flips: Iterable[Event], now: Moment) -> None:
        """`flips` are the stored node_online and node_offline events of the last flapping window."""
        self.book = book
        self._outages = outages
        self._flips: dict[str, deque[float]] = {}  # monotonic times of changes since the last settling
        for event in flips:
            self._note_flip(event, now.mono - (now.wall - event.recorded_at))

    def _note_flip(self, event: Event, mono: float) -> None:
        if event.details.get("first"):
            return  # seen for the first time is no change
        if event.node_id is not None and event.event_type in ("node_online", "node_offline"):
            self._flips.setdefault(event.node_id, deque()).append(mono)

    def _forget_gone(self, step: Step) -> None:
        """What a node that left did is of no use to anybody: ephemeral nodes come and go by the thousand."""
        for event in step.events:
            if event.event_type == "node_removed":
                self._flips.pop(event.node_id or "", None)

    def look(self, step: Step) -> None:
        self._forget_gone(step)
        flipped = {e.node_id for e in step.events if e.event_type in ("node_online", "node_offline")}
        for event in step.events:
            self._note_flip(event, step.now.mono)
        for id_ in flipped:
            node = step.nodes.get(id_ or "")
            if node is not None and alerts_for(node) and self.book.find("node_flapping", node.id) is None:
                self._begins_to_flap(node, step)
        for alert in self.book.of_kind("node_flapping"):
            self._flaps(alert, step, flipped=alert.node_id in flipped)

    def _begins_to_flap(self, node: Node, step: Step) -> None:
        flips = self._flips.get(node.id, deque())
        while flips and flips[0] < step.now.mono - step.limits.flapping_window:
            flips.popleft()
        if len(flips) < step.limits.flapping_changes:
            return
        outage = self.book.find("node_offline", node.id)
        if outage is not None:
            self.book.end(outage, step.now, "flapping", untold=True)
        since = step.now.wall - (step.now.mono - flips[0])
        alert = self.book.raise_("node_flapping", severity_of(node), step.now, node=node, since=since)
        minutes = round(step.limits.flapping_window / 60)
        words = f"{node.hostname} is flapping: {len(flips)} changes within {minutes} min"
        self.book.fire(alert, step.now, words)

    def _flaps(self, alert: Alert, step: Step, *, flipped: bool) -> None:
        node = step.nodes.get(alert.node_id or "")
        if node is None:
            self._flips.pop(alert.node_id or "", None)
            self.book.end(alert, step.now, "removed")
            return
        if not alerts_for(node):
            self.book.end(alert, step.now, "role_changed", untold=True)
            return
        alert = self.book.rename(alert, node)
        steady = 0.0 if flipped else alert.steady + step.elapsed
        alert = self.book.update(alert, steady=steady)
        if steady < step.limits.flapping_settle - EPSILON or node.missing_since is not None:
            return
        self._flips.pop(node.id, None)
        self.book.end(alert, step.now, "settled")
        if node.state == "offline":
            outage = self.book.raise_(
                "node_offline",
                severity_of(node),
                step.now,
                node=node,
                since=node.since,
                last_seen=node.last_online,
                follows=alert.id,
            )
            self._outages.fire(outage, node, step)
