"""The embedded store: what was committed is there, whatever happens to the file."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.support.paths import ROOT
from tests.support.rows import count, event, nodes
from tsmon.history.backlog import Backlog
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.log import EventFilter, all_events, events_after, page_of_events, resolved_alerts
from tsmon.history.pruning import Pruning
from tsmon.history.schema import MIGRATIONS
from tsmon.history.store import Store, StoreError, StoreRenewedError
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, LatencyRow, Observed, SpanChange
from tsmon.monitor.state import Node


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path)
    yield store
    await store.close()


async def test_what_is_committed_is_loaded(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    known = nodes()
    alert = Alert(id=7, kind="node_offline", severity="warning", pending_at=1.0, node_id=known[0].id)
    done = msgspec.structs.replace(alert, id=8, state="resolved", resolved_at=5.0)
    flip = event(3, node_id=known[0].id, details={"reason": "control"})
    await store.commit(
        Batch(
            observed=[Observed(100, 200), Observed(100, 250)],
            nodes=known,
            events=[event(1), event(2, event_type="node_online"), flip],
            alerts=[alert, done],
            meta={"self_id": "1", "gone": "x"},
        )
    )
    await store.commit(Batch(meta={"gone": None}))
    await store.close()
    again = await Store.open(tmp_path)
    loaded = await again.load(flips_since=2.0)
    assert sorted(loaded.nodes, key=lambda n: n.id) == sorted(known, key=lambda n: n.id)
    assert loaded.alerts == [alert]
    assert loaded.meta == {"self_id": "1"}
    assert [e.id for e in loaded.flips] == [2, 3]
    assert loaded.flips[1] == flip
    assert (loaded.next_event_id, loaded.next_alert_id, loaded.last_observed) == (4, 9, 250)
    await again.close()


async def test_flips_before_a_settling_do_not_count(store: Store) -> None:
    settled = event(2, event_type="alert_resolved", node_id="n1", details={"cause": "settled"})
    await store.commit(
        Batch(events=[event(1, node_id="n1"), settled, event(3, node_id="n1"), event(4, node_id="n2")])
    )
    assert [e.id for e in (await store.load(0)).flips] == [3, 4]


async def test_a_quiet_poll_is_one_row(store: Store) -> None:
    await store.commit(Batch(observed=[Observed(100, 100)], nodes=nodes()))
    before = {table: await count(store, table) for table in ("spans", "nodes", "events", "observed")}
    for second in range(101, 140):
        await store.commit(Batch(observed=[Observed(100, second)]))
    assert {table: await count(store, table) for table in before} == before


async def test_spans_change_and_history_answers(store: Store) -> None:
    known = nodes()
    one, other = known[0].id, known[1].id
    await store.commit(
        Batch(
            observed=[Observed(100, 400)],
            nodes=known,
            spans=[SpanChange(one, 100, "online"), SpanChange(other, 100, "online")],
        )
    )
    await store.commit(Batch(spans=[SpanChange(one, 200, "offline")]))
    await store.commit(Batch(spans=[SpanChange(one, 300, "online"), SpanChange(other, 250, None)]))
    history = EmbeddedHistory(store)
    found = await history.uptime(100, 400)
    assert (found[one].online_s, found[one].offline_s, found[one].uptime_percentage) == (200, 100, 66.67)
    assert (found[other].online_s, found[other].unknown_s) == (150, 150)
    assert [(o.start, o.end) for o in await history.outages(one, 0, 1000)] == [(200, 300)]
    bars = await history.bars([100, 200, 300, 400], [one])
    assert bars == {one: bars[one]}
    assert bars[one].states == "oxo"
    assert bars[one].uptime == [100.0, 0.0, 100.0]
    third = known[2].id
    assert (await history.uptime(100, 400, [third]))[third].uptime_percentage is None


async def test_a_stopped_self_has_its_own_observed_time(store: Store) -> None:
    known = nodes()
    own, other = known[0].id, known[1].id
    await store.commit(
        Batch(
            observed=[Observed(100, 200), Observed(100, 300, own)],
            nodes=known,
            spans=[
                SpanChange(own, 100, "online"),
                SpanChange(other, 100, "online"),
                SpanChange(own, 200, "offline"),
            ],
        )
    )
    found = await EmbeddedHistory(store).uptime(100, 300)
    assert (found[own].online_s, found[own].offline_s) == (100, 100)
    assert (found[other].online_s, found[other].unknown_s) == (100, 100)


async def test_a_change_dated_before_its_span_leaves_nothing_of_it(store: Store) -> None:
    known = nodes()
    one = known[0].id
    await store.commit(Batch(nodes=known, spans=[SpanChange(one, 100, "online")]))
    await store.commit(Batch(spans=[SpanChange(one, 90, "offline")]))
    rows = await store.read(lambda db: db.execute("SELECT state, start, end FROM spans").fetchall())
    assert rows == [("offline", 100, None)]


async def test_nothing_lies_beyond_a_cut(store: Store) -> None:
    known = nodes()
    one, two = known[0].id, known[1].id
    await store.commit(
        Batch(
            observed=[Observed(100, 500), Observed(450, 600, one)],
            nodes=known,
            spans=[
                SpanChange(one, 100, "online"),
                SpanChange(one, 400, "offline"),
                SpanChange(two, 450, "online"),
            ],
            latency=[LatencyRow(one, 400, 1, 2, 3, 0, "direct")],
        )
    )
    await store.commit(Batch(cut_at=300))
    spans = await store.read(
        lambda db: db.execute("SELECT state, start, end FROM spans ORDER BY node, start").fetchall()
    )
    assert spans == [("online", 100, 300), ("offline", 300, None), ("online", 300, None)]
    assert await store.read(lambda db: db.execute("SELECT scope, start, end FROM observed").fetchall()) == [
        ("", 100, 300)
    ]
    assert await count(store, "latency") == 0


async def test_latency_rows(store: Store) -> None:
    known = nodes()
    one = known[0].id
    rows = [LatencyRow(one, t, 1.0, 2.0, 3.0, 0.5, "relay") for t in (300.0, 600.0, 900.0)]
    await store.commit(Batch(nodes=known, latency=[*rows, LatencyRow("unknown", 300, 1, 1, 1, 0, None)]))
    assert await EmbeddedHistory(store).latency(one, 300, 600) == rows[:2]


async def test_the_log_is_filtered_and_paged(store: Store) -> None:
    await store.commit(
        Batch(
            events=[
                event(
                    n,
                    severity=("ok", "warning", "critical")[n % 3],
                    hostname=f"host_{n % 2}",
                    node_id=f"n{n % 2}",
                )
                for n in range(1, 31)
            ]
        )
    )
    events, total, counts = await page_of_events(store, EventFilter(), 20, 20)
    assert [e.id for e in events] == list(range(10, 0, -1))
    assert (total, counts) == (30, {"ok": 10, "warning": 10, "critical": 10})
    events, total, counts = await page_of_events(store, EventFilter(severity="critical"), 5, 0)
    assert (len(events), total, sum(counts.values())) == (5, 10, 30)
    for chosen, expected in [
        (EventFilter(hostname="host_1"), 15),
        (EventFilter(node_id="n1", since=10, until=20), 5),
        (EventFilter(q="EVENT 1"), 11),
        (EventFilter(q="%"), 0),
        (EventFilter(q="_"), 30),
        (EventFilter(event_type="node_online"), 0),
        (EventFilter(before=11), 10),
    ]:
        assert (await page_of_events(store, chosen, 20, 0))[1] == expected
    assert [e.id for e in await events_after(store, 27, 10)] == [28, 29, 30]
    streamed = [e.id async for chunk in all_events(store, EventFilter(hostname="host_0")) for e in chunk]
    assert streamed == list(range(30, 0, -2))


async def test_resolved_alerts_are_kept_and_dropped_ones_are_not(store: Store) -> None:
    alert = Alert(id=1, kind="node_offline", severity="warning", pending_at=1.0)
    done = Alert(
        id=2, kind="node_offline", severity="warning", pending_at=1.0, state="resolved", resolved_at=3.0
    )
    await store.commit(Batch(alerts=[alert, done]))
    await store.commit(Batch(dropped_alerts=[1]))
    assert await resolved_alerts(store) == [done]
    assert (await store.load(0)).alerts == []


async def test_retention_goes_in_small_steps(store: Store) -> None:
    known = nodes()
    one = known[0].id
    await store.commit(Batch(nodes=known, events=[event(n) for n in range(1, 1300)]))
    for n in range(600):
        await store.commit(
            Batch(
                observed=[Observed(n * 10, n * 10 + 5)],
                spans=[SpanChange(one, n * 10, ("online", "offline")[n % 2])],
                latency=[LatencyRow(one, n * 10, 1, 1, 1, 0, None)],
            )
        ) if n % 3 == 0 else None
    steps = 0
    pruning = Pruning(1200.0, 3000.0)
    while await store.prune(pruning):
        steps += 1
    assert steps >= 2
    assert await store.read(lambda db: db.execute("SELECT min(id) FROM events").fetchone()[0]) == 1200
    assert await store.read(lambda db: db.execute("SELECT min(end) FROM spans").fetchone()[0]) >= 1200
    assert await store.read(lambda db: db.execute("SELECT min(end) FROM observed").fetchone()[0]) >= 1200
    assert await store.read(lambda db: db.execute("SELECT min(time) FROM latency").fetchone()[0]) >= 3000


# -- the file ----------------------------------------------------------------------------------------------


async def test_one_process_per_database(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"in use by tsmon with process id {os.getpid()}"):
        await Store.open(tmp_path)


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    await (await Store.open(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "tsmon.db", isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer tsmon"):
        await Store.open(tmp_path)
    assert (tmp_path / "tsmon.db").exists()


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "tsmon.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreError, match="another program's database"):
        await Store.open(tmp_path)


@pytest.mark.parametrize("garbage", [b"this is no database " * 300, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_broken_file_is_set_aside(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "tsmon.db").write_bytes(garbage)
    store = await Store.open(tmp_path)
    assert "was broken" in store.report
    kept = [path for path in tmp_path.iterdir() if ".broken-" in path.name]
    assert kept[0].read_bytes() == garbage
    await store.commit(Batch(events=[event(1)]))
    assert await count(store, "events") == 1
    await store.close()


async def test_a_file_broken_in_the_middle_is_found_at_the_start(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.commit(Batch(events=[event(n) for n in range(1, 2000)]))
    await store.close()
    path = tmp_path / "tsmon.db"
    raw = bytearray(path.read_bytes())
    raw[8192:40960] = b"\xaa" * 32768
    path.write_bytes(raw)
    again = await Store.open(tmp_path)
    assert "was broken" in again.report
    await again.close()


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="state_dir"):
        await Store.open(tmp_path / "file" / "below")


async def test_the_file_is_deleted_under_the_running_process(store: Store, tmp_path: Path) -> None:
    """What the open connection still holds is written to a new file: nothing is lost."""
    await store.commit(Batch(events=[event(1)]))
    for path in tmp_path.glob("tsmon.db*"):
        path.unlink()
    await store.commit(Batch(events=[event(2)]))
    assert await count(store, "events") == 2
    assert "nothing was lost" in store.report
    with closing(sqlite3.connect(tmp_path / "tsmon.db", isolation_level=None)) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (2,)
    db.close()


async def test_the_file_is_replaced_under_the_running_process(store: Store, tmp_path: Path) -> None:
    await store.commit(Batch(events=[event(1)]))
    (tmp_path / "tsmon.db").unlink()
    (tmp_path / "tsmon.db").write_bytes(b"another file")
    await store.commit(Batch(events=[event(2)]))
    assert await count(store, "events") == 2
    kept = [path for path in tmp_path.iterdir() if ".broken-" in path.name]
    assert any(path.read_bytes() == b"another file" for path in kept)


async def test_the_file_is_truncated_under_the_running_process(tmp_path: Path) -> None:
    """The history in it is gone, and that is said; what is known now is written anew."""
    store = await Store.open(tmp_path)
    await store.commit(Batch(events=[event(n) for n in range(1, 3000)]))
    await store.write(lambda db: None)
    with closing(sqlite3.connect(tmp_path / "tsmon.db", isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    os.truncate(tmp_path / "tsmon.db", 0)
    whole = Batch(nodes=nodes())
    backlog = Backlog(store.commit, store.find_nodes)
    for n in range(3000, 3010):
        await backlog.commit(Batch(events=[event(n)]), lambda: whole)
    assert backlog.error == ""
    assert await count(store, "nodes") == len(whole.nodes)
    assert await count(store, "events") >= 1
    assert "was broken" in store.report
    await store.close()


async def test_a_locked_database_is_an_error_and_recovers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmon.history.store.BUSY_SECONDS", 0.01)
    other = sqlite3.connect(tmp_path / "tsmon.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    backlog = Backlog(store.commit, store.find_nodes)
    await backlog.commit(Batch(events=[event(1)]))
    await backlog.commit(Batch(events=[event(2)]))
    assert "another program holds it locked" in backlog.error
    assert backlog.waiting == 2
    other.execute("ROLLBACK")
    other.close()
    await backlog.commit(Batch(events=[event(3)]))
    assert (backlog.error, backlog.waiting) == ("", 0)
    assert await count(store, "events") == 3


async def test_a_rollback_that_fails_too_is_not_the_last_of_the_connection(store: Store) -> None:
    def fails_and_stays_failed(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('half', 'x')")
        db.set_progress_handler(lambda: True, 1)
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()

    with pytest.raises(StoreError):
        await store.write(fails_and_stays_failed)
    await store.commit(Batch(meta={"whole": "y"}))
    assert "half" not in (await store.load(0)).meta
    assert (await store.load(0)).meta["whole"] == "y"


@pytest.mark.parametrize(
    ("pragma", "mended", "words"),
    [
        ("max_page_count = 1", "max_page_count = 1000000", "the disk is full"),
        ("query_only = 1", "query_only = 0", "it is read-only"),
    ],
)
async def test_a_full_disk_and_a_read_only_file(store: Store, pragma: str, mended: str, words: str) -> None:
    """SQLite's own errors, provoked on the writing connection: said, kept in memory, written later."""
    writer = store._db
    assert writer is not None
    await store.commit(Batch(events=[event(1)]))
    writer.execute(f"PRAGMA {pragma}")
    backlog = Backlog(store.commit, store.find_nodes)
    large = [event(n, message="x" * 500) for n in range(2, 100)]
    await backlog.commit(Batch(events=large))
    await backlog.commit(Batch(events=[event(100)]))
    assert words in backlog.error
    assert backlog.waiting == 2
    assert await count(store, "events") == 1, "what was there can still be read"
    writer.execute(f"PRAGMA {mended}")
    await backlog.commit(Batch(events=[event(101)]))
    assert (backlog.error, backlog.waiting) == ("", 0)
    assert await count(store, "events") == 101


