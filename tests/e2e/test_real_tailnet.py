"""tsmon on a real tailnet on loopback: what it says against what was done, through both of its sources.

Two monitors watch the same node in the same run, one by the LocalAPI's socket, one by the real sidecar in
front of the real command line. A second, smaller tailnet runs beside: its control server is suspended, which
takes two minutes to be noticed. Needs headscale, tailscaled and tailscale on PATH or in `TSMON_E2E_BIN`, and
socat; skipped loudly when absent.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.patches import patches_of
from tests.e2e.play import Play, alert, blind_alert, is_, no_alert
from tests.e2e.script import TSMON, Script, Window
from tests.e2e.tailnet import MISSING, real_tailnet
from tests.e2e.watching import OFFLINE_AFTER, PING, POLL, Watching, watching
from tsmon.daemon.readiness import readiness

MONITOR, GIT, PROD, DEV = "monitor", "git", "chocolate-factory", "chocolate-factory-dev"
CRITICAL = (GIT, PROD, DEV)
ABSENT = [*MISSING, *(() if shutil.which("socat") else ("socat",))]
CONTROL_WAIT = 10.0
"""Seconds that headscale waits for a node to come back before it calls it offline."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(ABSENT), reason=f"SKIPPED LOUDLY: no {', '.join(ABSENT)} on PATH or in TSMON_E2E_BIN"
    ),
]


