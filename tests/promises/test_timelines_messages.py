"""The rules played through, as the messages that a channel gets: one test per row of docs/timelines.md that
has any, in virtual time."""

import asyncio
from pathlib import Path

import pytest

from tests.support.virtual import virtual
from tests.support.world import TEAM, World, running
from tsmon.base.clock import rfc3339
from tsmon.notify.outcome import DELIVERED, Outcome

PROD = "chocolate-factory"


def kinds(world: World) -> list[str]:
    return [message.notice.kind for message in world.told_to.get("team", [])]


@virtual
async def test_row_01_killed_in_mid_delay(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(301)
        world.tailnet.off(PROD)
        await world.run(60)
        await world.restart(after=180)
        await world.run(300)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        world.tailnet.on(PROD)
        await world.run(30)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"]
        assert "(9 min)" in world.told_to["team"][1].text


@virtual
async def test_row_02_up_and_down_unseen(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        await world.kill()
        world.tailnet.on(PROD)
        world.tailnet.off(PROD)
        await world.start()
        await world.run(600)
        assert len(world.messages()) == 1


@virtual
async def test_row_03_back_while_killed(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        await world.kill()
        world.tailnet.on(PROD)
        await world.start()
        await world.run(60)
        assert world.messages() == [f"CRITICAL: {PROD} is offline", f"OK: {PROD} is back online"]


@virtual
async def test_row_04_hung_and_restarted(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(300)
        await world.restart(after=30)
        await world.run(600)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        assert "three pings in a row unanswered" in world.told_to["team"][0].text


@virtual
async def test_row_05_two_hang_together(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD, "dev")
        await world.run(400)
        assert world.messages() == ["CRITICAL: 2 nodes are down"]
        assert PROD in world.told_to["team"][0].text
        assert "dev" in world.told_to["team"][0].text


@virtual
async def test_row_06_uplink_dies_silently(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(121)
        world.tailnet.uplink = False
        await world.run(108)
        world.tailnet.lose_control()
        await world.run(600)
        assert world.messages() == ["WARNING: tsmon cannot see the tailnet"]


@virtual
async def test_row_09_the_monitor_itself_is_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, "git", "dev")
    world.tailnet.own.name = PROD
    await world.start()
    try:
        await world.run(61)
        world.tailnet.stop()
        await world.run(600)
        assert world.messages() == [f"CRITICAL: tsmon cannot see the tailnet, {PROD} is offline"]
        world.tailnet.start()
        await world.run(120)
        assert world.messages()[1:] == ["OK: tsmon sees the tailnet again"]
    finally:
        await world.kill()


@virtual
async def test_row_10_blind_again_and_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        for _ in range(4):
            world.tailnet.fault = "refused"
            await world.run(90)
            world.tailnet.fault = ""
            await world.run(15)
        await world.run(120)
        assert world.messages() == [
            "WARNING: tsmon cannot see the tailnet",
            "OK: tsmon sees the tailnet again",
        ]


@virtual
async def test_row_11_flapping_then_off(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        for _ in range(15):
            world.tailnet.off("git")
            await world.run(30)
            world.tailnet.on("git")
            await world.run(30)
        assert world.messages() == ["WARNING: git is flapping"]
        world.tailnet.off("git")
        await world.run(900)
        assert world.messages()[1:] == ["WARNING: git has settled: it is offline"]
        world.tailnet.on("git")
        await world.run(60)
        assert world.messages()[2:] == ["OK: git is back online"]


@virtual
async def test_a_flapping_node_that_settles_online_is_one_message_more(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        for _ in range(5):
            world.tailnet.off("git")
            await world.run(30)
            world.tailnet.on("git")
            await world.run(30)
        await world.run(900)
        assert world.messages() == ["WARNING: git is flapping", "OK: git has settled"]


@virtual
async def test_row_12_removed_while_firing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(200)
        world.tailnet.remove(PROD)
        await world.run(300)
        assert world.messages() == [
            f"CRITICAL: {PROD} is offline",
            f"INFO: {PROD} was removed from the tailnet",
            f"CRITICAL: the role prod has no node: {PROD} was the last",
        ]


@virtual
async def test_row_13_detached_then_dead(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(121)
        world.tailnet.change(PROD, online=False)
        await world.run(300)
        assert world.messages() == [f"WARNING: {PROD} is off the control plane, but answers pings"]
        world.tailnet.change(PROD, alive=False)
        await world.run(200)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is offline"]
        world.tailnet.on(PROD)
        await world.run(60)
        assert world.messages()[2:] == [f"OK: {PROD} is back online"]


@virtual
async def test_row_14_recovers_in_maintenance(tmp_path: Path) -> None:
    world = World(tmp_path)
    begin, end = (rfc3339(world.clock.start + at) for at in (600, 1800))
    window = f'[[maintenance]]\nstart = "{begin}"\nend = "{end}"\nhosts = ["choc*"]\n'
    world = World(tmp_path, toml=TEAM + window)
    await world.start()
    try:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(600)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        assert world.alert("node_offline").silenced_until == world.clock.start + 1800
        world.tailnet.on(PROD)
        await world.run(1100)
        assert len(world.messages()) == 1
        await world.run(120)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"]
        assert kinds(world)[1:] == ["quiet_over"]
        await world.run(3600)
        assert len(world.messages()) == 2
    finally:
        await world.kill()


@virtual
async def test_what_outlives_its_window_is_told_at_its_end_and_recovers(tmp_path: Path) -> None:
    world = World(tmp_path)
    begin, end = (rfc3339(world.clock.start + at) for at in (30, 1800))
    window = f'[[maintenance]]\nstart = "{begin}"\nend = "{end}"\nhosts = ["choc*", "dev"]\n'
    world = World(tmp_path, toml=TEAM + window)
    await world.start()
    try:
        await world.run(61)
        world.tailnet.off(PROD, "dev")
        await world.run(900)
        world.tailnet.on("dev")
        await world.run(600)
        assert world.messages() == []
        world.tailnet.fault = "refused"
        await world.run(400)
        assert world.messages() == ["WARNING: tsmon cannot see the tailnet"], "what is still so is not known"
        world.tailnet.fault = ""
        await world.run(60)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is still offline"]
        world.tailnet.on(PROD)
        await world.run(400)
        assert sorted(world.messages()[2:]) == [
            f"OK: {PROD} is back online",
            "OK: tsmon sees the tailnet again",
        ]
    finally:
        await world.kill()


@virtual
async def test_row_17_reload_takes_the_alert_away(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(200)
        await world.reload_roles('[[roles]]\nname = "quiet"\nhosts = ["git"]\nalert = "none"\n')
        await world.run(400)
        world.tailnet.on("git")
        await world.run(400)
        assert world.messages() == ["WARNING: git is offline"]


@virtual
async def test_row_18_empty_disk_and_long_dead_servers(tmp_path: Path) -> None:
    world = World(tmp_path, "git", "dev", PROD)
    for n in range(40):
        world.tailnet.add(f"old-{n}", tags=["tag:server"], online=False, alive=False, last_seen=1.6e9)
    world.tailnet.off(PROD)
    await world.start()
    try:
        await world.run(400)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
    finally:
        await world.kill()


@virtual
async def test_row_19_blind_right_after_the_alert(tmp_path: Path) -> None:
    async with running(tmp_path, group_wait="50s") as world:
        await world.run(61)
        world.tailnet.off(PROD)
        while not world.alerts():
            await world.run(1)
        await world.run(5)
        assert world.messages() == []
        world.tailnet.fault = "refused"
        await world.run(60)
        assert world.monitor.view.blind is not None
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        assert "tsmon itself is blind since" in world.told_to["team"][0].text


@pytest.mark.slow
@virtual
async def test_row_20_a_key_expires(tmp_path: Path) -> None:
    day = 86400.0
    world = World(tmp_path, PROD, poll_interval="10m", ping_interval="1h", offline_after="1h")
    world.tailnet.add("server-1", tags=["tag:server"], key_expiry=world.clock.start + 15 * day)
    await world.start()
    try:
        await world.run(15 * day - 60)
        assert world.messages() == [
            f"WARNING: the key of server-1 expires within {within}"
            for within in ("14 days", "3 days", "1 day")
        ]
        world.tailnet.change("server-1", expired=True)
        await world.run(2.5 * 3600)
        assert world.messages()[3:] == ["WARNING: server-1 is offline"]
        assert "its node key expired" in world.told_to["team"][3].text
        world.tailnet.change("server-1", expired=False, key_expiry=world.clock.wall() + 180 * day)
        await world.run(2400)
        assert world.messages()[4:] == ["OK: server-1 is back online"]
    finally:
        await world.kill()


@virtual
async def test_a_renewed_key_is_told(tmp_path: Path) -> None:
    day = 86400.0
    world = World(tmp_path, PROD)
    world.tailnet.add("server-1", tags=["tag:server"], key_expiry=world.clock.start + 10 * day)
    await world.start()
    try:
        await world.run(61)
        world.tailnet.change("server-1", key_expiry=world.clock.start + 100 * day)
        await world.run(61)
        assert world.messages() == [
            "WARNING: the key of server-1 expires within 14 days",
            "OK: the key of server-1 was renewed",
        ]
    finally:
        await world.kill()


async def _a_thousand(tmp_path: Path) -> World:
    world = World(tmp_path)
    for n in range(1000):
        tags = ["tag:server", "tag:rack-a" if n < 500 else "tag:rack-b"]
        world.tailnet.add(f"node-{n:04}", notify=False, tags=tags)
    await world.start()
    await world.run(61)
    return world


@pytest.mark.slow
@virtual
async def test_row_22_five_hundred_off(tmp_path: Path) -> None:
    world = await _a_thousand(tmp_path)
    try:
        for n in range(500):
            world.tailnet.off(f"node-{n:04}")
            await world.run(8 / 500)
        await world.run(400)
        assert world.messages() == ["WARNING: 500 nodes are down (tag:rack-a)"]
        assert len(world.told_to["team"][0].text) < 1000
        for n in range(500):
            world.tailnet.on(f"node-{n:04}")
        await world.run(400)
        assert world.messages()[1:] == ["OK: 500 nodes are back"]
    finally:
        await world.kill()


@pytest.mark.slow
@virtual
async def test_row_23_one_by_one(tmp_path: Path) -> None:
    world = await _a_thousand(tmp_path)
    try:
        for n in range(500):
            world.tailnet.off(f"node-{n:04}")
            await world.run(40 / 500)
        await world.run(700)
        assert kinds(world) in (["alert"], ["alert", "update"])
        told = {alert.id for message in world.told_to["team"] for _, alert in message.entries}
        assert len(told) == 500
    finally:
        await world.kill()


@virtual
async def test_row_24_another_tailnet(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        own = dict(world.tailnet.nodes)
        world.tailnet.other = ("other.example", "tail2.example")
        for name in ("git", "dev", PROD, "alices-laptop"):
            world.tailnet.nodes.pop(world.tailnet.find(name).id)
        await world.run(300)
        assert kinds(world) == ["alert"]
        [message] = world.told_to["team"]
        assert "tsmon cannot see the tailnet" in message.title
        assert "state_dir" in message.text, "the remedy is named"
        world.tailnet.other = None
        world.tailnet.nodes = own
        await world.run(300)
        assert kinds(world) == ["alert", "recovery"], "of no node a word"


@virtual
async def test_row_26_disk_full_with_an_outage_inside(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.break_store("database or disk is full")
        await world.run(60)
        world.tailnet.off(PROD)
        await world.run(300)
        world.tailnet.on(PROD)
        await world.run(240)
        assert world.messages() == [
            "CRITICAL: tsmon cannot store what it sees",
            f"CRITICAL: {PROD} is offline",
            f"OK: {PROD} is back online",
        ]
        world.mend_store()
        await world.run(60)
        assert world.messages()[3:] == ["OK: tsmon stores again what it sees"]
        count = len(world.messages())
        await world.restart()
        await world.run(600)
        assert len(world.messages()) == count, "what was told in memory is not told again"


@virtual
async def test_an_outage_that_ended_before_it_could_be_told_is_one_line(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.outcomes["team"] = Outcome(False, "answered 503")
        world.tailnet.off(PROD)
        await world.run(400)
        world.tailnet.on(PROD)
        await world.run(400)
        assert world.messages() == []
        del world.outcomes["team"]
        await world.run(700)
        assert world.messages() == [f"OK: {PROD} is back online"]
        assert "from " in world.told_to["team"][0].text


@virtual
async def test_reminders_come_daily_until_somebody_takes_care(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="1m", remind_every="2h") as world:
        await world.run(121)
        world.tailnet.off(PROD)
        await world.run(5 * 3600)
        assert (
            world.messages() == [f"CRITICAL: {PROD} is offline"] + [f"CRITICAL: {PROD} is still offline"] * 2
        )
        await world.parts.operators.acknowledge(world.alert("node_offline").id, "alice")
        await world.run(5 * 3600)
        assert len(world.messages()) == 3
        world.tailnet.on(PROD)
        await world.run(300)
        assert world.messages()[3:] == [f"OK: {PROD} is back online"]


@virtual
async def test_no_reminder_while_blind(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="1m", remind_every="2h") as world:
        await world.run(121)
        world.tailnet.off(PROD)
        await world.run(1800)
        world.tailnet.fault = "refused"
        await world.run(3 * 3600)
        titles = world.messages()
        assert titles[:2] == [f"CRITICAL: {PROD} is offline", "WARNING: tsmon cannot see the tailnet"]
        assert not [title for title in titles[2:] if PROD in title]


@virtual
async def test_a_parked_channel_is_tried_hourly_and_the_others_are_told_once(tmp_path: Path) -> None:
    other = '[[notify]]\nname = "other"\nurl = "webhook+http://127.0.0.1:1/"\nhosts = ["nobody"]\n'
    async with running(tmp_path, toml=TEAM + other) as world:
        await world.run(61)
        world.outcomes["team"] = Outcome(False, "answered 404", refused=True)
        world.tailnet.off(PROD)
        await world.run(2 * 3600)
        assert world.messages("other") == ["WARNING: the channel team does not deliver"]
        assert world.told("channel_failed") == [("channel_failed", None)]
        (state,) = [row for row in world.notifier.readiness() if row["name"] == "team"]
        assert state["parked"]
        del world.outcomes["team"]
        world.notifier.enable("team")
        await world.run(2)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]


@virtual
async def test_what_a_parked_channel_dropped_is_told_when_it_works_and_still_lasts(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="5m", ping_interval="1h") as world:
        await world.run(601)
        world.outcomes["team"] = Outcome(False, "answered 410", refused=True)
        world.tailnet.off(PROD)
        await world.run(86400 + 7200)
        world.tailnet.off("git")
        await world.run(3600)
        del world.outcomes["team"]
        await world.run(7200)
        assert world.messages() == [f"CRITICAL: {PROD} is offline", "WARNING: git is offline"]


@virtual
async def test_a_message_waiting_at_a_kill_is_sent_once_with_its_id(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.outcomes["team"] = Outcome(False, "answered 503")
        world.tailnet.off(PROD)
        await world.run(250)
        (row,) = world.notifier.lines["team"].desk.waiting  # type: ignore[attr-defined]
        await world.kill()
        del world.outcomes["team"]
        await world.start()
        await world.run(120)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        assert world.told_to["team"][0].notice.key == row.notice.key


@pytest.mark.parametrize(("severity", "expected"), [("critical", 0), ("warning", 1)])
def test_a_channel_has_its_least_severity(tmp_path: Path, severity: str, expected: int) -> None:
    @virtual
    async def play() -> None:
        async with running(tmp_path, toml=TEAM + f'min_severity = "{severity}"\n') as world:
            await world.run(61)
            world.tailnet.off("git")
            await world.run(300)
            assert len(world.messages()) == expected

    play()


@virtual
async def test_a_channel_with_a_filter_hears_of_its_nodes_only(tmp_path: Path) -> None:
    async with running(tmp_path, toml=TEAM + 'hosts = ["git"]\n') as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(30)
        world.tailnet.off(PROD)
        await world.run(300)
        world.tailnet.fault = "refused"
        await world.run(300)
        assert world.messages() == ["WARNING: git is offline"]


@virtual
async def test_a_new_channel_is_told_what_fires_already(tmp_path: Path) -> None:
    async with running(tmp_path, toml="") as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.messages() == []
        await world.reload_roles("")
        await world.run(60)
        assert world.notifier.lines
        await world.run(60)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]


@virtual
async def test_an_alert_that_ends_while_its_message_is_in_flight_stays_ended(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="1s") as world:
        await world.run(61)
        world.tailnet.off("git")
        while not world.alerts():
            await world.run(0.1)
        slow = asyncio.Event()
        line = world.notifier.lines["team"]

        class Slow:
            service = "slow"

            async def send(self, _: object) -> Outcome:
                await slow.wait()
                return DELIVERED

        line._sender = Slow()  # type: ignore[attr-defined]
        await world.run(15)
        world.tailnet.on("git")
        await world.run(5)
        assert not world.alerts()
        slow.set()
        await world.run(5)
        stored = await world.store.load(0)
        assert stored.alerts == []


@virtual
async def test_row_07_hung_then_control_then_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(900)
        world.tailnet.change(PROD, online=False)
        await world.run(120)
        world.tailnet.on(PROD)
        await world.run(120)
        assert world.messages() == [f"CRITICAL: {PROD} is offline", f"OK: {PROD} is back online"]


@virtual
async def test_row_08_blind_in_mid_delay(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(60)
        world.tailnet.fault = "refused"
        await world.run(600)
        assert world.messages() == ["WARNING: tsmon cannot see the tailnet"]
        world.tailnet.fault = ""
        await world.run(300)
        assert world.messages()[1:] == ["OK: tsmon sees the tailnet again", f"CRITICAL: {PROD} is offline"]


@virtual
async def test_row_15_clock_set_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off(PROD)
        await world.run(600)
        world.clock.offset -= 3600
        await world.run(900)
        world.tailnet.on(PROD)
        await world.run(60)
        assert world.messages() == [f"CRITICAL: {PROD} is offline", f"OK: {PROD} is back online"]
        assert "(25 min)" in world.told_to["team"][1].text


@virtual
async def test_row_16_the_machine_sleeps(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(30)
        world.clock.offset += 3600
        await world.run(80)
        assert world.messages() == []
        await world.run(90)
        assert world.messages() == ["WARNING: git is offline"]


@virtual
async def test_row_21_an_empty_peer_map_says_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.hide_peers = True
        await world.run(15)
        world.tailnet.hide_peers = False
        await world.run(600)
        assert world.messages() == []
