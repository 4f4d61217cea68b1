"""The latest nodes in memory; comparing two snapshots and ping results -> events. Pure."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from tsmon.classify import Role, Severity
from tsmon.monitor.control.inventory import Inventory
from tsmon.monitor.routes import RouteTable
from tsmon.monitor.services.service import Service, ServiceKey
from tsmon.source.extras import LockedOut
from tsmon.source.pings import Path
from tsmon.source.status import NodeFacts, Tailnet

State = Literal["online", "offline", "unknown"]
OfflineReason = Literal["stopped", "key_expired", "control", "unreachable"]

EVENT_TYPES = (
    "health_check",
    "node_online",
    "node_offline",
    "alert",
    "alert_resolved",
    "node_added",
    "node_removed",
    "node_changed",
    "monitor_blind",
    "monitor_restored",
    "monitor_started",
    "monitor_stopped",
    "operator",
    "channel_failed",
    "tailnet_renamed",
    "service_down",
    "service_up",
    "route_moved",
    "node_locked_out",
    "node_separated",
)


LATENCY_FRESH = 300.0
"""Seconds for which a measured latency counts as the present one."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What the pings of one node say; times in Unix seconds."""

    reachable: bool | None = None
    """True after an answer, False after three misses in a row, else as it was; None when not pinged."""
    latency_ms: float | None = None
    path: Path | None = None
    measured_at: float | None = None
    """When the last answer came."""
    unreachable_since: float | None = None
    """When the first missed ping was sent, while pings (cross-checked) say that the node is dead."""
    cross_checked: bool = True
    """False when there was no other node to ask."""
    asked: bool = False
    """A ping sent since control calls the node offline has an outcome."""
    detached: bool = False
    """Control calls the node offline, but it answered a ping sent after that."""


