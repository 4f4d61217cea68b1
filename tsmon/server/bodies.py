"""The large answers as bytes, made slice by slice: called in a thread when there are many nodes. Pure."""

from collections.abc import Mapping, Sequence

from tsmon.base.clock import rfc3339
from tsmon.history.uptime import Bars
from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import Node, View
from tsmon.server.answers import CriticalEntry, HistoryAnswer
from tsmon.server.choose_nodes import choose_nodes
from tsmon.server.render import Figures, NodeAlerts, critical_answer, history_node, node_answer
from tsmon.server.replies import Body, encode, encode_list
from tsmon.server.route_params import NodesQuery

_OPEN_LIST = b"[]}"


def nodes_body(view: View, alerts: Sequence[Alert], figures: Figures, query: NodesQuery) -> Body:
    """The nodes that the parameters of /nodes choose."""
    of_nodes = NodeAlerts(alerts)
    chosen = choose_nodes(view, of_nodes, query, figures)
    rows = (node_answer(node, view, of_nodes, figures) for node in page_of(chosen, query.limit, query.offset))
    names = query.fields
    shown = ({name: getattr(row, name) for name in names} if names else row for row in rows)
    return Body(encode_list(shown), total=len(chosen))


def critical_body(view: View, keys: Mapping[str, str], alerts: Sequence[Alert], figures: Figures) -> Body:
    """One entry per critical role key; everybody may be critical."""
    answer = critical_answer(view, keys, NodeAlerts(alerts), figures)
    members = []
    for key, entry in answer.items():
        head = encode(CriticalEntry(entry.status, entry.online, entry.total, entry.was_filled, []))
        members.append(encode(key) + b":" + with_list(head, encode_list(entry.nodes)))
    return Body(b"{" + b",".join(members) + b"}")


def history_body(
    nodes: Sequence[Node], bars: Mapping[str, Bars], bounds: Sequence[float], kind: str, total: int
) -> Body:
    """The bars of one page of nodes; `total`: how many the parameters choose in all."""
    times = [rfc3339(bound) for bound in bounds]
    head = encode(HistoryAnswer(times[0], times[-1], len(times) - 1, times, kind, []))
    rows = encode_list(history_node(node, bars[node.id]) for node in nodes if node.id in bars)
    return Body(with_list(head, rows), total=total)


def page_of(nodes: list[Node], limit: int | None, offset: int) -> list[Node]:
    """At most `limit` (None: all) of `nodes` from `offset` on."""
    return nodes[offset : None if limit is None else offset + limit]


def with_list(head: bytes, rows: bytes) -> bytes:
    """`head`, an encoded struct whose last field is an empty list, with `rows` for that list."""
    return head.removesuffix(_OPEN_LIST) + rows + b"}"
