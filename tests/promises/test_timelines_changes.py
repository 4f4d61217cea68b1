"""The rules played through while the settings or the database change under tsmon (docs/timelines.md)."""

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.virtual import VirtualClock, virtual
from tests.support.world import TEAM, World, running
from tsmon.monitor.alerts import Silence
from tsmon.monitor.batch import Batch
from tsmon.notify.outcome import Outcome

PROD = "chocolate-factory"
DAY = 86400.0
FAILED = Outcome(False, "answered 503")


@virtual
async def test_row_34_a_reload_with_other_intervals(tmp_path: Path) -> None:
    intervals = 'check_interval = "10s"\nreport_interval = "30s"\ncollect_interval = "1m"\n'
    async with running(tmp_path) as world:
        await world.run(301)
        world.tailnet.off(PROD)
        await world.run(30)
        samples = len(world.samples)
        world.lines.clear()
        await world.reload(intervals + TEAM)
        await world.run(119)
        logged = [line["event"] for line in world.lines]
        assert logged.count("critical_node_offline") == pytest.approx(12, abs=1)
        assert logged.count("health_report") == pytest.approx(4, abs=1)
        assert [grid - world.clock.start for grid, _ in world.samples[samples:]] == [360.0, 420.0]
        patience = {name: loop.patience for name, loop in world.parts.loops._loops.items()}
        assert patience["collect"] == 60 + 60
        assert patience["check"] == 20 + 60
        assert [round(at - world.clock.start) for at, _ in world.parts.intervals.changes] == [0, 331]
        await world.reload(TEAM)
        await world.run(1)
        assert [seconds for _, seconds in world.parts.intervals.changes] == [300, 60, 300]
        before = world.parts.intervals
        await world.restart()
        assert world.parts.intervals == before


async def break_database(world: World) -> None:
    """Somebody overwrites the file under the running process: nothing of it can be saved."""
    with closing(sqlite3.connect(world.store.path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = world.store.path.stat().st_size
    with world.store.path.open("r+b") as file:
        file.write(b"\xaa" * size)


@virtual
async def test_row_35_the_database_is_begun_again_and_tsmon_restarts(tmp_path: Path) -> None:
    world = World(tmp_path, influx__url="http://127.0.0.1:9", influx__token="t", influx__org="o")
    await world.start()
    try:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        now = world.clock.wall()
        await world.parts.silencing.silence(
            Silence(id=0, author="a", reason="b", created=now, ends=now + 7200, hosts=("dev",))
        )
        world.outcomes["team"] = FAILED
        world.tailnet.off("git")
        await world.run(200)
        last_event, last_alert = world.events[-1].id, max(world.monitor.alerts)
        marks = world.influx.marks
        assert marks.keys() == {"influx_last_event", "influx_samples_since"}
        await break_database(world)
        await world.influx.put_samples(world.clock.start, [])
        await world.run(60)
        assert [line["event"] for line in world.lines].count("store_renewed") == 1
        samples = len(world.samples)
        await world.restart(after=5)
        del world.outcomes["team"]
        world.notifier.enable("team")
        world.tailnet.off("dev")
        await world.run(400)
        assert world.messages()[1:] == ["WARNING: git is offline"], "nothing twice, and dev is silenced"
        assert world.state(PROD) == "offline"
        assert [event.id for event in world.events] == list(range(1, len(world.events) + 1))
        assert world.events[-1].id > last_event
        new = [alert.id for alert in world.monitor.alerts.values() if alert.hostname == "dev"]
        assert new == [last_alert + 1]
        grids = [grid for grid, _ in world.samples]
        assert len(grids) == len(set(grids)), "no grid time twice"
        assert len(grids) > samples
        meta = await world.store.read(lambda db: dict(db.execute("SELECT key, value FROM meta")))
        assert int(meta["influx_last_event"]) >= int(marks["influx_last_event"])
        assert meta["influx_samples_since"] == marks["influx_samples_since"]
        world.tailnet.on(PROD, "git")
        await world.run(400)
        assert world.messages()[2:] == ["OK: 2 nodes are back"]
    finally:
        await world.kill()


@virtual
async def test_samples_that_notice_it_first_lose_nothing_of_what_is_known(tmp_path: Path) -> None:
    """The outbox of InfluxDB, not a step, finds the file broken: the next step fills the new one."""
    async with running(
        tmp_path, influx__url="http://127.0.0.1:9", influx__token="t", influx__org="o"
    ) as world:
        await world.run(61)
        await break_database(world)
        await world.influx.put_samples(world.clock.start, world.samples[0][1] if world.samples else [])
        await world.run(30)
        names = await world.store.read(
            lambda db: {name for (name,) in db.execute("SELECT hostname FROM nodes")}
        )
        assert {"git", "dev", PROD} <= names


@pytest.mark.slow
@virtual
async def test_row_36_a_channel_is_taken_out_and_put_back(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="1m") as world:
        await world.run(121)
        world.tailnet.off(PROD)
        await world.run(300)
        world.outcomes["team"] = FAILED
        world.tailnet.off("git")
        await world.run(300)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        await world.reload("")
        del world.outcomes["team"]
        world.tailnet.on(PROD, "git")
        await world.run(DAY / 2)
        await world.restart()
        world.tailnet.off("dev")
        await world.run(DAY)
        await world.reload(TEAM)
        await world.run(600)
        assert world.messages()[1:] == ["WARNING: dev is offline"], "no old news, but what is so now"
        world.tailnet.on("dev")
        await world.run(400)
        assert world.messages()[2:] == ["OK: dev is back online"]


@virtual
async def test_a_channel_that_is_put_back_soon_hears_how_it_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD, "git")
        await world.run(300)
        assert world.messages() == ["CRITICAL: 2 nodes are down"]
        await world.reload("")
        await world.run(60)
        world.tailnet.on(PROD)
        await world.run(600)
        await world.restart()
        await world.reload(TEAM)
        await world.run(60)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"], "git is known to be down"


@virtual
async def test_a_full_outbox_is_no_recovery_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, influx__url="http://127.0.0.1:9", influx__token="t", influx__org="o")
    await world.start()
    try:
        await world.run(2400)
        assert world.messages() == ["WARNING: InfluxDB takes no samples"]
        await world.restart()
        await world.run(300)
        assert ("storage_failing", None) in world.alerts()
        await world.reload(TEAM)
        await world.run(60)
        assert ("storage_failing", None) not in world.alerts()
        assert len(world.messages()) == 1, "that nobody writes there any more is no recovery"
    finally:
        await world.kill()


class JitteryClock(VirtualClock):
    """Wall time whose seventh decimal is never the same, as a real one's against monotonic time."""

    def __init__(self) -> None:
        super().__init__()
        self._noise = itertools.cycle((0.0, 3e-7, 1e-7, 7e-7))

    def wall(self) -> float:
        return super().wall() + next(self._noise)


@virtual
async def test_while_an_outage_lasts_the_channel_is_not_written_at_every_poll(tmp_path: Path) -> None:
    async with running(tmp_path, clock=JitteryClock()) as world:
        await world.run(61)
        world.tailnet.off(PROD, "git")
        await world.run(300)
        written: list[dict[str, str | None]] = []
        commit = world.parts.backlog._commit

        async def note(batch: Batch) -> None:
            written.append(dict(batch.meta))
            await commit(batch)

        world.parts.backlog._commit = note
        await world.run(600)
        assert len(written) > 40
        assert [meta for meta in written if "notify.team" in meta] == []
