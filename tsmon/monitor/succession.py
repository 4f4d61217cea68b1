"""Machines that were re-installed: which new node follows which old one (rules 4.7 and 4.8). Pure.

The machine's own name says less than an ID: where another machine bears it too, or two may be meant, nobody
is followed. Two histories that are wrongly joined are worse than two that are apart.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from tsmon.monitor.changes import Changes, node_event
from tsmon.monitor.state import Event, Node, Predecessor
from tsmon.source.status import NodeFacts

SHORT_LIFE = 3600.0
"""Seconds: a node that lived less is one of many alike (CI), and nobody follows it."""
FRESH = 300.0
"""Seconds after its first sight in which a node may turn out to follow one that was there a little longer: a
killed container stays online for a while after the next one has joined."""
OVERLAP = 120.0
"""Seconds for which the old one may have been seen online after the new one was made."""
MOST = 20
"""Predecessors that a node keeps, the nearest ones."""

_Key = tuple[str, tuple[str, ...] | str, str]

_NUMBERED = re.compile(r"(.+)-\d+\Z")
_NO_NAMES = frozenset(("", "localhost"))


def family(facts: NodeFacts) -> str:
    """What an old and a new node must have in common to be looked at; "" for a node that nobody follows."""
    if facts.shared or facts.os_hostname.casefold() in _NO_NAMES:
        return ""
    return f"{facts.os_hostname.casefold()} {facts.os}"


def may_be_followed(node: Node) -> bool:
    """It was removed or is offline, lived long enough, and nobody followed it."""
    gone = node.removed_at is not None or node.missing_since is not None
    off = node.state == "offline" and not node.detached
    if node.successor or node.left_out or not (gone or off):
        return False
    begin = node.first_seen if node.facts.created is None else node.facts.created
    return bool(family(node.facts)) and _last_alive(node) - begin >= SHORT_LIFE


def strangers(facts: Iterable[NodeFacts]) -> set[str]:
    """The families of these new nodes: the removed nodes of them may be followed."""
    return {family(one) for one in facts} - {""}


def look_for_successors(changes: Changes, forgotten: Iterable[Node], now: float) -> None:
    """Separate what was joined wrongly, then join, in the `changes` of a trusted document at `now` (Unix
    seconds). `forgotten` are removed nodes of the new ones' families that only the store knows."""
    _separate(changes, now)
    fresh = [node for node in changes.nodes.values() if _may_follow(node, now)]
    if not fresh:
        return
    names = strangers(node.facts for node in fresh)
    others = {node.id: node for node in forgotten}
    others |= {id_: node for id_, node in changes.removed.items() if family(node.facts) in names}
    others |= {id_: node for id_, node in changes.nodes.items() if family(node.facts) in names}
    alike = _Alike(others.values())
    for node in fresh:
        old = _followed_by(node, alike)
        if old is not None:
            _join(node, old, changes, now)
            alike.put(changes.nodes.get(old.id) or changes.removed[old.id])


def _may_follow(node: Node, now: float) -> bool:
    return now - node.first_seen < FRESH and not node.predecessors and bool(family(node.facts))


def _followed_by(node: Node, alike: "_Alike") -> Node | None:
    """The one that `node` follows."""
    if alike.are_many(node):
        return None
    others = alike.others(node)
    candidates = [other for other in others if may_be_followed(other) and _comes_after(node, other)]
    there = [other for other in others if _stands(other)]
    if len(there) > 1 or any(other not in candidates for other in there):
        return None  # another machine bears the name: nobody can tell which one this is
    return max(candidates, key=_last_alive, default=None)


