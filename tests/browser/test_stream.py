"""The live stream where it is hard: a proxy that keeps it back, a tab in the background."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.chromium import PROD, SEEN
from tests.support.site import Site

pytestmark = SEEN

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    const word = hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", {value: word, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


class Hoarder:
    """A proxy that gives an answer on when it is complete: a stream's headers perhaps, its body never."""

    def __init__(self, target: str, *, headers: bool) -> None:
        self.target = target
        self.headers = headers
        self.held = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        async with (
            aiohttp.ClientSession() as client,
            client.get(
                self.target + str(request.rel_url), headers={"Accept": request.headers["Accept"]}
            ) as found,
        ):
            kept = {name: found.headers[name] for name in ("Content-Type",) if name in found.headers}
            if found.content_type != "text/event-stream":
                return web.Response(status=found.status, body=await found.read(), headers=kept)
            self.held += 1
            response = web.StreamResponse(headers=kept)
            if self.headers:
                await response.prepare(request)
            async for _ in found.content:
                pass
            return response


@asynccontextmanager
async def between(here: Site, *, headers: bool) -> AsyncIterator[tuple[Hoarder, str]]:
    hoarder = Hoarder(here.daemon.url, headers=headers)
    application = web.Application()
    application.router.add_get("/{path:.*}", hoarder.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    try:
        yield hoarder, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def later(page: Page, condition: Callable[[], bool]) -> None:
    """Let the page's time run until something has happened here."""
    async with asyncio.timeout(10):
        while not condition():
            await page.clock.run_for(1000)


@pytest.mark.parametrize("headers", [True, False], ids=["body kept back", "all kept back"])
async def test_a_proxy_that_buffers_makes_it_poll(here: Site, anew: BrowserContext, headers: bool) -> None:
    async with between(here, headers=headers) as (hoarder, url):
        page = await anew.new_page()
        await page.clock.install()
        await page.goto(url + "/vpn")
        await expect(page.locator("#headline")).to_have_text("All 3 critical nodes online")
        await later(page, lambda: hoarder.held > 0)
        await expect(page.locator("#live-text")).not_to_have_text("page connected")
        here.tailnet.off(PROD)
        await here.poll()
        await page.clock.run_for(40_000)
        await expect(page.locator("#live")).to_have_attribute("data-state", "polling")
        await expect(page.locator("#live-text")).to_have_text("page asks every 15 s")
        await page.clock.run_for(1000)
        await expect(page.locator("#headline")).to_contain_text(f"{PROD} is down")
        await page.close()


async def test_a_hidden_tab_asks_nothing_and_catches_up(here: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.clock.install()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#live-text")).to_have_text("page connected")
    await expect(page.locator("#rows .row .bars").first).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.evaluate(HIDE, True)
    asked.clear()
    here.tailnet.off(PROD)
    await here.poll()
    await page.clock.run_for(600_000)
    assert asked == []
    await expect(page.locator("#headline")).to_have_text("All 3 critical nodes online")
    await page.evaluate(HIDE, False)
    await page.clock.run_for(1000)
    await expect(page.locator("#headline")).to_contain_text(f"{PROD} is down")
    await expect(page.locator("#live-text")).to_have_text("page connected")
    assert any(url.endswith("/stream") for url in asked)


async def test_a_tab_that_comes_back_behind_such_a_proxy_does_not_wait(
    here: Site, anew: BrowserContext
) -> None:
    async with between(here, headers=False) as (_, url):
        page = await anew.new_page()
        await page.clock.install()
        await page.goto(url + "/vpn")
        await expect(page.locator("#headline")).to_have_text("All 3 critical nodes online")
        await page.evaluate(HIDE, True)
        here.tailnet.off(PROD)
        await here.poll()
        await page.evaluate(HIDE, False)
        await page.clock.run_for(1000)
        await expect(page.locator("#headline")).to_contain_text(f"{PROD} is down")
        await page.close()
