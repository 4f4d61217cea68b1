"""The store while nodes come and go: the upgrade, numbers, commits that fail, removed nodes."""

import contextlib
import gzip
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.paths import RELEASES
from tests.support.rows import event, nodes
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.pruning import Pruning
from tsmon.history.store import Store, StoreError
from tsmon.history.uptime import ObservedTime, calculate_uptime
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, LatencyRow, Observed, SpanChange
from tsmon.monitor.state import Node


def unpack_release(version: str, folder: Path) -> Path:
    """The database that a released version wrote."""
    path = folder / "tsmon.db"
    path.write_bytes(gzip.decompress((RELEASES / version / "tsmon.db.gz").read_bytes()))
    return path


async def test_the_history_of_0_1_0_is_kept_whole(tmp_path: Path) -> None:
    path = unpack_release("0.1.0", tmp_path)
    with sqlite3.connect(path) as db:
        counted = "SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM events), count(*) FROM spans"
        before = db.execute(counted).fetchone()
        spans = db.execute(
            "SELECT id, state, start, coalesce(end, 9e999) FROM spans JOIN nodes ON num = node"
        )
        by_node: dict[str, list[Any]] = {}
        for id_, *span in spans:
            by_node.setdefault(id_, []).append(tuple(span))
        observed = ObservedTime(db.execute("SELECT start, end FROM observed WHERE scope = ''").fetchall())
        present = dict(db.execute("SELECT id, first_seen FROM nodes WHERE removed_at IS NULL"))
        end = db.execute("SELECT max(end) FROM observed").fetchone()[0]
    db.close()
    store = await Store.open(tmp_path)
    try:
        assert await store.read(lambda db: db.execute(counted).fetchone()) == before
        found = await EmbeddedHistory(store).uptime(end - 30 * 86400, end)
        assert found == {
            id_: calculate_uptime(by_node[id_], observed, end - 30 * 86400, end, first_seen)
            for id_, first_seen in present.items()
        }
        loaded = await store.load(0)
        assert {node.id for node in loaded.nodes if node.removed_at is None} == set(present)
    finally:
        await store.close()


async def test_a_number_is_never_used_again(tmp_path: Path) -> None:
    """Spans and latency point to nodes by number: another node's history must not become this one's."""
    store = await Store.open(tmp_path)
    try:
        first, second, *_ = nodes()
        gone = msgspec.structs.replace(second, removed_at=500.0)
        await store.commit(Batch(nodes=[first, gone], spans=[SpanChange(gone.id, 100.0, "offline")]))
        pruning = Pruning(oldest=1000.0, oldest_latency=1000.0)
        while await store.prune(pruning):
            pass
        assert await store.find_nodes([gone.id]) == []
        numbers = "SELECT max(num) FROM nodes"
        assert await store.read(lambda db: db.execute(numbers).fetchone()[0]) == 1
        await store.commit(Batch(nodes=[msgspec.structs.replace(second, removed_at=None)]))
        assert await store.read(lambda db: db.execute(numbers).fetchone()[0]) == 3
        assert await store.read(lambda db: db.execute("SELECT count(*) FROM spans").fetchone()[0]) == 0
    finally:
        await store.close()


async def test_ids_of_alerts_and_events_are_never_used_again(tmp_path: Path) -> None:
    """Silences, messages and streams name them, also after a restart with nothing of them left."""
    store = await Store.open(tmp_path)
    await store.commit(
        Batch(
            events=[event(7)],
            alerts=[Alert(id=5, kind="node_offline", severity="warning", pending_at=1.0)],
        )
    )
    await store.commit(Batch(dropped_alerts=[5]))
    pruning = Pruning(oldest=1000.0, oldest_latency=1000.0)
    while await store.prune(pruning):
        pass
    await store.close()
    again = await Store.open(tmp_path)
    loaded = await again.load(0)
    await again.close()
    assert (loaded.next_event_id, loaded.next_alert_id) == (8, 6)


