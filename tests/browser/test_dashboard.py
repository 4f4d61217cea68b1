"""The dashboard in a real Chromium, over a daemon and a simulated tailnet: every feature clicked and seen.

Needs Chromium (`TSMON_TEST_CHROMIUM`, else from PATH), and for the accessibility rules axe-core
(`TSMON_TEST_AXE`: its axe.min.js); skipped loudly when absent.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Error, Page, expect

from tests.browser.chromium import PROD, SEEN
from tests.support.site import Site
from tsmon.monitor.alerts import Silence

pytestmark = SEEN


# -- first glance ------------------------------------------------------------------------------------------


async def test_the_four_parts_are_there(page: Page) -> None:
    await expect(page.locator("#headline")).to_have_text("All 3 critical nodes online")
    await expect(page.locator("#critical .card")).to_have_count(3)
    await expect(page.locator("#rows .row")).to_have_count(6)
    await expect(page.locator("#log li").first).to_be_visible()
    await expect(page.locator("#live-text")).to_have_text("page connected")
    await expect(page.locator("#demo")).to_be_hidden()
    assert (await page.title()).startswith("● All 3 critical nodes online")
    assert await page.locator("#favicon").get_attribute("href") == "web/ok.svg"


async def test_an_outage_appears_by_itself(page: Page, here: Site) -> None:
    here.tailnet.off(PROD)
    await here.poll()
    await expect(page.locator("#headline")).to_contain_text(f"{PROD} is down since")
    await expect(page.locator("#alerts li")).to_contain_text(PROD)
    await expect(page.locator("#favicon")).to_have_attribute("href", "web/bad.svg")
    assert "down" in await page.title()
    await expect(page.locator("#news")).to_contain_text("new")
    await page.locator("#news").click()
    await expect(page.locator("#log li.new").first).to_be_visible()
    await expect(page.locator("#news")).to_be_hidden()


async def test_what_is_acknowledged_or_silenced_is_shown(page: Page, here: Site) -> None:
    here.tailnet.off(PROD)
    await here.poll()
    await here.until(lambda: any(a.state == "firing" for a in here.daemon.monitor.alerts.values()))
    await here.daemon.parts.operators.acknowledge(next(iter(here.daemon.monitor.alerts)), "alice")
    now = here.daemon.clock.wall()
    await here.daemon.parts.silencing.silence(
        Silence(id=0, author="bob", reason="rack", created=now, ends=now + 7200, hosts=(PROD,))
    )
    await here.poll()
    await expect(page.locator("#alerts li")).to_contain_text("acknowledged by alice")
    await expect(page.locator("#alerts li")).to_contain_text("silenced until")
    await expect(page.locator("#rows .row").first).to_contain_text("silenced")


async def test_blindness_is_said(page: Page, here: Site) -> None:
    here.tailnet.stop()
    await here.poll()
    await expect(page.locator("#headline")).to_contain_text("tsmon cannot see the tailnet since")
    await expect(page.locator("#blind")).to_contain_text("Tailscale is stopped")
    await expect(page.locator("#blind")).to_contain_text("Last known state below")
    await expect(page.locator("#rows .pill[data-state=unknown]")).to_have_count(5)
    await expect(page.locator("#favicon")).to_have_attribute("href", "web/unknown.svg")


async def test_a_role_that_nobody_fills(page: Page, here: Site) -> None:
    here.tailnet.remove("git")
    for _ in range(2):
        await here.poll()
    await expect(
        page.locator(".role", has_text="No node of the tailnet fits this role any more")
    ).to_have_count(1, timeout=20_000)


# -- the table ---------------------------------------------------------------------------------------------


async def test_nodes_are_searched_and_the_filters_stand_in_the_url(page: Page) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type("lap")
    await expect(page.locator("#rows .row")).to_have_count(1)
    await expect(page).to_have_url(re.compile("q=lap"))
    await page.reload()
    await expect(page.locator("#rows .row")).to_have_count(1)
    await page.locator("#q").fill("no such node")
    await expect(page.locator("#no-nodes")).to_be_visible()
    await page.locator("#clear").click()
    await expect(page.locator("#rows .row")).to_have_count(6)
    await page.locator("#project_only").check()
    await expect(page.locator("#rows .row")).to_have_count(3)
    await page.locator("#project_only").uncheck()
    await page.locator("#node_type").select_option("git")
    await expect(page.locator("#rows .row")).to_have_count(1)
    await page.locator("#node_type").select_option("")
    await page.locator("#group").select_option("role")
    await expect(page.locator("#rows .section")).to_have_count(5)
    await page.locator("#rows [data-fold=device]").click()
    await expect(page.locator("#rows [role=row][data-index]")).to_have_count(4)
    await expect(page).to_have_url(re.compile("group=role&folded=device"))


async def test_a_click_on_a_column_sorts_up_down_and_not(page: Page) -> None:
    first = page.locator("#rows .row .c-host a").first
    button = page.locator("[data-sort=hostname]")
    await button.click()
    await expect(first).to_have_text("alices-laptop")
    await button.click()
    await expect(first).to_have_text("x")
    assert await page.locator("[role=columnheader]", has=button).get_attribute("aria-sort") == "descending"
    await button.click()
    await expect(first).to_have_text(PROD)


async def test_the_keyboard_walks_the_table(page: Page) -> None:
    await page.keyboard.press("/")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#rows .row[aria-selected=true] .c-host a")).to_have_text("dev")
    await page.keyboard.press("Enter")
    await expect(page.locator("#drawer-title")).to_have_text("dev")
    await page.keyboard.press("Escape")
    await expect(page.locator("#drawer")).to_be_hidden()


async def test_an_address_is_copied(page: Page, context: BrowserContext) -> None:
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.locator("#rows .copy").first.click()
    await expect(page.locator("#toast")).to_contain_text("copied")
    assert (await page.evaluate("navigator.clipboard.readText()")).startswith("100.")


async def test_a_bar_tells_its_times(page: Page) -> None:
    title = await page.locator("#rows .bars rect title").first.text_content()
    assert title is not None
    assert re.search(r"\d\d:\d\d:\d\d – .*: (online|unknown|not there|mixed)", title)
    label = await page.locator("#rows .bars").first.get_attribute("aria-label")
    assert f"{PROD}, last 24 hours:" in (label or "")


# -- one node ----------------------------------------------------------------------------------------------


async def test_the_drawer_of_a_node_has_its_own_address(page: Page, here: Site) -> None:
    here.tailnet.off("git")
    await here.poll()
    here.tailnet.on("git")
    await here.poll()
    await page.locator("#rows .c-host a", has_text="git").click()
    await expect(page.locator("#drawer-title")).to_have_text("git")
    await expect(page).to_have_url(re.compile("node=git"))
    await expect(page.locator("#node-bars .bars")).to_be_visible()
    await expect(page.locator("#facts")).to_contain_text("git.")
    await expect(page.locator("#node-events li")).not_to_have_count(0)
    await expect(page.locator("#outages li")).to_have_count(1)
    await page.locator("#windows button[value='90d']").click()
    await expect(page.locator("#windows button[value='90d']")).to_have_attribute("aria-pressed", "true")
    await page.locator("#drawer-close").click()
    await expect(page).not_to_have_url(re.compile("node="))
    await page.go_back()
    await expect(page.locator("#drawer-title")).to_have_text("git")
    await page.reload()
    await expect(page.locator("#drawer-title")).to_have_text("git")


async def test_a_node_that_nobody_knows(here: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn?node=nobody")
    await expect(page.locator("#drawer-state")).to_contain_text("The tailnet has no node nobody")


async def test_hostile_names_are_text_everywhere(page: Page, here: Site) -> None:
    here.tailnet.off("x")
    await here.poll()
    await page.goto(here.daemon.url + "/vpn?node=x")
    await expect(page.locator("#facts")).to_contain_text("img-src-x-onerror-alert-1")
    assert await page.locator("img").count() == 0


# -- the log -----------------------------------------------------------------------------------------------


async def test_the_log_is_filtered_and_paged(page: Page, here: Site) -> None:
    for _ in range(6):
        here.tailnet.off("alices-laptop", "x")
        await here.poll()
        here.tailnet.on("alices-laptop", "x")
        await here.poll()
    await page.locator("#news").click()
    await expect(page.locator("#log li")).to_have_count(20)
    await page.locator("#older").click()
    await expect(page.locator("#page")).to_contain_text("page 2 of")
    await page.locator("#newer").click()
    await page.locator("#event_type").select_option("monitor_started")
    await expect(page.locator("#log li")).to_have_count(1)
    await page.locator("#severity").select_option("critical")
    await expect(page.locator("#no-log")).to_be_visible()
    await page.locator("#severity").select_option("")
    await page.locator("#event_type").select_option("")
    await page.locator("#log_host").fill("dev")
    await expect(page.locator("#log li", has_text="dev is online")).to_have_count(1)
    await expect(page).to_have_url(re.compile("log_host=dev"))
    await page.locator("#log_host").fill("")
    await page.locator("#log_q").fill("tsmon started")
    await expect(page.locator("#log li")).to_have_count(1)


async def test_the_log_is_saved_as_csv(page: Page) -> None:
    async with page.expect_download() as waiting:
        await page.locator("#csv").click()
    download = await waiting.value
    text = Path(await download.path()).read_text()
    assert text.startswith("id,timestamp,")
    assert "tsmon started" in text


# -- looks, live -------------------------------------------------------------------------------------------


async def test_the_theme_is_switched_and_remembered(page: Page) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(back)
    for _ in range(2):
        await page.locator("#theme").click()
    assert await page.evaluate(back) != light
    await page.reload()
    await expect(page.locator("#theme")).to_have_text("Theme: dark")
    assert await page.evaluate(back) != light


async def test_it_says_when_tsmon_does_not_answer(here: Site, context: BrowserContext) -> None:
    """A page whose server went away says so instead of showing old truths."""
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#live-text")).to_have_text("page connected")
    await here.daemon.stop()
    await expect(page.locator("#live")).to_have_attribute("data-state", "stale")
    await expect(page.locator("#headline")).to_contain_text("tsmon does not answer since", timeout=15_000)
    await expect(page.locator("#favicon")).to_have_attribute("href", "web/unknown.svg")
    assert (await page.title()).startswith("? tsmon does not answer")


async def test_an_event_has_an_address(page: Page, here: Site) -> None:
    here.tailnet.off("alices-laptop")
    await here.poll()
    entry = page.locator("#log li", has_text="dev is online")
    await entry.locator("a").first.click()
    await expect(page).to_have_url(re.compile(r"event=\d+"))
    await expect(page.locator("#log li").first).to_contain_text("dev is online")
    await expect(page.locator("#log li").first).to_have_attribute("aria-current", "true")
    await page.locator("#newest").click()
    await expect(page.locator("#log li").first).to_contain_text("alices-laptop")
    await expect(page).not_to_have_url(re.compile("event="))


async def test_it_polls_where_the_stream_is_kept_back(here: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.route("**/health-monitoring/stream", lambda route: route.abort())
    await page.clock.install()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#rows .row")).to_have_count(6)
    here.tailnet.off(PROD)
    await here.poll()
    await page.clock.run_for(40_000)
    await expect(page.locator("#headline")).to_contain_text(f"{PROD} is down")


async def test_the_policy_lets_no_script_in(here: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.goto(here.daemon.url + "/vpn")
    await expect(page.locator("#rows .row")).to_have_count(6)
    with pytest.raises(Error, match="TrustedHTML"):
        await page.evaluate("document.body.innerHTML = '<b>x</b>'")
    assert await page.evaluate("document.querySelectorAll('[style]').length") <= 2


async def test_the_first_load_is_small(here: Site, context: BrowserContext) -> None:
    page = await context.new_page()
    sizes: list[int] = []

    async def weigh(response: Any) -> None:
        if "/web/" in response.url or response.url.endswith("/vpn"):
            sizes.append((await response.request.sizes())["responseBodySize"])

    responses: list[Any] = []
    page.on("response", lambda response: responses.append(response))  # noqa: PLW0108 (Playwright takes functions only)
    await page.goto(here.daemon.url + "/vpn", wait_until="load")
    await expect(page.locator("#rows .row")).to_have_count(6)
    for response in responses:
        await weigh(response)
    assert len(sizes) >= 11
    assert sum(sizes) <= 60_000


async def test_the_api_page_shows_every_route(here: Site, context: BrowserContext) -> None:
    complaints: list[str] = []
    page = await context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(here.daemon.url + "/docs")
    await expect(page.locator("#routes h2", has_text="/health-monitoring/nodes/{node}")).to_be_visible()
    await expect(page.locator("#schema-NodeAnswer")).to_contain_text("uptime_24h")
    await page.set_viewport_size({"width": 390, "height": 900})
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(over) <= 0
    assert complaints == []
