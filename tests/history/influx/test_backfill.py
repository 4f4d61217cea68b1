"""The embedded history as samples: against uptime's own arithmetic, and through the daemon's outbox."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.virtual import virtual
from tests.support.world import World, running
from tsmon.history.influx.backfill import grid_samples, oldest_span
from tsmon.monitor.samples import Sample

PROD = "chocolate-factory"


async def history(world: World, start: float, end: float) -> list[tuple[float, list[Sample]]]:
    """The samples of the grid times from `start` to `end`, in seconds since the start of the test."""
    base = world.clock.start
    return await world.store.read(lambda db: list(grid_samples(db, base + start, base + end, 300.0)))


@virtual
async def test_the_history_is_what_was_sampled(tmp_path: Path) -> None:
    """Online, offline, blind, restarted, removed: the same samples as those of that time."""
    async with running(tmp_path) as world:
        await world.run(1000)
        world.tailnet.off(PROD)
        await world.run(2000)
        world.tailnet.fault = "timeout"
        await world.run(1000)
        world.tailnet.fault = ""
        world.tailnet.on(PROD)
        await world.run(1000)
        await world.restart(after=700)
        await world.run(600)
        world.tailnet.remove("dev")
        await world.run(1100)
        found = await history(world, 1, 8000)
    sampled = [
        (grid, {(s.hostname, s.online) for s in samples}) for grid, samples in world.samples if samples
    ]
    assert [(grid, {(s.hostname, s.online) for s in samples}) for grid, samples in found] == sampled
    assert {s.hostname for _, samples in found for s in samples} >= {PROD, "git", "dev", "monitor"}
    [prod] = [s for s in found[0][1] if s.hostname == PROD]
    assert (prod.node_type, prod.os, prod.ip) == ("production", "Linux", world.tailnet.find(PROD).ips[0])
    assert prod.latency_ms is not None
    assert all(s.latency_ms is None for _, samples in found for s in samples if not s.online)


@virtual
async def test_a_stopped_monitor_is_offline_and_the_others_are_unknown(tmp_path: Path) -> None:
    async with running(tmp_path, "git") as world:
        await world.run(1000)
        world.tailnet.stop()
        await world.run(2000)
        world.tailnet.start()
        await world.run(1000)
        found = await history(world, 1, 4000)
    assert [(grid, {(s.hostname, s.online) for s in samples}) for grid, samples in found] == [
        (grid, {(s.hostname, s.online) for s in samples}) for grid, samples in world.samples
    ]
    stopped = [samples for _, samples in found if {s.online for s in samples} == {0}]
    assert len(stopped) == 7
    assert {s.hostname for samples in stopped for s in samples} == {"monitor"}


@virtual
async def test_the_mean_of_the_samples_is_the_uptime(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(10)
        for seconds in (5000, 7000, 3000, 11000):
            world.tailnet.off(PROD)
            await world.run(seconds / 4)
            world.tailnet.on(PROD)
            await world.run(seconds)
        uptime = await world.uptime(PROD, 0, world.clock.mono())
        found = await history(world, 0, world.clock.mono())
    online = [s.online for _, samples in found for s in samples if s.hostname == PROD]
    assert uptime.uptime_percentage is not None
    assert 100 * sum(online) / len(online) == pytest.approx(
        uptime.uptime_percentage, abs=100 * 4 / len(online)
    )
    counts = Counter(s.hostname for _, samples in found for s in samples)
    assert set(counts.values()) == {len(found)}


@virtual
async def test_an_empty_history_has_no_samples(tmp_path: Path) -> None:
    from tsmon.history.store import Store  # noqa: PLC0415 (only here)

    store = await Store.open(tmp_path)
    assert await store.read(lambda db: list(grid_samples(db, 0.0, 1e6, 300.0))) == []
    assert await store.read(oldest_span) is None
    await store.write(
        lambda db: db.execute(
            "INSERT INTO nodes (num, id, hostname, first_seen, body) VALUES (1, 'n', 'h', 0, x'00')"
        )
    )
    await store.write(
        lambda db: db.execute("INSERT INTO spans (node, state, start, end) VALUES (1, 'online', 0, NULL)")
    )
    await store.write(
        lambda db: db.execute("INSERT INTO spans (node, state, start, end) VALUES (2, 'online', 0, NULL)")
    )
    await store.write(lambda db: db.execute("INSERT INTO observed VALUES ('', 0, 1e6)"))
    assert await store.read(lambda db: list(grid_samples(db, 0.0, 1e6, 300.0))) == [], "unreadable"
    await store.close()
