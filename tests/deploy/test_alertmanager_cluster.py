"""Two tsmon and two clustered Alertmanagers, all real: each thing is notified once, whoever is missing."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.alertmanagers import (
    GROUP_INTERVAL,
    GROUP_WAIT,
    PEER_TIMEOUT,
    PROGRAM,
    Alertmanager,
    Phone,
    cluster,
)
from tests.support.process import Process, tsmon
from tsmon.base.clock import Clock
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.skipif(
        PROGRAM is None, reason="SKIPPED LOUDLY: no Alertmanager (Debian: prometheus-alertmanager)"
    ),
]
QUIET = PEER_TIMEOUT + GROUP_WAIT + 2 * GROUP_INTERVAL + 2.0
"""Seconds in which a second notification would have come."""
LONGEST = 90.0
DOWN = ("TsmonNodeOffline", "git", "firing")
BACK = ("TsmonNodeOffline", "git", "resolved")


class Site:
    """One tsmon and what it sees of the tailnet."""

    def __init__(self, run: Process, tailnet: SimTailnet) -> None:
        self.run = run
        self.tailnet = tailnet

    async def kill(self) -> None:
        self.run.process.kill()
        await self.run.process.wait()


class Fleet:
    """All of it."""

    def __init__(self, sites: list[Site], alertmanagers: list[Alertmanager], phone: Phone) -> None:
        self.sites = sites
        self.alertmanagers = alertmanagers
        self.phone = phone

    async def hears(self, what: tuple[str, str, str]) -> None:
        async with asyncio.timeout(LONGEST):
            while not self.phone.heard[what]:  # noqa: ASYNC110 (other processes)
                await asyncio.sleep(0.1)


@asynccontextmanager
async def watching(directory: Path, name: str, urls: list[str]) -> AsyncIterator[Site]:
    tailnet = SimTailnet(Clock())
    for node in ("git", "dev"):
        tailnet.add(node)
    toml = directory / f"{name}.toml"
    toml.write_text(
        f'monitor = "{name}"\nlisten = "127.0.0.1:0"\npoll_interval = "1s"\noffline_after = "1s"\n'
        'blind_after = "2s"\nreconnect_grace = "0s"\ndefault_roles = false\n'
        '[[roles]]\nname = "git"\nhosts = ["git"]\ncritical = true\nalert = "critical"\nping = false\n'
        + "".join(f'[[notify]]\nname = "am{n}"\nurl = "alertmanager+{url}"\n' for n, url in enumerate(urls))
    )
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(
            serving(FakeLocalApi(tailnet).application(), directory / f"{name}.sock")
        )
        arguments = ("run", "--config", str(toml), "--source", source, "--state-dir", str(directory / name))
        run = await stack.enter_async_context(tsmon(*arguments))
        started = asyncio.Event()
        drain = asyncio.create_task(_drain(run, started))
        stack.callback(drain.cancel)
        async with asyncio.timeout(LONGEST):
            await started.wait()
        yield Site(run, tailnet)


async def _drain(run: Process, started: asyncio.Event) -> None:
    """A full pipe would hold it up."""
    assert run.process.stderr is not None
    while raw := await run.process.stderr.readline():
        if b'"started"' in raw:
            started.set()


@asynccontextmanager
async def fleet(directory: Path) -> AsyncIterator[Fleet]:
    phone = Phone()
    app = web.Application()
    app.router.add_post("/", phone.receive)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(app))
        alertmanagers = await stack.enter_async_context(cluster(directory, f"{url}/"))
        urls = [one.url for one in alertmanagers]
        sites = [
            await stack.enter_async_context(watching(directory, name, urls)) for name in ("oslo", "berlin")
        ]
        yield Fleet(sites, alertmanagers, phone)


Act = Callable[[Fleet], Awaitable[None]]


async def nothing(_: Fleet) -> None:
    """All are there."""


async def kill_tsmon(there: Fleet) -> None:
    await there.sites[0].kill()


async def cut_tsmon_off(there: Fleet) -> None:
    """It hears nothing more of the tailnet, and says so of itself."""
    there.sites[0].tailnet.fault = "refused"


async def kill_alertmanager(there: Fleet) -> None:
    await there.alertmanagers[0].end()


async def cut_alertmanager_off(there: Fleet) -> None:
    """Nobody hears it, and it hears nobody, for as long as it lasts."""
    there.alertmanagers[0].signal(signal.SIGSTOP)


async def rejoin_alertmanager(there: Fleet) -> None:
    there.alertmanagers[0].signal(signal.SIGCONT)


CASES: dict[str, tuple[Act, Act]] = {
    "all there": (nothing, nothing),
    "a tsmon dead": (kill_tsmon, nothing),
    "a tsmon killed in the outage": (nothing, kill_tsmon),
    "a tsmon cut off": (cut_tsmon_off, nothing),
    "a tsmon cut off in the outage": (nothing, cut_tsmon_off),
    "an Alertmanager dead": (kill_alertmanager, nothing),
    "an Alertmanager killed in the outage": (nothing, kill_alertmanager),
    "an Alertmanager cut off, and back in the outage": (cut_alertmanager_off, rejoin_alertmanager),
    "an Alertmanager cut off in the outage": (nothing, cut_alertmanager_off),
}


@pytest.mark.parametrize("case", list(CASES))
async def test_each_thing_is_notified_once(case: str, tmp_path: Path) -> None:
    before, within = CASES[case]
    async with fleet(tmp_path) as there:
        await before(there)
        for site in there.sites:
            site.tailnet.off("git")
        await there.hears(DOWN)
        await asyncio.sleep(QUIET)
        assert there.phone.heard[DOWN] == 1
        if within is not nothing:
            await within(there)
            await asyncio.sleep(QUIET)
        for site in there.sites:
            site.tailnet.on("git")
        await there.hears(BACK)
        await asyncio.sleep(QUIET)
        once = Counter({DOWN: 1, BACK: 1})
        if cut_tsmon_off in (before, within):
            once["TsmonMonitorBlind", "oslo", "firing"] = 1
        if within is rejoin_alertmanager:
            # It may speak before it hears what its peer has said: a cluster that was parted promises at least
            # once (docs/fleet.md), and tsmon cannot promise more.
            once |= {what: min(there.phone.heard[what], 2) for what in (DOWN, BACK)}
        assert there.phone.heard == once
