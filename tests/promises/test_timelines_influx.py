"""Row 25 of docs/timelines.md: InfluxDB refuses for a day, in virtual time, over a real connection."""

from pathlib import Path

import pytest

from tests.support.influx_server import HANG, RESET, TOKEN, Answer, FakeInflux, refusal
from tests.support.virtual import virtual
from tests.support.world import World, running
from tsmon.demo.servers import serving

HOUR = 3600.0
NODES = 5
"""Those of a World and the monitor itself."""


def alert_times(world: World, event_type: str) -> list[float]:
    """Seconds since the start at which `storage_failing` was told of or ended."""
    return [
        world.since_start(event.timestamp)
        for event in world.events
        if event.event_type == event_type and event.details.get("kind") == "storage_failing"
    ]


@pytest.mark.slow
@virtual
async def test_row_25_influxdb_refuses_for_a_day(tmp_path: Path) -> None:
    fake = FakeInflux()
    async with (
        serving(fake.application()) as url,
        running(tmp_path, influx__url=url, influx__token=TOKEN, influx__org="home") as world,
    ):
        await world.run(650)
        assert len(fake.kept()) == 2 * NODES
        for hours, answer in (
            (6, Answer(503, headers={"Retry-After": "30"})),
            (6, Answer(RESET)),
            (6, Answer(HANG)),
            (3, Answer(401, refusal("unauthorized", "unauthorized access"))),
            (3, Answer(302, "<html>")),
        ):
            fake.refusing = answer
            polls = world.collector.polls
            world.tailnet.off("dev")
            await world.run(hours * HOUR / 2)
            world.tailnet.on("dev")
            await world.run(hours * HOUR / 2)
            assert world.collector.polls - polls >= hours * 240 - 2, "nothing waits"
            assert world.state("dev") == "online"
        assert alert_times(world, "alert") == [pytest.approx(660 + 900, abs=25)], "since dev's event"
        assert alert_times(world, "alert_resolved") == []
        fake.refusing = None  # while tsmon is down
        await world.restart(after=60)
        await world.run(600)
        assert world.influx.readiness()["requests_waiting"] == 0
        assert len(alert_times(world, "alert_resolved")) == 1
    points = [point for point in fake.points() if point.measurement == "tailscale_health"]
    times = sorted({point.time for point in points})
    assert [point.time for point in points] == sorted(point.time for point in points), "in order"
    assert set(fake.kept().values()) == {1}
    assert len(fake.kept()) == len(times) * NODES
    assert times == list(range(times[0], times[-1] + 1, 300)), "every grid time of the day"
    assert len(times) == pytest.approx(24 * 12 + 4, abs=1)
    events = [point.time for point in fake.points() if point.measurement == "tailscale_event"]
    assert len(events) == len(set(events))
