"""SQLite: one connection on one thread writes; schema and migrations."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from tsmon.alerts import Alert
from tsmon.state import Event, Node


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
    """The clock went back: spans and observed time beyond this moment are cut first."""
    observed: list[Observed] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    spans: list[SpanChange] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    dropped_alerts: list[int] = field(default_factory=list)
    latency: list[LatencyRow] = field(default_factory=list)
    meta: dict[str, str | None] = field(default_factory=dict)
    also: list[Callable[[sqlite3.Connection], None]] = field(default_factory=list)
    """Further writes of the same transaction (outboxes)."""
