"""Fixtures of the browser tests: a site, a browser, the open page."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.chromium import CHROMIUM, FLAGS, HOSTILE, PROD
from tests.support.site import Site, site


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, "git", "dev", PROD, "alices-laptop", offline_after="0s") as found:
        found.tailnet.add("x", os_hostname=HOSTILE, tags=[f"tag:{HOSTILE}"])
        await found.poll()
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def anew(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser that has seen nothing yet, for tests that make their own site."""
    context = await browser.new_context(viewport={"width": 1400, "height": 900})
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(here: Site, anew: BrowserContext) -> BrowserContext:
    """A browser beside a site: it closes before the site does."""
    return anew


@pytest_asyncio.fixture(loop_scope="session")
async def page(here: Site, context: BrowserContext) -> AsyncIterator[Page]:
    """The page, open; whatever it complained about fails the test."""
    complaints: list[str] = []
    page = await context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#headline")).to_contain_text("critical nodes online")
    await expect(page.locator("#rows .row .bars").first).to_be_visible()
    yield page
    assert complaints == []
