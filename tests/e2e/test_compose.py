"""The compose files in a real engine: dockerd, Compose, containerboot, tailscaled, headscale, InfluxDB.

Official images cannot be had without a registry: their programs are real, in images on a base made by
debootstrap; InfluxDB's set-up script and command line are doubles around a real influxd.
"""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.docker import GATEWAY, SUBNET, Docker, compose_command, docker, unable, until
from tests.e2e.tailnet import ENVIRON, RealTailnet, program, real_tailnet
from tests.support.paths import ROOT
from tests.support.sidecar_proxy import free_port

_LACKS = unable()
pytestmark = [
    pytest.mark.deploy,
    pytest.mark.slow,
    pytest.mark.skipif(bool(_LACKS), reason=f"SKIPPED LOUDLY: compose is not run: {_LACKS}"),
]

RUNNING = ("tailscale", "tsmon", "influxdb")
# By headscale there are no certificates, so both ways in are plain: as TSMON_SERVE=tcp has it, and by the
# same handler as serve.json's, which sees the name that was asked for.
SERVE = {
    "TCP": {"8000": {"TCPForward": "tsmon:8000"}, "80": {"HTTP": True}},
    "Web": {"tsmon.tail.example:80": {"Handlers": {"/": {"Proxy": "http://tsmon:8000"}}}},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Docker]:
    with docker() as found:
        yield found


