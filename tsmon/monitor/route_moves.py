"""Comparing the routes of two trusted documents: moves, losses (rules 13.5 to 13.7). Pure, time passed in."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from tsmon.base.clock import Moment
from tsmon.monitor.routes import EXIT_ROUTES, RouteTable, SubnetRoute
from tsmon.monitor.state import Event, Node


class RouteChanges(NamedTuple):
    """What one document changed."""

    table: RouteTable
    events: list[Event]
    suspects: list[str]
    """Stable IDs of nodes that are called online but lost a route to another: to be asked at once."""


def compare_routes(before: RouteTable, nodes: Mapping[str, Node], now: Moment) -> RouteChanges:
    """`before` brought up to this trusted document."""
    events: list[Event] = []
    suspects: list[str] = []
    routers = _routers(nodes.values())
    subnets = {}
    for prefix in sorted(before.subnets.keys() | routers.keys()):
        old, ids = before.subnets.get(prefix), tuple(sorted(routers.get(prefix, ())))
        if old is not None and _waits(old, ids, nodes):
            subnets[prefix] = old
            continue
        new = _renewed(old, prefix, ids, nodes, now)
        subnets[prefix] = new
        if old is not None and _is_move(old, new):
            events.append(_moved(old, new, nodes, now))
            suspects += [id_ for id_ in (old.last,) if id_ in nodes and nodes[id_].state == "online"]
    table = msgspec.structs.replace(_exits(before, nodes, now), subnets=subnets)
    return RouteChanges(before if table == before else table, events, suspects)


def given_up(table: RouteTable, prefix: str) -> RouteTable:
    """Nobody is to route `prefix` any more; "": nobody is to be an exit node."""
    if not prefix:
        return msgspec.structs.replace(table, exit_since=None, exit_last="", exit_last_name="")
    subnets = {key: route for key, route in table.subnets.items() if key != prefix}
    return msgspec.structs.replace(table, subnets=subnets)


def cut_routes(table: RouteTable, now: float) -> RouteTable:
    """The clock went back: nothing may lie beyond `now` (Unix seconds)."""
    subnets = {
        prefix: msgspec.structs.replace(route, since=min(route.since, now))
        for prefix, route in table.subnets.items()
    }
    since = min(table.exit_since, now) if table.exit_since is not None else None
    return msgspec.structs.replace(table, subnets=subnets, exit_since=since)


def _is_there(node: Node) -> bool:
    return node.state == "online" and node.missing_since is None


def _routers(nodes: Iterable[Node]) -> dict[str, list[str]]:
    """Prefixes and the online nodes that route them. A row keeps its routes when its node goes offline:
    only an online one routes."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for prefix in node.facts.routes if node.facts.routes and _is_there(node) else ():
            if prefix not in EXIT_ROUTES:
                found.setdefault(prefix, []).append(node.id)
    return found


def _waits(old: SubnetRoute, ids: tuple[str, ...], nodes: Mapping[str, Node]) -> bool:
    """It would be lost, but nobody knows what its last router does: its state is unknown, or one document
    lacked it."""
    node = nodes.get(old.last)
    return not ids and not old.lost and node is not None and (node.state == "unknown" or _is_missed(node))


def _is_missed(node: Node) -> bool:
    return node.missing_since is not None


def _renewed(
    old: SubnetRoute | None, prefix: str, ids: tuple[str, ...], nodes: Mapping[str, Node], now: Moment
) -> SubnetRoute:
    last = (old.last if old is not None and old.last in ids else ids[0]) if ids else old.last if old else ""
    name = nodes[last].hostname if last in nodes else old.last_name if old is not None else ""
    if old is not None and old.routers == ids:
        return old if old.last_name == name else msgspec.structs.replace(old, last_name=name)
    return SubnetRoute(prefix=prefix, routers=ids, last=last, last_name=name, since=now.wall)


def _is_move(old: SubnetRoute, new: SubnetRoute) -> bool:
    """From one to another, also when nobody routed it for a while in between. Where several route one prefix
    each is near its own users: that is no move."""
    return len(new.routers) == 1 and len(old.routers) <= 1 and new.last != old.last


def _moved(old: SubnetRoute, new: SubnetRoute, nodes: Mapping[str, Node], now: Moment) -> Event:
    node = nodes[new.last]
    return Event(
        id=0,
        timestamp=now.wall,
        recorded_at=0.0,
        event_type="route_moved",
        severity="ok",
        node_id=node.id,
        hostname=node.hostname,
        node_type=node.role.node_type,
        message=f"{new.prefix} moved from {old.last_name} to {new.last_name}",
        details={"prefix": new.prefix, "from": old.last_name, "to": new.last_name, "from_id": old.last},
    )


def _exits(before: RouteTable, nodes: Mapping[str, Node], now: Moment) -> RouteTable:
    offered = [node for node in nodes.values() if node.facts.exit_node_option]
    there = tuple(sorted(node.id for node in offered if _is_there(node)))
    last = nodes.get(before.exit_nodes[0]) if before.exit_nodes else None
    if not there and last is not None and (last.state == "unknown" or _is_missed(last)):
        return before
    if there == before.exit_nodes:
        return before
    since = before.exit_since if there and before.exit_nodes else now.wall
    if there:
        return msgspec.structs.replace(
            before, exit_nodes=there, exit_since=since, exit_last="", exit_last_name=""
        )
    gone = before.exit_nodes[0]
    name = last.hostname if last is not None else gone
    return msgspec.structs.replace(
        before, exit_nodes=(), exit_since=now.wall, exit_last=gone, exit_last_name=name
    )
