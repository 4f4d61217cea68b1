"""The dashboard in a real Chromium, over a daemon and a simulated tailnet.

Needs Chromium (`TSMON_TEST_CHROMIUM`, else from PATH); skipped loudly when absent.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.test_api import Site, site

CHROMIUM = (
    os.environ.get("TSMON_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HOSTILE = "<img src=x onerror=alert(1)>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="SKIPPED LOUDLY: no Chromium, the dashboard was not seen"),
]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(
        tmp_path, "git", "dev", "chocolate-factory", "alices-laptop", offline_after="0s"
    ) as found:
        found.tailnet.add("x", os_hostname=HOSTILE, tags=[f"tag:{HOSTILE}"])
        await found.poll()
        yield found


@pytest.fixture
async def page(here: Site) -> AsyncIterator[Page]:
    """The page, open; whatever it complained about fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(here.daemon.url + "/vpn")
        await expect(page.locator("#summary-title")).to_contain_text("critical nodes online")
        yield page
        await browser.close()
    assert complaints == []


async def test_the_four_parts_are_there(page: Page) -> None:
    await expect(page.locator("#summary-title")).to_have_text("All 3 critical nodes online")
    await expect(page.locator("#critical .card")).to_have_count(3)
    await expect(page.locator("#rows tr")).to_have_count(6)
    await expect(page.locator("#log li").first).to_be_visible()
    await expect(page.locator("#live")).to_have_text("live")
    await expect(page.locator("#demo")).to_be_hidden()


async def test_an_outage_appears_by_itself(page: Page, here: Site) -> None:
    here.tailnet.off("chocolate-factory")
    await here.poll()
    await expect(page.locator("#summary-title")).to_contain_text("chocolate-factory is down since")
    await expect(page.locator("#alerts li")).to_contain_text("chocolate-factory")
    assert "down" in await page.title()


async def test_blindness_is_said(page: Page, here: Site) -> None:
    here.tailnet.stop()
    await here.poll()
    await expect(page.locator("#summary-title")).to_contain_text("tsmon cannot see the tailnet since")
    await expect(page.locator("#blind")).to_contain_text("Tailscale is stopped")
    await expect(page.locator("#rows .pill[data-state=unknown]")).to_have_count(5)


async def test_nodes_are_searched_and_the_filters_stand_in_the_url(page: Page) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type("lap")
    await expect(page.locator("#rows tr")).to_have_count(1)
    assert "q=lap" in page.url
    await page.reload()
    await expect(page.locator("#rows tr")).to_have_count(1)
    await page.locator("#q").fill("no such node")
    await expect(page.locator("#no-nodes")).to_be_visible()


async def test_the_log_is_filtered(page: Page) -> None:
    await page.locator("#event_type").select_option("monitor_started")
    await expect(page.locator("#log li")).to_have_count(1)
    await page.locator("#severity").select_option("critical")
    await expect(page.locator("#no-log")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
async def test_nothing_runs_over_the_edge(page: Page, scheme: str, width: int) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": width, "height": 900})
    over = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0


async def test_it_says_when_tsmon_does_not_answer(here: Site) -> None:
    """A page whose server went away says so instead of showing old truths."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page()
        await page.goto(here.daemon.url + "/vpn")
        await expect(page.locator("#live")).to_have_text("live")
        await here.daemon.stop()
        await expect(page.locator("#live")).to_have_attribute("data-state", "stale")
        await browser.close()
