"""Alerts and their life: pending, firing, resolved. Pure; the rules that raise them are in rules.py."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from tsmon.base.clock import Moment
from tsmon.monitor.alert_words import ended_words
from tsmon.monitor.state import Event, Node

AlertState = Literal["pending", "firing", "resolved"]
AlertSeverity = Literal["warning", "critical"]
ALERT_KINDS = (
    "node_offline",
    "node_detached",
    "node_missing",
    "node_flapping",
    "key_expiring",
    "monitor_blind",
    "monitor_isolated",
    "storage_failing",
    "path_degraded",
    "control_api_failing",
    "device_pending",
    "device_joined",
    "credential_expiring",
    "redundancy_lost",
    "row_unreadable",
    "service_down",
    "route_lost",
    "exit_node_lost",
    "locked_out",
)


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A condition that lasts. Replaced, never changed; stored at every step."""

    id: int
    kind: str
    severity: AlertSeverity
    state: AlertState = "pending"
    node_id: str | None = None
    hostname: str | None = None
    node_type: str | None = None
    subject: str = ""
    """Of several conditions of one kind, which: `embedded` or `influx` for storage_failing, the key of the
    role for node_missing, the credential's ID for credential_expiring, the prefix for redundancy_lost and
    route_lost, the check for service_down."""
    since: float | None = None
    """When the condition began (the outage, not the alert); None when it began before tsmon knew the node."""
    pending_at: float
    """When tsmon first saw the condition."""
    fired_at: float | None = None
    resolved_at: float | None = None
    last_seen: float | None = None
    message: str = ""
    cause: str | None = None
    """Why a resolved alert ended: recovered, removed, filled, role_changed, left_out, renewed, expired,
    flapping, settled, blind, acknowledged, path_unknown, not_configured, approved, known,
    no_second_router."""
    follows: int | None = None
    """Id of the flapping alert that settled into this outage."""
    acknowledged_by: str | None = None
    silenced_until: float | None = None
    delay: float | None = None
    """Seconds of `waited` after which it fires, where that is not the `offline_after` of its node's role."""
    waited: float = 0.0
    """Seconds that count for the delay, so far: observed ones, for monitor_blind blind ones."""
    steady: float = 0.0
    """Observed seconds since the last change of a flapping node; of sight after blindness."""
    step: float | None = None
    """key_expiring, credential_expiring: the last step that was notified, in seconds before the expiry."""
    key_expiry: float | None = None
    clock_lost: float = 0.0
    """Seconds that steps back of the clock took from the duration."""
    untold: bool = False
    """Resolved without a message: absorbed by another alert, or no longer asked for."""
    notified: bool = False
    """A notification of it was delivered."""

    @property
    def is_own(self) -> bool:
        """It is about tsmon itself, though it may name a node."""
        return self.kind.startswith(("monitor_", "storage_", "control_", "credential_"))

    def duration(self, now: float) -> float:
        """Seconds from `since` (else the first sight) to the end, or to `now` while it lasts."""
        begin = self.since if self.since is not None else self.pending_at
        end = self.resolved_at if self.resolved_at is not None else now
        return max(0.0, end - begin + self.clock_lost)


