"""Makes the pictures in docs/screenshots/ from the demo, in a real Chromium: `make screenshots`."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

FOLDER = Path(__file__).parent.parent.parent / "docs" / "screenshots"
PICTURES = (
    # name, path of the page, width, height, colours
    ("dashboard", "vpn", 1440, 1000, "light"),
    ("dashboard-dark", "vpn", 1440, 1000, "dark"),
    ("node", "vpn?node=chocolate-factory-dev", 1440, 1000, "light"),
    ("phone", "vpn", 390, 844, "dark"),
)


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[str]:
    """A running `tsmon demo`; its URL."""
    command = [sys.executable, "-c", "from tsmon.cli import main; main()", "demo", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--log-format",
        "json",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            if b'"started"' in line:
                yield line.decode().partition('"url": "')[2].partition('"')[0]
                return
        raise SystemExit("tsmon demo did not start")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


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
        await page.screenshot(path=str(FOLDER / f"{name}.png"))
        await page.close()
        print(f"docs/screenshots/{name}.png")


async def main() -> None:
    chromium = os.environ.get("TSMON_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("make screenshots needs Chromium (TSMON_TEST_CHROMIUM, or on PATH)")
    async with demo() as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        await take(browser, url)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
