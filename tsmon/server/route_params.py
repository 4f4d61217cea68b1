"""The query parameters of every route that takes some."""

from tsmon.monitor.alerts import ALERT_KINDS
from tsmon.monitor.state import EVENT_TYPES
from tsmon.server.answers import NodeAnswer
from tsmon.server.choose_nodes import NODE_FILTERS, SORTS
from tsmon.server.params import Param
from tsmon.server.render import DAY

_SORT = Param("sort", "choice", "the order; `-` before it reverses", "", choices=SORTS)
_NODE_PAGE = (
    Param("limit", "int", "how many nodes at most; all when left out", least=1, most=10_000),
    Param("offset", "int", "how many nodes to skip", 0, least=0, most=1_000_000),
)
_WINDOW = Param("window", "duration", "how far back, up to the retention", DAY)

NODES = (
    Param("project_only", "bool", "the critical nodes only", True),
    *NODE_FILTERS,
    Param("fields", "names", "the fields to keep", (), choices=NodeAnswer.__struct_fields__),
    _SORT,
    *_NODE_PAGE,
)
ALERTS = (
    Param("state", "choice", "which alerts", "firing", choices=("firing", "pending", "resolved", "all")),
    Param("severity", "choice", "only of this severity", "", choices=("", "warning", "critical")),
    Param("kind", "choice", "only of this kind", "", choices=("", *ALERT_KINDS)),
    Param("hostname", "text", "only of this node", ""),
    Param("limit", "int", "how many at most", 1000, least=1, most=10_000),
    Param("offset", "int", "how many to skip", 0, least=0, most=1_000_000),
)
LOGS = (
    Param("page", "int", "which page, from 1", 1, least=1, most=1_000_000),
    Param("severity", "choice", "only of this severity", "", choices=("", "ok", "warning", "critical")),
    Param("event_type", "choice", "only of this type", "", choices=("", "all", *EVENT_TYPES)),
    Param("hostname", "text", "only of this node", ""),
    Param("node_id", "text", "only of this node", ""),
    Param("since", "time", "only what happened then or later"),
    Param("until", "time", "only what happened until then"),
    Param("q", "text", "only with this text in message or hostname", ""),
    Param("checks", "bool", "with the periodic health checks", True),
    Param("before", "int", "only events with a smaller id", least=1, most=10**18 - 1),
    Param("per_page", "int", "entries a page", 20, least=1, most=200),
)
UPTIME = (
    Param("hours", "int", "the window in hours, up to the retention", 24, least=1, most=100_000),
    Param("limit", "int", "how many outages are listed", 100, least=1, most=10_000),
)
LATENCY = (_WINDOW,)
HISTORY = (
    _WINDOW,
    Param("buckets", "int", "how many bars", 48, least=1, most=400),
    Param("project_only", "bool", "the critical nodes only", False),
    *NODE_FILTERS,
    _SORT,
    *_NODE_PAGE,
)
