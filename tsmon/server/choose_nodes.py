"""Which nodes a list shows, and in which order. Pure."""

from collections.abc import Callable
from typing import Any

from tsmon.monitor.state import Node, View
from tsmon.server.params import Param
from tsmon.server.render import NO_FIGURES, Figures

SORTS = tuple(
    sign + name for name in ("hostname", "state", "uptime", "latency", "last_seen") for sign in ("", "-")
)
NODE_FILTERS = (
    Param("state", "choice", "only nodes in this state", "", choices=("", "online", "offline", "unknown")),
    Param(
        "node_type",
        "choice",
        "only nodes of this type",
        "",
        choices=("", "production", "development", "git", "other"),
    ),
    Param("tag", "text", "only nodes with this tag (with or without `tag:`)", ""),
    Param("q", "text", "only nodes with this text in their hostname", ""),
)
_STATE_ORDER = {"offline": 0, "unknown": 1, "online": 2}


def choose_nodes(view: View, values: dict[str, Any], figures: Figures) -> list[Node]:
    """The nodes that the parameters choose: critical ones first, by hostname, unless `sort` is given."""
    tag = values["tag"]
    tag = tag if not tag or tag.startswith("tag:") else f"tag:{tag}"
    text = values["q"].casefold()
    state, node_type = values["state"], values["node_type"]
    chosen = [
        node
        for node in view.nodes.values()
        if (not values["project_only"] or node.role.critical)
        and (not node_type or node.role.node_type == node_type)
        and (not tag or tag in node.facts.tags)
        and (not text or text in node.hostname.casefold())
        and (not state or view.shown(node).state == state)
    ]
    chosen.sort(key=lambda node: (not node.role.critical, node.hostname))
    if values["sort"]:
        name = values["sort"].removeprefix("-")
        key = _sort_key(name, view, figures)
        # Nodes without the figure stand last in either order.
        known = [node for node in chosen if key(node) is not None]
        known.sort(key=key, reverse=values["sort"].startswith("-"))
        chosen = known + [node for node in chosen if key(node) is None]
    return chosen


def _sort_key(name: str, view: View, figures: Figures) -> Callable[[Node], Any]:
    keys: dict[str, Callable[[Node], Any]] = {
        "hostname": lambda node: node.hostname,
        "state": lambda node: _STATE_ORDER[view.shown(node).state],
        "uptime": lambda node: figures.get(node.id, NO_FIGURES)[0],
        "latency": lambda node: view.measured(node).latency_ms,
        "last_seen": view.last_seen,
    }
    return keys[name]
