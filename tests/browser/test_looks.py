"""What is seen at which size: crowds, long names, walls, pockets, contrast under the pointer."""

import re
from typing import Any

from playwright.async_api import BrowserContext, Page, expect

from tests.browser.chromium import AXE_RUNS, SEEN, poor_contrast
from tests.browser.states import (
    crowd,
    fresh,
    hostile,
    many_alerts,
    node_page,
    outage,
    seeing_again,
    to_the_wall,
)

pytestmark = SEEN

HEIGHT = "document.documentElement.scrollHeight"
CUT = """links => links.filter(link => link.scrollHeight > link.clientHeight + 2
    || link.scrollWidth > link.clientWidth + 1).map(link => link.textContent)"""
SMALL = """all => all.filter(one => one.getClientRects().length)
    .map(one => [one.outerHTML.slice(0, 90), one.getBoundingClientRect().height])
    .filter(([, height]) => height < 43.5)"""
CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16) / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const of = (name) => {
    const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return light(text.length === 4 ? text.replace(/[0-9a-f]/g, "$&$&") : text);
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  return [ratio(of("--unknown"), of("--unknown-back")), ratio(of("--unknown"), of("--card"))];
}"""


async def test_forty_critical_nodes_fit_a_phone(anew: BrowserContext) -> None:
    page = await anew.new_page()
    await page.set_viewport_size({"width": 390, "height": 844})
    async with crowd(page):
        await expect(page.locator("#log li")).to_have_count(8)
        assert await page.evaluate(HEIGHT) < 2800
        await expect(page.locator("#critical .card")).to_have_count(2)
        fold = page.locator("[data-role=rack]")
        await expect(fold).to_have_text("38 online")
        await fold.click()
        await expect(page.locator(".role", has=fold).locator(".chips li")).to_have_count(38)
        await expect(fold).to_have_attribute("aria-expanded", "true")
        await expect(fold).to_be_focused()
        await fold.click()
        await expect(page.locator(".role", has=fold).locator(".chips")).to_have_count(0)
        await page.locator("#more-rows").click()
        await expect(page.locator("#rows [data-index]")).to_have_count(45)
        await expect(page.locator("#node-filters")).to_be_hidden()
        await page.locator("[data-opens=node-filters]").click()
        await expect(page.locator("#node_type")).to_be_visible()
        await page.set_viewport_size({"width": 1280, "height": 800})
        await expect(page.locator("#critical .chips li")).to_have_count(41)


async def test_the_wall_has_the_down_ones_first_and_folds_the_rest(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with crowd(page):
        await page.set_viewport_size({"width": 3840, "height": 2160})
        await to_the_wall(page)
        tiles = page.locator("#critical .card")
        await expect(tiles).to_have_count(12)
        await expect(tiles.nth(0)).to_contain_text("rack-07")
        await expect(tiles.last).to_have_text("32 online")
        await expect(page.locator("#wall-seen")).to_have_text(re.compile(r"seen \d+ s ago"))
        await expect(page.locator("#wall-last")).to_contain_text("rack-")
        await expect(page.locator("#wall-count")).to_have_text("43 of 45 nodes online")
        large = await page.locator("#headline").evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
        assert large > 100


async def test_sixty_alerts_are_one_line_and_nothing_below_moves(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with many_alerts(page):
        row = page.locator("#alerts li")
        await expect(row).to_have_count(1)
        await expect(row).to_contain_text("60 servers offline")
        await expect(row).to_contain_text("web-000, web-001, web-002 and 57 more")
        await expect(page.locator("#headline")).to_have_text(
            re.compile("All 3 critical nodes online · 60 servers offline since")
        )
        await expect(page.locator("#headline")).to_have_attribute("data-status", "degraded")
        await row.locator(".show").click()
        await expect(page.locator("#count")).to_have_text("60 nodes")
        await expect(page.locator("#flags [data-flag=alerting]")).to_have_attribute("aria-pressed", "true")
        await expect(page).to_have_url(re.compile("alerting=1"))


async def test_a_name_keeps_what_tells_it_apart(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with hostile(page):
        for width in (390, 768, 1280, 1920):
            await page.set_viewport_size({"width": width, "height": 900})
            links = page.locator("#rows .c-host a, #critical .name a")
            assert (width, await links.evaluate_all(CUT)) == (width, [])
            shown = await page.locator("#rows .c-host a").all_text_contents()
            assert len(set(shown)) == len(shown)
        # A node may be called like any word: only its own name is a link.
        line = page.locator("#rows [role=row]", has=page.locator("[data-node=online]"))
        await expect(line).to_have_count(1)


async def test_a_new_tsmon_looks_welcoming(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with fresh(page):
        await expect(page.locator("#headline")).to_have_text("5 of 5 nodes online")
        await expect(page.locator("#critical")).to_contain_text("tsmon config init")
        await expect(page.locator("#critical .pill")).to_have_count(0)
        await expect(page.locator("#favicon")).to_have_attribute("href", "web/ok.svg")


async def test_sight_that_returned_is_not_called_blind(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with seeing_again(page):
        await expect(page.locator("#headline")).to_have_text(
            re.compile("All 3 critical nodes online · sees again since .*, settles in")
        )
        await expect(page.locator("#blind")).to_be_hidden()
        await expect(page.locator("#alerts")).not_to_contain_text("cannot see")


async def test_fingers_hit_what_they_aim_at(anew: BrowserContext) -> None:
    page = await anew.new_page()
    await page.set_viewport_size({"width": 390, "height": 844})
    async with outage(page):
        await page.locator("[data-opens=node-filters]").click()
        targets = page.locator(
            "button, select, input:not([type=hidden], [type=checkbox]), label.check, .show"
        )
        assert await targets.evaluate_all(SMALL) == []


async def hovered(page: Page, selector: str) -> dict[str, Any]:
    """The contrast of an element under the pointer, and while it is pressed."""
    found: dict[str, Any] = {}
    target = page.locator(selector).first
    await target.scroll_into_view_if_needed()
    await target.hover()
    found["hovered"] = await poor_contrast(page, selector)
    await page.mouse.down()
    found["pressed"] = await poor_contrast(page, selector)
    await page.mouse.move(1, 1)
    await page.mouse.up()
    return {how: words for how, words in found.items() if words}


@AXE_RUNS
async def test_all_is_readable_under_the_pointer(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with outage(page):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            await page.locator("#group").select_option("role")
            for selector in (
                "#theme",
                "#flags button",
                ".section button",
                "#rows [data-index]",
                "#rows .copy",
                "#alerts li",
                "#alerts .show",
                "#critical .card",
                "#news",
                "#log li:nth-child(3)",
                "#csv",
                "[data-sort=hostname]",
                "#numbers a",
            ):
                assert (scheme, selector, await hovered(page, selector)) == (scheme, selector, {})
            await page.locator("#flags button").first.click()
            assert await hovered(page, "#flags [aria-pressed=true]") == {}
            await page.locator("#flags button").first.click()


async def test_the_page_of_a_node_after_a_hard_day(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with node_page(page):
        for kind in ("outage", "lost", "relay", "direct"):
            assert await page.locator(f"#node-latency svg .{kind}").count() > 0, kind
        for word in ("direct", "over a relay", "offline", "lost pings"):
            await expect(page.locator("#node-latency .legend")).to_contain_text(word)
        await expect(page.locator("#outages-count")).to_have_text("1 outage, the longest 40 min")
        # One axis: the outage of the chart stands below the red of the bars.
        shaded = await page.locator("#node-latency rect.outage").bounding_box()
        red = await page.locator("#node-bars rect.x").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert shaded is not None
        assert -1 < shaded["x"] - min(left for left, _ in red) < 16
        assert -1 < max(right for _, right in red) - shaded["x"] - shaded["width"] < 16
        assert await page.locator("#node-bars rect.u").count() >= 6
        # The height of red is the share that was offline.
        tall = await page.locator("#node-bars rect.x").evaluate_all(
            "all => all.map(one => Number(one.getAttribute('height')))"
        )
        assert max(tall) > 1.5 * min(tall)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            assert min(await page.evaluate(CONTRAST)) >= 3, scheme
        await page.locator("#node-bars rect.all").nth(32).click()
        await expect(page.locator("#whole")).to_be_visible()
        await expect(page.locator("#stretch")).to_contain_text("–")
        await page.locator("#windows [value='365d']").click()
        await expect(page.locator("#node-bars .calendar rect")).to_have_count(365)
        await expect(page.locator("#whole")).to_be_hidden()
        await expect(page.locator("#outages-count")).to_contain_text("3 outages, the longest 40 min")
        await expect(page.locator("#node-bars .legend")).to_contain_text("partly offline")
        day = page.locator("#node-bars .calendar rect.m").last
        await day.click()
        await expect(page.locator("#outages li")).to_have_count(1)
        await expect(page.locator("#commands")).to_contain_text("tsmon silence --host git --for 2h")
        await page.keyboard.press("Escape")
        # A click on a bar of the table opens that stretch.
        await (
            page.locator("#rows [role=row]", has=page.locator("[data-node=git]"))
            .locator("rect.all")
            .nth(32)
            .click()
        )
        await expect(page.locator("#drawer-title")).to_have_text("git")
        await expect(page.locator("#whole")).to_be_visible()


@AXE_RUNS
async def test_the_chosen_period_is_readable_under_the_pointer(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with node_page(page):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            for selector in ("#windows [aria-pressed=true]", "#windows [value='7d']", "#commands .copy"):
                assert (scheme, await hovered(page, selector)) == (scheme, {})
