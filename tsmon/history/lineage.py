"""The history of a machine that was re-installed: its node's, before that its predecessors' (rule 4.7)."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tsmon.monitor.state import Node
from tsmon.monitor.succession import family, may_be_followed

_MOST = 20
"""Removed nodes of one family that are looked at, the last ones."""


class Ancestor(NamedTuple):
    """A predecessor, whose history counts until another node took its place."""

    num: int
    first_seen: float
    until: float


def link_of(node: Node) -> tuple[str | None, float | None, str | None]:
    """The columns that join nodes: the predecessor, since when, the family of one that may be followed."""
    before = node.predecessors[0] if node.predecessors else None
    followed = family(node.facts) if node.removed_at is not None and may_be_followed(node) else None
    return (before.id if before else None, before.until if before else None, followed)


def ancestors(db: sqlite3.Connection, num: int) -> list[Ancestor]:
    """Of the node with this number, the oldest first."""
    rows = db.execute(
        "WITH RECURSIVE line (num, first_seen, until, depth) AS ("
        " SELECT p.num, p.first_seen, n.joined, 1 FROM nodes n JOIN nodes p ON p.id = n.predecessor"
        " WHERE n.num = ?"
        " UNION ALL"
        " SELECT p.num, p.first_seen, min(line.until, n.joined), depth + 1 FROM line"
        " JOIN nodes n ON n.num = line.num JOIN nodes p ON p.id = n.predecessor WHERE depth < 20"
        ") SELECT num, first_seen, until FROM line ORDER BY depth DESC",
        (num,),
    )
    return [Ancestor(*row) for row in rows]


def joined_since(db: sqlite3.Connection, start: float, nums: Iterable[int]) -> list[int]:
    """Those of the nodes that took the place of another after `start`."""
    found = db.execute("SELECT num FROM nodes WHERE predecessor IS NOT NULL AND joined > ?", (start,))
    return sorted({num for (num,) in found}.intersection(nums))


def removed_of(db: sqlite3.Connection, families: Iterable[str]) -> list[Node]:
    """The last removed nodes of these families that may be followed."""
    found: list[Node] = []
    for name in sorted(families):
        rows = db.execute(
            "SELECT body FROM nodes WHERE family = ? ORDER BY removed_at DESC LIMIT ?", (name, _MOST)
        )
        found += [msgspec.msgpack.decode(body, type=Node) for (body,) in rows if body]
    return found
