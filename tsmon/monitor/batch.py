"""What one step of the monitor changes, and what the last run left."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tsmon.monitor.alerts import Alert
from tsmon.monitor.services.service import Service, ServiceKey, ServiceSpan
from tsmon.monitor.state import Event, Node
from tsmon.source.control.devices import Device

Write = Callable[[sqlite3.Connection], None]


def last_id_key(table: Literal["events", "alerts"]) -> str:
    """Name of the value that holds the highest id a table ever had: none is used again."""
    return f"last_{table}_id"


@dataclass(frozen=True, slots=True)
class SpanChange:
    """From `at` on the node is in `state`; None: it is gone (removed). The open span is closed at `at`."""

    node_id: str
    at: float
    state: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """Time from `start` to `end` was observed: for every node, or (a stopped Self) for `node_id` alone.
    A second one with the same `start` and `node_id` moves the end."""

    start: float
    end: float
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One collect interval of one pinged node: milliseconds, and the share of lost pings (0 to 1)."""

    node_id: str
    time: float
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    loss: float
    path: str | None


@dataclass(slots=True)
class Batch:
    """What one step of the monitor changes: committed in one transaction, or not at all."""

    cut_at: float | None = None
    """The clock went back: spans, observed time and latency beyond this moment are cut first."""
    observed: list[Observed] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    spans: list[SpanChange] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    dropped_alerts: list[int] = field(default_factory=list)
    latency: list[LatencyRow] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    """What the control server knows of machines, as far as it was noted."""
    dropped_devices: list[str] = field(default_factory=list)
    """Stable IDs of those that it knows no more."""
    services: list[Service] = field(default_factory=list)
    """Checked ports."""
    dropped_services: list[ServiceKey] = field(default_factory=list)
    """Those that nobody asks for any more; their history stays."""
    service_spans: list[ServiceSpan] = field(default_factory=list)
    meta: dict[str, str | None] = field(default_factory=dict)
    """Values to keep; None removes one."""
    also: list[Write] = field(default_factory=list)
    """Further writes of the same transaction (outboxes)."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the last run knew."""

    nodes: list[Node] = field(default_factory=list)
    """Removed ones too."""
    alerts: list[Alert] = field(default_factory=list)
    """The open ones."""
    devices: list[Device] = field(default_factory=list)
    """What was noted of the machines that the control server knows."""
    services: list[Service] = field(default_factory=list)
    """Checked ports that were asked."""
    meta: Mapping[str, str] = field(default_factory=dict)
    flips: list[Event] = field(default_factory=list)
    """node_online and node_offline events since `flips_since`, each node's after its last settling."""
    next_event_id: int = 1
    next_alert_id: int = 1
    last_observed: float | None = None
    """End of the last observed stretch."""
