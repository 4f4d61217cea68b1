"""Retention: what ended too long ago goes, a few rows a step, so that no write waits long."""

import sqlite3

from tsmon.history.rows import keep_last_id
from tsmon.history.service_rows import prune_services

_ROWS = 500
_NODES = 200
"""How many nodes' spans and latency one step looks at."""


class Pruning:
    """One pass over the tables, in steps; times in Unix seconds."""

    def __init__(self, oldest: float, oldest_latency: float) -> None:
        """What ended before `oldest` goes, latency before `oldest_latency`."""
        self._oldest = oldest
        self._oldest_latency = oldest_latency
        self._node = -1  # the nodes up to this number are done

    def step(self, db: sqlite3.Connection) -> bool:
        """Delete some of it in the transaction that is open; True when there may be more."""
        return (
            self._removed_nodes(db)
            or self._rows(db)
            or prune_services(db, self._oldest, _ROWS)
            or self._of_nodes(db)
        )

    def _removed_nodes(self, db: sqlite3.Connection) -> bool:
        """Nodes that left before `oldest`, with all that points to them."""
        gone = db.execute(
            "SELECT num, id FROM nodes WHERE removed_at < ? ORDER BY removed_at LIMIT ?",
            (self._oldest, _NODES),
        ).fetchall()
        numbers = [(num,) for num, _ in gone]
        db.executemany("DELETE FROM spans WHERE node = ?", numbers)
        db.executemany("DELETE FROM latency WHERE node = ?", numbers)
        db.executemany("DELETE FROM observed WHERE scope = ?", [(id_,) for _, id_ in gone])
        db.executemany("DELETE FROM nodes WHERE num = ?", numbers)
        return len(gone) == _NODES

    def _rows(self, db: sqlite3.Connection) -> bool:
        """Of the tables in which the oldest rows are found at once."""
        keep_last_id(db, "events")
        keep_last_id(db, "alerts")
        more = False
        for table, key, ended in (
            ("alerts", "id", "state = 'resolved' AND resolved_at < ?"),
            ("observed", "scope, start", "end < ?"),
            ("bad_rows", "id", "found < ?"),
            ("notes", "id", "end < ?"),
            # Ids grow with recording: the oldest events are the first.
            ("events", "id", "id < (SELECT min(id) FROM events) + 500 AND recorded_at < ?"),
        ):
            some = f"SELECT {key} FROM {table} WHERE {ended} LIMIT ?"  # noqa: S608 (all of it stands above)
            statement = f"DELETE FROM {table} WHERE ({key}) IN ({some})"  # noqa: S608
            more |= db.execute(statement, (self._oldest, _ROWS)).rowcount >= _ROWS
        return more

    def _of_nodes(self, db: sqlite3.Connection) -> bool:
        """Spans and latency lie node by node, each node's in order: the oldest are the first of each."""
        nodes = db.execute(
            "SELECT num FROM nodes WHERE num > ? ORDER BY num LIMIT ?", (self._node, _NODES)
        ).fetchall()
        deleted = 0
        for (num,) in nodes:
            deleted += db.execute(
                "DELETE FROM spans WHERE node = ? AND start < ? AND end < ?",
                (num, self._oldest, self._oldest),
            ).rowcount
            deleted += db.execute(
                "DELETE FROM latency WHERE node = ? AND time < ?", (num, self._oldest_latency)
            ).rowcount
            self._node = num
            if deleted >= _ROWS:
                break
        return bool(nodes)