async def test_a_day_in_the_life_of_a_real_tailnet(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    names = (MONITOR, GIT, PROD, DEV, "backup")
    async with opened(*names) as play, opened(MONITOR, GIT, PROD, DEV) as other:
        async with asyncio.TaskGroup() as both:
            both.create_task(a_day(play))
            both.create_task(control_suspended(other))
        for one in (play, other):
            for tsmon in one.pair.monitors:
                await one.script.compare_events(tsmon)
                one.script.compare_blindness(tsmon)
                await one.script.compare_alerts(tsmon)
                await one.script.compare_uptime(tsmon, MONITOR)
    with capsys.disabled():
        print(f"\n{play.pair.table()}\n{other.pair.table()}\n  {time.monotonic() - begun:.0f} s in all")


@asynccontextmanager
async def opened(*names: str) -> AsyncIterator[Play]:
    """A tailnet of these nodes; the monitors watch the first one and have seen all others."""
    # A socket's path may have 108 bytes only: not pytest's long directory.
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        async with (
            real_tailnet(Path(directory), names) as tailnet,
            watching(tailnet, MONITOR) as pair,
            patches_of(tailnet.socket(MONITOR)) as patches,
        ):
            play = Play(tailnet, pair, patches, Script())
            play.script.tells(TSMON, "monitor_started")
            for name in CRITICAL:
                play.script.tells(name, "node_online")
            await play.until(lambda tsmon: tsmon.daemon.monitor.view.health().online == len(names), 30)
            await play.until(lambda tsmon: all(tsmon.measured(name) for name in CRITICAL), 30)
            for tsmon in pair.monitors:
                assert tsmon.daemon.monitor.view.health().status == "healthy"
                assert tsmon.daemon.monitor.view.tun is False
                warnings = readiness(tsmon.daemon.parts).warnings
                assert any("userspace" in words for words in warnings), "a userspace tailscaled is warned of"
            yield play


async def a_day(play: Play) -> None:
    await renamed_and_tagged(play)
    await killed_and_hung(play)
    await control_paused(play)
    await own_tailscale_down(play)
    await own_daemon_restarted(play)
    await control_restarted(play)
    await logged_out_expired_deleted(play)


# -- scenes --------------------------------------------------------------------------------------------------


async def renamed_and_tagged(play: Play) -> None:
    number = (await play.tailnet.numbers())["backup"]
    await play.tailnet.headscale("nodes", "rename", "archive", "-i", number)
    await play.until(is_("archive", "online"), POLL + 10, "renamed")
    play.script.tells("archive", "node_changed", "hostname")
    await play.tailnet.headscale("nodes", "tag", "-i", number, "-t", "tag:server")

    def is_server(tsmon: Watching) -> bool:
        nodes = tsmon.daemon.monitor.view.nodes.values()
        return any(node.hostname == "archive" and node.role.name == "server" for node in nodes)

    await play.until(is_server, POLL + 10, "tagged -> another role")
    play.script.tells("archive", "node_changed", "tags", "user")


async def killed_and_hung(play: Play) -> None:
    """One node dies, one leaves, one hangs: control tells of the first two only."""
    tailnet, script = play.tailnet, play.script
    number = (await tailnet.numbers())[GIT]
    await just_pinged(play, GIT)  # else its pings might tell of its death before control does
    dead_at = time.time()
    tailnet.kill(GIT)
    tailnet.suspend(PROD)
    await tailnet.cli("backup", "down")
    down = await play.until(is_(GIT, "offline", "control"), 40, "killed -> offline")
    await play.note_delay("control's word -> event (offline)", GIT, number, online=False, after=dead_at)
    gone = await play.until(is_("archive", "offline", "control"), 20)
    await play.until(is_(PROD, "offline", "unreachable"), 60, "suspended -> unreachable", dead_at)
    await play.until(alert("node_offline", GIT, PROD, "archive"), 40)
    earliest = dead_at + CONTROL_WAIT - 1

    back_at = time.time()
    tailnet.boot(GIT)
    tailnet.resume(PROD)
    await tailnet.up("backup")
    up = await play.until(is_(GIT, "online"), 40, "started -> online", back_at)
    await play.note_delay("control's word -> event (online)", GIT, number, online=True, after=back_at)
    script.was_down(GIT, "control", Window(earliest, down.latest), up._replace(earliest=back_at))
    script.alerted("node_offline", GIT, "warning", "recovered")
    up = await play.until(is_("archive", "online"), 40)
    script.was_down("archive", "control", Window(earliest, gone.latest), up._replace(earliest=back_at))
    script.alerted("node_offline", "archive", "warning", "recovered")
    up = await play.until(is_(PROD, "online"), 60, "resumed -> online", back_at)
    # Its outage is dated to the first ping that it missed.
    hung = Window(dead_at, dead_at + PING + POLL)
    script.was_down(PROD, "unreachable", hung, Window(back_at, up.latest))
    script.alerted("node_offline", PROD, "critical", "recovered")
    await play.until(no_alert(GIT, PROD, "archive"), 20)


async def just_pinged(play: Play, name: str) -> None:
    def fresh(tsmon: Watching) -> bool:
        nodes = tsmon.daemon.monitor.view.nodes.values()
        at = next(node.reach.measured_at for node in nodes if node.hostname == name)
        return at is not None and time.time() - at < POLL + 1

    await play.until(lambda _: all(map(fresh, play.pair.monitors)), 60)


async def control_paused(play: Play) -> None:
    """The monitor does not listen to control, and a node dies meanwhile."""
    tailnet, script = play.tailnet, play.script
    await tailnet.cli(MONITOR, "set", "--sync=false")
    tailnet.kill(DEV)
    dark = await play.goes_blind("control_lost", 40, "control paused -> blind")
    for tsmon in play.pair.monitors:
        assert tsmon.state(DEV)[0] == "unknown"
    await tailnet.cli(MONITOR, "set", "--sync=true")
    sight = await play.sees_again("control back -> sight")
    script.was_blind("control_lost", dark, sight)
    down = await play.until(is_(DEV, "offline", "control"), 40)
    await play.until(alert("node_offline", DEV), 40)
    tailnet.boot(DEV)
    up = await play.until(is_(DEV, "online"), 40)
    script.was_down(DEV, "control", Window(sight.earliest, down.latest), up)
    script.alerted("node_offline", DEV, "warning", "recovered")
    await play.until(no_alert(DEV), 20)


async def own_tailscale_down(play: Play) -> None:
    tailnet, script = play.tailnet, play.script
    begun = time.time()
    await tailnet.cli(MONITOR, "down")
    dark = await play.goes_blind("tailscale_stopped", 40, "tailscale down -> blind")
    for tsmon in play.pair.monitors:
        assert tsmon.state(MONITOR) == ("offline", "stopped")
        assert tsmon.state(PROD)[0] == "unknown"
    back_at = time.time()
    await tailnet.up(MONITOR)
    sight = await play.sees_again("tailscale up -> sight")
    end = Window(back_at, sight.latest)
    script.was_blind("tailscale_stopped", dark._replace(earliest=begun - POLL - 1), end, MONITOR)
    script.was_down(MONITOR, "stopped", Window(begun, dark.latest + POLL), end)


async def own_daemon_restarted(play: Play) -> None:
    begun = time.time()
    await play.tailnet.terminate(MONITOR)
    dark = await play.goes_blind("source_unreachable", 40, "tailscaled stopped -> blind")
    play.tailnet.boot(MONITOR)
    sight = await play.sees_again("tailscaled started -> sight")
    play.script.was_blind("source_unreachable", dark._replace(earliest=begun - POLL - 1), sight)


async def control_restarted(play: Play) -> None:
    """No node may seem to have gone.

    The monitor comes back last: to one that comes back first, a control server that was just started
    truly says that the others are offline.
    """
    begun = time.time()
    await play.tailnet.terminate("headscale")
    dark = await play.goes_blind("control_lost", 40, "headscale stopped -> blind")
    await play.tailnet.cli(MONITOR, "set", "--sync=false")
    play.tailnet.boot_headscale()
    await play.tailnet.all_back(GIT, PROD, DEV, "archive")
    await play.tailnet.cli(MONITOR, "set", "--sync=true")
    sight = await play.sees_again("headscale started -> sight")
    play.script.was_blind("control_lost", dark._replace(earliest=begun - POLL - 1), sight)
    await play.until(lambda tsmon: tsmon.daemon.monitor.view.health().online == 5, 30)


async def logged_out_expired_deleted(play: Play) -> None:
    tailnet, script = play.tailnet, play.script
    numbers = await tailnet.numbers()
    begun = time.time()
    await tailnet.cli("backup", "logout")
    await tailnet.headscale("nodes", "expire", "-i", numbers[GIT])
    await tailnet.headscale("nodes", "delete", "-i", numbers[PROD])
    for name, what in (("archive", "logged out -> offline"), (GIT, "expired -> offline")):
        down = await play.until(is_(name, "offline", "key_expired"), 40, what, begun)
        script.was_down(name, "key_expired", Window(begun, down.latest), None)
    await play.until(is_(PROD, "absent"), 60, "deleted -> removed", begun)
    script.tells(PROD, "node_removed")
    await play.until(alert("node_offline", "archive", GIT), 30)
    await play.until(alert("node_missing", PROD), OFFLINE_AFTER + 30)
    script.alerted("node_offline", "archive", "warning", None)
    script.alerted("node_offline", GIT, "warning", None)
    script.alerted("node_missing", PROD, "critical", None)


async def control_suspended(play: Play) -> None:
    """Control hangs, which only its silence tells; a node that hangs meanwhile is found all the same."""
    tailnet, script = play.tailnet, play.script
    begun = time.time()
    tailnet.suspend("headscale")
    hung_at = time.time()
    tailnet.suspend(PROD)
    await play.until(is_(PROD, "offline", "unreachable"), 60, "control silent, node hung -> unreachable")
    await play.until(alert("node_offline", PROD), 20)
    tailnet.resume(PROD)
    up = await play.until(is_(PROD, "online"), 40, "control silent, node resumed -> online")
    script.was_down(PROD, "unreachable", Window(hung_at, hung_at + PING + POLL), up)
    script.alerted("node_offline", PROD, "critical", "recovered")
    what = "control suspended -> blind"
    dark = await play.until(lambda tsmon: tsmon.blind() == "control_lost", 150, what, since=begun)
    await play.until(blind_alert, 30)
    tailnet.resume("headscale")
    sight = await play.sees_again("control resumed -> sight")
    script.was_blind("control_lost", Window(begun + 90, dark.latest), sight)
    await play.until(lambda tsmon: tsmon.daemon.monitor.view.health().online == 4, 30)
