"""Beyond nodes on a real tailnet: ports asked through tailscaled's own dial, two routers of one subnet.

tsmon runs with its default intervals. Needs headscale, tailscaled and tailscale on PATH or in
`TSMON_E2E_BIN`; skipped loudly when absent.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.e2e.tailnet import MISSING, RealTailnet, program, real_tailnet
from tests.e2e.watching import SHELL, Watching
from tests.support.sidecar_proxy import sidecar
from tests.support.world import settings
from tsmon.daemon.daemon import Daemon
from tsmon.monitor.services.service import ServiceKey
from tsmon.source.diagnosis import diagnose

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"SKIPPED LOUDLY: no {', '.join(MISSING)} on PATH or in TSMON_E2E_BIN"
    ),
]
MONITOR, FIRST, SECOND = "monitor", "router-1", "router-2"
PREFIX = "10.9.0.0/24"


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """On loopback, which a userspace tailscaled hands the connections of its tailnet to; yields its port."""
    app = web.Application()
    app.router.add_get("/healthz", _ok)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _ok(_: web.Request) -> web.Response:
    return web.Response(status=204)


@asynccontextmanager
async def daemon(source: str, url: str, directory: Path, toml: str) -> AsyncIterator[Watching]:
    directory.mkdir()
    path = directory / "tsmon.toml"
    path.write_text(toml)
    running = Daemon(settings(path, source=url, listen="127.0.0.1:0"), directory)
    await running.start()
    try:
        yield Watching(running, source)
    finally:
        await running.stop()


async def until(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Seconds until it was so."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, what
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def _approve(tailnet: RealTailnet, name: str) -> None:
    await tailnet.cli(name, "set", f"--advertise-routes={PREFIX}")
    number = (await tailnet.numbers())[name]
    async with asyncio.timeout(20):
        while PREFIX not in await tailnet.headscale("nodes", "list-routes", "-o", "json"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await tailnet.headscale("nodes", "approve-routes", "--identifier", number, "--routes", PREFIX)


async def test_ports_and_routers() -> None:
    with tempfile.TemporaryDirectory(prefix="ts-", dir=os.environ.get("TMPDIR", "/tmp")) as short:
        async with (
            real_tailnet(Path(short), (MONITOR, FIRST, SECOND)) as tailnet,
            web_server() as port,
        ):
            toml = (
                '[[roles]]\nname = "router"\nhosts = ["router-*"]\n'
                f'checks = ["tcp:{port}", "http:{port}/healthz", "http:{port}/nothing", "tcp:1"]\n'
            )
            await _approve(tailnet, FIRST)
            async with AsyncExitStack() as stack:
                proxy_dir = tailnet.dir / "proxy"
                proxy_dir.mkdir()
                proxy = await stack.enter_async_context(
                    sidecar(
                        SHELL,
                        proxy_dir,
                        HOME=os.environ.get("HOME", "/"),
                        TAILSCALE_BIN=program("tailscale"),
                        TS_SOCKET=str(tailnet.socket(MONITOR)),
                    )
                )
                local = await stack.enter_async_context(
                    daemon("localapi", f"unix://{tailnet.socket(MONITOR)}", tailnet.dir / "local", toml)
                )
                through = await stack.enter_async_context(
                    daemon("sidecar", proxy.url, tailnet.dir / "through", toml)
                )
                await _ports(local, through, port)
                await _failover(tailnet, local, through)
                await _why_blind(tailnet, local)


async def _ports(local: Watching, through: Watching, port: int) -> None:
    def states() -> dict[tuple[str, str], str]:
        services = local.daemon.monitor.view.services
        return {(one.name, key.check): one.state for key, one in services.items()}

    wanted = {
        (name, check): state
        for name in (FIRST, SECOND)
        for check, state in (
            (f"tcp:{port}", "ok"),
            (f"http:{port}/healthz", "ok"),
            (f"http:{port}/nothing", "bad_answer"),
            ("tcp:1", "refused"),
        )
    }
    took = await until(lambda: states() == wanted, 90, f"{states()}")
    print(f"\n  every check is what it is: {took:.1f} s after the start")
    answer = await through.api("services")
    assert answer["can_check"] is False, "a sidecar of a userspace tailscaled dials for nobody"
    assert {row["state"] for row in answer["services"]} == {"unknown"}


def _routes(tsmon: Watching, node_id: str) -> bool:
    """This node routes the prefix, and no other."""
    route = tsmon.daemon.monitor.view.routes.subnets.get(PREFIX)
    return route is not None and route.routers == (node_id,)


async def _failover(tailnet: RealTailnet, local: Watching, through: Watching) -> None:
    view = local.daemon.monitor.view
    ids = {node.hostname: node.id for node in view.nodes.values()}

    for tsmon in (local, through):
        await until(partial(_routes, tsmon, ids[FIRST]), 60, "the first router routes it")
    await _approve(tailnet, SECOND)
    await asyncio.sleep(15)  # headscale probes both of them from now on, every 10 s
    begun = time.time()
    tailnet.suspend(FIRST)
    try:

        async def one(tsmon: Watching, most: float) -> None:
            await until(partial(_routes, tsmon, ids[SECOND]), most, f"{tsmon.source}: the route moved")
            moved = time.time() - begun
            await until(
                lambda: tsmon.state(FIRST)[0] == "offline", most, f"{tsmon.source}: the old router is down"
            )
            found = time.time() - begun
            print(f"  {tsmon.source}: moved after {moved:.1f} s, the old router is down after {found:.1f} s")
            assert found <= most
            moves = [event.message for event in tsmon.events if event.event_type == "route_moved"]
            assert moves == [f"{PREFIX} moved from {FIRST} to {SECOND}"]

        await asyncio.gather(one(local, 30), one(through, 30 + 15 + 5))
        key = ServiceKey(ids[FIRST], "tcp:1")
        await until(
            lambda: local.daemon.monitor.view.services[key].state == "unknown", 30, "of a node that is down"
        )
        assert "service_down" not in {kind for kind, name in local.alerts() if name == FIRST}
    finally:
        tailnet.resume(FIRST)


async def _why_blind(tailnet: RealTailnet, local: Watching) -> None:
    """A real control server that is there, and one that is gone."""
    assert local.daemon.parts.lookout.control_url == tailnet.control_url
    assert await diagnose(tailnet.control_url) == "control_answers"
    tailnet.kill("headscale")
    found = await diagnose(tailnet.control_url, other=f"{local.daemon.url}/healthz")
    assert found == "control_silent"
    assert await diagnose(tailnet.control_url, other=tailnet.control_url) == "nothing_answers"
