"""A picture of every state of the dashboard, to look at: `python -m tests.browser.gallery FOLDER [STATE…]`.

Each state is brought about for real, then taken as a whole page at 390, 1280 and 1920 pixels, light and dark,
and as a wall at 3840.
"""

import asyncio
import sys
from pathlib import Path

from playwright.async_api import Page, async_playwright

from tests.browser.chromium import CHROMIUM, FLAGS
from tests.browser.states import STATES, to_the_wall

LOOKS = ((390, 844, "light"), (768, 1024, "dark"), (1280, 800, "light"), (1920, 1080, "dark"))
WALL = (3840, 2160)


async def take(page: Page, folder: Path, name: str) -> None:
    stem = name.replace(" ", "-")
    for width, height, scheme in LOOKS:
        await page.emulate_media(
            color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
        )
        await page.set_viewport_size({"width": width, "height": height})
        await page.wait_for_timeout(150)
        tall = await page.evaluate("document.documentElement.scrollHeight")
        await page.screenshot(path=folder / f"{stem}-{width}.png", full_page=True)
        print(f"{stem}-{width}.png  {width} x {tall}")
    await page.set_viewport_size({"width": WALL[0], "height": WALL[1]})
    await to_the_wall(page)
    await page.wait_for_timeout(1500)
    await page.screenshot(path=folder / f"{stem}-wall.png")


async def main(folder: Path, names: list[str]) -> None:
    if CHROMIUM is None:
        raise SystemExit("no Chromium (TSMON_TEST_CHROMIUM, or on PATH)")
    folder.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for name in names or STATES:
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            async with STATES[name](page):
                await take(page, folder, name)
            await page.close()
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
