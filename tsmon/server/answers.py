"""The JSON answers as typed structs.

Field names are the contract of docs/api.md: fields may be added, never renamed.
"""

from typing import Any, Literal

import msgspec

from tsmon.server.control_answers import ControlFacts, ControlReady


class ErrorBody(msgspec.Struct):
    code: str
    message: str


class ErrorAnswer(msgspec.Struct):
    error: ErrorBody


class BlindAnswer(msgspec.Struct):
    reason: str
    since: str | None
    message: str


class CriticalSummary(msgspec.Struct):
    total: int
    online: int
    offline: int
    unknown: int
    health_percentage: float | None


class SummaryAnswer(msgspec.Struct):
    total_nodes: int
    online_nodes: int
    offline_nodes: int
    unknown_nodes: int
    excluded_nodes: int
    critical_nodes: CriticalSummary
    status: Literal["healthy", "degraded", "critical", "unknown"]
    blind: BlindAnswer | None
    active_alerts: int
    as_of: str | None
    source: str
    tailnet: str | None
    version: str
    demo: bool
    headline: str
    """The state of everything in one line; times in it are RFC 3339."""
    level: Literal["healthy", "degraded", "critical", "unknown"]
    """The worse of `status` and the worst firing alert that is not silenced."""
    sees_again_since: str | None
    """While sight after a blindness settles."""


class NotifiedAnswer(msgspec.Struct):
    channel: str
    at: str | None


class IncidentAnswer(msgspec.Struct, kw_only=True):
    id: str
    """That of its oldest alert."""
    severity: Literal["warning", "critical"]
    kind: str
    cause: str
    """What the nodes have in common: `tag:rack-a`; "" when nothing."""
    since: str | None
    count: int
    nodes: list[str]
    """The first 100 hostnames, critical nodes first."""
    notified: list[NotifiedAnswer]
    alerts: list[str]
    message: str
    critical: bool
    """A critical node is among them."""
    calm: bool
    """All of it is acknowledged or silenced."""
    acknowledged: int
    """How many of its alerts are acknowledged, and by whom."""
    acknowledged_by: str | None
    silenced: int
    """How many of its alerts are silenced, and until when the last of them is."""
    silenced_until: str | None


class IncidentsAnswer(msgspec.Struct):
    incidents: list[IncidentAnswer]
    total: int
    as_of: str | None


class ServiceCounts(msgspec.Struct, gc=False):
    """How many of a node's checked ports are in which state."""

    ok: int
    down: int
    unknown: int


class PredecessorAnswer(msgspec.Struct, kw_only=True, gc=False):
    id: str
    hostname: str
    first_seen: str | None
    until: str | None
    """When the other one took its place."""


class NodeAnswer(msgspec.Struct, kw_only=True, gc=False):  # made by the ten thousand; holds no cycles
    hostname: str
    ip: str | None
    online: bool | None
    node_type: str
    os: str
    last_seen: str | None
    uptime_24h: float | None
    id: str
    dns_name: str
    ips: tuple[str, ...]
    state: Literal["online", "offline", "unknown"]
    reason: str | None
    reachable: bool | None
    since: str | None
    last_state: str | None
    last_state_at: str | None
    critical: bool
    role: str
    shared: bool
    tags: tuple[str, ...]
    user: str
    uptime_7d: float | None
    uptime_30d: float | None
    coverage_24h: float | None
    watched_since: str | None
    """Start of observation, at most 30 days ago."""
    latency_ms: float | None
    path: Literal["direct", "relay", "peer_relay"] | None
    relay: str | None
    key_expiry: str | None
    exit_node_option: bool
    routes: tuple[str, ...]
    alert: str | None
    flapping: bool
    silenced_until: str | None
    successor_of: PredecessorAnswer | None = None
    """The node whose place it took: the machine was re-installed."""
    predecessors: tuple[PredecessorAnswer, ...] = ()
    """That one and those before it, the nearest first: their history is in its uptime."""
    services: ServiceCounts | None = None
    """Of its checked ports; null when none is asked."""
    control: ControlFacts | None
    """Null without a control server to ask, and for a node that it does not list."""


class AlertAnswer(msgspec.Struct, kw_only=True):
    id: str
    kind: str
    severity: Literal["warning", "critical"]
    state: Literal["pending", "firing", "resolved"]
    node_id: str | None
    hostname: str | None
    node_type: str | None
    since: str | None
    fired_at: str | None
    resolved_at: str | None
    duration_s: int
    last_seen: str | None
    message: str
    cause: str | None
    acknowledged_by: str | None
    silenced_until: str | None
    notified: bool


