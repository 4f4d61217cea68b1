"""The latest nodes in memory; comparing two snapshots and ping results -> events. Pure."""

from typing import Any, Literal

import msgspec

from tsmon.classify import Role, Severity
from tsmon.status import NodeFacts, Tailnet

State = Literal["online", "offline", "unknown"]
OfflineReason = Literal["stopped", "key_expired", "control", "unreachable"]
Path = Literal["direct", "relay", "peer_relay"]

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
)


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
    detached: bool = False
    """Control calls the node offline, but it answered a ping sent after that."""


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
    missing_since: float | None = None
    """First trusted document without the node; a second one, 10 s later, removes it."""
    removed_at: float | None = None
    reach: Reach = Reach()

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
    """Removed nodes whose history is still kept, by stable ID."""
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
    missing_roles: dict[str, str] = {}
    """Keys of critical roles that no node fits now but one has -> node_type (until acknowledged)."""
