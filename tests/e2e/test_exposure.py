"""Who else in the tailnet reaches the monitor: nobody with a kernel-mode tailscaled, everybody with a
userspace one, which tsmon warns of. The machines are network namespaces.

Needs root, /dev/net/tun, iproute2, socat, headscale, tailscaled and tailscale; skipped loudly when absent.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.namespaces import SUBNET, machines, unable
from tests.e2e.tailnet import MISSING, RealTailnet, program, real_tailnet
from tests.support.sidecar_proxy import SCRIPT

PORTS = {"tsmon": 8000, "sidecar": 8765}
OPEN_PORT = 8001
"""Of a server on all addresses: it shows that the tailnet carries connections to the monitor at all."""

_PROBE = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as found:
        found.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
        print(found.recv(100).split(b"\\r\\n")[0].decode() or "closed")
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print(error)
"""
_GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"


def lacks() -> str:
    """What is not here, "" when the test can run."""
    absent = [*MISSING, *(() if shutil.which("socat") else ("socat",))]
    return f"no {', '.join(absent)} on PATH or in TSMON_E2E_BIN" if absent else unable()


_LACKS = lacks()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(bool(_LACKS), reason=f"SKIPPED LOUDLY: {_LACKS}"),
]


class Host:
    """A machine of the tailnet, to run things on."""

    def __init__(self, tailnet: RealTailnet, name: str) -> None:
        self._tailnet = tailnet
        self._name = name

    async def says(self, code: str, *arguments: object) -> str:
        """What a Python program prints there."""
        process = await asyncio.create_subprocess_exec(
            *self._tailnet.within(self._name), sys.executable, "-c", code, *map(str, arguments),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        return out.decode().strip()

    async def knocks(self, address: str, port: int) -> str:
        """The first line of the answer, or why there is none."""
        return await self.says(_PROBE, address, port)

    async def until(self, address: str, port: int, answer: str) -> None:
        """Wait until knocking there gets an answer that begins so."""
        async with asyncio.timeout(40):
            while not (await self.knocks(address, port)).startswith(answer):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def readiness(self) -> Any:
        return json.loads(await self.says(_GET, "http://127.0.0.1:8000/readyz"))

    async def addresses(self) -> list[str]:
        """Its addresses in the tailnet."""
        return list((await self._tailnet.status(self._name))["Self"]["TailscaleIPs"])

    @contextmanager
    def runs(self, log: Path, *command: str, **environ: str) -> Iterator[None]:
        """A program at work there."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self._tailnet.within(self._name), *command],
                env=os.environ | environ,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


async def test_another_node_is_refused_and_a_userspace_tailscaled_is_warned_of() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ts-") as directory,
        machines("headscale", "monitor", "other") as spaces,
    ):
        home = Path(directory)
        async with real_tailnet(home, ("monitor", "other"), f"{SUBNET}.1", spaces) as tailnet:
            monitor, other = Host(tailnet, "monitor"), Host(tailnet, "other")
            with ExitStack() as running:
                start_services(running, monitor, tailnet, home)
                for port in (*PORTS.values(), OPEN_PORT):
                    await monitor.until("127.0.0.1", port, "HTTP/1")
                await refused_in_kernel_mode(monitor, other)
                await open_in_userspace_mode(tailnet, monitor, other)
                async with asyncio.timeout(10):
                    while "open_to_the_tailnet" not in (home / "tsmon.log").read_text():  # noqa: ASYNC110
                        await asyncio.sleep(0.1)


def start_services(running: ExitStack, monitor: Host, tailnet: RealTailnet, home: Path) -> None:
    """tsmon and the sidecar as they are by default: on loopback, at their own ports."""
    sidecar = ("sh", str(SCRIPT))
    environ = {"TAILSCALE_BIN": program("tailscale"), "TS_SOCKET": str(tailnet.socket("monitor"))}
    running.enter_context(monitor.runs(home / "sidecar.log", *sidecar, **environ))
    tsmon = (sys.executable, "-m", "tsmon", "run", "--poll-interval", "2s")
    state = ("--state-dir", str(home / "tsmon"))
    running.enter_context(monitor.runs(home / "tsmon.log", *tsmon, *state))
    server = (sys.executable, "-m", "http.server", str(OPEN_PORT), "--directory", str(home / "proxy"))
    running.enter_context(monitor.runs(home / "open.log", *server))


async def refused_in_kernel_mode(monitor: Host, other: Host) -> None:
    addresses = await monitor.addresses()
    assert len(addresses) == 2
    await other.until(addresses[0], OPEN_PORT, "HTTP/1")
    for address in (*addresses, f"{SUBNET}.2"):
        for name, port in PORTS.items():
            assert await other.knocks(address, port) == "refused", (name, address)
    readiness = await monitor.readiness()
    assert readiness["source"]["kind"] == "sidecar"
    assert readiness["source"]["blind"] is None
    assert readiness["warnings"] == []


async def open_in_userspace_mode(tailnet: RealTailnet, monitor: Host, other: Host) -> None:
    """The same machine with another tailscaled: its loopback is open to the tailnet, and tsmon says so."""
    await tailnet.terminate("monitor")
    tailnet.boot("monitor", userspace=True)
    address = (await running_again(tailnet))[0]
    async with asyncio.timeout(60):
        while not (await monitor.readiness())["warnings"]:  # noqa: ASYNC110 (tsmon looks by itself)
            await asyncio.sleep(0.5)
    warnings = (await monitor.readiness())["warnings"]
    assert any("userspace mode" in words for words in warnings), warnings
    for port in PORTS.values():
        await other.until(address, port, "HTTP/1")


async def running_again(tailnet: RealTailnet) -> list[str]:
    """The monitor's addresses once its tailscaled is at work."""
    async with asyncio.timeout(40):
        while not tailnet.socket("monitor").exists():  # noqa: ASYNC110 (the daemon makes it)
            await asyncio.sleep(0.05)
        while True:
            status = await tailnet.status("monitor")
            if status["BackendState"] == "Running":
                return list(status["Self"]["TailscaleIPs"])
            await asyncio.sleep(0.2)
