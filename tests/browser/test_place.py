"""Updates keep their place: focus, selection, scroll and the page's address outlive whatever happens."""

import re
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.chromium import PROD, SEEN
from tests.support.site import Site

pytestmark = SEEN

FIRST_IN_VIEW = """() => {
  const box = document.getElementById("scroll").getBoundingClientRect();
  const head = document.querySelector("#scroll .head").getBoundingClientRect();
  for (const row of document.querySelectorAll("#rows [data-index]")) {
    const at = row.getBoundingClientRect();
    const name = row.querySelector(".c-host").textContent;
    if (at.bottom > head.bottom + 1) return [name, Math.round(at.top - box.top)];
  }
}"""


async def fall(page: Page, here: Site, *names: str) -> None:
    here.tailnet.off(*names)
    await here.poll()
    await expect(page.locator("#headline")).to_contain_text("down")


async def test_focus_and_marked_text_stay_where_they_are(page: Page, here: Site) -> None:
    row = page.locator("#rows [role=row]", has=page.locator("[data-node=git]"))
    await row.locator(".c-host a").focus()
    line = page.locator("#log li", has_text="dev is online").first
    await line.evaluate("li => { li.mark = 1; getSelection().selectAllChildren(li.querySelector('.text')) }")
    await row.evaluate("row => { row.mark = 1 }")
    card = page.locator("#critical .card", has_text="git")
    await card.evaluate("card => { card.mark = 1 }")
    await fall(page, here, "dev")
    await expect(page.locator("#rows [role=row] .c-host a").first).to_have_text("dev")  # it rose above git
    assert await page.evaluate("document.activeElement.dataset.node") == "git"
    assert await page.evaluate("getSelection().toString()") == "dev is online"
    for same in (line, row, card):
        assert await same.evaluate("element => element.mark") == 1, "made anew: hover would be lost, too"


async def test_what_the_keyboard_selected_is_a_node_not_a_place(page: Page, here: Site) -> None:
    table = page.locator("#table")
    await table.focus()
    for _ in range(2):
        await page.keyboard.press("ArrowDown")
    chosen = page.locator("#rows [aria-selected=true]")
    await expect(chosen.locator(".c-host a")).to_have_text("dev")
    id_ = await chosen.get_attribute("id")
    assert await table.get_attribute("aria-activedescendant") == id_
    await fall(page, here, "git")
    await expect(page.locator("#rows .c-host a").first).to_have_text("git")
    await expect(chosen.locator(".c-host a")).to_have_text("dev")
    assert await chosen.get_attribute("data-index") == "2"
    assert await table.get_attribute("aria-activedescendant") == id_
    await page.keyboard.press("Enter")
    await expect(page.locator("#drawer-title")).to_have_text("dev")


async def test_what_is_read_in_the_table_does_not_move(here: Site, context: BrowserContext) -> None:
    for number in range(120):
        here.tailnet.add(f"node-{number:03d}", notify=False, tags=["tag:server"])
    await here.poll()
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#count")).to_have_text("126 nodes")
    await page.locator("#scroll").evaluate("box => { box.scrollTop = 1500 }")
    await expect(page.locator("#rows [data-index='38']")).to_be_visible()
    await expect(page.locator("#rows .waiting")).to_have_count(0)
    before = await page.evaluate(FIRST_IN_VIEW)
    await fall(page, here, "dev", "node-100", "node-110", "node-115")  # they rise above what is in view
    await expect(page.locator("#flags")).to_contain_text("alerting")
    assert await page.evaluate(FIRST_IN_VIEW) == before


async def test_new_lines_of_the_log_wait(page: Page, here: Site) -> None:
    lines = page.locator("#log li")
    before = await lines.all_text_contents()
    await page.locator("#log-title").evaluate("title => title.scrollIntoView()")
    top = "document.getElementById('log').getBoundingClientRect().top"
    at = await page.evaluate(top)
    here.tailnet.off("alices-laptop", "x")
    await here.poll()
    await expect(page.locator("#news")).to_have_text(re.compile(r"[2-9] new ↑"))
    assert await lines.all_text_contents() == before
    assert abs(await page.evaluate(top) - at) < 2
    await page.locator("#news").click()
    await expect(lines.first).to_contain_text(" is offline")
    await expect(page.locator("#news")).to_be_hidden()


