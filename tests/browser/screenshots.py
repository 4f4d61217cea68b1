"""Makes the pictures in docs/screenshots/ from the demo, in a real Chromium: `make screenshots`."""

import asyncio
import os
import shutil

from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.demo import demo, scripted
from tests.support.paths import ROOT
from tsmon.monitor.alerts import Silence

FOLDER = ROOT / "docs" / "screenshots"
PICTURES = (
    # name, path of the page, width, height, colours
    ("dashboard", "vpn", 1440, 820, "light"),
    ("dashboard-dark", "vpn", 1440, 820, "dark"),
    ("node", "vpn?node=chocolate-factory-dev", 1280, 700, "light"),
    ("phone", "vpn", 390, 844, "dark"),
)


async def take_hard_times(browser: Browser) -> None:
    """An outage that somebody takes care of, then a monitor that cannot see."""
    async with scripted() as (url, tailnet, daemon):
        page = await browser.new_page(viewport={"width": 1440, "height": 760}, reduced_motion="reduce")
        await page.goto(f"{url}/vpn")
        await page.locator(".spark").nth(2).wait_for(state="attached")
        now = daemon.clock.wall()
        await daemon.parts.silencing.silence(
            Silence(id=0, author="bob", reason="new disks", created=now, ends=now + 7200, hosts=("backup",))
        )
        tailnet.off("chocolate-factory", "git", "backup")
        await expect(page.locator("#alerts li[id]")).not_to_have_count(0, timeout=60_000)
        await expect(page.locator("#numbers")).to_contain_text("alerts3", timeout=60_000)
        git = next(key for key, alert in daemon.monitor.alerts.items() if alert.hostname == "git")
        await daemon.parts.operators.acknowledge(git, "alice")
        await expect(page.locator("#alerts")).to_contain_text("acknowledged by alice", timeout=60_000)
        await shoot(page, "outage")
        tailnet.on("chocolate-factory", "git", "backup")
        await expect(page.locator("#alerts li[id]")).to_have_count(0, timeout=60_000)
        tailnet.lose_control()
        await expect(page.locator("#blind")).to_be_visible(timeout=60_000)
        await expect(page.locator("#rows .note", has_text="was online").first).to_be_visible()
        await shoot(page, "blind")
        await page.close()


async def shoot(page: Page, name: str) -> None:
    await page.screenshot(path=str(FOLDER / f"{name}.png"))
    print(f"docs/screenshots/{name}.png")


async def take(browser: Browser, url: str) -> None:
    for name, path, width, height, scheme in PICTURES:
        page = await browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        await page.goto(f"{url}/{path}")
        await page.locator("#rows .bars").first.wait_for()
        await page.locator(".spark").nth(2).wait_for(state="attached")
        if "node=" in path:
            await page.locator("#node-latency svg").wait_for()
        await shoot(page, name)
        await page.close()


async def main() -> None:
    chromium = os.environ.get("TSMON_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("make screenshots needs Chromium (TSMON_TEST_CHROMIUM, or on PATH)")
    async with demo() as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        await take(browser, url)
        await take_hard_times(browser)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
