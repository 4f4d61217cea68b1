"""The alert rules: what one step of the monitor raises, fires and ends. Pure, time passed in.

Node alerts are raised and ended on trusted documents only (rule 1.5); delays count observed time, so that a
restart or a blind stretch pauses them (rule 8.2).
"""

from collections.abc import Iterable
from typing import Protocol

from tsmon.base.clock import Moment
from tsmon.monitor.alerts import Alert, AlertBook, AlertChanges, Roster, node_of
from tsmon.monitor.rules.control import Control
from tsmon.monitor.rules.flapping import Flapping
from tsmon.monitor.rules.keys import Keys
from tsmon.monitor.rules.missing import MissingRoles
from tsmon.monitor.rules.outages import Outages
from tsmon.monitor.rules.own import Own
from tsmon.monitor.rules.paths import Paths
from tsmon.monitor.rules.routes_lost import RoutesLost
from tsmon.monitor.rules.service_down import ServicesDown
from tsmon.monitor.rules.step import EPSILON, Limits, Step, until_due
from tsmon.monitor.rules.unreadable import UnreadableRows
from tsmon.monitor.state import Event, Node

__all__ = ["Limits", "Quieting", "Rules", "Step"]


class Quieting(Protocol):
    """What holds messages back: silences, maintenance windows."""

    def until(self, alert: Alert, node: Node | None, now: float) -> float | None:
        """Unix seconds until which the messages of `alert` are held back, None when they are not; `node` is
        None for tsmon's own alerts."""


class Rules:
    """The rules over an `AlertBook`."""

    def __init__(
        self,
        book: AlertBook,
        flips: Iterable[Event],
        now: Moment,
        quiet: Quieting,
        *,
        redundant: frozenset[str] = frozenset(),
    ) -> None:
        """`flips` are the stored node_online and node_offline events of the last flapping window, `redundant`
        the prefixes that had two routers when the last run ended."""
        self.book = book
        self._quiet = quiet
        self._missing = MissingRoles(book)
        self._unreadable = UnreadableRows(book)
        self._outages = Outages(book)
        self._flapping = Flapping(book, self._outages, flips, now)
        self._keys = Keys(book)
        self._paths = Paths(book)
        self._own = Own(book)
        self._control = Control(book, redundant)
        self._services = ServicesDown(book)
        self._routes = RoutesLost(book)

    @property
    def redundant(self) -> frozenset[str]:
        """The prefixes that had two routers when they were last looked at."""
        return self._control.redundant

    def step(self, step: Step) -> AlertChanges:
        """What one step of the monitor changes."""
        self._own.look_at_storage(step)
        self._own.look_at_sight(step)
        asks: list[str] = []
        # The order counts: a missing node is no outage, and one that flaps is reported as flapping, so that
        # each is settled before outages are looked at.
        if step.trusted:
            self._end_left_out(step)
            self._missing.look(step)
            self._unreadable.look(step)
            self._flapping.look(step)
            asks = self._outages.look(step)
            self._keys.look(step)
            self._paths.look(step)
            self._own.look_at_path(step)
            self._control.look(step)
            self._services.look(step)
            self._routes.look(step)
        self._hush(step, step.now)
        return self.book.take(asks)

    def look_at_control(self, step: Step) -> AlertChanges:
        """What an answer of the control server changes."""
        if step.trusted:
            self._control.look(step)
        self._hush(step, step.now)
        return self.book.take()

    def _end_left_out(self, step: Step) -> None:
        """What `exclude` leaves out is nobody's business any more: no message (rule 4.6)."""
        for alert in list(self.book.open.values()):
            node = None if alert.is_own else step.removed.get(alert.node_id or "")
            if node is not None and node.left_out:
                self.book.end(alert, step.now, "left_out", untold=True)

    def hush(self, roster: Roster, now: Moment) -> AlertChanges:
        """Note on every firing alert until when it is silenced."""
        self._hush(roster, now)
        return self.book.take()

    def _hush(self, roster: Roster, now: Moment) -> None:
        for alert in list(self.book.open.values()):
            if alert.state == "firing":
                silenced = self._quiet.until(alert, node_of(alert, roster), now.wall)
                self.book.update(alert, silenced_until=silenced)

    def roles_changed(self, roster: Roster, now: Moment) -> AlertChanges:
        """The configuration was reloaded: alerts that no role asks for end at once, without a message (rule
        8.10)."""
        self._missing.roles_changed(roster.missing_roles, now)
        kinds = (
            "node_offline",
            "node_detached",
            "node_flapping",
            "key_expiring",
            "row_unreadable",
            "service_down",
        )
        for alert in self.book.of_kind(*kinds):
            node = roster.nodes.get(alert.node_id or "")
            if node is not None and node.role.alert == "none" and not Keys.is_own_key(alert, node):
                self.book.end(alert, now, "role_changed", untold=True)
        return self.book.take()

    def due_in(self, step: Step) -> float | None:
        """Seconds until the next alert would fall due if nothing changes, None when none is waiting."""
        waits = [step.limits.blind_after - a.waited for a in self._pending("monitor_blind") if step.blind]
        kinds = ("node_offline", "node_detached", "node_missing", "row_unreadable")
        beyond = ("service_down", "route_lost", "exit_node_lost")
        for alert in self._pending(*kinds, *beyond) if step.trusted else ():
            node = node_of(alert, step)
            if node is not None:
                waits.append(until_due(alert, node))
            elif alert.kind in beyond:
                waits.append(step.limits.offline_after - alert.waited)
        return min((wait for wait in waits if wait > EPSILON), default=None)

    def due_outages(self) -> set[str]:
        """Nodes whose outage fell due: they are pinged although control calls them offline."""
        return {
            a.node_id
            for a in self.book.of_kind("node_offline", "node_detached")
            if a.node_id and a.state == "firing"
        }

    def _pending(self, *kinds: str) -> list[Alert]:
        return [alert for alert in self.book.of_kind(*kinds) if alert.state == "pending"]
