"""The timed jobs in virtual time: when they run, what they leave, what they survive."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.virtual import VirtualClock, run_virtual, virtual
from tests.support.world import World, running
from tsmon.base.clock import Clock, grid_floor, parse_rfc3339, rfc3339
from tsmon.base.pace import Pace

PROD = "chocolate-factory"


@virtual
async def test_a_day_of_a_small_tailnet(tmp_path: Path) -> None:
    """Every job ran exactly as often as a day has intervals, on time, and the history knows the whole day."""
    day = 86400
    async with running(tmp_path) as world:
        await world.run(day)
        # The first answers of pings ask for one read more.
        assert 0 <= world.source.reads - day // 15 <= 2
        grids = [grid for grid, _ in world.samples]
        assert grids == [world.clock.start + 300 * n for n in range(1, day // 300 + 1)]
        assert all(len(samples) == 5 for _, samples in world.samples)
        checks = [e for e in world.events if e.event_type == "health_check"]
        assert len(checks) == day // 300
        reports = [line for line in world.lines if line["event"] == "health_report"]
        assert len(reports) == 25
        uptime = await world.uptime(PROD, 0, day)
        assert (uptime.uptime_percentage, uptime.coverage) == (100.0, 100.0)
        assert [kind for kind, _ in world.told()] == ["monitor_started", *["node_online"] * 3]
        rows = await world.store.read(lambda db: db.execute("SELECT count(*) FROM latency").fetchone()[0])
        assert rows == 3 * (day // 300)
        spans = await world.store.read(lambda db: db.execute("SELECT count(*) FROM spans").fetchone()[0])
        assert spans == 5


@virtual
async def test_ticks_do_not_drift_and_are_skipped_not_bunched() -> None:
    clock = VirtualClock()
    times: list[float] = []
    async for now in clock.ticks(10):
        times.append(now.mono)
        await clock.sleep({1: 3.7, 2: 34.0}.get(len(times), 0.5))
        if len(times) == 6:
            break
    assert times == [0, 10, 50, 60, 70, 80]


@virtual
async def test_the_grid_follows_the_wall_clock() -> None:
    clock = VirtualClock(start=1_000_000_000.0 - 1_000_000_000.0 % 300 + 100)
    grid: list[float] = []
    async for point in Pace(clock).grid(lambda: 300):
        grid.append(point - clock.start)
        if len(grid) == 2:
            clock.offset += 3000  # set forward: what was stepped over is skipped
        if len(grid) == 3:
            clock.offset -= 7200  # set back: points begin again from where the clock is
        if len(grid) == 4:
            break
    assert grid[:2] == [200, 500]
    assert 3200 <= grid[2] <= 3800
    assert grid[3] < grid[2]
    assert all(point % 300 == 200 for point in grid)


@virtual
async def test_a_pace_that_changes_counts_from_the_last_tick() -> None:
    clock, every = VirtualClock(), [100.0]
    pace = Pace(clock)
    times: list[float] = []

    async def tick() -> None:
        async for _ in pace.ticks(lambda: every[0]):
            times.append(clock.mono())  # noqa: PERF401 (it never ends)

    ticking = asyncio.create_task(tick())
    await clock.sleep(130)
    every[0] = 10
    pace.change()
    await clock.sleep(25)
    every[0] = 1000
    pace.change()
    await clock.sleep(1200)
    ticking.cancel()
    assert times == [0, 100, 130, 140, 150, 1150]


@virtual
async def test_a_grid_that_changes_begins_with_its_next_time() -> None:
    clock, every = VirtualClock(), [300.0]
    pace = Pace(clock)
    points: list[float] = []

    async def note() -> None:
        async for point in pace.grid(lambda: every[0]):
            points.append(point - clock.start)  # noqa: PERF401 (it never ends)

    noting = asyncio.create_task(note())
    await clock.sleep(430)
    every[0] = 60
    pace.change()
    await clock.sleep(120)
    noting.cancel()
    assert points == [300, 480, 540]


def test_times_are_written_and_read() -> None:
    assert rfc3339(None) is None
    assert rfc3339(0.999) == "1970-01-01T00:00:00Z"
    assert parse_rfc3339("2026-11-23T14:02:00Z") == parse_rfc3339("2026-11-23T15:02:00+01:00")
    assert parse_rfc3339("2026-11-23T14:02:00") == parse_rfc3339("2026-11-23T14:02:00Z")
    assert grid_floor(299.9, 300) == 0


async def test_the_real_clock_moves() -> None:
    clock = Clock()
    before = clock.now()
    await clock.sleep(0.01)
    await clock.sleep(-5)
    after = clock.now()
    assert after.mono > before.mono
    assert after.wall > before.wall


@virtual
async def test_samples_say_what_the_schema_says(tmp_path: Path) -> None:
    world = World(tmp_path, "git", PROD, "old")
    world.tailnet.add("mac", os="macOS")
    world.tailnet.add("theirs.tail9.example", shared=True, online=False)
    world.tailnet.off("old")
    await world.start()
    try:
        await world.run(301)
        found = {sample.hostname: sample for sample in world.samples[0][1]}
        assert set(found) == {"monitor", "git", PROD, "old", "mac"}, "unknown state writes nothing"
        assert (found["git"].online, found["old"].online) == (1, 0)
        assert (found["git"].node_type, found[PROD].node_type, found["mac"].os) == (
            "git",
            "production",
            "Darwin",
        )
        assert found["git"].latency_ms == 12.0
        assert found["mac"].latency_ms is None
        assert found["old"].latency_ms is None
        world.tailnet.off("git")
        await world.run(300)
        later = {sample.hostname: sample for sample in world.samples[1][1]}
        assert (later["git"].online, later["git"].latency_ms) == (0, None)
    finally:
        await world.kill()


@virtual
async def test_blind_collects_nothing_but_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(100)
        world.tailnet.stop()
        await world.run(201)
        assert [sample.hostname for sample in world.samples[0][1]] == ["monitor"]
        assert world.samples[0][1][0].online == 0
        check = next(e for e in world.events if e.event_type == "health_check")
        assert "blind (tailscale_stopped)" in check.message
        assert check.severity == "warning"


@virtual
async def test_no_grid_time_is_written_twice_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(301)
        await world.kill()
        world.clock.offset -= 20
        await world.start()
        await world.run(330)
        grids = [grid for grid, _ in world.samples]
        assert grids == sorted(set(grids))


@virtual
async def test_the_checks_log_lines(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(30)
        world.tailnet.off(PROD, "git", "alices-laptop")
        await world.run(240)
        lines = [line for line in world.lines if line["event"] == "critical_node_offline"]
        errors = [line for line in lines if line["level"] == "error"]
        warnings = [line for line in lines if line["level"] == "warning"]
        assert [line["hostname"] for line in errors] == [PROD] * 2
        assert [line["hostname"] for line in warnings] == ["git"] * 2
        assert set(errors[0]) >= {"hostname", "node_type", "since", "last_seen"}
        assert errors[0]["since"] == rfc3339(world.node(PROD).since)


@virtual
async def test_a_bus_change_is_stored_within_a_second(tmp_path: Path) -> None:
    async with running(tmp_path, bus=True) as world:
        await world.run(31)
        begun = world.clock.wall()
        world.tailnet.off(PROD)
        await world.run(2)
        event = next(e for e in world.events if e.event_type == "node_offline")
        assert event.recorded_at - begun <= 1.0


@virtual
async def test_a_bus_that_never_rests_is_coalesced(tmp_path: Path) -> None:
    async with running(tmp_path, bus=True) as world:
        await world.run(31)
        before = world.source.reads
        for n in range(600):
            world.tailnet.change("git", latency_ms=float(n))
            await world.run(0.1)
        assert world.source.reads - before <= 66, "at most one read a second, and the usual ones"


@virtual
async def test_a_source_that_flaps_every_second_costs_no_event(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="1s") as world:
        await world.run(10)
        before = len(world.told())
        for _ in range(60):
            world.tailnet.fault = "" if world.tailnet.fault else "refused"
            await world.run(1)
        assert len(world.told()) == before


@virtual
async def test_an_exception_in_a_job_is_not_the_end(tmp_path: Path) -> None:
    """A listener that raises is logged; polls go on."""
    async with running(tmp_path) as world:

        def broken(_: Any) -> None:
            raise ValueError("x")

        world.parts.ledger.subscribe(broken)
        await world.run(61)
        assert world.source.reads >= 5
        assert any(line["event"] == "listener_failed" for line in world.lines)


@virtual
async def test_a_suspended_machine_is_found_within_3_minutes(tmp_path: Path) -> None:
    for moment in (61, 100, 119):
        async with running(tmp_path / str(moment)) as world:
            await world.run(moment)
            world.tailnet.hang(PROD)
            await world.run(180)
            assert world.node(PROD).reason == "unreachable"
            event = next(e for e in world.events if e.event_type == "node_offline")
            assert event.details["reason"] == "unreachable"


@virtual
async def test_nobody_else_to_ask(tmp_path: Path) -> None:
    async with running(tmp_path, PROD) as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(180)
        event = next(e for e in world.events if e.event_type == "node_offline")
        assert event.details["cross_checked"] is False
        assert "no other node" in event.message


@virtual
async def test_isolation_is_told_after_5_minutes_and_ends_with_an_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.uplink = False
        await world.run(500)
        assert world.alerts() == [("monitor_isolated", None)]
        assert not world.told("node_offline")
        await world.restart()
        await world.run(60)
        assert world.alerts() == [("monitor_isolated", None)], "a restart neither ends nor repeats it"
        world.tailnet.uplink = True
        await world.run(90)
        assert not world.alerts()
        assert len(world.told("alert")) == 1


@virtual
async def test_an_expired_key_is_no_missed_ping(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.change(PROD, expired=True)
        await world.run(300)
        assert world.node(PROD).reason == "key_expired"
        assert world.alerts() == [("node_offline", PROD)]
        assert "key expired" in world.alert("node_offline").message


@virtual
async def test_a_source_without_ping_leaves_latency_null(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.source.can_ping = False
        await world.run(200)
        world.tailnet.hang(PROD)
        await world.run(400)
        assert world.state(PROD) == "online"
        assert world.node(PROD).reach.reachable is None


@virtual
async def test_an_unreachable_node_is_believed_again_when_nobody_can_ping_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(200)
        assert world.node(PROD).reason == "unreachable"
        world.source.can_ping = False
        await world.run(30)
        assert world.state(PROD) == "online"


@virtual
async def test_a_removed_node_returns(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        node = world.tailnet.find("alices-laptop")
        world.tailnet.remove("alices-laptop")
        await world.run(14)
        assert world.state("alices-laptop") == "online", "until the second look its last state stands"
        await world.run(30)
        assert world.told("node_removed") == [("node_removed", "alices-laptop")]
        assert node.id in world.monitor.view.removed
        world.tailnet.nodes[node.id] = node
        await world.run(30)
        assert world.told()[-2:] == [("node_added", "alices-laptop"), ("node_online", "alices-laptop")]
        added = next(e for e in world.events if e.event_type == "node_added")
        assert added.details == {"returned": True}
        assert world.node("alices-laptop").first_seen == pytest.approx(world.clock.start, abs=1)


@virtual
async def test_a_node_missing_in_one_document_only_is_no_event(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        before = len(world.told())
        node = world.tailnet.find("dev")
        world.tailnet.remove("dev")
        await world.run(14)
        world.tailnet.nodes[node.id] = node
        await world.run(60)
        assert len(world.told()) == before


@virtual
async def test_undecodable_rows_make_missing_nodes_unknown(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.change("git", malformed=True)
        await world.run(60)
        assert world.state("git") == "unknown"
        since = world.node("git").last_since
        world.tailnet.change("git", malformed=False)
        await world.run(30)
        assert world.state("git") == "online"
        assert world.node("git").since == since
        assert world.told("node_online", "node_removed", "node_offline") == [
            ("node_online", n) for n in ("git", "dev", PROD)
        ]
        world.tailnet.change("git", malformed=True)
        await world.run(30)
        world.tailnet.off("git")
        world.tailnet.change("git", malformed=False, last_seen=world.clock.wall() - 10)
        await world.run(30)
        assert world.node("git").since == pytest.approx(world.clock.wall() - 40, abs=15)


@virtual
async def test_changes_of_a_node_are_told(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.change("alices-laptop", name="build-box", tags=["tag:ci"])
        await world.run(30)
        event = next(e for e in world.events if e.event_type == "node_changed")
        assert event.details["changes"]["hostname"] == ["alices-laptop", "build-box"]
        assert event.details["changes"]["tags"] == [[], ["tag:ci"]]
        assert world.node("build-box").role.name == "server"


@virtual
async def test_shared_in_machines_are_unknown_until_seen_online(tmp_path: Path) -> None:
    world = World(tmp_path, "git")
    world.tailnet.add("git.tail9.example", shared=True, online=False)
    await world.start()
    try:
        await world.run(60)
        node = world.node("git.tail9.example")
        assert (node.state, node.role.name, node.facts.shared) == ("unknown", "device", True)
        world.tailnet.change("git.tail9.example", online=True)
        await world.run(30)
        world.tailnet.change("git.tail9.example", online=False)
        await world.run(30)
        assert world.state("git.tail9.example") == "offline"
    finally:
        await world.kill()


@virtual
async def test_offline_is_dated_by_last_seen_inside_an_unobserved_stretch(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        await world.kill()
        await world.run(300)
        world.tailnet.off("git")
        seen = world.clock.wall()
        await world.run(300)
        await world.start()
        await world.run(30)
        event = next(e for e in world.events if e.event_type == "node_offline")
        assert event.timestamp == pytest.approx(seen, abs=0.01)
        assert event.recorded_at - event.timestamp >= 299
        outages = await world.outages("git")
        assert outages[0].start == pytest.approx(seen, abs=0.01)


@virtual
async def test_acknowledging_a_missing_node_ends_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.remove(PROD)
        await world.run(200)
        alert = world.alert("node_missing")
        assert await world.parts.operators.acknowledge(alert.id, "alice") is not None
        assert not world.alerts()
        assert world.monitor.view.missing_roles == {}
        assert world.monitor.view.health().status == "healthy"
        assert await world.parts.operators.acknowledge(999, "alice") is None


@virtual
async def test_a_node_of_the_name_ends_the_missing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.remove(PROD)
        await world.run(200)
        world.tailnet.add(PROD)
        await world.run(30)
        assert not world.alerts()
        assert world.monitor.view.health().status == "healthy"


@virtual
async def test_the_store_fails_for_ten_minutes_with_an_outage_inside(tmp_path: Path) -> None:
    """The core of row 26 of docs/timelines.md: the state is right, the alert is raised, and the
    events are stored afterwards."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.break_store("the disk is full")
        await world.run(30)
        assert ("storage_failing", None) in world.alerts()
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.state(PROD) == "offline"
        assert ("node_offline", PROD) in world.alerts()
        world.tailnet.on(PROD)
        await world.run(270)
        world.mend_store()
        await world.run(60)
        assert not world.alerts()
        stored = await world.store.read(
            lambda db: [row[0] for row in db.execute("SELECT event_type FROM events ORDER BY id")]
        )
        published = [event.event_type for event in world.events]
        assert stored == published
        uptime = await world.uptime(PROD, 0, world.clock.mono())
        assert uptime.offline_s == pytest.approx(300, abs=16)
        assert uptime.coverage == pytest.approx(100, abs=3)


@pytest.mark.slow
@virtual
async def test_ten_thousand_quiet_nodes_cost_one_row_a_poll(tmp_path: Path) -> None:
    world = World(tmp_path, PROD)
    for n in range(2000):
        world.tailnet.add(f"server-{n}", notify=False, tags=["tag:server"])
    await world.start()
    try:
        await world.run(31)
        changes = await world.store.write(lambda db: db.total_changes)
        await world.run(150)
        after = await world.store.write(lambda db: db.total_changes)
        assert after - changes == 10
    finally:
        await world.kill()


def test_the_virtual_loop_itself() -> None:
    async def nothing_scheduled() -> None:
        await VirtualClock().sleep(1e6)

    run_virtual(nothing_scheduled())
