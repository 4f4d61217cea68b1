"""The process: starting, being told to stop, reloading, failing to start; loops that die or hang."""

import asyncio
import getpass
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from tests.support.process import busy, tsmon
from tests.support.site import site
from tsmon.base.clock import Clock
from tsmon.config import LogSettings, load
from tsmon.config.loading import SOCKET
from tsmon.daemon.logging import configure
from tsmon.daemon.loops import Loops
from tsmon.daemon.systemd import notify, watchdog_interval
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet

HERE = ("--listen", "127.0.0.1:0", "--state-dir")


@pytest.fixture
async def sidecar() -> AsyncIterator[str]:
    tailnet = SimTailnet(Clock())
    tailnet.add("git")
    async with serving(FakeSidecar(tailnet).application()) as url:
        yield url


async def get(url: str, path: str) -> Any:
    async with aiohttp.ClientSession() as client, client.get(url + path) as response:
        return await response.json()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_within_3_s(number: int, sidecar: str, tmp_path: Path) -> None:
    async with tsmon(
        "run", "--source", sidecar, "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)
    ) as run:
        url = (await run.line("started"))["url"]
        async with aiohttp.ClientSession() as client, client.get(url + "/health-monitoring/stream") as stream:
            await stream.content.readline()
            begun = time.monotonic()
            run.process.send_signal(number)
            assert await asyncio.wait_for(run.process.wait(), 30) == 0
            assert time.monotonic() - begun < busy(3)
    assert not (tmp_path / SOCKET).exists()


async def test_the_last_event_is_monitor_stopped(sidecar: str, tmp_path: Path) -> None:
    arguments = ("run", "--source", sidecar, *HERE, str(tmp_path))
    for _ in range(2):
        async with tsmon(*arguments) as run:
            url = (await run.line("started"))["url"]
            async with asyncio.timeout(10):
                logs: list[dict[str, Any]] = []
                while not logs or logs[0]["event_type"] == "monitor_stopped":
                    logs = (await get(url, "/health-monitoring/logs"))["logs"]
            run.process.terminate()
            await run.process.wait()
    kinds = [entry["event_type"] for entry in reversed(logs)]
    assert kinds == ["monitor_started", "node_online", "monitor_stopped", "monitor_started"]


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with tsmon(
        "run", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)
    ) as run:
        await run.line("started")
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(run.process.wait(), 5)
        assert code in (0, 130)


