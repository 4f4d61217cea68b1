"""The rules played through: one test per row of docs/timelines.md, in virtual time.

Rows 14, 19, 23 and 26 and the messages of the others are in test_timelines_messages.py, row 25 is in
test_timelines_influx.py.
"""

from pathlib import Path

import pytest

from tests.support.virtual import virtual
from tests.support.world import World, running

PROD = "chocolate-factory"
POLL = 15.0


def near(seconds: float) -> object:
    """Times hold to one poll; the last ping before an outage is told may take its 5 s."""
    return pytest.approx(seconds, abs=POLL + 6)


def fired(world: World, kind: str) -> float:
    """Seconds since the start of the test at which the first alert of a kind was told."""
    event = next(e for e in world.events if e.event_type == "alert" and e.details["kind"] == kind)
    return world.since_start(event.timestamp)


@virtual
async def test_row_01_killed_in_mid_delay(tmp_path: Path) -> None:
    """The alert waits for observed offline time; the unobserved minutes are unknown."""
    async with running(tmp_path) as world:
        await world.run(301)
        world.tailnet.off(PROD)
        await world.run(60)
        await world.restart(after=180)
        restarted = world.since_start(world.clock.wall())
        await world.run(280)
        assert world.told("node_offline") == [("node_offline", PROD)]
        assert fired(world, "node_offline") == near(restarted + 60 + POLL)
        assert world.alerts() == [("node_offline", PROD)]
        alert = world.alert("node_offline")
        assert world.since_start(alert.since or 0) == near(301)
        await world.run(20)
        world.tailnet.on(PROD)
        await world.run(30)
        assert world.told("alert", "alert_resolved") == [("alert", PROD), ("alert_resolved", PROD)]
        resolved = world.events[-1]
        assert resolved.details["duration_s"] == near(540)
        uptime = await world.uptime(PROD, 0, world.clock.mono())
        assert uptime.unknown_s == near(180)