class Roster(Protocol):
    """Where the nodes of alerts are found: a view, or a step."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def removed(self) -> Mapping[str, Node]: ...
    @property
    def missing_roles(self) -> Mapping[str, Node]: ...


def node_of(alert: Alert, roster: Roster) -> Node | None:
    """The node that `alert` is about; None when it is about tsmon itself, or the node is long gone. That of a
    missing role is the last that fitted it, as it was then."""
    if alert.is_own:
        return None
    id_ = alert.node_id or ""
    last = roster.missing_roles.get(alert.subject) if alert.kind == "node_missing" else None
    return last or roster.nodes.get(id_) or roster.removed.get(id_)


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """An operator holds back the messages of one alert, or of the nodes that its globs select."""

    id: int
    author: str
    reason: str
    created: float
    ends: float
    """Unix seconds."""
    alert: int | None = None
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def words(self) -> str:
        """What it silences, for people."""
        if self.alert is not None:
            return f"alert {self.alert}"
        kinds = {"host": self.hosts, "tag": self.tags, "os": self.os, "user": self.users, "role": self.roles}
        given = [f"{kind} {', '.join(globs)}" for kind, globs in kinds.items() if globs]
        return "; ".join(given) or "everything"


class AlertChanges(msgspec.Struct):
    """What one step changed."""

    alerts: list[Alert]
    dropped: list[int]
    """Pending alerts whose condition ended before their delay: they leave nothing."""
    events: list[Event]
    asks: list[str]
    """Nodes whose outage fell due and that are to be pinged before it is notified."""


class AlertBook:
    """The open alerts, and every way to change one. Collects the changes until `take`."""

    def __init__(self, alerts: Iterable[Alert] = (), next_id: int = 1) -> None:
        self.open: dict[int, Alert] = {alert.id: alert for alert in alerts}
        self._next_id = next_id
        self._changed: dict[int, Alert] = {}
        self._dropped: list[int] = []
        self._events: list[Event] = []
        self._by_key = {_key(alert): alert.id for alert in self.open.values()}

    @property
    def last_id(self) -> int:
        """The last id that was given out."""
        return self._next_id - 1

    def find(self, kind: str, subject: str = "") -> Alert | None:
        """The open alert of that kind for a node ID (or other subject). An outage is one alert, whether
        offline or detached."""
        id_ = self._by_key.get((_family(kind), subject))
        return self.open[id_] if id_ is not None else None

    def of_kind(self, *kinds: str) -> list[Alert]:
        return [alert for alert in self.open.values() if alert.kind in kinds]

    def raise_(
        self, kind: str, severity: AlertSeverity, now: Moment, *, node: Node | None = None, **fields: Any
    ) -> Alert:
        """A new alert, pending."""
        if node is not None:
            fields |= {"node_id": node.id} | _identity(node)
        alert = Alert(id=self._next_id, kind=kind, severity=severity, pending_at=now.wall, **fields)
        self._next_id += 1
        self._by_key[_key(alert)] = alert.id
        return self._put(alert)

    def update(self, alert: Alert, **fields: Any) -> Alert:
        """Replace fields without a word."""
        changed = msgspec.structs.replace(alert, **fields)
        return self._put(changed) if changed != alert else alert

    def rename(self, alert: Alert, node: Node) -> Alert:
        """An alert belongs to the node ID and shows the node's present name."""
        return self.update(alert, **_identity(node))

    def fire(self, alert: Alert, now: Moment, message: str, **fields: Any) -> Alert:
        """It fires now: for the first time, or again (another kind, a further key step)."""
        fired = msgspec.structs.replace(
            alert, state="firing", fired_at=alert.fired_at or now.wall, message=message, **fields
        )
        self._events.append(
            _alert_event("alert", fired, fired.severity, now, message, again=alert.state == "firing")
        )
        return self._put(fired)

    def end(
        self, alert: Alert, now: Moment, cause: str, *, untold: bool = False, at: float | None = None
    ) -> None:
        """The condition ended `at` (Unix seconds; now when not given): a pending alert leaves nothing, a
        firing one is resolved for `cause`."""
        del self.open[alert.id]
        del self._by_key[_key(alert)]
        if alert.state == "pending":
            self._changed.pop(alert.id, None)
            self._dropped.append(alert.id)
            return
        ended = now.wall if at is None else at
        resolved = msgspec.structs.replace(
            alert, state="resolved", resolved_at=ended, cause=cause, untold=untold
        )
        self._changed[alert.id] = resolved
        duration = round(resolved.duration(ended))
        self._events.append(
            _alert_event(
                "alert_resolved", resolved, "ok", now, ended_words(resolved), cause=cause, duration_s=duration
            )
        )

    def acknowledge(self, alert_id: int, author: str, now: Moment) -> Alert | None:
        """Somebody takes care: reminders stop; that of a missing role ends. None when it is not open."""
        alert = self.open.get(alert_id)
        if alert is None:
            return None
        alert = self.update(alert, acknowledged_by=author)
        if alert.kind in ("node_missing", "device_joined", "route_lost", "exit_node_lost"):
            self.end(alert, now, "acknowledged", untold=alert.kind == "device_joined")
        return alert

    def clock_back(self, now: Moment, lost: float) -> None:
        """The wall clock was set back by `lost` seconds: what began beyond now begins now, and durations
        go on as if nothing had happened."""
        for alert in list(self.open.values()):
            begin = alert.since if alert.since is not None else alert.pending_at
            self.update(
                alert,
                since=None if alert.since is None else min(alert.since, now.wall),
                pending_at=min(alert.pending_at, now.wall),
                fired_at=None if alert.fired_at is None else min(alert.fired_at, now.wall),
                clock_lost=alert.clock_lost + lost - max(0.0, begin - now.wall),
            )

    def take(self, asks: Iterable[str] = ()) -> AlertChanges:
        """The changes since the last call."""
        changes = AlertChanges(list(self._changed.values()), self._dropped, self._events, list(asks))
        self._changed, self._dropped, self._events = {}, [], []
        return changes

    def _put(self, alert: Alert) -> Alert:
        self.open[alert.id] = alert
        self._changed[alert.id] = alert
        return alert


def _family(kind: str) -> str:
    return "outage" if kind in ("node_offline", "node_detached") else kind


def service_subject(owner: str, check: str) -> str:
    """Under which subject `AlertBook.find` knows an alert of a checked port of `owner` (a node's ID, or a
    Tailscale Service's name)."""
    return f"{owner} {check}"


def _key(alert: Alert) -> tuple[str, str]:
    """What there can be only one open alert of. The monitor's own alerts may name a node, but are not its."""
    if alert.kind == "service_down":
        return alert.kind, service_subject(alert.node_id or alert.hostname or "", alert.subject)
    return _family(alert.kind), alert.subject if alert.is_own else alert.subject or alert.node_id or ""


def _identity(node: Node) -> dict[str, str]:
    return {"hostname": node.hostname, "node_type": node.role.node_type}


def _alert_event(
    event_type: str, alert: Alert, severity: Any, now: Moment, message: str, **details: Any
) -> Event:
    return Event(
        id=0,
        timestamp=now.wall,
        recorded_at=0.0,
        event_type=event_type,
        severity=severity,
        node_id=alert.node_id,
        hostname=alert.hostname,
        node_type=alert.node_type,
        message=message,
        details={"alert_id": str(alert.id), "kind": alert.kind, **details},
    )
