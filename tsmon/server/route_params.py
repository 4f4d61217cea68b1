"""The query parameters of the routes, a struct each; those of the report and of the page stand with their
routes."""

from typing import Annotated

from tsmon.monitor.alerts import ALERT_KINDS
from tsmon.monitor.state import EVENT_TYPES
from tsmon.server.answers import NodeAnswer
from tsmon.server.choose_nodes import NodeChoice
from tsmon.server.params import Query, Takes
from tsmon.server.render import DAY

_ALERT_STATES = ("firing", "pending", "resolved", "all")
_FIELDS = NodeAnswer.__struct_fields__

_Nodes = Annotated[int | None, Takes("int", "how many nodes at most; all when left out", 1, 10_000)]
_Many = Annotated[int, Takes("int", "how many at most", 1, 10_000)]
_Skipped = Annotated[int, Takes("int", "how many to skip", 0, 1_000_000)]
_Node = Annotated[str, Takes("text", "only of this node")]
_Window = Annotated[float, Takes("duration", "how far back, up to the retention")]


class NodesQuery(NodeChoice, frozen=True):
    """/nodes."""

    project_only: Annotated[bool, Takes("bool", "the critical nodes only")] = True
    fields: Annotated[tuple[str, ...], Takes("names", "the fields to keep", choices=_FIELDS)] = ()
    limit: _Nodes = None
    offset: _Skipped = 0


class AlertsQuery(Query, frozen=True):
    """/alerts."""

    state: Annotated[str, Takes("choice", "which alerts", choices=_ALERT_STATES)] = "firing"
    severity: Annotated[
        str, Takes("choice", "only of this severity", choices=("", "warning", "critical"))
    ] = ""
    kind: Annotated[str, Takes("choice", "only of this kind", choices=("", *ALERT_KINDS))] = ""
    hostname: _Node = ""
    limit: _Many = 1000
    offset: _Skipped = 0


class LogsQuery(Query, frozen=True):
    """/logs."""

    page: Annotated[int, Takes("int", "which page, from 1", 1, 1_000_000)] = 1
    severity: Annotated[
        str, Takes("choice", "only of this severity", choices=("", "ok", "warning", "critical"))
    ] = ""
    event_type: Annotated[str, Takes("choice", "only of this type", choices=("", "all", *EVENT_TYPES))] = ""
    hostname: _Node = ""
    node_id: _Node = ""
    since: Annotated[float | None, Takes("time", "only what happened then or later")] = None
    until: Annotated[float | None, Takes("time", "only what happened until then")] = None
    q: Annotated[str, Takes("text", "only with this text in message or hostname")] = ""
    checks: Annotated[bool, Takes("bool", "with the periodic health checks")] = True
    before: Annotated[int | None, Takes("int", "only events with a smaller id", 1, 10**18 - 1)] = None
    per_page: Annotated[int, Takes("int", "entries a page", 1, 200)] = 20


class UptimeQuery(Query, frozen=True):
    """/uptime/{node}."""

    hours: Annotated[int, Takes("int", "the window in hours, up to the retention", 1, 100_000)] = 24
    limit: Annotated[int, Takes("int", "how many outages are listed", 1, 10_000)] = 100


class LatencyQuery(Query, frozen=True):
    """/latency/{node}."""

    window: _Window = DAY


class HistoryQuery(NodeChoice, frozen=True):
    """/history."""

    window: _Window = DAY
    buckets: Annotated[int, Takes("int", "how many bars", 1, 400)] = 48
    limit: _Nodes = None
    offset: _Skipped = 0
