"""The alert rules: what one step of the monitor raises, fires and ends. Pure, time passed in.

Node alerts are raised and ended on trusted documents only; delays count observed time, so that a restart
or a blind stretch pauses them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from tsmon.alerts import Alert, AlertBook, AlertChanges, AlertSeverity
from tsmon.clock import Moment, rfc3339
from tsmon.sight import describe
from tsmon.state import Blind, Event, Node

ISOLATED_AFTER = 300.0
PATH_AFTER = 900.0
ASK_PATIENCE = 60.0
"""Seconds after which a due outage is told although its last ping had no outcome."""
_EPSILON = 1e-6


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the rules, in seconds."""

    blind_after: float
    flapping_changes: int
    flapping_window: float
    flapping_settle: float
    path_latency: float | None = None
    """A slower path is degraded; None: no path is too slow."""
    path_relay: bool = False
    """A path through a relay is degraded."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the source and what it means, as the rules need it."""

    now: Moment
    trusted: bool
    elapsed: float
    """Observed seconds since the last trusted document."""
    observed_from: float | None
    """Wall time at which the present observed stretch began."""
    nodes: Mapping[str, Node]
    removed: Mapping[str, Node]
    events: Iterable[Event]
    """The node events of this step."""
    blind: Blind | None
    blind_for: float
    """Running seconds of the present blind stretch."""
    self_node: Node | None
    self_stopped: bool
    isolated_since: Moment | None
    pings_answered: bool
    can_ping: bool
    storage_error: str = ""
    """Why the embedded store cannot be written, "" when it can."""
    influx_error: str = ""
    """Why InfluxDB lags longer than its limit, "" when it does not."""


