"""Nodes that left live in the database only; those that come back are known again."""

from pathlib import Path

from tests.support.virtual import virtual
from tests.support.world import World, running

HOUR = 3600.0


async def _leaves_and_returns(world: World, away: float, *, restart: bool) -> None:
    machine = world.tailnet.find("alices-laptop")
    first_seen = world.node("alices-laptop").first_seen
    world.tailnet.remove("alices-laptop")
    await world.run(60)
    assert machine.id in world.monitor.view.removed, "messages about it may be under way"
    await world.run(away)
    if restart:
        await world.restart()
    assert machine.id not in world.monitor.view.removed
    world.tailnet.nodes[machine.id] = machine
    await world.run(60)
    [event] = [e for e in world.events if e.event_type == "node_added" and e.details.get("returned")]
    assert event.hostname == "alices-laptop"
    assert world.node("alices-laptop").first_seen == first_seen
    uptime = await world.uptime("alices-laptop", 0, world.clock.mono())
    assert uptime.unknown_s > away - 60, "the time away is not observed"


@virtual
async def test_a_removed_node_returns_after_hours(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(300)
        await _leaves_and_returns(world, 2 * HOUR, restart=False)


@virtual
async def test_a_removed_node_returns_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(300)
        await _leaves_and_returns(world, 2 * HOUR, restart=True)


@virtual
async def test_memory_does_not_grow_with_nodes_that_are_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(60)
        for round_ in range(30):
            for n in range(20):
                world.tailnet.add(f"ci-{round_}-{n}", tags=["tag:ci"])
            await world.run(120)
            for n in range(20):
                world.tailnet.remove(f"ci-{round_}-{n}")
            await world.run(120)
        await world.run(2 * HOUR)
        assert world.monitor.view.removed == {}
        removed = await world.store.read(
            lambda db: db.execute("SELECT count(*) FROM nodes WHERE removed_at IS NOT NULL").fetchone()[0]
        )
        assert removed == 600