class NodeDetail(NodeAnswer, kw_only=True, gc=True):
    reason_words: str | None
    """`reason`, for people."""
    successor: str | None
    """Stable ID of the node that took its place."""
    os_hostname: str
    first_seen: str | None
    created: str | None
    removed_at: str | None
    address: str | None
    """The direct UDP address that is in use now."""
    rx_bytes: int
    tx_bytes: int
    last_handshake: str | None
    active: bool
    exit_node: bool
    version: str | None
    current_alert: AlertAnswer | None


class CriticalEntry(msgspec.Struct):
    status: Literal["online", "offline", "degraded", "unknown", "missing"]
    online: int
    total: int
    was_filled: bool
    """A node fits the role, or one did: an empty role that never was filled is not set up."""
    nodes: list[NodeAnswer]


class AlertsAnswer(msgspec.Struct):
    alerts: list[AlertAnswer]
    total: int
    as_of: str | None


class EventAnswer(msgspec.Struct, kw_only=True):
    id: str
    timestamp: str | None
    recorded_at: str | None
    event_type: str
    severity: str
    node_id: str | None
    hostname: str | None
    node_type: str | None
    message: str
    details: dict[str, Any]


class Pagination(msgspec.Struct):
    page: int
    per_page: int
    total_entries: int
    total_pages: int
    has_next: bool
    has_prev: bool


class SeverityCounts(msgspec.Struct):
    total: int
    ok: int
    warning: int
    critical: int


class LogFilters(msgspec.Struct, kw_only=True):
    severity: str
    event_type: str
    hostname: str
    node_id: str
    q: str
    checks: bool
    before: int | None
    since: str | None
    until: str | None
    event_types: tuple[str, ...]
    """Every type that an event may have."""


class LogsAnswer(msgspec.Struct):
    logs: list[EventAnswer]
    pagination: Pagination
    filters: LogFilters
    summary: SeverityCounts


class OutageAnswer(msgspec.Struct):
    start: str | None
    end: str | None
    duration_s: int
    reason: str | None
    """Why the node was offline when it began; None when no event of the log says it."""
    reason_words: str | None
    """`reason`, for people."""


class UptimeAnswer(msgspec.Struct, kw_only=True):
    hostname: str
    hours: int
    uptime_percentage: float | None
    coverage: float | None
    outages: int
    longest_outage_s: int
    online_s: int
    offline_s: int
    unknown_s: int
    history: str
    outage_list: list[OutageAnswer]
    """The last `limit`, newest first."""


class HistoryNode(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    hostname: str
    states: str
    uptime: list[float | None] | None = None
    coverage: list[float] | None = None


class HistoryAnswer(msgspec.Struct):
    start: str | None
    end: str | None
    buckets: int
    bounds: list[str | None]
    history: str
    nodes: list[HistoryNode]


class LatencyAnswer(msgspec.Struct, kw_only=True):
    hostname: str
    points: list[tuple[str | None, float | None, str | None]]
    min: float | None
    avg: float | None
    p95: float | None
    max: float | None
    loss_percentage: float | None


class SourceReady(msgspec.Struct, kw_only=True):
    name: str
    kind: str
    polls: int
    failures: int
    last_success: str | None
    error: str | None
    blind: str | None
    malformed_peers: int
    malformed: list[str]
    duplicate_ids: int
    noise: str | None
    can_ping: bool
    last_poll_s: float


class StorageReady(msgspec.Struct):
    error: str | None
    waiting: int
    report: str | None
    bad_rows: dict[str, int]
    """By table: rows that could not be read and lie aside."""


class RefusedLine(msgspec.Struct):
    time: str | None
    line: str
    error: str


class InfluxReady(msgspec.Struct, kw_only=True):
    url: str
    error: str | None
    last_success: str | None
    requests_waiting: int
    lines_waiting: int
    oldest_waiting: str | None
    lines_dropped: int
    lines_quarantined: int
    quarantine: list[RefusedLine]
    """The last ones, newest first."""
    requests_partly_refused: int


class ChannelReady(msgspec.Struct, kw_only=True):
    name: str
    service: str
    last_success: str | None
    error: str | None
    parked: bool
    delivered: int
    failed: int
    waiting: int
    dropped: int


class HeartbeatReady(msgspec.Struct):
    service: str
    last_success: str | None
    error: str | None
    held_back: str | None


class ReadyAnswer(msgspec.Struct, kw_only=True):
    ready: bool
    source: SourceReady
    storage: StorageReady
    influxdb: InfluxReady | None
    channels: list[ChannelReady]
    heartbeat: HeartbeatReady | None
    control: ControlReady | None
    warnings: list[str]
    uptime_s: int
    version: str
