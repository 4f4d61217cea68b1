"""The commands about InfluxDB: what the doctor reads of the outbox, and exporting the history."""

import asyncio
import json
import os
import sqlite3
import sys
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from tests.support.fake_api import serving as serving_aside
from tests.support.influx_server import TOKEN, FakeInflux, Point, read_line
from tests.support.virtual import START, run_virtual
from tests.support.world import running, settings
from tsmon.base.clock import Clock
from tsmon.cli import main
from tsmon.cli.doctor.outbox import examine_outbox
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.influx.outbox import Outbox
from tsmon.history.influx.points import unpack
from tsmon.history.schema import MIGRATIONS
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

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
    assert refused[2].startswith("lines that InfluxDB refused: 1, last ")
    assert refused[2].endswith("missing fields")
    assert "\x1b" not in refused[2]


def test_the_doctor_reads_a_broken_database_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tsmon.db").write_text("no database" * 100)
    assert found(tmp_path / "state", 0.0) == []


def test_the_whole_doctor_says_it(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "state"))
    with closing(sqlite3.connect(tmp_path / "state" / "tsmon.db", isolation_level=None)) as db:
        db.execute("UPDATE influx_outbox SET created = created - 86400")
    result = run("doctor", "--json", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
    rows = {row["what"]: row for row in json.loads(result.stdout)}
    assert rows["outbox"]["level"] == "warning"
    assert rows["outbox"]["remedy"]


# -- export ------------------------------------------------------------------------------------------------


async def an_hour(state: Path) -> None:
    """A history of five nodes, 13 grid times each; one was off for half an hour."""
    async with running(state) as world:
        await world.run(1)
        world.tailnet.off("dev")
        await world.run(1800)
        world.tailnet.on("dev")
        await world.run(1830)


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    run_virtual(an_hour(state))
    return state


def times(points: list[Point], hostname: str = "git") -> list[int]:
    return [point.time for point in points if point.tags["hostname"] == hostname]


def test_the_history_as_line_protocol(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_INFLUX_TAGS", "site=home")
    result = run("export", "--line-protocol")
    assert result.exit_code == 0
    points = [read_line(line) for line in result.stdout.splitlines()]
    assert times(points) == [int(START) + 300 * n for n in range(13)]
    assert [point.time for point in points] == sorted(point.time for point in points)
    assert [p.fields["online"] for p in points if p.tags["hostname"] == "dev"] == [1] + [0] * 6 + [1] * 6
    assert {point.tags["site"] for point in points} == {"home"}
    assert {point.measurement for point in points} == {"tailscale_health"}
    file = tmp_path / "lines"
    assert run("export", "--line-protocol", "--since", "2000-01-01", "-o", str(file)).exit_code == 0
    assert file.read_text() == result.stdout
    assert run("export", "--line-protocol", "--since", "1h").stdout == ""


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*arguments: str) -> str:
        result = run("export", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "say what: one of events, " in said()
    assert "say what" in said("events", "--line-protocol")
    assert "tsmon.db: no tsmon has run with this state directory" in said("--line-protocol")
    assert "InfluxDB is not configured: set influx.url" in said("--to-influxdb")
    asyncio.run(fill(tmp_path / "state"))
    monkeypatch.setenv("TSMON_INFLUX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TSMON_INFLUX_ORG", "home")
    assert "the history holds no sample from before" in said("--to-influxdb")
    database = tmp_path / "state" / "tsmon.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
    assert "is not of this version of tsmon" in said("--line-protocol")
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.executescript(f"PRAGMA user_version = {len(MIGRATIONS)}; DROP TABLE spans")
    assert "cannot be read: no such table" in said("--line-protocol")
    database.with_name("tsmon.db-wal").unlink(missing_ok=True)
    database.write_text("no database" * 100)
    assert "file is not a database" in said("--line-protocol")


class FakeAdmin:
    """The admin socket of a tsmon whose outbox has no room at first."""

    def __init__(self, full: int) -> None:
        self.full = full
        self.lines: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/influx/lines", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.full -= 1
        if self.full >= 0:
            return web.json_response({"taken": False})
        self.lines += unpack(b64decode((await request.json())["lines"]))
        return web.json_response({"taken": True})


def test_the_export_waits_for_room_in_the_outbox(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_INFLUX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TSMON_INFLUX_ORG", "home")
    monkeypatch.setattr("tsmon.cli.export_samples._PAUSE", 0.01)
    monkeypatch.setattr("tsmon.cli.export_samples.MOST_LINES", 20)
    fake = FakeAdmin(full=3)
    with serving_aside(fake.application(), lived / "admin.sock"):
        result = run("export", "--to-influxdb")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("65 samples from before ")
    assert "\n".join(fake.lines) + "\n" == run("export", "--line-protocol").stdout
    monkeypatch.setattr("tsmon.cli.export_samples.PATIENCE", 0.0)
    with serving_aside(FakeAdmin(full=1000).application(), lived / "admin.sock"):
        result = run("export", "--to-influxdb")
    assert result.exit_code == 1
    assert result.stderr.startswith("tsmon: InfluxDB takes nothing (see tsmon doctor)")


def test_what_influxdb_has_already_is_not_sent(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_INFLUX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TSMON_INFLUX_ORG", "home")
    with closing(sqlite3.connect(lived / "tsmon.db", isolation_level=None)) as db:
        first = START + 900
        value = f"{first!r} http://127.0.0.1:1 home analytics"
        db.execute("INSERT INTO meta VALUES ('influx_samples_since', ?)", (value,))
    fake = FakeAdmin(full=0)
    with serving_aside(fake.application(), lived / "admin.sock"):
        assert run("export", "--to-influxdb").exit_code == 0
    assert {read_line(line).time for line in fake.lines} == {START, START + 300, START + 600}


def test_a_state_directory_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TSMON_STATE_DIR", str(tmp_path / "file" / "state"))
    result = run("export", "--line-protocol")
    assert result.exit_code == 1
    assert result.stderr.endswith("tsmon.db: not a directory (is this the user that tsmon runs as?)\n")


def test_the_outbox_must_be_reached(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_INFLUX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TSMON_INFLUX_ORG", "home")
    result = run("export", "--to-influxdb")
    assert result.exit_code == 1
    assert "does tsmon run, with this state directory?" in result.stderr


async def test_the_history_goes_to_influxdb_through_the_running_tsmon(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    await asyncio.to_thread(run_virtual, an_hour(state))
    fake, tailnet = FakeInflux(), SimTailnet(Clock())
    tailnet.add("git")
    async with serving(fake.application()) as url, serving(FakeSidecar(tailnet).application()) as sidecar:
        environ = {
            "TSMON_SOURCE": sidecar,
            "TSMON_LISTEN": "127.0.0.1:0",
            "TSMON_INFLUX_URL": url,
            "TSMON_INFLUX_TOKEN": TOKEN,
            "TSMON_INFLUX_ORG": "home",
        }
        daemon = await command(environ, "run")
        try:
            async with asyncio.timeout(90):
                while not (state / "admin.sock").exists():  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
                for _ in range(2):
                    export = await command(environ, "export", "--to-influxdb", "--since", "400d")
                    said, wrong = await export.communicate()
                    assert (export.returncode, wrong) == (0, b"")
                    assert said.startswith(b"65 samples from before ")
                while len(fake.stored) < 130:  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
        finally:
            if daemon.returncode is None:
                daemon.terminate()
            await daemon.communicate()
    assert set(fake.kept().values()) == {1}, "a second time doubles nothing"
    assert times(fake.points())[:13] == [int(START) + 300 * n for n in range(13)]


async def command(environ: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tsmon", *arguments, env=os.environ | environ, stdout=pipe, stderr=pipe
    )
