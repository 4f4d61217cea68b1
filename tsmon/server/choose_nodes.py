"""Which nodes a list shows, and in which order. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from tsmon.monitor.state import Node, View
from tsmon.server.params import Query, Takes
from tsmon.server.render import NO_FIGURES, Figures, NodeAlerts

SORTS = tuple(
    sign + name
    for name in ("hostname", "state", "uptime", "latency", "last_seen", "trouble")
    for sign in ("", "-")
)
GROUPS = ("", "role", "tag", "user")
KEY_SOON = 14 * 86400.0
"""Seconds before the expiry of a key that are soon."""
_STATE_ORDER = {"offline": 0, "unknown": 1, "online": 2}
_STATES = ("", "online", "offline", "unknown")
_TYPES = ("", "production", "development", "git", "other")
_FLAGS = ("alerting", "flapping", "silenced", "relayed", "key_soon")


class NodeChoice(Query, frozen=True):
    """The parameters of a list of nodes."""

    project_only: Annotated[bool, Takes("bool", "the critical nodes only")] = False
    state: Annotated[str, Takes("choice", "only nodes in this state", choices=_STATES)] = ""
    node_type: Annotated[str, Takes("choice", "only nodes of this type", choices=_TYPES)] = ""
    tag: Annotated[str, Takes("text", "only nodes with this tag (with or without `tag:`)")] = ""
    user: Annotated[str, Takes("text", "only nodes of this owner")] = ""
    role: Annotated[str, Takes("text", "only nodes of this role")] = ""
    alerting: Annotated[bool | None, Takes("bool", "only nodes with (or without) a firing alert")] = None
    flapping: Annotated[bool | None, Takes("bool", "only nodes that come and go (or do not)")] = None
    silenced: Annotated[bool | None, Takes("bool", "only nodes whose alert is silenced (or is not)")] = None
    relayed: Annotated[
        bool | None, Takes("bool", "only nodes that are reached over a relay (or are not)")
    ] = None
    key_soon: Annotated[
        bool | None, Takes("bool", "only nodes whose key expires within 14 days (or does not)")
    ] = None
    q: Annotated[
        str, Takes("text", "only nodes with each of these words in name, address, tag, owner, OS or reason")
    ] = ""
    sort: Annotated[str, Takes("choice", "the order; `-` before it reverses", choices=SORTS)] = ""


def choose_nodes(view: View, alerts: NodeAlerts, query: NodeChoice, figures: Figures) -> list[Node]:
    """The nodes that the parameters choose: critical ones first, by hostname, unless `sort` is given."""
    tag = query.tag
    tag = tag if not tag or tag.startswith("tag:") else f"tag:{tag}"
    words = query.q.casefold().split()
    state, node_type = query.state, query.node_type
    flags = {name: wanted for name in _FLAGS if (wanted := getattr(query, name)) is not None}
    chosen = [
        node
        for node in view.nodes.values()
        if (not query.project_only or node.role.critical)
        and (not node_type or node.role.node_type == node_type)
        and (not tag or tag in node.facts.tags)
        and (not query.user or node.facts.user == query.user)
        and (not query.role or node.role.name == query.role)
        and (not state or view.shown(node).state == state)
        and (not words or _has_words(node, view, words))
        and all(has_flag(name, node, view, alerts) == wanted for name, wanted in flags.items())
    ]
    chosen.sort(key=lambda node: (not node.role.critical, node.hostname))
    if query.sort:
        name = query.sort.removeprefix("-")
        key = _sort_key(name, view, alerts, figures)
        # Nodes without the figure stand last in either order.
        known = [node for node in chosen if key(node) is not None]
        known.sort(key=key, reverse=query.sort.startswith("-"))
        chosen = known + [node for node in chosen if key(node) is None]
    return chosen


def has_flag(name: str, node: Node, view: View, alerts: NodeAlerts) -> bool:
    """Whether one of the yes-or-no filters holds for `node`."""
    match name:
        case "alerting":
            return alerts.worst(node.id) is not None
        case "flapping":
            return alerts.is_flapping(node.id)
        case "silenced":
            return alerts.silenced_until(node.id) is not None
        case "relayed":
            return view.measured(node).path in ("relay", "peer_relay")
    expiry = node.facts.key_expiry
    return expiry is not None and view.now <= expiry <= view.now + KEY_SOON


def count_flags(nodes: Iterable[Node], view: View, alerts: NodeAlerts) -> dict[str, int]:
    """How many of `nodes` each of the yes-or-no filters would choose."""
    counts = dict.fromkeys(_FLAGS, 0)
    for node in nodes:
        for name in _FLAGS:
            counts[name] += has_flag(name, node, view, alerts)
    return counts


def group_of(node: Node, kind: str) -> str:
    """The section of `node` in a list by `role`, `tag` (its first) or `user`; "" for none of that kind."""
    if kind == "role":
        return node.role.name
    if kind == "tag":
        return min(node.facts.tags, default="")
    return "" if node.facts.tagged else node.facts.user


def in_groups(nodes: Sequence[Node], kind: str) -> dict[str, list[Node]]:
    """The sections of the list, each in the order of `nodes`: those with critical nodes first, then by name,
    what belongs to none last."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(group_of(node, kind), []).append(node)
    critical = {name for name, members in found.items() if any(node.role.critical for node in members)}
    return {name: found[name] for name in sorted(found, key=lambda n: (not n, n not in critical, n))}


def _has_words(node: Node, view: View, words: Sequence[str]) -> bool:
    facts = node.facts
    texts = (facts.hostname, facts.dns_name, facts.user, facts.os, *facts.ips, *facts.tags)
    text = "\n".join((*texts, view.shown(node).reason or "")).casefold()
    return all(word in text for word in words)


def _sort_key(name: str, view: View, alerts: NodeAlerts, figures: Figures) -> Callable[[Node], Any]:
    def trouble(node: Node) -> tuple[bool, bool, int, str]:
        state = view.shown(node).state
        urgent = alerts.worst(node.id) is not None or (node.role.critical and state != "online")
        return not urgent, not node.role.critical, _STATE_ORDER[state], node.hostname

    keys: dict[str, Callable[[Node], Any]] = {
        "hostname": lambda node: node.hostname,
        "state": lambda node: _STATE_ORDER[view.shown(node).state],
        "uptime": lambda node: figures.get(node.id, NO_FIGURES)[0],
        "latency": lambda node: view.measured(node).latency_ms,
        "last_seen": view.last_seen,
        "trouble": trouble,
    }
    return keys[name]