async def test_without_a_source_it_stays_blind_and_says_what_it_looked_for(tmp_path: Path) -> None:
    missing = f"unix://{tmp_path}/no.sock"
    async with tsmon(
        "run", "--source", missing, "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)
    ) as run:
        url = (await run.line("started"))["url"]
        failed = await run.line("source_failed")
        assert "no such socket" in failed["message"]
        summary = await get(url, "/health-monitoring/summary")
        assert (summary["status"], summary["blind"]["reason"]) == ("unknown", "source_unreachable")
        assert not summary["demo"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "127.0.0.1:{port}"], "cannot be used"),
        (["--listen", "0.0.0.0:0"], "auth.mode"),
        (["--poll-interval", "soon"], "--poll-interval"),
        (["--source", "ftp://x"], "source"),
        (["--config", "{dir}/none.toml"], "no such file"),
        (["--config", "{dir}/bad.toml"], "not valid TOML"),
        (["--config", "{dir}/typo.toml"], "did you mean poll_interval?"),
        (["--state-dir", "{dir}/bad.toml/x"], "state_dir"),
    ],
)
async def test_what_keeps_it_from_starting_is_one_line(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("= nonsense")
    (tmp_path / "typo.toml").write_text('pol_interval = "5s"')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = [text.format(port=port, dir=tmp_path) for text in arguments]
        base = [
            "--source",
            "http://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
            str(tmp_path / "s"),
        ]
        async with tsmon("run", *base, *chosen) as run:
            _, stderr = await asyncio.wait_for(run.process.communicate(), 20)
    text = stderr.decode()
    assert run.process.returncode not in (0, None)
    assert words in text
    assert "Traceback" not in text


async def test_two_instances_do_not_share_a_state_directory(sidecar: str, tmp_path: Path) -> None:
    arguments = ("run", "--source", sidecar, *HERE, str(tmp_path))
    async with tsmon(*arguments) as first:
        await first.line("started")
        async with tsmon(*arguments) as second:
            _, stderr = await asyncio.wait_for(second.process.communicate(), 20)
        assert second.process.returncode == 1
        assert f"process id {first.process.pid}" in stderr.decode()


async def test_sighup_reloads_and_a_bad_file_keeps_the_old_settings(sidecar: str, tmp_path: Path) -> None:
    path = tmp_path / "tsmon.toml"
    path.write_text(f'source = "{sidecar}"\nlisten = "127.0.0.1:0"\nstate_dir = "{tmp_path}/s"\n')
    async with tsmon("run", "--config", str(path)) as run:
        url = (await run.line("started"))["url"]
        text = path.read_text()
        path.write_text(text + '[[roles]]\nname = "forge"\nhosts = ["git"]\ncritical = true\n')
        run.process.send_signal(signal.SIGHUP)
        await run.line("reloaded")
        critical = await get(url, "/health-monitoring/critical")
        assert critical["forge"]["total"] == 1
        path.write_text(text + "nonsense = 1\n")
        run.process.send_signal(signal.SIGHUP)
        failed = await run.line("reload_failed")
        assert "nonsense" in failed["error"]
        assert (await get(url, "/health-monitoring/critical"))["forge"]["total"] == 1
        path.write_text(text.replace("127.0.0.1:0", "127.0.0.1:1"))
        run.process.send_signal(signal.SIGHUP)
        assert (await run.line("reloaded"))["needs_restart"] == ["listen"]


async def test_words_to_the_service_manager(sidecar: str, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        loop = asyncio.get_running_loop()
        words = ""

        async def hear(wanted: str) -> None:
            nonlocal words
            async with asyncio.timeout(10):
                while wanted not in words:
                    words += (await loop.sock_recv(manager, 4096)).decode() + "\n"

        environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        arguments = (
            "run",
            "--source",
            sidecar,
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
            str(tmp_path / "s"),
        )
        async with tsmon(*arguments, **environ) as run:
            for wanted in ("READY=1", "STATUS=2/2 online", "WATCHDOG=1"):
                await hear(wanted)
            words = ""
            run.process.send_signal(signal.SIGHUP)
            await hear("RELOADING=1\nMONOTONIC_USEC=")
            await hear("READY=1")
            run.process.terminate()
            await hear("STOPPING=1")
            assert await run.process.wait() == 0


def test_no_service_manager_is_no_matter(tmp_path: Path) -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "none")})
    notify("READY=1", {"NOTIFY_SOCKET": "@tsmon-test-nobody"})
    assert watchdog_interval({}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "x"}) is None


async def test_a_loop_that_dies_is_restarted_with_growing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsmon.daemon.loops._FIRST_WAIT", 0.01)
    structlog.configure(processors=[_drop])
    runs: list[float] = []
    loops = Loops()

    async def dies() -> None:
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 4:
            raise ValueError("x")
        await asyncio.Event().wait()

    loops.start("fragile", dies)
    await asyncio.sleep(0)
    assert loops.stuck() == "fragile"
    async with asyncio.timeout(5):
        while len(runs) < 4:  # noqa: ASYNC110 (the restarts are what is waited for)
            await asyncio.sleep(0.005)
    gaps = [b - a for a, b in pairwise(runs)]
    assert all(gap >= wait for gap, wait in zip(gaps, (0.01, 0.02, 0.04), strict=True))
    assert loops.stuck() is None
    loops._loops["fragile"].patience = -1.0
    assert loops.stuck() == "fragile"
    await loops.stop()


def _drop(_: Any, __: str, line: Any) -> Any:
    raise structlog.DropEvent


async def test_a_loop_that_hangs_is_named_and_started_again() -> None:
    structlog.configure(processors=[_drop])
    runs: list[int] = []
    loops = Loops()

    async def hangs_at_first() -> None:
        runs.append(1)
        while len(runs) > 1:
            loops.beat("slow")
            await asyncio.sleep(0.01)
        await asyncio.Event().wait()

    loops.start("slow", hangs_at_first, patience=0.1)
    loops.start("silent", asyncio.Event().wait)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while loops.stuck() is None:  # noqa: ASYNC110 (the passing of time is what is waited for)
            await asyncio.sleep(0.01)
        assert loops.stuck() == "slow"
        loops.mend()
        assert loops.stuck() == "slow", "until it beats again"
        while loops.stuck() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(runs) == 2
    await loops.stop()


