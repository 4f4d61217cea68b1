"""The path_degraded alert: a pinged node that is slow, or reached only through a relay, for 15 minutes
(rule 8.13)."""

from pathlib import Path

from tests.support.virtual import virtual
from tests.support.world import running

PROD = "chocolate-factory"


@virtual
async def test_off_unless_it_is_set(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.tailnet.change(PROD, path="relay", latency_ms=900.0)
        await world.run(3600)
        assert world.messages() == []


@virtual
async def test_a_relayed_path_alerts_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    async with running(tmp_path, path_degraded__relay="true") as world:
        await world.run(121)
        world.tailnet.change(PROD, path="relay")
        await world.run(840)
        assert world.messages() == []
        await world.run(180)
        assert world.messages() == [f"WARNING: the path to {PROD} is degraded"]
        assert "only through a relay" in world.told_to["team"][0].text
        world.tailnet.change(PROD, path="direct")
        await world.run(120)
        assert world.messages()[1:] == [f"OK: the path to {PROD} is well again"]


@virtual
async def test_a_slow_path_that_is_well_now_and_then_does_not(tmp_path: Path) -> None:
    async with running(tmp_path, path_degraded__latency="200ms") as world:
        await world.run(121)
        for _ in range(5):
            world.tailnet.change(PROD, latency_ms=450.0)
            await world.run(600)
            world.tailnet.change(PROD, latency_ms=20.0)
            await world.run(120)
        assert world.messages() == []
        world.tailnet.change(PROD, latency_ms=450.0)
        await world.run(1100)
        assert "450 ms (limit 200 ms)" in world.told_to["team"][0].text


@virtual
async def test_an_outage_takes_its_place(tmp_path: Path) -> None:
    async with running(tmp_path, path_degraded__relay="true") as world:
        await world.run(121)
        world.tailnet.change(PROD, path="relay")
        await world.run(1100)
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is offline"]
        assert world.alerts() == [("node_offline", PROD)]


@virtual
async def test_a_reload_that_switches_it_off_ends_it(tmp_path: Path) -> None:
    async with running(tmp_path, path_degraded__relay="true") as world:
        await world.run(121)
        world.tailnet.change(PROD, path="relay")
        await world.run(1100)
        assert world.alerts() == [("path_degraded", PROD)]
        await world.reload_roles("")
        await world.run(30)
        assert world.alerts() == []
        assert len(world.messages()) == 1, "it is not well again, it is not looked at"
