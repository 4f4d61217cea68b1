"""Random lives of a tailnet and of tsmon itself, held against what must never happen."""

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.virtual import run_virtual
from tests.support.witness import NAMES, Witness, act
from tests.support.world import World
from tsmon.monitor.state import Event

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *[("off", name) for name in NAMES],
                *[("on", name) for name in NAMES],
                *[("hang", name) for name in NAMES],
                *[("detach", name) for name in NAMES],
                ("wait", ""),
                ("wait", ""),
                ("refuse", ""),
                ("answer", ""),
                ("stop", ""),
                ("start", ""),
                ("lose_control", ""),
                ("regain_control", ""),
                ("cut", ""),
                ("uplink", ""),
                ("kill", ""),
                ("empty", ""),
                ("full", ""),
            ]
        ),
        st.sampled_from([5, 16, 40, 70, 130, 260]),
    ),
    min_size=5,
    max_size=35,
)


def check_events(events: list[Event]) -> None:
    """What any log must be: one event per change, each alert fired before it ended, blindness in pairs."""
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    states: dict[str, str] = {}
    blind = False
    firing: set[str] = set()
    for event in events:
        kind = event.event_type
        if kind in ("node_online", "node_offline") and not event.details.get("first"):
            name = event.hostname or ""
            assert states.get(name, "") != kind, f"{kind} of {name} twice"
        if kind in ("node_online", "node_offline"):
            states[event.hostname or ""] = kind
        if kind == "node_removed":
            states.pop(event.hostname or "", None)
        if kind in ("monitor_blind", "monitor_restored"):
            assert blind == (kind == "monitor_restored")
            blind = not blind
        if kind == "alert":
            id_ = event.details["alert_id"]
            assert event.details["again"] == (id_ in firing)
            firing.add(id_)
        if kind == "alert_resolved":
            firing.remove(event.details["alert_id"])


async def live(actions: list[tuple[tuple[str, str], int]], directory: Path) -> None:
    world = World(directory, *NAMES[:3], offline_after="1m", blind_after="2m")
    world.tailnet.add("server-1", tags=["tag:server"])
    witness = Witness(world)
    witness.attach()
    await world.start()
    try:
        await world.run(31)
        for (kind, name), seconds in actions:
            await act(world, kind, name)
            await world.run(seconds)
        assert not witness.faults
        check_events(world.events)
        # All is well again: after a while nothing may be left over.
        tailnet = world.tailnet
        tailnet.fault, tailnet.hide_peers, tailnet.uplink = "", False, True
        tailnet.start()
        tailnet.regain_control()
        tailnet.on(*NAMES)
        await world.run(1000)
        assert world.alerts() == []
        assert world.monitor.view.blind is None
        assert {node.state for node in world.monitor.view.nodes.values()} == {"online"}
        check_events(world.events)
        stored = await world.store.load(0)
        assert stored.alerts == []
        open_spans = await world.store.read(
            lambda db: db.execute("SELECT count(*) FROM spans WHERE end IS NULL").fetchone()[0]
        )
        assert open_spans == len(world.monitor.view.nodes)
        ids = await world.store.read(
            lambda db: [row[0] for row in db.execute("SELECT id FROM events ORDER BY id")]
        )
        assert ids == [event.id for event in world.events], "every event is stored, once"
        overlaps = await world.store.read(
            lambda db: db.execute(
                "SELECT count(*) FROM spans a JOIN spans b ON a.node = b.node AND a.start < b.start"
                " AND a.start < coalesce(b.end, 9e999) AND b.start < coalesce(a.end, 9e999)"
            ).fetchone()[0]
        )
        assert overlaps == 0
        counts = Counter(alert.state for alert in witness.alerts.values())
        assert set(counts) <= {"resolved", "pending"}
    finally:
        await world.kill()


@settings(
    max_examples=int(os.environ.get("TSMON_TEST_EXAMPLES", "10")),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(ACTIONS)
def test_random_lives(actions: list[tuple[tuple[str, str], int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run_virtual(live(actions, Path(directory)))


OUTAGE = st.tuples(
    st.integers(0, 200), st.lists(st.tuples(st.integers(1, 150), st.integers(1, 120)), max_size=4)
)


@settings(
    max_examples=int(os.environ.get("TSMON_TEST_EXAMPLES", "10")),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(OUTAGE)
def test_a_restart_at_any_moment_changes_nothing_that_is_told(
    outage: tuple[int, list[tuple[int, int]]],
) -> None:
    """prod is off for good; tsmon is killed at random moments for random times. It is told exactly once,
    after as much observed offline time as without any restart."""
    first, kills = outage

    async def main(directory: Path) -> None:
        world = World(directory, "git", "chocolate-factory")
        await world.start()
        try:
            await world.run(31 + first % 15)
            world.tailnet.off("chocolate-factory")
            for running, away in kills:
                await world.run(running)
                await world.restart(after=away)
            await world.run(400)
            assert world.told("node_offline") == [("node_offline", "chocolate-factory")]
            assert world.told("alert") == [("alert", "chocolate-factory")]
            assert world.told("alert_resolved", "monitor_blind") == []
            fired = next(event for event in world.events if event.event_type == "alert")
            begun = world.node("chocolate-factory").since or 0.0
            observed = await world.store.read(
                lambda db: db.execute(
                    "SELECT sum(max(0, min(end, ?) - max(start, ?))) FROM observed WHERE scope = ''",
                    (fired.timestamp, begun),
                ).fetchone()[0]
            )
            # Each kill may take up to one poll of what was observed but not counted yet.
            assert observed + 0.01 >= 120
            assert observed <= 120 + 21
        finally:
            await world.kill()
            await asyncio.sleep(0)

    with tempfile.TemporaryDirectory() as name:
        run_virtual(main(Path(name)))
