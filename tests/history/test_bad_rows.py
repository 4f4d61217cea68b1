"""A row that cannot be read, of any table and in any column: moved aside, counted, and tsmon starts."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.alerts import alert
from tests.support.rows import event, nodes
from tests.support.site import site
from tsmon.config.service_checks import ServiceCheck
from tsmon.history.bad_rows import words_aside
from tsmon.history.rows import SELECT_EVENTS, read_events
from tsmon.history.schema import MIGRATIONS
from tsmon.history.store import Store
from tsmon.monitor.alerts import Silence
from tsmon.monitor.batch import Batch, LatencyRow, Observed, SpanChange
from tsmon.monitor.services.service import Service, ServiceSpan
from tsmon.notify.notice import Notice, check_row
from tsmon.source.control.devices import Device

CHECKS = {"notifications": check_row}
GARBAGE = ["x'fffe00'", "CAST(x'fffe41' AS TEXT)", "'{['", "-1.5e300"]


def _schema() -> Iterator[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS:
            db.executescript(script)
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (table,) in db.execute(names).fetchall():
            for row in db.execute(f"PRAGMA table_info({table})").fetchall():
                yield table, row[1]


def service(owner: str) -> Service:
    return Service(owner=owner, check=ServiceCheck("tcp", 22), name=owner, first_seen=100.0, since=100.0)


async def fill(directory: Path) -> Path:
    """A database with two good rows or more in every table."""
    store = await Store.open(directory, CHECKS)
    known = nodes()
    silence = Silence(id=1, created=1.0, ends=9e9, author="a", reason="r")
    notice = Notice(key="k", kind="test", made_at=1.0, title="t", words="w")
    await store.commit(
        Batch(
            nodes=known,
            observed=[Observed(100, 200), Observed(300, 400)],
            spans=[SpanChange(known[0].id, 100, "online"), SpanChange(known[0].id, 150, "offline")],
            events=[event(1), event(2)],
            alerts=[alert(1), msgspec.structs.replace(alert(2), state="resolved", resolved_at=5.0)],
            latency=[LatencyRow(known[0].id, at, 1.0, 1.0, 1.0, 0.0, "direct") for at in (1.0, 2.0)],
            devices=[Device(id=id_, hostname=id_) for id_ in ("n1", "n2")],
            services=[service("n1"), service("n2")],
            service_spans=[
                ServiceSpan(service("n1").key, 100, "online"),
                ServiceSpan(service("n1").key, 150, "offline"),
            ],
            meta={"last_grid": "300.0", "roles_fitted": "{}", "tailnet": "", "self_id": "1"},
        )
    )

    def more(db: sqlite3.Connection) -> None:
        for at in (1, 2):
            body = msgspec.json.encode(msgspec.structs.replace(silence, id=at)).decode()
            db.execute("INSERT INTO silences VALUES (?, 1.0, 9e9, ?)", (at, body))
            words = msgspec.json.encode(notice).decode()
            db.execute("INSERT INTO notifications VALUES (?, 'c', 1.0, ?, 0, 0, NULL, NULL)", (at, words))
            db.execute("INSERT INTO influx_outbox VALUES (?, 1.0, 1.0, 1, 1, x'61')", (at,))
            db.execute("INSERT INTO influx_quarantine VALUES (?, 1.0, 'line', 'error')", (at,))
            db.execute("INSERT INTO notes VALUES (?, 'n1', 1.0, 2.0, 0, 3.0, 'a', 't')", (at,))
            db.execute("INSERT INTO bad_rows VALUES (?, 1.0, 'events', 'reason', '{}')", (at,))

    await store.write(more)
    await store.close()
    return store.path


def spoil(path: Path, table: str, column: str, garbage: str) -> str:
    """Put garbage into one row; returns the type of what is stored ("" where SQLite itself refuses it)."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        keys = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[5]]
        last = db.execute(f"SELECT {', '.join(keys)} FROM {table} ORDER BY 1 DESC LIMIT 1").fetchone()
        where = " AND ".join(f"{key} IS ?" for key in keys)
        try:
            db.execute(f"UPDATE {table} SET {column} = {garbage} WHERE {where}", last)
        except sqlite3.IntegrityError:  # a number of its own
            return ""
        return str(db.execute(f"SELECT typeof({garbage})").fetchone()[0])


