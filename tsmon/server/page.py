"""What the dashboard asks for: everything of its first glance in one answer, its table in another. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from tsmon.history.uptime import Bars
from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import Node, View
from tsmon.server.answers import HistoryNode, IncidentsAnswer, NodeAnswer, SummaryAnswer
from tsmon.server.beyond_answers import RoutesAnswer, ServicesAnswer
from tsmon.server.bodies import critical_body, page_of, with_list
from tsmon.server.choose_nodes import GROUPS, SORTS, NodeChoice, choose_nodes, count_flags, in_groups
from tsmon.server.control_answers import CoverageAnswer
from tsmon.server.one_node import PAGE_WINDOWS, NodePage
from tsmon.server.params import Query, Takes
from tsmon.server.render import Figures, NodeAlerts, history_node, node_answer
from tsmon.server.replies import Body, encode, encode_list

SPARK_STEP = 1800.0
"""Seconds that one point of a small latency line stands for."""
_MOST_NAMED = 200
"""Tags or owners that a list offers."""


class GlanceQuery(Query, frozen=True):
    """/glance."""

    sparks: Annotated[bool, Takes("bool", "with the latency of the critical nodes over 24 h")] = False
    node: Annotated[str, Takes("text", "with the page of this node: a hostname or an ID")] = ""
    window: Annotated[str, Takes("choice", "how far back that page looks", choices=tuple(PAGE_WINDOWS))] = (
        "24h"
    )
    outages: Annotated[int, Takes("int", "how many outages that page lists", 1, 10_000)] = 10
    with_history: Annotated[bool, Takes("bool", "with the history of that node")] = False
    beyond: Annotated[bool, Takes("bool", "with services, routes, and what is not seen from here")] = False


class TableQuery(NodeChoice, frozen=True):
    """/table."""

    group: Annotated[str, Takes("choice", "sections of the list", choices=GROUPS)] = ""
    folded: Annotated[str, Takes("text", "sections without rows: their names, parted by commas")] = ""
    bars: Annotated[bool, Takes("bool", "with the state bars of the last 24 h")] = False
    facets: Annotated[bool, Takes("bool", "with the tags and owners that there are")] = False
    sort: Annotated[str, Takes("choice", "the order; `-` before it reverses", choices=SORTS)] = "trouble"
    limit: Annotated[int, Takes("int", "how many rows at most", 1, 1000)] = 50
    offset: Annotated[int, Takes("int", "how many rows to skip", 0, 1_000_000)] = 0


class GlanceAnswer(msgspec.Struct):
    """The first glance in one piece; `critical` is what /critical answers."""

    summary: SummaryAnswer
    incidents: IncidentsAnswer
    warnings: list[str]
    newest_event: str
    sparks: dict[str, list[tuple[str | None, float | None]]] | None
    node: NodePage | None
    services: ServicesAnswer | None
    routes: RoutesAnswer | None
    coverage: CoverageAnswer | None
    node_services: ServicesAnswer | None
    critical: dict[str, Any]


class Section(msgspec.Struct):
    name: str
    total: int
    online: int
    offline: int
    alerting: int
    folded: bool


class TableAnswer(msgspec.Struct):
    """One page of the rows; folded sections have none."""

    total: int
    rows: int
    sections: list[Section]
    flags: dict[str, int]
    """Of all nodes: how many each of the yes-or-no filters would choose."""
    tags: list[str] | None
    users: list[str] | None
    roles: list[str] | None
    bounds: list[str | None] | None
    bars: list[HistoryNode] | None
    nodes: list[NodeAnswer]


class Table:
    """The rows that the parameters choose; `page` are those to show, whose bars may be asked for."""

    def __init__(self, view: View, alerts: Sequence[Alert], figures: Figures, query: TableQuery) -> None:
        self._view, self._figures, self._query = view, figures, query
        self._alerts = NodeAlerts(alerts)
        chosen = choose_nodes(view, self._alerts, query, figures)
        self.total = len(chosen)
        self._sections: list[Section] = []
        rows = chosen
        if query.group:
            folded = set(query.folded.split(",")) if query.folded else set()
            rows = []
            for name, members in in_groups(chosen, query.group).items():
                self._sections.append(self._section(name, members, folded=name in folded))
                rows += [] if name in folded else members
        self._rows = len(rows)
        self.page = page_of(rows, query.limit, query.offset)

    def _section(self, name: str, members: Sequence[Node], *, folded: bool) -> Section:
        states = [self._view.shown(node).state for node in members]
        alerting = sum(self._alerts.worst(node.id) is not None for node in members)
        counts = states.count("online"), states.count("offline"), alerting
        return Section(name, len(members), *counts, folded=folded)

    def body(self, bars: Mapping[str, Bars], bounds: list[str | None] | None) -> Body:
        """The answer as bytes."""
        nodes = self._view.nodes.values()
        tags = users = roles = None
        if self._query.facets:
            tags = _named(tag for node in nodes for tag in node.facts.tags)
            users = _named(node.facts.user for node in nodes if not node.facts.tagged)
            roles = _named(node.role.name for node in nodes)
        head = TableAnswer(
            self.total,
            self._rows,
            self._sections,
            count_flags(nodes, self._view, self._alerts),
            tags,
            users,
            roles,
            bounds,
            None if bounds is None else [history_node(n, bars[n.id]) for n in self.page if n.id in bars],
            [],
        )
        shown = encode_list(node_answer(node, self._view, self._alerts, self._figures) for node in self.page)
        return Body(with_list(encode(head), shown), total=self.total)


def _named(names: Iterable[str]) -> list[str]:
    return sorted(set(names) - {""})[:_MOST_NAMED]


def glance_body(
    answer: GlanceAnswer, view: View, keys: Mapping[str, str], alerts: Sequence[Alert], figures: Figures
) -> Body:
    """`answer`, with its `critical` filled in."""
    critical = critical_body(view, keys, alerts, figures).data
    return Body(encode(answer).removesuffix(b"{}}") + critical + b"}")