class FailingAt:
    """A connection whose n-th statement fails as on a full disk, once."""

    def __init__(self, db: sqlite3.Connection, at: int) -> None:
        self._db = db
        self._left = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def _counted(self, call: Callable[..., Any], *given: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return call(*given)

    def execute(self, statement: str, *given: Any) -> Any:
        if statement.startswith(("ROLLBACK", "PRAGMA")):
            return self._db.execute(statement, *given)
        return self._counted(self._db.execute, statement, *given)

    def executemany(self, *given: Any) -> Any:
        return self._counted(self._db.executemany, *given)


def _first(known: list[Node]) -> Batch:
    return Batch(
        observed=[Observed(100, 200)],
        nodes=known[:2],
        spans=[SpanChange(node.id, 100.0, "online") for node in known[:2]],
    )


def _second(known: list[Node]) -> Batch:
    """Two nodes that were not known, and a change of one that was."""
    return Batch(
        observed=[Observed(100, 300)],
        nodes=known[1:],
        spans=[SpanChange(known[1].id, 250.0, "offline")]
        + [SpanChange(node.id, 250.0, "offline") for node in known[2:]],
        events=[event(1)],
        alerts=[Alert(id=1, kind="node_offline", severity="warning", pending_at=1.0)],
        dropped_alerts=[9],
        latency=[LatencyRow(known[2].id, 300.0, 1, 1, 1, 0, None)],
        meta={"self_id": "1"},
    )


def _third(known: list[Node]) -> Batch:
    """What comes after the failure: the same nodes in another order."""
    return Batch(
        observed=[Observed(100, 400)],
        nodes=known[::-1],
        spans=[SpanChange(node.id, 350.0, "online") for node in known[::-1]],
    )


async def _all_of(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All of the history by stable ID."""
    statements = {
        "spans": "SELECT id, state, start, end FROM spans JOIN nodes ON num = node ORDER BY id, start",
        "latency": "SELECT id, time, mean_ms FROM latency JOIN nodes ON num = node",
        "events": "SELECT id FROM events",
        "alerts": "SELECT id FROM alerts",
        "meta": "SELECT key, value FROM meta",
        "observed": "SELECT scope, start, end FROM observed",
    }

    def read(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
        return {name: db.execute(statement).fetchall() for name, statement in statements.items()}

    return await store.read(read)


async def test_a_commit_that_fails_at_any_statement_leaves_nothing(tmp_path: Path) -> None:
    """After it memory equals the disk: what follows is booked on the right nodes."""
    known = nodes()
    expected = await Store.open(tmp_path / "expected")
    await expected.commit(_first(known))
    await expected.commit(_third(known))
    without = await _all_of(expected)
    await expected.close()
    for at in itertools.count(1):
        store = await Store.open(tmp_path / str(at))
        try:
            await store.commit(_first(known))
            store._db = FailingAt(store._db, at)  # type: ignore[arg-type,assignment]
            with contextlib.suppress(StoreError):
                await store.commit(_second(known))
                break
            store._db = store._db._db  # type: ignore[union-attr]
            await store.commit(_third(known))
            assert await _all_of(store) == without, f"failed at statement {at}"
        finally:
            await store.close()
    assert at > 15, "every statement of the batch was tried"


async def test_a_disk_that_fills_while_nodes_are_first_seen(tmp_path: Path) -> None:
    """SQLite's own error, in mid-transaction; then there is room."""
    [one, *_] = nodes()
    facts = one.facts
    many = [
        msgspec.structs.replace(one, facts=msgspec.structs.replace(facts, id=f"n{n}", hostname=f"h{n}"))
        for n in range(400)
    ]
    store = await Store.open(tmp_path)
    try:
        await store.commit(Batch(nodes=many[:3], spans=[SpanChange(n.id, 100.0, "online") for n in many[:3]]))

        def pages(db: sqlite3.Connection) -> int:
            return int(db.execute("PRAGMA page_count").fetchone()[0])

        def limit(most: int) -> Callable[[sqlite3.Connection], object]:
            return lambda db: db.execute(f"PRAGMA max_page_count = {most}").fetchone()

        await store.write(limit(await store.write(pages) + 20))
        with pytest.raises(StoreError, match="full"):
            await store.commit(Batch(nodes=many, spans=[SpanChange(n.id, 200.0, "offline") for n in many]))
        await store.write(limit(10**6))
        await store.commit(Batch(nodes=many[::-1], spans=[SpanChange(many[7].id, 300.0, "offline")]))
        found = await store.read(
            lambda db: db.execute(
                "SELECT id, state FROM spans JOIN nodes ON num = node ORDER BY start"
            ).fetchall()
        )
    finally:
        await store.close()
    assert found == [("n0", "online"), ("n1", "online"), ("n2", "online"), ("n7", "offline")]


async def test_removed_nodes_are_not_loaded_but_found(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    try:
        first, second, third, *_ = nodes()
        gone = msgspec.structs.replace(second, removed_at=500.0)
        alerted = msgspec.structs.replace(third, removed_at=600.0)
        alert = Alert(id=1, kind="node_missing", severity="critical", pending_at=1.0, node_id=third.id)
        await store.commit(Batch(nodes=[first, gone, alerted], alerts=[alert]))
        loaded = await store.load(0)
        assert {node.id for node in loaded.nodes} == {first.id, third.id}
        assert await store.find_removed(gone.id) == gone
        assert await store.find_removed(gone.hostname) == gone
        assert await store.find_removed("nobody") is None
        assert set(await EmbeddedHistory(store).uptime(0, 1000)) == {first.id}
        assert set(await EmbeddedHistory(store).uptime(0, 1000, [gone.id])) == {gone.id}
    finally:
        await store.close()