async def test_a_loop_that_ends_by_itself_is_not_started_again() -> None:
    loops = Loops()
    runs: list[int] = []

    async def once() -> None:
        runs.append(1)

    loops.start("once", once)
    await asyncio.sleep(0.01)
    assert (runs, loops.stuck()) == ([1], None)
    await loops.stop()


async def test_nothing_in_a_log_line_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in ("json", "text", "auto"):
        configure(LogSettings(format=chosen, level="info"))
        structlog.get_logger("x").warning("event", hostname="a\x1b[2J\u202eb\nc", number=5)
        structlog.get_logger("x").debug("too quiet to hear")
        secret = "hunter" + "2"
        try:
            raise ValueError("boom", len(secret))
        except ValueError:
            structlog.get_logger("x").exception("failed")
        text = capsys.readouterr().err
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "too quiet" not in text
        assert "boom" in text
        assert "hunter2" not in text, "local variables are not printed"


async def test_commands_over_the_admin_socket(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as here:
        path = tmp_path / "state" / SOCKET
        assert path.stat().st_mode & 0o777 == 0o600
        here.tailnet.off("git")
        await here.poll()
        await here.until(lambda: any(a.state == "firing" for a in here.daemon.monitor.alerts.values()))
        alert = next(iter(here.daemon.monitor.alerts.values()))
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession(connector=connector) as admin:

            async def post(route: str, **body: str) -> tuple[int, Any]:
                async with admin.post(f"http://tsmon{route}", json=body) as response:
                    return response.status, await response.json()

            assert (await post("/ack", id=str(alert.id), author=getpass.getuser()))[0] == 200
            assert here.daemon.monitor.alerts[alert.id].acknowledged_by == getpass.getuser()
            assert (await post("/ack", id="999", author=getpass.getuser()))[0] == 404
            assert (await post("/ack", id="x", author=getpass.getuser()))[0] == 400
            async with admin.post("http://tsmon/ack", data=b"[]") as response:
                assert response.status == 400
            async with admin.post("http://tsmon/ack", data=b"{") as response:
                assert response.status == 400
            status, answer = await post("/reload")
            assert (status, answer["message"]) == (200, "there is no configuration to read again")
            for table in ("events", "spans", "observed", "latency"):
                async with admin.get(
                    f"http://tsmon/export?table={table}&since=2020-01-01T00:00:00Z"
                ) as response:
                    rows = [json.loads(line) for line in (await response.text()).splitlines()]
                assert rows or table == "latency"
            async with admin.get("http://tsmon/export?table=secrets") as response:
                assert response.status == 400
            async with admin.get("http://tsmon/export?since=yesterday") as response:
                assert response.status == 400
        operator = (await here.get("/health-monitoring/logs?event_type=operator"))["logs"]
        assert operator[0]["message"] == f"{getpass.getuser()} acknowledged node_offline of git"


async def test_userspace_without_auth_is_warned_about(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.tailnet.tun = False
        await here.poll()
        assert "userspace" in (await here.get("/readyz"))["warnings"][0]


async def test_a_reload_changes_influxdb_channels_and_heartbeat(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        daemon = here.daemon
        assert daemon.parts.outlet.influx is None
        given = {
            "influx.url": "http://127.0.0.1:1",
            "influx.org": "home",
            "heartbeat.url": "http://127.0.0.1:1/secret",
        }
        environ = {"TSMON_NOTIFY_URL": "webhook+http://127.0.0.1:1/secret"}
        daemon.reloading.reread = lambda: load(None, environ, given)
        words = await daemon.reload()
        assert "listen" in words
        assert daemon.parts.outlet.influx is not None
        assert daemon.collector._sink is daemon.parts.outlet
        ready = await here.get("/readyz")
        assert ready["influxdb"]["url"] == "http://127.0.0.1:1"
        assert [row["name"] for row in ready["channels"]] == ["default"]
        assert ready["heartbeat"]["service"] == "http://127.0.0.1:1"
        assert "secret" not in str(ready)
        daemon.reloading.reread = lambda: load(None, {}, {})
        await daemon.reload()
        assert daemon.parts.outlet.influx is None
        ready = await here.get("/readyz")
        assert (ready["channels"], ready["heartbeat"], ready["warnings"]) == ([], None, [])
