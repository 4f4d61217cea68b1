"""What is printed, and what is seen of the latency when one drags over it."""

import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.chromium import PROD, SEEN, overflow
from tests.support.site import Site
from tsmon.monitor.batch import Batch, LatencyRow

pytestmark = SEEN

PAPERS = {"portrait": (718, 1047), "landscape": (1047, 718)}  # A4 within margins of 10 mm, in CSS pixels
CONTROLS = "button:not(.head button, .copy), select, input, .live, .pages, .hint"
CUT = """boxes => boxes.filter(box => box.getClientRects().length
    && (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1)
    && getComputedStyle(box).overflow !== "visible").map(box => box.className + ": " + box.textContent)"""
POINTS = "[...document.querySelectorAll('#node-latency polyline')].reduce((n, p) => n + p.points.length, 0)"
OUTSIDE = """boxes => boxes.filter(box => box.getClientRects().length
    && box.getBoundingClientRect().right > innerWidth + 1).map(box => box.tagName + "." + box.className)"""


async def visible(page: Page, selector: str) -> list[str]:
    found: list[str] = await page.locator(selector).evaluate_all(
        "all => all.filter(one => one.getClientRects().length).map(one => one.outerHTML)"
    )
    return found


# -- paper -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("path", ["/vpn", "/vpn?node=git"])
async def test_paper_shows_all_and_cuts_nothing_off(page: Page, here: Site, paper: str, path: str) -> None:
    width, height = PAPERS[paper]
    await page.set_viewport_size({"width": width, "height": height})
    await page.goto(here.daemon.url + path)
    await expect(page.locator("#rows .row .bars").first).to_be_attached()
    if "node" in path:
        await expect(page.locator("#node-bars .bars")).to_be_visible()
        await expect(page.locator("#node-events li").first).to_be_visible()
    await page.emulate_media(media="print")
    assert await visible(page, CONTROLS) == []
    assert await overflow(page) <= 0
    assert await page.locator("body *:not(.hide)").evaluate_all(OUTSIDE) == []
    assert await page.locator("main *:not(.hide), #drawer, #drawer *").evaluate_all(CUT) == []
    if "node" in path:
        assert await visible(page, "header, main, footer") == []
    else:
        await expect(page.locator("#rows .row")).to_have_count(6)
        await expect(page.locator("#foot .paper")).to_have_text(re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"))
        assert len(await visible(page, "[role=columnheader]")) == 6


async def test_paper_is_white(page: Page) -> None:
    """A dark screen does not print a black page."""
    for _ in range(2):
        await page.locator("#theme").click()
    await expect(page.locator("#theme")).to_have_text("Theme: dark")
    await page.emulate_media(media="print", color_scheme="dark")
    colours = "(e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color])(document.body)"
    assert await page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(26, 33, 48)"]


async def test_a_long_table_says_how_much_of_it_is_printed(here: Site, context: BrowserContext) -> None:
    for number in range(70):
        here.tailnet.add(f"node-{number:02d}")
    await here.poll()
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#count")).to_have_text("76 nodes")
    await expect(page.locator("#printed")).to_be_hidden()
    await page.emulate_media(media="print")
    await expect(page.locator("#rows .row")).to_have_count(50)
    await expect(page.locator("#printed")).to_have_text("The first 50 of 76 nodes.")
    tall = await page.evaluate("document.documentElement.scrollHeight")
    assert tall < 50 * 60 + 2000, "no blank pages for the rows that are not there"
    pdf = await page.pdf(format="A4")
    assert len(re.findall(rb"/Type /Page\b(?!s)", pdf)) in range(2, 6)
    await page.emulate_media(media="screen")
    await expect(page.locator("#rows .row")).not_to_have_count(50)


# -- the latency chart -------------------------------------------------------------------------------------


async def measure(here: Site) -> None:
    """A day of latency: 10 ms, an hour of 90 ms over a relay, and lost pings after it."""
    now = here.daemon.clock.wall()
    node = here.tailnet.find("git")
    rows = []
    for step in range(287, 0, -1):
        slow, lost = 120 <= step < 132, 110 <= step < 120
        mean = None if lost else 90.0 if slow else 10.0
        rows.append(
            LatencyRow(
                node.id, now - step * 300, mean, mean, mean, float(lost), "relay" if slow else "direct"
            )
        )
    await here.daemon.store.commit(Batch(latency=rows))


async def chart(page: Page, here: Site) -> None:
    await measure(here)
    await page.goto(here.daemon.url + "/vpn?node=git")
    await expect(page.locator("#node-latency svg")).to_be_visible()


async def drag(page: Page, begin: float, end: float) -> None:
    """From one part of the chart's width to another."""
    around = page.locator("#node-latency")  # as wide; the chart itself is made anew with every look
    await around.scroll_into_view_if_needed()
    box = await around.bounding_box()
    assert box is not None
    at = box["y"] + 60
    await page.mouse.move(box["x"] + begin * box["width"], at)
    await page.mouse.down()
    await page.mouse.move(box["x"] + end * box["width"], at, steps=4)
    assert float(await around.locator(".band").get_attribute("width") or 0) > 0
    await page.mouse.up()


async def test_dragging_over_the_latency_zooms_in(page: Page, here: Site) -> None:
    await chart(page, here)
    label = "document.querySelector('#node-latency svg').getAttribute('aria-label')"
    whole = await page.evaluate(label)
    many = await page.evaluate(POINTS)
    await drag(page, 0.7, 0.3)  # leftwards is as good
    await expect(page.locator("#whole")).to_be_visible()
    few = await page.evaluate(POINTS)
    assert 0.3 * many < few < 0.6 * many
    assert await page.evaluate(label) != whole
    await drag(page, 0.2, 0.8)
    assert await page.evaluate(POINTS) < few
    await page.locator("#whole").click()
    assert await page.evaluate(POINTS) == many
    await expect(page.locator("#whole")).to_be_hidden()
    await drag(page, 0.3, 0.7)
    await page.locator("#node-latency svg").dblclick()
    assert await page.evaluate(POINTS) == many
    assert await page.evaluate(label) == whole


async def test_the_zoom_outlives_a_refresh_and_a_click_does_not_zoom(page: Page, here: Site) -> None:
    await chart(page, here)
    await page.locator("#node-latency svg").click()
    await expect(page.locator("#whole")).to_be_hidden()
    await drag(page, 0.3, 0.7)
    few = await page.evaluate(POINTS)
    here.tailnet.off(PROD)
    await here.poll()
    await expect(page.locator("#headline")).to_contain_text("down")
    await expect(page.locator("#whole")).to_be_visible()
    assert await page.evaluate(POINTS) == few
    await page.locator("#windows button[value='7d']").click()
    await expect(page.locator("#whole")).to_be_hidden()


async def test_the_figures_below_are_of_what_is_shown(page: Page, here: Site) -> None:
    await chart(page, here)
    caption = page.locator("#node-latency figcaption")
    await expect(caption).to_contain_text("longest ping 90 ms")
    await drag(page, 0.8, 0.98)
    await expect(caption).to_contain_text("avg 10 ms · slowest average 10 ms")
    await expect(caption).not_to_contain_text("90 ms")


@pytest.mark.parametrize("width", [390, 700, 1400])
async def test_no_label_of_the_chart_is_cut_off(page: Page, here: Site, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await chart(page, here)
    outside = """texts => texts.filter(text => {
        const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
        return inner.left < outer.left - 1 || inner.right > outer.right + 1;
    }).map(text => text.textContent)"""
    assert await page.locator("#node-latency text").evaluate_all(outside) == []
    await expect(page.locator("#node-latency .change")).to_have_count(2)