async def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreError):
        await store.commit(Batch(events=[event(1)], also=[fail]))
    assert await count(store, "events") == 0


async def test_quiet_polls_do_not_pile_up_in_memory() -> None:
    failing = True
    written: list[Batch] = []

    async def commit(batch: Batch) -> None:
        if failing:
            raise StoreError("the disk is full")
        written.append(batch)

    async def find(_: Collection[str]) -> list[Node]:
        return []

    backlog = Backlog(commit, find)
    await backlog.commit(Batch(events=[event(1)]))
    for second in range(1000):
        await backlog.commit(Batch(observed=[Observed(0, second)]))
    await backlog.commit(Batch(events=[event(2)]))
    assert backlog.waiting <= 4
    failing = False
    await backlog.commit(Batch(observed=[Observed(0, 1000)]))
    assert [e.id for batch in written for e in batch.events] == [1, 2]
    assert written[-1].observed[-1].end == 1000


async def test_reads_cannot_write_and_end_in_time(store: Store) -> None:
    with pytest.raises(StoreError, match=r"read-?only"):
        await store.read(lambda db: db.execute("DELETE FROM events"))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreError, match="too long"):
        await store.read(lambda db: db.execute(endless).fetchone(), timeout=0.05)
    assert await count(store, "events") == 0


