"""The report's JSON answer as typed structs; field names are the contract of docs/api.md."""

import msgspec


class ReportNote(msgspec.Struct, gc=False):
    id: str
    author: str
    text: str
    planned: bool
    start: str | None
    end: str | None


class ReportOutage(msgspec.Struct, gc=False):
    start: str | None
    end: str | None
    """None while it lasts."""
    duration_s: int
    """Of all of it, until now while it lasts."""
    reason: str | None
    planned: bool
    notes: tuple[ReportNote, ...]


class ReportRole(msgspec.Struct):
    role: str
    node_type: str
    nodes: int
    uptime_percentage: float | None
    coverage: float | None
    online_s: int
    offline_s: int
    unknown_s: int
    planned_s: int
    absent_s: int
    outages: int
    longest_outage_s: int
    target: float | None
    budget_left_s: int | None


class ReportNode(msgspec.Struct):
    id: str
    hostname: str
    node_type: str
    role: str
    uptime_percentage: float | None
    coverage: float | None
    online_s: int
    offline_s: int
    unknown_s: int
    planned_s: int
    absent_s: int
    outages: int
    longest_outage_s: int
    target: float | None
    budget_left_s: int | None
    removed: bool
    days: str
    outage_list: list[ReportOutage]


class ReportServiceOutage(msgspec.Struct, gc=False):
    start: str | None
    end: str | None
    duration_s: int


class ReportService(msgspec.Struct, kw_only=True, gc=False):
    """One checked port in the period."""

    node_id: str | None
    """Null for a Tailscale Service."""
    hostname: str
    check: str
    uptime_percentage: float | None
    coverage: float | None
    online_s: int
    offline_s: int
    unknown_s: int
    planned_s: int
    outages: int
    longest_outage_s: int
    outage_list: list[ReportServiceOutage]
    """In order, each with its whole length; none that was planned throughout."""


class ReportAnswer(msgspec.Struct):
    start: str | None
    end: str | None
    time_zone: str
    window_s: int
    """From `start` to `end`, which is now while the period is under way."""
    period_s: int
    """Of the whole period: what `budget_left_s` is reckoned from."""
    as_of: str | None
    blind: str | None
    """Why tsmon cannot see now, None when it can."""
    day_bounds: list[str | None]
    roles: list[ReportRole]
    services: list[ReportService]
    nodes: list[ReportNode]