async def test_who_cannot_see_hears_of_the_headline_only(page: Page, here: Site) -> None:
    polite = page.locator("[role=status], [aria-live]")
    assert await polite.evaluate_all("all => all.map(one => one.id)") == ["demo", "spoken", "toast"]
    await page.evaluate(
        "window.said = 0; new MutationObserver(() => { window.said += 1 }).observe("
        "document.getElementById('spoken'), {childList: true, characterData: true, subtree: true})"
    )
    here.tailnet.off("alices-laptop")
    await here.poll()
    await expect(page.locator("#numbers")).to_contain_text("1")
    assert await page.evaluate("window.said") == 0
    await fall(page, here, PROD)
    await expect(page.locator("#spoken")).to_contain_text(f"{PROD} is down since")
    assert await page.evaluate("window.said") == 1


async def test_the_keyboard_skips_to_each_part(page: Page) -> None:
    for number, target in enumerate(("alerts-title", "nodes-title", "log-title"), 1):
        await page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        await page.locator(".skip a").nth(number - 1).focus()
        box = await page.locator(".skip a").nth(number - 1).bounding_box()
        assert box is not None
        assert box["x"] >= 0, "who tabs sees where"
        await page.keyboard.press("Enter")
        await expect(page.locator(f"#{target}")).to_be_focused()


async def test_an_event_of_the_address_is_in_view_and_keeps_the_filters(
    page: Page, here: Site, context: BrowserContext
) -> None:
    here.tailnet.off("alices-laptop")
    await here.poll()
    entry = page.locator("#log li", has_text="dev is online")
    id_ = ((await entry.get_attribute("id")) or "").removeprefix("event-")
    other = await context.new_page()
    await other.goto(f"{here.daemon.url}/vpn?q=git&severity=ok&event={id_}")
    await expect(other.locator(f"#event-{id_}")).to_be_in_viewport()
    await expect(other.locator(f"#event-{id_}")).to_have_attribute("aria-current", "true")
    await expect(other.locator("#severity")).to_have_value("ok")
    await expect(other.locator("#rows [data-index]")).to_have_count(1)
    await expect(other).to_have_url(re.compile(f"q=git.*severity=ok.*event={id_}"))
    await other.goto(f"{here.daemon.url}/vpn?severity=critical&event={id_}")
    await expect(other.locator("#no-log")).to_have_text(f"There is no event {id_} that fits these filters.")


async def test_page_and_period_stand_in_the_address(here: Site, context: BrowserContext) -> None:
    for number in range(15):
        here.tailnet.add(f"node-{number:03d}", notify=False)
    await here.poll()
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn")
    await page.locator("#older").click()
    await expect(page).to_have_url(re.compile("page=2"))
    await page.reload()
    await expect(page.locator("#page")).to_contain_text("page 2 of")
    await page.goto(here.daemon.url + "/vpn?node=git&window=30d")
    await expect(page.locator("#windows [value='30d']")).to_have_attribute("aria-pressed", "true")
    await expect(page).to_have_title("● git · tsmon")
    await page.locator("#windows [value='7d']").click()
    await expect(page).to_have_url(re.compile("window=7d"))
    await page.go_back()
    await expect(page.locator("#windows [value='30d']")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Escape")
    await expect(page).to_have_title("● All 3 critical nodes online · tsmon")


@pytest.mark.parametrize("where", ["", "?node=git", "?view=wall"])
async def test_a_poll_makes_two_requests(here: Site, context: BrowserContext, where: str) -> None:
    page = await context.new_page()
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(here.daemon.url + "/vpn" + where)
    await expect(page.locator("#headline")).to_contain_text("critical nodes online")
    if "node" in where:
        await expect(page.locator("#facts")).to_contain_text("git.")
    await page.wait_for_timeout(500)
    asked.clear()
    polls = here.daemon.collector.polls
    for _ in range(3):
        await here.poll()
        await page.wait_for_timeout(300)
    made = [url for url in asked if "/stream" not in url]
    assert made
    # The look at the poll before may be under way when counting begins.
    assert len(made) <= 2 * (here.daemon.collector.polls - polls + 1)
