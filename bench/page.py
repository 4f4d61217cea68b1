"""The dashboard's budget in a headless Chromium: bytes, first useful paint, long tasks, smooth scrolling."""

import os
import shutil
from typing import Any

from playwright.async_api import Page, async_playwright

from tests.support.demo import demo

SIZES = (1_000, 10_000)
_WATCH = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration)))
  .observe({ type: "longtask", buffered: true });
"""
_SCROLL = """
async () => {
  const box = document.getElementById("scroll");
  const frames = [];
  let last = performance.now();
  for (let step = 0; step < 90; step += 1) {
    box.scrollTop += 900;
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last);
    last = performance.now();
  }
  return Math.max(...frames);
}
"""


async def measure_page() -> dict[str, dict[str, Any]]:
    """By number of nodes. Without Chromium nothing."""
    chromium = os.environ.get("TSMON_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no Chromium: the page was not measured")
        return {}
    found = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for size in SIZES:
            async with demo("--nodes", str(size)) as url:
                found[str(size)] = await _measure(
                    await browser.new_page(viewport={"width": 1440, "height": 900}), url
                )
        await browser.close()
    return found


async def _measure(page: Page, url: str) -> dict[str, Any]:
    await page.goto(f"{url}/healthz")  # the browser itself is warm
    await page.add_init_script(_WATCH)
    responses: list[Any] = []
    page.on("response", lambda response: responses.append(response))  # noqa: PLW0108 (functions only)
    await page.goto(f"{url}/vpn")
    await page.locator("#rows .row .pill").first.wait_for()
    useful = await page.evaluate("performance.now()")
    await page.locator("#rows .bars").first.wait_for()
    bars = await page.evaluate("performance.now()")
    own = [found for found in responses if "/web/" in found.url or found.url.endswith("/vpn")]
    sizes = [(await found.request.sizes())["responseBodySize"] for found in own]
    longest_load = await page.evaluate("Math.max(0, ...window.tasks)")
    await page.evaluate("window.tasks.length = 0")
    frame = await page.evaluate(_SCROLL)
    longest_scroll = await page.evaluate("Math.max(0, ...window.tasks)")
    await page.close()
    return {
        "first load, kB gzipped": round(sum(sizes) / 1000, 1),
        "rows shown after, ms": round(useful),
        "bars shown after, ms": round(bars),
        "longest task while loading, ms": round(longest_load),
        "longest frame while scrolling, ms": round(frame),
        "longest task while scrolling, ms": round(longest_scroll),
    }
