"""Every state the dashboard can be in, brought about for real: for the rules and for the eye."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, Route, expect

from tests.browser.chromium import HOSTILE, PROD
from tests.support.demo import demo
from tests.support.site import Site, site
from tests.support.world import settings
from tsmon.daemon.daemon import Daemon
from tsmon.monitor.alerts import Silence

NAMES = ("git", "dev", PROD, "alices-laptop")


@asynccontextmanager
async def _site(**values: object) -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as directory:
        async with site(Path(directory), *NAMES, offline_after="0s", **values) as found:
            found.tailnet.add("x", os_hostname=HOSTILE, tags=[f"tag:{HOSTILE}"])
            await found.poll()
            yield found


async def _open(page: Page, found: Site) -> None:
    await page.goto(found.daemon.url + "/vpn")
    await expect(page.locator("#live-text")).to_have_text("page connected")
    await expect(page.locator("#rows .row .bars").first).to_be_visible()


@asynccontextmanager
async def blind(page: Page) -> AsyncIterator[None]:
    """tailscaled is stopped on the monitor's machine."""
    async with _site() as found:
        await _open(page, found)
        found.tailnet.stop()
        await found.poll()
        await expect(page.locator("#headline")).to_contain_text("tsmon cannot see the tailnet since")
        await expect(page.locator("#rows .pill[data-state=unknown]")).to_have_count(5)
        yield


@asynccontextmanager
async def stale(page: Page, held: bool = False) -> AsyncIterator[None]:
    """tsmon died while the page was open; with its clock `held` by the test."""
    async with _site() as found:
        await _open(page, found)
        await found.daemon.stop()
        await expect(page.locator("#live")).to_have_attribute("data-state", "stale")
        if held:
            await page.clock.run_for(10_000)
        await expect(page.locator("#headline")).to_contain_text("tsmon does not answer", timeout=15_000)
        yield


@asynccontextmanager
async def in_demo(page: Page) -> AsyncIterator[None]:
    async with demo() as url:
        await page.goto(url + "/vpn")
        await expect(page.locator("#demo")).to_be_visible()
        await expect(page.locator("#rows .row .bars").first).to_be_visible()
        await expect(page.locator(".spark").first).to_be_visible()
        yield


@asynccontextmanager
async def empty(page: Page) -> AsyncIterator[None]:
    """A new tsmon that has never seen its tailnet."""
    with tempfile.TemporaryDirectory() as directory:
        nothing = settings(source="http://127.0.0.1:1", listen="127.0.0.1:0", poll_interval="1s")
        daemon = Daemon(nothing, Path(directory))
        await daemon.start()
        try:
            await page.goto(daemon.url + "/vpn")
            await expect(page.locator("#headline")).to_contain_text("tsmon cannot see the tailnet")
            await expect(page.locator("#no-nodes")).to_be_visible()
            yield
        finally:
            await daemon.stop()


@asynccontextmanager
async def error(page: Page) -> AsyncIterator[None]:
    """What stands between answers in tsmon's place."""

    async def refuse(route: Route) -> None:
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")

    async with _site() as found:
        await page.route("**/health-monitoring/table?**", refuse)
        await page.goto(found.daemon.url + "/vpn")
        await expect(page.locator("#headline")).to_contain_text("tsmon answers with", timeout=15_000)
        yield


@asynccontextmanager
async def outage(page: Page) -> AsyncIterator[None]:
    """Three critical nodes down: one alert firing, one acknowledged, one silenced."""
    async with _site() as found:
        await _open(page, found)
        monitor = found.daemon.monitor
        now = found.daemon.clock.wall()
        await found.daemon.parts.silencing.silence(
            Silence(id=0, author="bob", reason="rack", created=now, ends=now + 7200, hosts=("dev",))
        )
        found.tailnet.off(PROD, "git", "dev")
        await found.poll()
        await found.until(lambda: sum(a.state == "firing" for a in monitor.alerts.values()) == 3)
        await found.daemon.parts.operators.acknowledge(
            next(k for k, a in monitor.alerts.items() if a.hostname == "git"), "alice"
        )
        await found.poll()
        await expect(page.locator("#alerts")).to_contain_text("acknowledged by alice")
        await expect(page.locator("#alerts")).to_contain_text("silenced until")
        await expect(page.locator("#rows .pill[data-state=offline]")).to_have_count(3)
        yield


STATES: dict[str, Callable[[Page], AbstractAsyncContextManager[None]]] = {
    "blind": blind,
    "stale": stale,
    "demo": in_demo,
    "empty": empty,
    "error": error,
    "outage": outage,
}
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1400)]