class Rules:
    """The rules over an `AlertBook`."""

    def __init__(self, limits: Limits, book: AlertBook, flips: Iterable[Event], now: Moment) -> None:
        """`flips` are the stored node_online and node_offline events of the last flapping window."""
        self.limits = limits
        self.book = book
        self.quiet: Callable[[Alert, Node | None, float], float | None] = lambda *_: None
        """Unix seconds until which the messages of an alert are held back; its node is None for tsmon's own
        alerts, the last value is now."""
        self._flips: dict[str, deque[float]] = {}  # monotonic times of changes since the last settling
        self._blind_counted = 0.0
        for event in flips:
            self._note_flip(event, now.mono - (now.wall - event.recorded_at))

    def step(self, step: Step) -> AlertChanges:
        self._storage(step)
        self._blindness(step)
        asks: list[str] = []
        if step.trusted:
            self._missing(step)
            self._flapping(step)
            asks = self._outages(step)
            self._keys(step)
            self._paths(step)
            self._isolation(step)
        self._hush(step.nodes, step.removed, step.now)
        return self.book.take(asks)

    def hush(self, nodes: Mapping[str, Node], removed: Mapping[str, Node], now: Moment) -> AlertChanges:
        """Note on every firing alert until when it is silenced."""
        self._hush(nodes, removed, now)
        return self.book.take()

    def _hush(self, nodes: Mapping[str, Node], removed: Mapping[str, Node], now: Moment) -> None:
        for alert in list(self.book.open.values()):
            if alert.state == "firing":
                id_ = alert.node_id or ""
                node = None if alert.is_own else nodes.get(id_) or removed.get(id_)
                self.book.update(alert, silenced_until=self.quiet(alert, node, now.wall))

    def roles_changed(self, nodes: Mapping[str, Node], now: Moment) -> AlertChanges:
        """The configuration was reloaded: alerts that no role asks for end at once, untold."""
        for alert in self.book.of_kind("node_offline", "node_detached", "node_flapping", "key_expiring"):
            node = nodes.get(alert.node_id or "")
            if node is not None and node.role.alert == "none" and not self._is_own_key(alert, node):
                self.book.end(alert, now, "role_changed", untold=True)
        return self.book.take()

    def due_in(self, step: Step) -> float | None:
        """Seconds until the next alert would fall due if nothing changes, None when none is waiting."""
        waits = [self.limits.blind_after - a.waited for a in self._pending("monitor_blind") if step.blind]
        for alert in self._pending("node_offline", "node_detached", "node_missing") if step.trusted else ():
            node = step.nodes.get(alert.node_id or "") or step.removed.get(alert.node_id or "")
            if node is not None:
                waits.append(node.role.offline_after - alert.waited)
        return min((wait for wait in waits if wait > _EPSILON), default=None)

    def due_outages(self) -> set[str]:
        """Nodes whose outage fell due: they are pinged although control calls them offline."""
        return {
            a.node_id for a in self.book.of_kind("node_offline", "node_detached") if a.node_id and _fired(a)
        }

    def _pending(self, *kinds: str) -> list[Alert]:
        return [alert for alert in self.book.of_kind(*kinds) if alert.state == "pending"]

    # -- outages ---------------------------------------------------------------------------------------

    def _outages(self, step: Step) -> list[str]:
        fell = {event.node_id for event in step.events if event.event_type == "node_offline"}
        asks: list[str] = []
        for node in step.nodes.values():
            if node.state != "offline" or not _alerts(node) or node.missing_since is not None:
                continue
            if self.book.find("node_flapping", node.id) is None:
                self._outage(node, step, asks, fresh=node.id in fell)
        for alert in self.book.of_kind("node_offline", "node_detached"):
            self._end_of_outage(alert, step)
        return asks

    def _outage(self, node: Node, step: Step, asks: list[str], *, fresh: bool) -> None:
        alert = self.book.find("node_offline", node.id)
        if alert is None:
            waited = _observed_since(node.since, step) if fresh else 0.0
            alert = self.book.raise_(
                "node_offline",
                _severity(node),
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
        elif alert.waited >= node.role.offline_after - _EPSILON:
            ask = node.role.ping and step.can_ping and node.reason == "control" and not node.reach.asked
            if ask and alert.waited < node.role.offline_after + ASK_PATIENCE:
                asks.append(node.id)
            else:
                self._fire_outage(alert, node, step)

    def _fire_outage(self, alert: Alert, node: Node, step: Step) -> None:
        if node.detached:
            words = f"{node.hostname} is off the control plane but still answers pings"
            if any(other.detached and other.id != node.id for other in step.nodes.values()):
                words += "; others too: the monitor's own map may be stale"
            self.book.fire(alert, step.now, words, kind="node_detached", severity="warning")
        else:
            words = f"{node.hostname} is offline since {rfc3339(node.since) or 'before tsmon knew it'}"
            if node.reason == "unreachable":
                words += ": three pings in a row got no answer though control calls it online"
                words += "" if node.reach.cross_checked else " (no other node was there to cross-check)"
            elif node.reason == "key_expired":
                words += ": its key expired"
            self.book.fire(alert, step.now, words, kind="node_offline", severity=_severity(node))

    def _told_outage(self, alert: Alert, node: Node, step: Step) -> None:
        if alert.kind == "node_detached" and not node.detached:
            self._fire_outage(alert, node, step)
        elif alert.kind == "node_offline" and node.detached:
            self.book.update(alert, kind="node_detached", severity="warning")
        elif alert.kind == "node_offline":
            self.book.update(alert, severity=_severity(node))

    def _end_of_outage(self, alert: Alert, step: Step) -> None:
        node = step.nodes.get(alert.node_id or "")
        if node is None:
            self.book.end(alert, step.now, "removed")
        elif node.state == "online" and node.missing_since is None:
            self.book.end(alert, step.now, "recovered")
        elif not _alerts(node):
            self.book.end(alert, step.now, "role_changed", untold=True)

    # -- removed nodes ---------------------------------------------------------------------------------

    def _missing(self, step: Step) -> None:
        for alert in self.book.of_kind("node_missing"):
            if any(node.hostname == alert.hostname for node in step.nodes.values()):
                self.book.end(alert, step.now, "recovered")
            elif alert.state == "pending":
                self._miss(self.book.update(alert, waited=alert.waited + step.elapsed), step)
        for event in step.events:
            node = step.removed.get(event.node_id or "") if event.event_type == "node_removed" else None
            if node is not None and node.role.critical and node.role.alert != "none":
                alert = self.book.raise_(
                    "node_missing",
                    _severity(node),
                    step.now,
                    node=node,
                    since=node.removed_at,
                    last_seen=node.last_online,
                    waited=_observed_since(node.removed_at, step),
                )
                self._miss(alert, step)

    def _miss(self, alert: Alert, step: Step) -> None:
        node = step.removed.get(alert.node_id or "")
        if node is not None and alert.waited >= node.role.offline_after - _EPSILON:
            words = f"{alert.hostname} was removed from the tailnet and no node of that name is back"
            self.book.fire(alert, step.now, words)

    # -- flapping --------------------------------------------------------------------------------------

    def _note_flip(self, event: Event, mono: float) -> None:
        if event.node_id is not None and event.event_type in ("node_online", "node_offline"):
            self._flips.setdefault(event.node_id, deque()).append(mono)

    def _flapping(self, step: Step) -> None:
        flipped = {e.node_id for e in step.events if e.event_type in ("node_online", "node_offline")}
        for event in step.events:
            self._note_flip(event, step.now.mono)
        for id_ in flipped:
            node = step.nodes.get(id_ or "")
            if node is not None and _alerts(node) and self.book.find("node_flapping", node.id) is None:
                self._begins_to_flap(node, step)
        for alert in self.book.of_kind("node_flapping"):
            self._flaps(alert, step, flipped=alert.node_id in flipped)

    def _begins_to_flap(self, node: Node, step: Step) -> None:
        flips = self._flips.get(node.id, deque())
        while flips and flips[0] < step.now.mono - self.limits.flapping_window:
            flips.popleft()
        if len(flips) < self.limits.flapping_changes:
            return
        outage = self.book.find("node_offline", node.id)
        if outage is not None:
            self.book.end(outage, step.now, "flapping", untold=True)
        since = step.now.wall - (step.now.mono - flips[0])
        alert = self.book.raise_("node_flapping", _severity(node), step.now, node=node, since=since)
        minutes = round(self.limits.flapping_window / 60)
        words = f"{node.hostname} is flapping: {len(flips)} changes within {minutes} min"
        self.book.fire(alert, step.now, words)

    def _flaps(self, alert: Alert, step: Step, *, flipped: bool) -> None:
        node = step.nodes.get(alert.node_id or "")
        if node is None:
            self._flips.pop(alert.node_id or "", None)
            self.book.end(alert, step.now, "removed")
            return
        if not _alerts(node):
            self.book.end(alert, step.now, "role_changed", untold=True)
            return
        alert = self.book.rename(alert, node)
        steady = 0.0 if flipped else alert.steady + step.elapsed
        alert = self.book.update(alert, steady=steady)
        if steady < self.limits.flapping_settle - _EPSILON or node.missing_since is not None:
            return
        self._flips.pop(node.id, None)
        self.book.end(alert, step.now, "settled")
        if node.state == "offline":
            outage = self.book.raise_(
                "node_offline",
                _severity(node),
                step.now,
                node=node,
                since=node.since,
                last_seen=node.last_online,
                follows=alert.id,
            )
            self._fire_outage(outage, node, step)

    # -- keys ------------------------------------------------------------------------------------------

    def _keys(self, step: Step) -> None:
        told = {alert.node_id for alert in self.book.of_kind("key_expiring")}
        for node in step.nodes.values():
            expiry = node.facts.key_expiry
            alert = self.book.find("key_expiring", node.id) if node.id in told else None
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
    def _is_own_key(alert: Alert, node: Node) -> bool:
        return alert.kind == "key_expiring" and node.facts.is_self

    # -- paths -----------------------------------------------------------------------------------------

    def _paths(self, step: Step) -> None:
        for alert in self.book.of_kind("path_degraded"):
            node = step.nodes.get(alert.node_id or "")
            if node is None or node.state != "online" or not self._watches_path(node):
                # Its outage or its removal is told instead; or nobody asks for it any more.
                self.book.end(alert, step.now, "path_unknown", untold=True)
            elif not self._what_degrades(node):
                self.book.end(alert, step.now, "recovered")
            else:
                self._path_lasts(self.book.rename(alert, node), node, step)
        if self.limits.path_latency is None and not self.limits.path_relay:
            return
        for node in step.nodes.values():
            watched = node.state == "online" and self._watches_path(node)
            if watched and self._what_degrades(node) and self.book.find("path_degraded", node.id) is None:
                self.book.raise_("path_degraded", "warning", step.now, node=node, since=step.now.wall)

    def _watches_path(self, node: Node) -> bool:
        wanted = self.limits.path_latency is not None or self.limits.path_relay
        return wanted and node.role.ping and _alerts(node)

    def _path_lasts(self, alert: Alert, node: Node, step: Step) -> None:
        if alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
            if alert.waited >= PATH_AFTER - _EPSILON:
                self.book.fire(alert, step.now, f"{node.hostname} is {self._what_degrades(node)}")

    def _what_degrades(self, node: Node) -> str:
        """What is wrong with the path to a node, "" when nothing is."""
        reach, limits = node.reach, self.limits
        if limits.path_relay and reach.path in ("relay", "peer_relay"):
            return f"reached only through a relay ({node.facts.relay or reach.path})"
        limit = limits.path_latency
        if limit is not None and reach.latency_ms is not None and reach.latency_ms > 1000 * limit:
            return f"slow to answer: {reach.latency_ms:.0f} ms (limit {1000 * limit:.0f} ms)"
        return ""

    # -- the monitor itself ----------------------------------------------------------------------------

    def _blindness(self, step: Step) -> None:
        alert = self.book.find("monitor_blind")
        if step.blind is not None:
            self._blind(alert, step.blind, step)
            return
        self._blind_counted = 0.0
        if alert is None or not step.trusted:
            return
        steady = alert.steady + step.elapsed
        if steady >= self.limits.blind_after / 2 - _EPSILON:
            self.book.end(alert, step.now, "recovered")
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
        if alert.state == "pending" and waited >= self.limits.blind_after - _EPSILON:
            self.book.fire(alert, step.now, describe(blind))

    def _isolation(self, step: Step) -> None:
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
        if alert.state == "pending" and waited >= ISOLATED_AFTER - _EPSILON:
            words = "no node answers the monitor's pings: its own path to the tailnet is suspect"
            self.book.fire(alert, step.now, words)

    def _storage(self, step: Step) -> None:
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
            elif alert is not None and not error:
                self.book.end(alert, step.now, "recovered")


def _fired(alert: Alert) -> bool:
    return alert.state == "firing"


def _alerts(node: Node) -> bool:
    """The node's role asks for alerts, and the node was seen online once (or is critical)."""
    return node.role.alert != "none" and (node.seen_online or node.role.critical)


def _severity(node: Node) -> AlertSeverity:
    return "critical" if node.role.alert == "critical" else "warning"


def _observed_since(since: float | None, step: Step) -> float:
    """Observed seconds of a condition that began at `since`."""
    if since is None or step.observed_from is None:
        return 0.0
    return max(0.0, step.now.wall - max(since, step.observed_from))


def _key_step(node: Node, step: Step) -> float | None:
    """The smallest step (seconds before the expiry) that has been reached."""
    expiry = node.facts.key_expiry
    if expiry is None:
        return None
    left = expiry - step.now.wall
    return min((due for due in node.role.key_expiry_steps if 0 < left <= due), default=None)
