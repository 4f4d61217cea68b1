"""Whose a row is that cannot be decoded (rule 4.2). Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from tsmon.monitor.state import Node
from tsmon.source.status import Snapshot

Suspects = Mapping[str, frozenset[str]]
"""Keys of undecodable rows that no known node has -> stable IDs of the nodes that the document lacked in
which the key was first seen. Only one of them can be behind it: all others were there beside it."""


class Hidden(NamedTuple):
    """What the undecodable rows of one document hide."""

    nodes: frozenset[str]
    """Stable IDs of the nodes that are taken to be one of these rows."""
    suspects: Suspects
    """For the next document."""


def hidden_by(snapshot: Snapshot, nodes: Mapping[str, Node], before: Suspects) -> Hidden:
    """Which of the known `nodes` that `snapshot` lacks are among its undecodable rows: those with the key of
    one for sure, and for each other such row one that it may be, a critical one first."""
    if not snapshot.malformed_keys:
        return Hidden(frozenset(), {})
    lacking = {id_ for id_ in nodes if id_ not in snapshot.nodes and id_ not in snapshot.excluded_ids}
    owners = {nodes[id_].facts.key: id_ for id_ in lacking if nodes[id_].facts.key}
    hidden = {owners[key] for key in snapshot.malformed_keys if key in owners}
    free = frozenset(lacking - hidden)
    suspects = {key: before.get(key, free) for key in snapshot.malformed_keys if key not in owners}

    def likelier(id_: str) -> tuple[bool, bool, str]:
        node = nodes[id_]
        return not node.role.critical, not node.unreadable, node.hostname

    for ids in sorted(suspects.values(), key=len):
        left = (ids & free) - hidden
        if left:
            hidden.add(min(left, key=likelier))
    return Hidden(frozenset(hidden), suspects)