@virtual
async def test_row_02_up_and_down_unseen(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        told = world.told()
        alert = world.alert("node_offline")
        await world.kill()
        world.tailnet.on(PROD)
        world.tailnet.off(PROD)
        await world.start()
        await world.run(600)
        assert world.told()[len(told) :] == [("monitor_started", None)]
        assert world.alert("node_offline").id == alert.id
        assert world.alert("node_offline").since == alert.since


@virtual
async def test_row_03_back_while_killed(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        count = len(world.events)
        await world.kill()
        world.tailnet.on(PROD)
        await world.start()
        await world.run(60)
        told = [(e.event_type, e.hostname) for e in world.events[count:] if e.event_type != "health_check"]
        assert told == [("monitor_started", None), ("node_online", PROD), ("alert_resolved", PROD)]
        assert not world.alerts()


@virtual
async def test_row_04_hung_and_restarted(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(300)
        assert world.alerts() == [("node_offline", PROD)]
        count = len(world.events)
        await world.restart(after=30)
        await world.run(600)
        assert world.node(PROD).state == "offline"
        assert world.node(PROD).reason == "unreachable"
        told = [e.event_type for e in world.events[count:] if e.event_type != "health_check"]
        assert told == ["monitor_started"]
        world.tailnet.on(PROD)
        await world.run(90)
        assert world.told("node_online")[-1] == ("node_online", PROD)
        assert not world.alerts()


@virtual
async def test_row_05_two_hang_together(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD, "dev")
        await world.run(400)
        assert {world.node(PROD).reason, world.node("dev").reason} == {"unreachable"}
        assert sorted(world.alerts()) == [("node_offline", PROD), ("node_offline", "dev")]
        times = {e.timestamp for e in world.events if e.event_type == "alert"}
        assert max(times) - min(times) <= POLL


@virtual
async def test_row_06_uplink_dies_silently(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(121)
        before = len(world.events)
        world.tailnet.uplink = False
        await world.run(108)
        assert not world.alerts()
        world.tailnet.lose_control()
        await world.run(600)
        told = [e.event_type for e in world.events[before:] if e.event_type != "health_check"]
        assert told == ["monitor_blind", "alert"]
        assert world.alerts() == [("monitor_blind", None)]


@virtual
async def test_row_07_hung_then_control_then_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        begun = world.clock.mono()
        world.tailnet.hang(PROD)
        await world.run(900)
        world.tailnet.change(PROD, online=False)
        await world.run(120)
        assert world.node(PROD).reason == "control"
        world.tailnet.on(PROD)
        ended = world.clock.mono()
        await world.run(120)
        outages = await world.outages(PROD)
        assert len(outages) == 1
        # From the first missed ping (a round comes every minute) to control's online.
        assert 0 <= world.since_start(outages[0].start) - begun <= 60 + POLL
        assert world.since_start(outages[0].end or 0) == near(ended)
        assert world.told("node_offline", "node_online")[-2:] == [
            ("node_offline", PROD),
            ("node_online", PROD),
        ]
        assert world.told("alert", "alert_resolved") == [("alert", PROD), ("alert_resolved", PROD)]


@virtual
async def test_row_08_blind_in_mid_delay(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(60)
        world.tailnet.fault = "refused"
        await world.run(600)
        assert world.monitor.view.blind is not None
        world.tailnet.fault = ""
        back = world.clock.mono()
        await world.run(300)
        assert fired(world, "node_offline") == near(back + 60 + POLL)
        uptime = await world.uptime(PROD, 0, world.clock.mono())
        assert uptime.unknown_s == near(600 + POLL)


@virtual
async def test_row_09_the_monitor_itself_is_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, "git", "dev")
    world.tailnet.own.name = PROD
    await world.start()
    try:
        await world.run(61)
        lines = len(world.errors)
        world.tailnet.stop()
        await world.run(600)
        view = world.monitor.view
        own = world.node(PROD)
        assert (view.shown(own).state, own.reason) == ("offline", "stopped")
        assert view.shown(world.node("git")).state == "unknown"
        assert view.health().status == "critical"
        assert world.alerts() == [("monitor_blind", PROD)]
        assert world.alert("monitor_blind").severity == "critical"
        assert world.alert("monitor_blind").node_id == own.id
        assert len(world.errors) - lines == 5
        assert set(world.errors[lines:]) == {("critical_node_offline", PROD)}
        world.tailnet.start()
        await world.run(120)
        assert world.told("alert", "alert_resolved") == [("alert", PROD), ("alert_resolved", PROD)]
        assert world.told("node_offline", "node_online")[-2:] == [
            ("node_offline", PROD),
            ("node_online", PROD),
        ]
        own_uptime = await world.uptime_of(own.id, 0, world.clock.mono())
        assert own_uptime.offline_s == near(600)
        assert own_uptime.unknown_s <= POLL
        git_uptime = await world.uptime("git", 0, world.clock.mono())
        assert git_uptime.unknown_s == near(600)
    finally:
        await world.kill()


@virtual
async def test_row_10_blind_again_and_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        begun = world.clock.mono()
        for _ in range(4):
            world.tailnet.fault = "refused"
            await world.run(90)
            world.tailnet.fault = ""
            await world.run(15)
        assert world.told("alert") == [("alert", None)]
        # 90 s of the first stretch, then 30 s into the second.
        assert fired(world, "monitor_blind") == near(begun + 90 + 15 + 30)
        ended = world.clock.mono() - 15
        await world.run(120)
        assert not world.alerts()
        resolved = next(e for e in world.events if e.event_type == "alert_resolved")
        assert world.since_start(resolved.timestamp) == near(ended + 60 + POLL)


@virtual
async def test_row_11_flapping_then_off(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        for _ in range(15):
            world.tailnet.off("git")
            await world.run(30)
            world.tailnet.on("git")
            await world.run(30)
        assert world.told("alert") == [("alert", "git")]
        assert world.alerts() == [("node_flapping", "git")]
        world.tailnet.off("git")
        off = world.clock.mono()
        await world.run(900)
        assert world.alerts() == [("node_offline", "git")]
        outage = world.alert("node_offline")
        assert outage.follows is not None
        assert world.since_start(outage.fired_at or 0) == near(off + 600 + POLL)
        kinds = [e.details["kind"] for e in world.events if e.event_type == "alert"]
        assert kinds == ["node_flapping", "node_offline"]
        world.tailnet.on("git")
        await world.run(60)
        assert not world.alerts()


@virtual
async def test_row_12_removed_while_firing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        world.tailnet.remove(PROD)
        removed = world.clock.mono()
        await world.run(60)
        ended = next(e for e in world.events if e.event_type == "alert_resolved")
        assert ended.details["cause"] == "removed"
        assert world.told("node_removed", "node_online")[-1] == ("node_removed", PROD)
        await world.run(200)
        assert world.alerts() == [("node_missing", PROD)]
        assert fired(world, "node_missing") == near(removed + 120 + POLL)
        assert list(world.monitor.view.missing_roles) == ["prod"]
        assert world.monitor.view.health().status == "critical"


@virtual
async def test_row_13_detached_then_dead(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(121)
        world.tailnet.change(PROD, online=False)
        await world.run(300)
        assert world.alerts() == [("node_detached", PROD)]
        assert world.monitor.view.health().status == "degraded"
        outage = world.alert("node_detached").id
        world.tailnet.change(PROD, alive=False)
        await world.run(180)
        assert world.alerts() == [("node_offline", PROD)]
        assert world.alert("node_offline").id == outage
        kinds = [e.details["kind"] for e in world.events if e.event_type == "alert"]
        assert kinds == ["node_detached", "node_offline"]
        world.tailnet.on(PROD)
        await world.run(60)
        assert len(await world.outages(PROD)) == 1
        assert len(world.told("alert_resolved")) == 1


@virtual
async def test_row_15_clock_set_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(7201)
        world.tailnet.off(PROD)
        await world.run(600)
        alert = world.alert("node_offline")
        world.clock.offset -= 3600
        await world.run(900)
        later = world.alert("node_offline")
        assert later.id == alert.id
        assert later.duration(world.clock.wall()) == near(1500)
        assert world.told("alert") == [("alert", PROD)]
        grids = [grid for grid, _ in world.samples]
        assert grids == sorted(set(grids))
        uptime = await world.uptime(PROD, -7200, world.clock.mono() + world.clock.offset)
        assert (uptime.uptime_percentage or 0) <= 100
        assert uptime.online_s + uptime.offline_s <= world.clock.mono()
        world.tailnet.on(PROD)
        await world.run(60)
        assert not world.alerts()
        assert world.events[-1].details["duration_s"] == near(1500)


@virtual
async def test_row_16_the_machine_sleeps(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(30)
        world.clock.offset += 3600  # monotonic time stands still in sleep
        woken = world.clock.mono()
        await world.run(300)
        assert fired(world, "node_offline") - 3600 == near(woken + 90 + POLL)
        uptime = await world.uptime("git", 0, world.clock.mono() + 3600)
        assert uptime.unknown_s == near(3600)


@virtual
async def test_row_17_reload_takes_the_alert_away(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(200)
        assert world.alerts() == [("node_offline", "git")]
        await world.reload_roles('[[roles]]\nname = "quiet"\nhosts = ["git"]\nalert = "none"\n')
        assert not world.alerts()
        resolved = [e for e in world.events if e.event_type == "alert_resolved"]
        assert resolved[-1].details["cause"] == "role_changed"
        await world.run(300)
        assert not world.alerts()
        await world.reload_roles("")
        await world.run(60)
        assert world.alerts(state="pending") == [("node_offline", "git")]
        await world.run(90)
        assert world.alerts() == [("node_offline", "git")]


@virtual
async def test_row_18_empty_disk_and_long_dead_servers(tmp_path: Path) -> None:
    world = World(tmp_path, "git", "dev", PROD)
    for n in range(40):
        world.tailnet.add(f"old-{n}", tags=["tag:server"], online=False, alive=False, last_seen=1.6e9)
    world.tailnet.off(PROD)
    await world.start()
    try:
        await world.run(400)
        assert world.alerts() == [("node_offline", PROD)]
        told = world.told()
        assert told[0] == ("monitor_started", None)
        assert sorted(told[1:4]) == [("node_offline", PROD), ("node_online", "dev"), ("node_online", "git")]
        assert told[4:] == [("alert", PROD)]
        started = world.events[0].details
        assert (started["nodes"], started["online"], started["offline"]) == (44, 3, 41)
    finally:
        await world.kill()


@pytest.mark.slow
@virtual
async def test_row_20_a_key_expires(tmp_path: Path) -> None:
    day = 86400.0
    world = World(tmp_path, PROD, poll_interval="10m", ping_interval="1h", offline_after="1h")
    world.tailnet.add("server-1", tags=["tag:server"], key_expiry=world.clock.start + 15 * day)
    await world.start()
    try:
        await world.run(15 * day - 60)
        steps = [e.details["kind"] for e in world.events if e.event_type == "alert"]
        assert steps == ["key_expiring"] * 3
        assert len({e.details["alert_id"] for e in world.events if e.event_type == "alert"}) == 1
        world.tailnet.change("server-1", expired=True)
        await world.run(900)
        assert world.events[-1].event_type != "alert"
        assert not world.alerts()
        ended = [e for e in world.events if e.event_type == "alert_resolved"]
        assert ended[-1].details["cause"] == "expired"
        await world.run(2 * 3600)
        assert world.alerts() == [("node_offline", "server-1")]
        assert world.node("server-1").reason == "key_expired"
        world.tailnet.change("server-1", expired=False, key_expiry=world.clock.wall() + 180 * day)
        await world.run(1200)
        assert not world.alerts()
    finally:
        await world.kill()


@virtual
async def test_row_20_a_key_is_renewed_in_time(tmp_path: Path) -> None:
    day = 86400.0
    async with running(tmp_path, "monitor-2") as world:
        world.tailnet.add("server-1", tags=["tag:server"], key_expiry=world.clock.start + 2 * day)
        await world.run(60)
        assert world.alerts() == [("key_expiring", "server-1")]
        world.tailnet.change("server-1", key_expiry=world.clock.start + 180 * day)
        await world.run(60)
        assert not world.alerts()
        assert world.events[-1].details["cause"] == "renewed"


@virtual
async def test_row_21_the_peer_map_is_empty_once(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        before = len(world.told())
        world.tailnet.hide_peers = True
        await world.run(14)
        blind = world.monitor.view.blind
        assert blind is not None
        assert blind.reason == "peer_map_collapsed"
        world.tailnet.hide_peers = False
        await world.run(300)
        assert world.monitor.view.blind is None
        assert [kind for kind, _ in world.told()[before:]] == ["monitor_blind", "monitor_restored"]


@pytest.mark.slow
@virtual
async def test_row_22_half_of_a_thousand_fall(tmp_path: Path) -> None:
    """Every node has its event and its alert; the one message is a matter of the notifications."""
    world = World(tmp_path, PROD)
    for n in range(1000):
        world.tailnet.add(f"server-{n}", notify=False, tags=["tag:server"])
    await world.start()
    try:
        await world.run(61)
        for n in range(500):
            world.tailnet.off(f"server-{n}")
        await world.run(160)
        assert len(world.alerts()) == 500
        assert len(world.told("node_offline")) == 500
        times = [e.timestamp for e in world.events if e.event_type == "alert"]
        assert max(times) - min(times) <= 1
        for n in range(500):
            world.tailnet.on(f"server-{n}")
        await world.run(60)
        assert not world.alerts()
        assert len(world.told("alert_resolved")) == 500
    finally:
        await world.kill()


@virtual
async def test_row_24_another_tailnet(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        before = len(world.told())
        own = dict(world.tailnet.nodes)
        world.tailnet.other = ("other.example", "tail2.example")
        for name in ("git", "dev", PROD, "alices-laptop"):
            world.tailnet.nodes.pop(world.tailnet.find(name).id)
        world.tailnet.add("stranger")
        await world.run(300)
        blind = world.monitor.view.blind
        assert blind is not None
        assert blind.reason == "other_tailnet"
        assert "state_dir" in blind.message
        world.tailnet.other = None
        world.tailnet.nodes = own
        await world.run(120)
        assert [kind for kind, _ in world.told()[before:]] == [
            "monitor_blind",
            "alert",
            "monitor_restored",
            "alert_resolved",
        ]
        assert {node.hostname for node in world.monitor.view.nodes.values()} == {
            "monitor",
            "git",
            "dev",
            PROD,
            "alices-laptop",
        }


@virtual
async def test_seen_for_the_first_time_is_no_change(tmp_path: Path) -> None:
    """The sixth event of a flapping node comes later by the first sight, which is none of its changes."""
    async with running(tmp_path) as world:
        await world.run(61)
        for n in range(3):
            world.tailnet.off("git")
            await world.run(30)
            assert not world.alerts(), f"{2 * n + 1} changes"
            world.tailnet.on("git")
            await world.run(30)
        assert world.alerts() == [("node_flapping", "git")]
        assert world.since_start(world.alert("node_flapping").since or 0) == near(61)


@virtual
async def test_detached_and_restarted(tmp_path: Path) -> None:
    """What a ping once showed holds over a restart, as it does for a node that hangs (rule 3.7)."""
    async with running(tmp_path) as world:
        await world.run(121)
        world.tailnet.change(PROD, online=False)
        await world.run(300)
        assert world.alerts() == [("node_detached", PROD)]
        count = len(world.events)
        await world.restart(after=30)
        await world.run(300)
        assert world.alerts() == [("node_detached", PROD)]
        assert [e.event_type for e in world.events[count:] if e.event_type != "health_check"] == [
            "monitor_started"
        ]
        world.tailnet.change(PROD, alive=False)
        await world.run(180)
        assert world.alerts() == [("node_offline", PROD)]
