"""The dashboard when all is not well: each state says the truth, and says it to everybody."""

import re

import pytest
from playwright.async_api import BrowserContext, Route, expect

from tests.browser.chromium import AXE_RUNS, PROD, SEEN, broken_rules, overflow
from tests.browser.states import (
    LOOKS,
    STATES,
    WIDTHS,
    blind,
    empty,
    error,
    outage,
    services,
    stale,
    to_the_wall,
    unseen,
)
from tests.support.site import Site

pytestmark = SEEN

SCROLLS = "document.documentElement.scrollHeight - innerHeight"


@AXE_RUNS
@pytest.mark.parametrize("name", STATES)
async def test_every_state_keeps_the_rules_at_every_size(anew: BrowserContext, name: str) -> None:
    page = await anew.new_page()
    async with STATES[name](page):
        for scheme, width in LOOKS:
            await page.emulate_media(
                color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
            )
            await page.set_viewport_size({"width": width, "height": 900})
            assert (scheme, width, await broken_rules(page)) == (scheme, width, [])
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 900})
            assert (width, await overflow(page) <= 0) == (width, True)
        await to_the_wall(page)
        assert await broken_rules(page) == []
        for size in ((3840, 2160), (1280, 720), (1080, 1920)):
            await page.set_viewport_size({"width": size[0], "height": size[1]})
            await page.wait_for_timeout(50)
            assert (size, await page.evaluate(SCROLLS)) == (size, 0)


async def test_the_last_known_state_is_there_while_blind(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with blind(page):
        await expect(page.locator("#blind")).to_contain_text("Last known state below")
        await expect(page.locator("#rows .row", has_text=PROD)).to_contain_text("was online")
        await expect(page.locator("#critical .card").first).to_contain_text(
            re.compile("unknown for .*, was online")
        )
        await page.locator("#rows .c-host a", has_text=PROD).click()
        await expect(page.locator("#drawer-state")).to_contain_text("was online")


async def test_who_has_seen_nothing_calls_nothing_missing(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with empty(page):
        await expect(page.locator("#blind")).to_have_text(re.compile(r"^http://127.*has seen no node yet"))
        await expect(page.locator("#critical .role[data-state=unknown]")).to_have_count(3)
        await expect(page.locator("#no-nodes")).to_contain_text("tsmon has not seen a node yet")
        await expect(page.locator("#clear")).to_be_hidden()
        await expect(page.locator("#favicon")).to_have_attribute("href", "web/unknown.svg")
        await page.locator("#q").fill("git")
        await expect(page.locator("#no-nodes")).to_contain_text("No node fits these filters")
        await expect(page.locator("#clear")).to_be_visible()


async def test_nothing_lasts_on_while_tsmon_is_dead(anew: BrowserContext) -> None:
    """What was online then is not called online for ever longer, and not in green."""
    page = await anew.new_page()
    await page.clock.install()
    async with stale(page, held=True):
        lasting = page.locator("#critical time").first
        before = await lasting.text_content()
        look = page.locator("#foot time")
        looked = await look.text_content()
        await page.clock.run_for(60_000)
        await expect(look).not_to_have_text(looked or "")
        assert await lasting.text_content() == before
        grey = "getComputedStyle(document.getElementById('critical')).filter"
        assert await page.evaluate(grey) == "grayscale(1)"
        await expect(page.locator("#blind")).to_contain_text(
            re.compile(r"last known state is below, as of \d\d:\d\d")
        )


async def test_errors_are_not_hidden_by_a_living_stream(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with error(page):
        await expect(page.locator("#headline")).to_contain_text("tsmon answers with errors since")
        await expect(page.locator("#live-text")).to_have_text("error: answered 502")
        await expect(page.locator("#no-nodes")).to_be_hidden()
        await page.unroute("**/health-monitoring/table?**")
        await expect(page.locator("#headline")).to_have_text("All 3 critical nodes online", timeout=15_000)
        await expect(page.locator("#live-text")).to_have_text("page connected")


async def test_the_first_answer_is_an_error(here: Site, anew: BrowserContext) -> None:
    """With nothing seen there is no last known state to point to."""

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json={"error": {"code": "busy", "message": "try again in 1 s"}})

    page = await anew.new_page()
    await page.route("**/health-monitoring/glance**", refuse)
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#live-text")).to_have_text("error: try again in 1 s")
    await expect(page.locator("#headline")).to_contain_text("answers with errors since", timeout=15_000)
    await expect(page.locator("#blind")).to_have_text("Nothing is known yet.")


async def test_who_takes_care_is_calmer_than_what_nobody_saw(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with outage(page):
        await expect(page.locator("#headline")).to_contain_text("3 of 3 critical nodes are down since")
        await expect(page.locator("#alerts li")).to_have_count(1)
        await expect(page.locator("#alerts")).to_contain_text("1 of them acknowledged by alice")


async def test_what_the_control_server_knows(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with unseen(page):
        part = page.locator("#unseen-part")
        await expect(page.locator("#unseen-count")).to_contain_text("seeing 5 of 9")
        await expect(part).to_contain_text("the tailnet's policy hides it from this monitor")
        await expect(part).to_contain_text("img-src-x-onerror-alert-1")
        await expect(page.locator("#unseen-error")).to_contain_text("answered 401")
        await page.locator("#rows .c-host a", has_text=re.compile("^git$")).click()
        await expect(page.locator("#facts")).to_contain_text("routes pending10.9.0.0/16")
        await expect(page.locator("#facts")).to_contain_text("control serverconnected to it")


async def test_without_a_control_server_nothing_is_said_of_it(here: Site, anew: BrowserContext) -> None:
    page = await anew.new_page()
    await page.goto(here.daemon.url + "/vpn?node=git")
    await expect(page.locator("#facts div").first).to_be_visible()
    await expect(page.locator("#facts")).not_to_contain_text("control server")
    await expect(page.locator("#unseen-part")).to_be_hidden()


async def test_services_that_are_down_are_named_first_and_in_their_node(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with services(page):
        await expect(page.locator("#services-count")).to_contain_text("4 checks, 3 down")
        await expect(page.locator("#services li").last).to_contain_text("db tcp:5432")
        await expect(page.locator("#services li").last).to_contain_text("answers")
        await expect(page.locator("#rows .row", has_text="db")).to_contain_text("1 of 2 services down")
        await expect(page.locator("#routes")).to_contain_text("router-2")
        await expect(page.locator("#routes")).to_contain_text("its key waits for a signature")
        await page.locator("#rows").get_by_role("link", name="db", exact=True).click()
        await expect(page.locator("#node-services li")).to_have_count(2)
        await expect(page.locator("#node-services")).to_contain_text("http:8080/healthz")


async def test_without_checks_and_routes_the_page_has_no_such_parts(anew: BrowserContext) -> None:
    page = await anew.new_page()
    async with empty(page):
        for part in ("#services-part", "#routes-part"):
            await expect(page.locator(part)).to_be_hidden()