async def test_closing_finishes_the_queue(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    gate = threading.Event()
    blocked = asyncio.ensure_future(store.write(lambda _: gate.wait(5)))
    writes = [asyncio.ensure_future(store.commit(Batch(events=[event(n)]))) for n in range(1, 50)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.close())
    gate.set()
    await closing
    await asyncio.gather(blocked, *writes)
    again = await Store.open(tmp_path)
    assert await count(again, "events") == 49
    await again.close()


async def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    """kill -9 of a writing process: every commit that it told of is there, whole."""
    script = """
import asyncio, sys
from pathlib import Path
from tsmon.history.pruning import Pruning
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch
from tests.support.rows import event
async def main():
    store = await Store.open(Path(sys.argv[1]))
    for n in range(1, 10**6):
        await store.commit(Batch(events=[event(2 * n), event(2 * n + 1)]))
        print(2 * n + 1, flush=True)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    last = 0
    async with asyncio.timeout(30):
        while last < 400:
            last = int(await process.stdout.readline())
        process.kill()
        told = (await process.stdout.read()).split()
        await process.wait()
    last = int(told[-1]) if told else last
    store = await Store.open(tmp_path)
    found = await store.read(lambda db: [row[0] for row in db.execute("SELECT id FROM events ORDER BY id")])
    assert found[: last - 1] == list(range(2, last + 1))
    assert len(found) % 2 == 0
    await store.close()


def test_renewed_is_a_store_error() -> None:
    assert issubclass(StoreRenewedError, StoreError)
