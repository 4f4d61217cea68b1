"""The timelines about what must never be believed: rows 27 to 29 of docs/timelines.md."""

import asyncio
from pathlib import Path

import pytest

from tests.support.virtual import virtual
from tests.support.world import World, running
from tsmon.history.log import resolved_alerts

PROD = "chocolate-factory"


def breaks(world: World, error: Exception) -> None:
    """From now on reading the source raises what nobody foresaw."""

    async def status() -> bytes:
        raise error

    world.source.status = status  # type: ignore[method-assign]


def hangs(world: World) -> None:
    """From now on nothing that reads the source comes back, whatever its time limit."""

    async def status() -> bytes:
        await asyncio.Event().wait()
        return b""

    world.source.status = status  # type: ignore[method-assign]


@virtual
async def test_row_27_a_source_that_breaks_its_reader(tmp_path: Path) -> None:
    """An exception that nobody foresaw is an untrusted answer, and one traceback in the log."""
    async with running(tmp_path) as world:
        await world.run(61)
        breaks(world, RecursionError("maximum recursion depth exceeded"))
        await world.run(60)
        blind = world.monitor.view.blind
        assert blind is not None
        assert blind.reason == "bad_document"
        assert world.since_start(blind.since) == pytest.approx(60, abs=1)
        assert "RecursionError" in blind.message
        assert world.parts.heartbeat is None
        assert not world.monitor.sees, "the heartbeat is held back"
        await world.run(180)
        assert world.alerts() == [("monitor_blind", None)]
        assert world.told("node_online", "node_offline", "monitor_blind")[-1] == ("monitor_blind", None)
        assert [line["event"] for line in world.lines].count("source_broke_the_reader") == 1


@virtual
async def test_row_27_a_poll_that_hangs(tmp_path: Path) -> None:
    """Nobody steps any more: whoever reads sees it from the age of the view."""
    async with running(tmp_path) as world:
        await world.run(61)
        version = world.monitor.view.version
        samples = len(world.samples)
        hangs(world)
        limit = 3 * 15 + 10 + 30
        await world.run(limit - 5)
        assert world.monitor.view.blind is None
        await world.run(10)
        view = world.monitor.view
        assert view.blind is not None
        assert view.blind.reason == "stale"
        assert world.since_start(view.blind.since) == pytest.approx(60, abs=1)
        assert view.version > version, "what was cached is no answer any more"
        assert view.health().status == "unknown"
        assert not world.monitor.sees
        await world.run(120)
        assert world.told("monitor_blind") == [("monitor_blind", None)]
        assert world.alerts() == [("monitor_blind", None)]
        await world.run(300)
        assert all(not rows for _, rows in world.samples[samples:]), "no sample says what is not known"


@virtual
async def test_row_27_a_step_that_hangs_with_the_lock(tmp_path: Path) -> None:
    """Not even the tick comes through; readers see it all the same."""
    async with running(tmp_path) as world:
        await world.run(61)
        await world.parts.ledger.lock.acquire()
        await world.run(100)
        blind = world.monitor.view.blind
        assert blind is not None
        assert blind.reason == "stale"


@virtual
async def test_row_27_sight_returns(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        status = world.source.status
        hangs(world)
        await world.run(300)
        world.source.status = status  # type: ignore[method-assign]
        world.parts.loops.mend()  # the daemon looks every 5 s: the loop counts as stuck and is started again
        await world.run(180)
        assert world.monitor.view.blind is None
        assert world.told("monitor_blind", "monitor_restored") == [
            ("monitor_blind", None),
            ("monitor_restored", None),
        ]
        assert world.told("node_offline") == []
        assert world.alerts() == []


@virtual
async def test_row_28_a_machine_that_slept_is_not_stale(tmp_path: Path) -> None:
    """The monotonic clock stands still while a machine sleeps; the wall clock jumps."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.clock.offset += 3600
        await world.run(1)
        assert world.monitor.view.blind is None
        await world.run(300)
        assert world.told("monitor_blind", "node_offline") == []


@virtual
async def test_row_29_the_words_after_sight_returned(tmp_path: Path) -> None:
    """The message waits for a minute of sight; what it says is the moment of return and the true length."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.fault = "refused"
        await world.run(613)
        world.tailnet.fault = ""
        await world.run(120)
        back = next(event for event in world.events if event.event_type == "monitor_restored")
        ended = next(event for event in world.events if event.event_type == "alert_resolved")
        assert ended.message == "tsmon sees the tailnet again, after 10 min"
        returned = world.since_start(back.timestamp)
        assert returned == pytest.approx(674, abs=16)
        assert (
            ended.details["duration_s"] == back.details["duration_s"] == pytest.approx(returned - 60, abs=1)
        )
        [alert] = await resolved_alerts(world.store)
        assert world.since_start(alert.resolved_at or 0) == pytest.approx(returned, abs=1)
        assert "(10 min)" in "\n".join(world.told_to["team"][-1].lines)
