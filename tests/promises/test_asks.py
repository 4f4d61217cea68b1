"""A due outage is asked about once more, and reported in time, whatever the ping job is doing (rule 3.9)."""

from pathlib import Path

from tests.support.virtual import virtual
from tests.support.world import running


@virtual
async def test_the_ping_jobs_own_time_does_not_cut_the_last_ping_off(tmp_path: Path) -> None:
    """The job goes round 2 s after each poll here, while a dead machine's ping takes 5 s."""
    async with running(tmp_path, ping_interval="602s") as world:
        await world.run(610)
        world.tailnet.off("chocolate-factory")
        await world.run(140)
        assert world.alerts() == [("node_offline", "chocolate-factory")]


@virtual
async def test_a_detached_node_is_recognized_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, ping_interval="602s") as world:
        await world.run(610)
        world.tailnet.change("chocolate-factory", online=False, latency_ms=4000.0)
        await world.run(140)
        assert world.alerts() == [("node_detached", "chocolate-factory")]


@virtual
async def test_a_round_that_takes_longer_than_a_poll_does_not_keep_it_waiting(tmp_path: Path) -> None:
    """A hung machine is asked again and again: each round of pings ends after the next one is due."""
    async with running(tmp_path, poll_interval="4s") as world:
        await world.run(61)
        world.tailnet.hang("dev")
        await world.run(150)
        world.tailnet.off("git")
        await world.run(140)
        assert world.alerts() == [("node_offline", "dev"), ("node_offline", "git")]