@pytest.mark.parametrize(("table", "column"), list(_schema()))
async def test_a_bad_row_is_moved_aside_and_the_rest_is_read(table: str, column: str, tmp_path: Path) -> None:
    good = await fill(tmp_path / "good")
    for number, garbage in enumerate(GARBAGE):
        directory = tmp_path / str(number)
        directory.mkdir()
        shutil.copy(good, directory / "tsmon.db")
        stored = spoil(directory / "tsmon.db", table, column, garbage)
        store = await Store.open(directory, CHECKS)
        try:
            loaded = await store.load(0.0)
            assert len(loaded.alerts) <= 1
            events = await store.read(lambda db: list(read_events(db.execute(SELECT_EVENTS))))
            assert len(events) in ((1, 2) if table == "events" else (2,))
            total = sum(store.bad_rows.values())
            if garbage == GARBAGE[1] and stored == "text":
                # One of `bad_rows` itself is only replaced.
                assert total == (2 if table == "bad_rows" else 3), "no column may hold what is no UTF-8"
            assert total in (2, 3), store.bad_rows
            await store.read(_read_all)
        finally:
            await store.close()


def _read_all(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Whatever is left can be read by Python."""
    return [
        row for table, _ in _schema() for row in db.execute(f"SELECT * FROM {table}") if table != "bad_rows"
    ]


async def test_a_whole_tsmon_starts_with_a_bad_row_in_every_table(tmp_path: Path) -> None:
    path = await fill(tmp_path / "state")
    spoiled = {"events": "details", "alerts": "body", "nodes": "body", "meta": "value", "spans": "state"}
    spoiled |= {"observed": "end", "latency": "time", "silences": "body", "notifications": "body"}
    spoiled |= {"influx_outbox": "grid", "influx_quarantine": "line", "notes": "start"}
    for table, column in spoiled.items():
        assert spoil(path, table, column, "x'fffe00'") == "blob"
    async with site(tmp_path) as tsmon:
        ready = await tsmon.get("/readyz")
        assert set(ready["storage"]["bad_rows"]) == set(spoiled)
        assert words_aside(ready["storage"]["bad_rows"]) in ready["warnings"]
        for where in ("logs", "alerts?state=all", "history?window=1d", "nodes", "summary", "critical"):
            await tsmon.get(f"/health-monitoring/{where}")


async def test_what_was_moved_aside_is_kept(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    spoil(path, "events", "details", "'{['")
    for _ in range(2):
        store = await Store.open(tmp_path, CHECKS)
        rows = await store.read(lambda db: db.execute("SELECT origin, reason, body FROM bad_rows").fetchall())
        await store.close()
        assert store.bad_rows == {"events": 3}
    origin, reason, body = rows[-1]
    assert (origin, bool(reason)) == ("events", True)
    assert msgspec.json.decode(body)["details"] == "{["


async def test_a_bad_node_keeps_its_history(tmp_path: Path) -> None:
    """Under the same number, once the tailnet lists it again."""
    path = await fill(tmp_path)
    spoil(path, "nodes", "body", "x'00'")
    store = await Store.open(tmp_path, CHECKS)
    known = nodes()
    numbers = "SELECT id, num FROM nodes ORDER BY id"
    before = await store.read(lambda db: db.execute(numbers).fetchall())
    assert len((await store.load(0.0)).nodes) == len(known) - 1
    await store.commit(Batch(nodes=known))
    assert await store.read(lambda db: db.execute(numbers).fetchall()) == before
    assert len((await store.load(0.0)).nodes) == len(known)
    await store.close()
