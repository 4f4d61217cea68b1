"""The commands about InfluxDB: what the doctor reads of the outbox, and exporting the history."""

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.harness import settings
from tsmon.cli import main
from tsmon.cli.examine_outbox import examine_outbox
from tsmon.clock import Clock
from tsmon.collector import Sample
from tsmon.influx.outbox import Outbox
from tsmon.store import Store

SAMPLES = [Sample("git", "git", "Linux", 1, None, None), Sample("dev", "other", "Linux", 0, None, None)]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration or state of the machine that runs the tests."""
    for name in os.environ:
        if name.startswith("TSMON_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("TSMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("tsmon.config.loading.DEFAULT_FILE", tmp_path / "none.toml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def found(state: Path, now: float, **values: Any) -> list[tuple[str, str, str]]:
    chosen = settings(state_dir=state, **values)
    return [(row.what, row.level, row.says) for row in examine_outbox(chosen, now)]


async def fill(state: Path) -> None:
    store = await Store.open(state)
    outbox = Outbox(settings().influx, store, Clock())
    await outbox.put_samples(300.0, SAMPLES)
    await store.close()


async def refuse(state: Path) -> None:
    store = await Store.open(state)
    outbox = Outbox(settings().influx, store, Clock())
    row = await outbox.oldest()
    assert row is not None
    await outbox.remove(row.id, {"tailscale_health,hostname=evil\x1b[31m online=1i 300": "missing fields"})
    await store.close()


def test_the_doctor_reads_outbox_and_quarantine(tmp_path: Path) -> None:
    state = tmp_path / "state"
    now = Clock().wall()
    url = {"influx__url": "http://127.0.0.1:1", "influx__org": "home"}
    assert found(state, now, **url) == [], "no database yet"
    asyncio.run(fill(state))
    assert found(state, now, **url) == [("outbox", "ok", "2 lines wait for InfluxDB, the oldest for 0 s")]
    [(_, level, says)] = found(state, now + 7230)
    assert (level, says) == ("warning", "2 lines wait for InfluxDB, the oldest for 2 h")
    asyncio.run(refuse(state))
    assert [row[0] for row in found(state, now)] == ["quarantine"], "InfluxDB is not configured any more"
    [waits, refused] = found(state, now, **url)
    assert waits == ("outbox", "ok", "nothing waits for InfluxDB")
    assert refused[1] == "warning"
    assert refused[2].startswith("InfluxDB refused 1 lines, last ")
    assert refused[2].endswith("missing fields")
    assert "\x1b" not in refused[2]


def test_the_doctor_reads_a_broken_database_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tsmon.db").write_text("no database" * 100)
    assert found(tmp_path / "state", 0.0) == []


def test_the_whole_doctor_says_it(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "state"))
    with sqlite3.connect(tmp_path / "state" / "tsmon.db") as db:
        db.execute("UPDATE influx_outbox SET created = created - 86400")
    result = run("doctor", "--json", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
    rows = {row["what"]: row for row in json.loads(result.stdout)}
    assert rows["outbox"]["level"] == "warning"
    assert rows["outbox"]["remedy"]