class _Alike:
    """Nodes by what a machine keeps when it is installed again: its own name and system, its owner or tags,
    its name in DNS."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._groups: dict[_Key, dict[str, Node]] = {}
        self._standing = Counter[_Key]()
        for node in nodes:
            self.put(node)

    def put(self, node: Node) -> None:
        """Add it, or what became of it."""
        for key in _keys(node):
            group = self._groups.setdefault(key, {})
            before = group.get(node.id)
            self._standing[key] += _stands(node) - (before is not None and _stands(before))
            group[node.id] = node

    def are_many(self, node: Node) -> bool:
        """Two stand beside it at least: answered without a look at each, since a thousand may bear a name."""
        return any(self._standing[key] - _stands(node) > 1 for key in _keys(node))

    def others(self, node: Node) -> list[Node]:
        """Those that it may be."""
        found: dict[str, Node] = {}
        for key in _keys(node):
            found |= self._groups[key]
        return [other for other in found.values() if other.id != node.id]


def _stands(node: Node) -> bool:
    return node.removed_at is None and node.missing_since is None and not node.successor


def _keys(node: Node) -> list[_Key]:
    owner = node.facts.tags or node.facts.user
    return [(family(node.facts), owner, stem) for stem in _stems(node.facts)] if owner else []


def _stems(facts: NodeFacts) -> set[str]:
    """The name in DNS, and without the number that control gives the second of a name."""
    name = facts.hostname.casefold()
    numbered = _NUMBERED.match(name)
    return {name, numbered[1]} if numbered else {name}


def _comes_after(node: Node, old: Node) -> bool:
    if node.first_seen <= old.first_seen:
        return False
    return node.facts.created is None or node.facts.created > _last_alive(old) - OVERLAP


def _last_alive(node: Node) -> float:
    """When it was online last, as far as known."""
    if node.state == "online" and node.removed_at is not None:
        return node.removed_at
    if node.state == "online" and node.missing_since is not None:
        return node.missing_since
    return node.last_online if node.last_online is not None else node.first_seen


def _join(node: Node, old: Node, changes: Changes, now: float) -> None:
    before = Predecessor(id=old.id, hostname=old.hostname, first_seen=old.first_seen, until=now)
    chain = (before, *old.predecessors)[:MOST]
    new = msgspec.structs.replace(node, predecessors=chain)
    _put(new, changes)
    _put(msgspec.structs.replace(old, successor=new.id), changes)
    details = {"successor_of": old.id, "predecessor": old.hostname}
    for at, event in enumerate(changes.events):
        if event.event_type == "node_added" and event.node_id == new.id:
            words = f"{event.message}, as the successor of {old.hostname}"
            changes.events[at] = msgspec.structs.replace(
                event, message=words, details=event.details | details
            )
            return
    words = f"{new.hostname} is the successor of {old.hostname}"
    changes.events.append(node_event("node_changed", "ok", new, now, words, **details))


def _separate(changes: Changes, now: float) -> None:
    """Whoever is online again was not followed: from there on the histories are apart."""
    back = {id_ for id_, node in changes.nodes.items() if node.successor and node.state == "online"}
    if not back:
        return
    for node in [*changes.nodes.values(), *changes.removed.values()]:
        ids = [one.id for one in node.predecessors]
        again = [id_ for id_ in ids if id_ in back]
        if again:
            kept = node.predecessors[: ids.index(again[0])]
            apart = msgspec.structs.replace(node, predecessors=kept)
            _put(apart, changes)
            if not kept:
                old = changes.nodes[again[0]]
                changes.events.append(_separated(apart, old, now))
    for id_ in back:
        _put(msgspec.structs.replace(changes.nodes[id_], successor=""), changes)


def _separated(node: Node, old: Node, now: float) -> Event:
    words = f"{old.hostname} is online again: {node.hostname} is another machine"
    details: dict[str, Any] = {"predecessor": old.hostname, "predecessor_id": old.id}
    return node_event("node_separated", "ok", node, now, words, **details)


def _put(node: Node, changes: Changes) -> None:
    """Put it where it is, and store it."""
    place = changes.nodes if node.removed_at is None else changes.removed
    place[node.id] = node
    changes.stored.append(node)