class Stack:
    """tsmon's compose project, and what people do with it."""

    def __init__(self, engine: Docker, directory: Path, *files: str, **environ: str) -> None:
        self.engine = engine
        self.port = free_port()
        command = compose_command()
        assert command
        named = [ROOT / "docker" / f"{name}.yml" for name in ("compose", *files)]
        override = directory / "override.json"
        (directory / "serve").mkdir()
        (directory / "serve" / "serve.json").write_text(json.dumps(SERVE))
        serve = f"{directory}/serve:/etc/tsmon-serve:ro"
        test = {"environment": ENVIRON, "volumes": [serve]}
        override.write_text(json.dumps({"services": {"tailscale": test}}))
        self._command = [*command, *(word for file in (*named, override) for word in ("-f", str(file)))]
        self._environ = engine.environ | environ | {"TSMON_PORT_ON_HOST": str(self.port)}

    def __call__(self, *arguments: str) -> str:
        run = subprocess.run(
            [*self._command, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert run.returncode == 0, f"compose {arguments}: {run.stdout[-3000:]}{run.stderr[-3000:]}"
        return run.stdout

    def get(self, path: str, **headers: str) -> Any:
        """As somebody on the Docker host asks. Raises OSError."""
        request = urllib.request.Request(f"http://localhost:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def sees(self) -> bool:
        """tsmon answers, is not blind, and has the peer."""
        try:
            summary = self.get("/health-monitoring/summary")
        except OSError:
            return False
        return summary["blind"] is None and summary["total_nodes"] >= 2

    def wait(self, seconds: float = 90) -> None:
        until(self.sees, seconds, "tsmon sees the tailnet")

    def states(self) -> dict[str, str]:
        return {name: self.engine.inspect(f"tsmon-{name}-1")["State"]["Status"] for name in RUNNING}

    def log(self) -> str:
        return self("logs", "--no-color", "--tail", "15")


async def knock(
    tailnet: RealTailnet, address: str, port: int, host: str = "localhost", path: str = "/healthz"
) -> str:
    """The first line of the answer that another machine of the tailnet gets there, "" when there is none."""
    process = await asyncio.create_subprocess_exec(
        program("tailscale"), f"--socket={tailnet.socket('prod')}", "nc", address, str(port),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | ENVIRON,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(8):
            process.stdin.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            await process.stdin.drain()
            return (await process.stdout.readline()).decode().strip()
    except (TimeoutError, ConnectionError):
        return ""
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("variant", ["sidecar", "localapi", "userspace"])
async def test_the_life_of_a_compose_project(engine: Docker, variant: str) -> None:
    files = () if variant == "sidecar" else (f"compose.{variant}",)
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        home = Path(directory)
        async with real_tailnet(home, ("prod", "git"), GATEWAY) as tailnet:
            environ = {
                "TS_AUTHKEY": tailnet.key,
                "TS_EXTRA_ARGS": f"--login-server={tailnet.control_url} --timeout=30s",
            }
            stack = Stack(engine, home, *files, **environ)
            try:
                await asyncio.to_thread(stack, "up", "-d", "--no-build")
                await asyncio.to_thread(stack.wait)
                await who_reaches_what(stack, tailnet, sidecar=variant != "localapi")
                if variant == "sidecar":
                    await asyncio.to_thread(influxdb_gets_samples, stack)
                    await asyncio.to_thread(each_container_is_killed, stack)
                    await asyncio.to_thread(a_lost_network_is_seen, stack)
                    await asyncio.to_thread(dockerd_is_restarted, stack, 10)
                    await asyncio.to_thread(down_and_up_keeps_the_history, stack)
                else:
                    await asyncio.to_thread(dockerd_is_restarted, stack, 2)
            except AssertionError as error:
                error.add_note(stack.log())
                raise
            finally:
                stack("down", "-v", "-t", "5")


async def who_reaches_what(stack: Stack, tailnet: RealTailnet, *, sidecar: bool) -> None:
    """The table of docs/deployment.md."""
    address = (await tailnet.cli("prod", "ip", "-4", "tsmon")).split()[-1]
    open_to_policy = {8000: "localhost", 80: "tsmon.tail.example"}
    for port, host in open_to_policy.items():
        async with asyncio.timeout(60):
            while not (await knock(tailnet, address, port, host)).endswith("200 OK"):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        assert "200" in await knock(tailnet, address, port, "tsmon", "/health-monitoring/summary")
        assert "421" in await knock(tailnet, address, port, "evil.example", "/vpn") or port == 80
    assert await knock(tailnet, address, 8765) == "", "the sidecar is closed to the tailnet"
    # Another container has no right without the token; the sidecar does not even speak to it.
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).status)"
    for url, words in (
        ("http://tsmon:8000/vpn", "401"),
        ("http://tsmon:8000/healthz", "200"),
        ("http://tailscale:8765/status", "RemoteDisconnected" if sidecar else "refused"),
    ):
        run = stack.engine("exec", "tsmon-influxdb-1", "sh", "-c", f"python3 -c '{ask}' {url} 2>&1; true")
        assert words in run, (url, run)
        assert "BackendState" not in run
    await asyncio.to_thread(the_host_is_not_answered)


def the_host_is_not_answered() -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(f"http://{SUBNET}.2:8765/status", timeout=3)


def influxdb_gets_samples(stack: Stack) -> None:
    until(
        lambda: stack.engine.inspect("tsmon-influxdb-1")["State"]["Health"]["Status"] == "healthy",
        60,
        "influxdb",
    )
    words = stack.engine("exec", "tsmon-tsmon-1", "tsmon", "doctor", check=False)
    assert "analytics" in words, words
    # A command inside finds the address by itself; the token it needs as anybody does.
    run = stack.engine("exec", "tsmon-tsmon-1", "sh", "-c", "TSMON_TOKEN_FILE=/run/tsmon/token tsmon status")
    assert "prod" in run, run


def each_container_is_killed(stack: Stack) -> None:
    """By kill -9 of its first process, as the kernel does it: Docker starts it again."""

    def process(name: str) -> int:
        return int(stack.engine.inspect(f"tsmon-{name}-1")["State"]["Pid"])

    def is_new(name: str, killed: int) -> bool:
        return process(name) not in (0, killed)

    for name in RUNNING:
        killed = process(name)
        os.kill(killed, signal.SIGKILL)
        until(partial(is_new, name, killed), 30, f"{name} is started again")
        stack.wait()


def a_lost_network_is_seen(stack: Stack) -> None:
    for name, check in (("tsmon", "tsmon-healthcheck.py"), ("tailscale", "tailscale-healthcheck.sh")):
        container = f"tsmon-{name}-1"
        command = ("exec", container, *(["python"] if name == "tsmon" else []), f"/usr/local/bin/{check}")
        stack.engine(*command)
        address = stack.engine.inspect(container)["NetworkSettings"]["Networks"]["tsmon_default"]["IPAddress"]
        stack.engine("network", "disconnect", "tsmon_default", container)
        with pytest.raises(AssertionError, match="no network"):
            stack.engine(*command)
        alias = ("--alias", name)
        stack.engine("network", "connect", "--ip", address, *alias, "tsmon_default", container)
        stack.wait()


def dockerd_is_restarted(stack: Stack, times: int) -> None:
    """As a reboot does: everything is stopped, and started in any order."""
    for number in range(times):
        stack.engine.stop()
        stack.engine.start()
        until(lambda: set(stack.states().values()) == {"running"}, 60, f"restart {number}: {stack.states()}")
        stack.wait()


def events(stack: Stack) -> set[int]:
    return {row["id"] for row in stack.get("/health-monitoring/logs?per_page=200")["logs"]}


def down_and_up_keeps_the_history(stack: Stack) -> None:
    known = events(stack)
    assert known
    stack("down", "-t", "10")
    stack("up", "-d", "--no-build")
    stack.wait()
    assert known & events(stack), "what happened before"
    # The node is who it was: no fourth one, and the auth key was not used again.
    assert stack.get("/health-monitoring/summary")["total_nodes"] == 3


def test_the_git_variant_keeps_its_own_network(engine: Docker) -> None:
    """With a second network tsmon still has the first, and its fixed address there."""
    environ = engine.environ | {
        "TS_AUTHKEY": "x",
        "TAILSCALE_DOMAIN_GIT": "git.tail.example",
        "GIT_NETWORK": "git_default",
        "GIT_SIDECAR_IP": "172.20.0.5",
    }
    command = compose_command()
    assert command
    files = [
        word for name in ("compose", "compose.git") for word in ("-f", str(ROOT / "docker" / f"{name}.yml"))
    ]
    run = subprocess.run(
        [*command, *files, "config", "--format", "json"], env=environ, capture_output=True, check=True
    )
    networks = json.loads(run.stdout)["services"]["tsmon"]["networks"]
    assert networks["default"]["ipv4_address"] == f"{SUBNET}.3"
    assert networks["git"]["aliases"] == ["tsmon"]
