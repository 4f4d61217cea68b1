"""The rules played through: the last thing that a channel heard of a node is true (rules 9.11 and 9.16)."""

from pathlib import Path

import pytest

from tests.support.virtual import virtual
from tests.support.world import World, running
from tsmon.monitor.alerts import Silence
from tsmon.notify.outcome import Outcome

PROD = "chocolate-factory"
DAY = 86400.0
REFUSED = Outcome(False, "answered 410", refused=True)
FAILED = Outcome(False, "answered 503")


async def both_down(world: World) -> None:
    await world.run(61)
    world.tailnet.off(PROD, "dev")
    await world.run(200)
    assert world.messages() == ["CRITICAL: 2 nodes are down"]


@virtual
async def test_row_30_a_recovery_that_waits_while_its_node_falls_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await both_down(world)
        world.tailnet.on(PROD)
        await world.run(180)
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is offline"]
        assert "was back " in world.told_to["team"][1].text
        world.tailnet.on("dev")
        await world.run(400)
        assert world.messages()[2:] == ["OK: dev is back online"]
        world.tailnet.on(PROD)
        await world.run(400)
        assert world.messages()[3:] == [f"OK: {PROD} is back online"]


@virtual
async def test_the_group_is_whole_while_one_of_it_is_down_again_but_not_due(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await both_down(world)
        world.tailnet.on(PROD)
        await world.run(60)
        world.tailnet.off(PROD)
        await world.run(30)
        world.tailnet.on("dev")
        await world.run(60)
        assert len(world.messages()) == 1, "prod is down now, and nobody can say yet whether that lasts"
        world.tailnet.on(PROD)
        await world.run(60)
        assert world.messages()[1:] == ["OK: 2 nodes are back"]


@virtual
async def test_a_recovery_in_the_outbox_of_a_node_that_fell_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await both_down(world)
        world.outcomes["team"] = FAILED
        world.tailnet.on(PROD, "dev")
        await world.run(60)
        world.tailnet.off(PROD)
        await world.run(60)
        del world.outcomes["team"]
        world.notifier.enable("team")
        await world.run(10)
        assert world.messages()[1:] == ["OK: dev is back online"]
        world.tailnet.on(PROD)
        await world.run(60)
        assert world.messages()[2:] == [f"OK: {PROD} is back online"]


@virtual
async def test_an_outage_that_ended_in_the_outbox_and_began_again(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.outcomes["team"] = FAILED
        world.tailnet.off(PROD)
        await world.run(300)
        world.tailnet.on(PROD)
        await world.run(60)
        world.tailnet.off(PROD)
        await world.run(300)
        del world.outcomes["team"]
        world.notifier.enable("team")
        await world.run(30)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        assert "was back " in world.told_to["team"][0].text
        world.tailnet.on(PROD)
        await world.run(60)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"]


@virtual
async def test_a_recovery_that_a_parked_channel_dropped_is_sent_when_it_works(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval="5m", ping_interval="1h") as world:
        await world.run(601)
        world.tailnet.off(PROD)
        await world.run(1800)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        world.outcomes["team"] = REFUSED
        world.tailnet.on(PROD)
        await world.run(2 * DAY)
        del world.outcomes["team"]
        world.notifier.enable("team")
        await world.run(600)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"]


@pytest.mark.parametrize("mended_by", ["enable", "the hourly try", "a restart"])
@virtual
async def test_row_31_a_parked_channel_hears_of_what_lasts(tmp_path: Path, mended_by: str) -> None:
    async with running(tmp_path, poll_interval="5m", ping_interval="1h") as world:
        await world.run(601)
        world.outcomes["team"] = REFUSED
        world.tailnet.off("dev")
        await world.run(2 * DAY)
        assert world.messages() == []
        del world.outcomes["team"]
        if mended_by == "enable":
            world.notifier.enable("team")
            await world.run(5)
            assert world.messages() == ["WARNING: dev is offline"]
        elif mended_by == "a restart":
            await world.restart()
        await world.run(4000)
        assert world.messages() == ["WARNING: dev is offline"]
        world.tailnet.on("dev")
        await world.run(900)
        assert world.messages()[1:] == ["OK: dev is back online"]


@virtual
async def test_row_32_an_old_silence_holds_back_no_other_alert(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.off("git")
        await world.run(30)
        [(id_, _)] = [(a.id, a) for a in world.monitor.alerts.values() if a.state == "pending"]
        now = world.clock.wall()
        silence = Silence(id=0, author="a", reason="b", created=now, ends=now + 7200, alert=id_)
        await world.parts.silencing.silence(silence)
        world.tailnet.on("git")
        await world.run(60)
        assert not world.monitor.alerts
        await world.restart()
        world.tailnet.off(PROD)
        await world.run(300)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]


@virtual
async def test_a_node_that_is_removed_while_its_recovery_waits_is_not_called_back(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await both_down(world)
        world.tailnet.on(PROD)
        await world.run(60)
        world.tailnet.remove(PROD)
        await world.run(60)
        world.tailnet.on("dev")
        await world.run(400)
        titles = world.messages()
        assert "OK: 2 nodes are back" not in titles
        assert f"OK: {PROD} was removed from the tailnet, dev is back online" in titles


@virtual
async def test_row_33_keys_expire_and_nobody_is_called_down(tmp_path: Path) -> None:
    world = World(tmp_path, "git", PROD)
    for n in range(20):
        world.tailnet.add(f"srv-{n}", tags=["tag:server"], key_expiry=world.clock.start + 3 * DAY)
    await world.start()
    try:
        await world.run(61)
        assert world.messages() == ["WARNING: 20 keys expire within 3 days"]
        assert "down" not in world.told_to["team"][0].text
        assert "the first in 2 d 23 h, at " in world.told_to["team"][0].text
        for n in range(10):
            world.tailnet.change(f"srv-{n}", key_expiry=world.clock.start + 100 * DAY)
        await world.run(400)
        assert world.messages()[1:] == ["OK: 10 keys were renewed, 10 not renewed"]
    finally:
        await world.kill()


@virtual
async def test_a_reminder_names_the_present_reason(tmp_path: Path) -> None:
    async with running(tmp_path, remind_every="1h") as world:
        await world.run(61)
        world.tailnet.hang(PROD)
        await world.run(600)
        assert "three pings in a row unanswered" in world.told_to["team"][0].text
        assert "three pings" in world.alert("node_offline").message
        world.tailnet.off(PROD)
        await world.run(3600)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is still offline"]
        assert "the control plane calls it offline" in world.told_to["team"][1].text
        assert "three pings" not in world.alert("node_offline").message


@virtual
async def test_who_wants_to_hear_at_once_does(tmp_path: Path) -> None:
    """The README's example."""
    async with running(tmp_path, bus=True, offline_after="1s", group_wait="1s") as world:
        await world.run(301)
        world.tailnet.off(PROD)
        await world.run(8)
        assert world.messages() == [f"CRITICAL: {PROD} is offline"]
        world.tailnet.on(PROD)
        await world.run(8)
        assert world.messages()[1:] == [f"OK: {PROD} is back online"]


@virtual
async def test_no_recovery_is_made_while_blind(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await both_down(world)
        world.tailnet.on(PROD)
        await world.run(30)
        world.tailnet.fault = "refused"
        await world.run(600)
        assert world.messages()[1:] == ["WARNING: tsmon cannot see the tailnet"], (
            "is prod still up? who knows"
        )
        world.tailnet.off(PROD)
        world.tailnet.fault = ""
        await world.run(400)
        titles = world.messages()[2:]
        assert f"OK: {PROD} is back online" not in titles
        assert f"CRITICAL: {PROD} is offline" in titles


@virtual
async def test_two_that_answer_pings_make_the_own_map_suspect(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(121)
        world.tailnet.change(PROD, online=False)
        world.tailnet.change("dev", online=False)
        await world.run(400)
        assert world.messages() == ["WARNING: 2 nodes are off the control plane, but answer pings"]
        assert "the monitor's own map may be stale" in world.told_to["team"][0].text


@virtual
async def test_a_test_message_is_a_sign_of_life(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(61)
        world.outcomes["team"] = REFUSED
        world.tailnet.off(PROD)
        await world.run(300)
        [channel] = world.notifier.readiness()
        assert channel["parked"]
        del world.outcomes["team"]
        await world.notifier.test("team")
        await world.run(1)
        [channel] = world.notifier.readiness()
        assert (channel["parked"], channel["error"]) == (False, None)
        assert world.messages()[1:] == [f"CRITICAL: {PROD} is offline"]
