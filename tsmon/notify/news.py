"""What a step of the monitor says, as the channels need it, and what may be said of it now. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tsmon.base.clock import Moment
from tsmon.monitor.alerts import Alert, node_of
from tsmon.monitor.incidents import OUTAGES, topic_of
from tsmon.monitor.rules.step import until_due
from tsmon.monitor.state import Node, View

_EPSILON = 1e-6

Word = Literal["lasts", "over", "unsure"]
Topic = tuple[str, str]


class Sayable:
    """What may be said of alerts now."""

    def __init__(self, alerts: Mapping[int, Alert], view: View, *, sighted: bool = True) -> None:
        """Not `sighted`: how nodes are now is not known; what they were lies in `view`."""
        self._sighted = sighted
        self._alerts = alerts
        self._view = view
        self._open = {topic_of(alert) for alert in alerts.values() if alert.state != "resolved"}

    def is_open(self, topic: Topic) -> bool:
        """An alert of this topic lasts, or may fire."""
        return topic in self._open

    def word(self, alert_id: int) -> Word:
        """What may be said of an alert. `unsure`: it ended, but since then its node is down again, or nobody
        knows: nothing is said until that is clear (rule 9.16)."""
        alert = self._alerts.get(alert_id)
        if alert is None:
            return "over"
        if alert.state != "resolved":
            return "lasts"
        topic = topic_of(alert)
        if topic in self._open or not (self._sighted or alert.is_own):
            return "unsure"
        node = self._view.nodes.get(alert.node_id or "") if topic[0] == "state" else None
        sure = node is None or (node.state == "online" and node.missing_since is None)
        return "over" if sure else "unsure"


@dataclass(frozen=True, kw_only=True)
class News:
    """One step of the monitor, as the desks need it."""

    now: Moment
    view: View
    alerts: Mapping[int, Alert]
    """All that is known: the open ones, and those that ended but are still to be reported."""
    fired: Collection[int]
    """To be sent now, for the first time or again."""
    resolved: Collection[Alert]
    sighted: bool
    """The last answer of the source is trusted."""
    group_wait: float
    """Seconds that the first alert waits for its siblings."""
    quiet: Callable[[Alert, Node | None, float], float | None]

    @cached_property
    def sayable(self) -> Sayable:
        return Sayable(self.alerts, self.view, sighted=self.sighted)

    def node(self, alert: Alert) -> Node | None:
        """The node that `alert` is about; None when it is about tsmon itself or the node is long gone."""
        return node_of(alert, self.view)

    def is_quiet(self, alert: Alert) -> bool:
        return self.quiet(alert, self.node(alert), self.now.wall) is not None

    def siblings_before(self, mono: float) -> bool:
        """An outage that is not due yet may fall due until `mono`."""
        for alert in self.alerts.values():
            if alert.state == "pending" and alert.kind in OUTAGES:
                node = self.node(alert)
                left = until_due(alert, node) if node is not None else 0.0
                if self.now.mono + max(0.0, left) <= mono + _EPSILON:
                    return True
        return False

    def topics(self, ids: Collection[int]) -> set[Topic]:
        """What these alerts are about, as far as they are known."""
        return {topic_of(self.alerts[id_]) for id_ in ids if id_ in self.alerts}