class Predecessor(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose machine goes on under another ID (rule 4.7)."""

    id: str
    hostname: str
    first_seen: float
    until: float
    """When the other one took its place."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of the tailnet: its last facts and what tsmon concluded.

    `state` is what was last known by a trusted document (or of a stopped Self): while tsmon is blind the
    `View` shows it as `unknown`.
    """

    facts: NodeFacts
    role: Role
    first_seen: float
    state: State
    reason: OfflineReason | None = None
    since: float | None = None
    """Start of the present state; None when it began before tsmon knew the node."""
    last_online: float | None = None
    """When the node was last online, as far as known; for an online node its last change."""
    seen_online: bool = False
    """Was online at least once in tsmon's sight."""
    last_state: State | None = None
    """While `state` is unknown: what was known before, and until when."""
    last_state_at: float | None = None
    last_since: float | None = None
    """While `state` is unknown: `since` of the state known before."""
    missing_since: float | None = None
    """First trusted document without the node; a second one, 10 s later, removes it (rule 4.1)."""
    unreadable: bool = False
    """Its row, or what may be its row, cannot be decoded: its state is unknown (rule 4.2)."""
    removed_at: float | None = None
    left_out: bool = False
    """Not removed, but left out by `exclude` since `removed_at` (rule 4.6)."""
    predecessors: tuple[Predecessor, ...] = ()
    """Whose history comes before its own, the nearest first."""
    successor: str = ""
    """Stable ID of the node that took its place."""
    reach: Reach = Reach()

    @property
    def watched_since(self) -> float:
        """The first sight of it, or of its first predecessor."""
        return min((self.first_seen, *(one.first_seen for one in self.predecessors)))

    @property
    def id(self) -> str:
        return self.facts.id

    @property
    def hostname(self) -> str:
        return self.facts.hostname

    @property
    def detached(self) -> bool:
        return self.state == "offline" and self.reason == "control" and self.reach.detached


class Blind(msgspec.Struct, frozen=True, kw_only=True):
    """tsmon has no trustworthy view since `since` (the last trusted document), for `reason`."""

    reason: str
    since: float
    message: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: a row of the log."""

    id: int
    timestamp: float
    """When it happened."""
    recorded_at: float
    event_type: str
    severity: Severity
    node_id: str | None = None
    hostname: str | None = None
    node_type: str | None = None
    message: str
    details: dict[str, Any] = {}


class Shown(NamedTuple):
    """A node's state as it is shown: unknown while tsmon is blind, but for a stopped Self."""

    state: State
    reason: OfflineReason | None
    since: float | None
    last_state: State | None
    last_state_at: float | None


class Measured(NamedTuple):
    """What a recent ping says of an online node; both None when there is no such ping."""

    latency_ms: float | None
    path: Path | None


NOT_MEASURED = Measured(None, None)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of a view; a critical role that lost its node counts as one more offline node."""

    total: int
    online: int
    offline: int
    unknown: int
    critical_total: int
    critical_online: int
    critical_offline: int
    critical_unknown: int
    health_percentage: float | None
    """Critical nodes online / critical nodes whose state is known, 0 to 100; None if none is known."""
    status: Literal["healthy", "degraded", "critical", "unknown"]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known now; a new one is published after every change, none is ever changed."""

    version: int
    """Grows with every published view."""
    now: float
    """When the view was made."""
    as_of: float | None
    """Time of the last trusted document."""
    nodes: dict[str, Node]
    """By stable ID, without the removed ones."""
    removed: dict[str, Node]
    """Those removed within the last hour or named by an open alert; the store has all of them."""
    blind: Blind | None
    self_id: str
    """The monitor's own node; the last known one while logged out."""
    self_stopped: bool
    """Tailscale is stopped or logged out on the monitor: its own node is known to be offline."""
    tailnet: Tailnet | None
    tun: bool | None
    excluded: int
    self_names: tuple[str, ...] = ()
    """MagicDNS name and addresses of the monitor's own node."""
    malformed: int = 0
    malformed_named: tuple[str, ...] = ()
    duplicates: int = 0
    missing_roles: dict[str, Node] = {}
    """Keys of critical roles that no node fits now but one has -> the last that did, as it was then (until
    acknowledged)."""
    inventory: Inventory | None = None
    """What the control server knows; None: it is not asked."""
    ephemeral: frozenset[str] = frozenset()
    """Stable IDs of nodes that leave the tailnet when they go offline, says the control server."""
    services: Mapping[ServiceKey, Service] = {}
    """Checked ports, as of the last trusted document; nothing of them is known while tsmon is blind."""
    cannot_ask: str = ""
    """Why no port can be asked, "" when they can."""
    routes: RouteTable = RouteTable()
    locked_out: tuple[LockedOut, ...] = ()
    """Machines that wait for a signature of the tailnet lock."""

    def shown(self, node: Node) -> Shown:
        """The state of `node` as it is shown now."""
        blind = self.blind
        if blind is None or (self.self_stopped and node.id == self.self_id):
            return Shown(node.state, node.reason, node.since, node.last_state, node.last_state_at)
        if node.state == "unknown":
            return Shown("unknown", None, node.since, node.last_state, node.last_state_at)
        return Shown("unknown", None, blind.since, node.state, blind.since)

    def measured(self, node: Node, now: float | None = None) -> Measured:
        """The latency and the path that are still true at `now` (Unix seconds; the view's time if None): of a
        node that is shown online, from an answer at most `LATENCY_FRESH` seconds old."""
        at = node.reach.measured_at
        age = (self.now if now is None else now) - at if at is not None else None
        if age is None or not 0 <= age <= LATENCY_FRESH or self.shown(node).state != "online":
            return NOT_MEASURED
        return Measured(node.reach.latency_ms, node.reach.path)

    def last_seen(self, node: Node) -> float | None:
        """The snapshot's time for a node that is online, else when it was last online, as far as known."""
        shown = self.shown(node)
        if shown.state == "online":
            return self.as_of
        if shown.state == "unknown" and shown.last_state == "online":
            return shown.last_state_at
        return node.last_online

    def health(self) -> Health:
        """The summary that the API, the report and the health check give (rule 2.9)."""
        counts = {"online": 0, "offline": 0, "unknown": 0}
        critical = {"online": 0, "offline": 0, "unknown": 0}
        detached = 0
        production_down = False
        for node in self.nodes.values():
            state = self.shown(node).state
            counts[state] += 1
            if not node.role.critical:
                continue
            critical[state] += 1
            if state == "offline":
                detached += node.detached
                production_down |= node.role.node_type == "production" and not node.detached
        for node in self.missing_roles.values():
            critical["unknown" if self.blind else "offline"] += 1
            production_down |= self.blind is None and node.role.node_type == "production"
        known = critical["online"] + critical["offline"]
        status: Literal["healthy", "degraded", "critical", "unknown"]
        if self.blind is not None:
            status = "critical" if self.self_stopped and production_down else "unknown"
        elif production_down or (known and (critical["online"] + detached) / known < 0.66):
            status = "critical"
        elif critical["offline"] or critical["unknown"]:
            status = "degraded"
        else:
            status = "healthy"
        return Health(
            total=len(self.nodes),
            **counts,
            critical_total=sum(critical.values()),
            critical_online=critical["online"],
            critical_offline=critical["offline"],
            critical_unknown=critical["unknown"],
            health_percentage=round(100 * critical["online"] / known, 2) if known else None,
            status=status,
        )
