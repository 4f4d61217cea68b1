"""Every state the dashboard can be in, brought about for real: for the rules and for the eye."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
from playwright.async_api import Page, Route, expect

from tests.browser.chromium import HOSTILE, PROD
from tests.support.control_api import API_KEY, ScriptedControl, headscale_node
from tests.support.demo import demo, scripted
from tests.support.site import Site, site
from tests.support.world import settings
from tsmon.daemon.daemon import Daemon
from tsmon.daemon.reload import Reload
from tsmon.demo.servers import serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.monitor.alerts import Silence

NAMES = ("git", "dev", PROD, "alices-laptop")


@asynccontextmanager
async def _site(*names: str, toml: str = "", **values: object) -> AsyncIterator[Site]:
    """A site with these machines, else `NAMES` and one with a hostile name; `toml` is its configuration."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tsmon.toml")
        path.write_text(toml)
        async with site(Path(directory), *(names or NAMES), offline_after="0s", toml=path, **values) as found:
            if not names:
                found.tailnet.add("x", os_hostname=HOSTILE, tags=[f"tag:{HOSTILE}"])
                await found.poll()
            yield found


async def _open(page: Page, found: Site) -> None:
    await page.goto(found.daemon.url + "/vpn")
    await page.evaluate("document.fonts.ready")
    await expect(page.locator("#live-text")).to_have_text("page connected")
    await expect(page.locator("#rows .row .bars").first).to_be_visible()


@asynccontextmanager
async def blind(page: Page) -> AsyncIterator[None]:
    """tailscaled is stopped on the monitor's machine."""
    async with _site() as found:
        await _open(page, found)
        found.tailnet.stop()
        await found.poll()
        await expect(page.locator("#headline")).to_contain_text("tsmon cannot see the tailnet since")
        await expect(page.locator("#rows .pill[data-state=unknown]")).to_have_count(5)
        yield


@asynccontextmanager
async def stale(page: Page, held: bool = False) -> AsyncIterator[None]:
    """tsmon died while the page was open; with its clock `held` by the test."""
    async with _site() as found:
        await _open(page, found)
        await found.daemon.stop()
        await expect(page.locator("#live")).to_have_attribute("data-state", "stale")
        if held:
            await page.clock.run_for(10_000)
        await expect(page.locator("#headline")).to_contain_text("tsmon does not answer", timeout=15_000)
        yield


@asynccontextmanager
async def in_demo(page: Page) -> AsyncIterator[None]:
    async with demo() as url:
        await page.goto(url + "/vpn")
        await expect(page.locator("#demo")).to_be_visible()
        await expect(page.locator("#rows .row .bars").first).to_be_visible()
        await expect(page.locator(".spark").first).to_be_visible()
        yield


@asynccontextmanager
async def empty(page: Page) -> AsyncIterator[None]:
    """A new tsmon that has never seen its tailnet."""
    with tempfile.TemporaryDirectory() as directory:
        nothing = settings(source="http://127.0.0.1:1", listen="127.0.0.1:0", poll_interval="1s")
        daemon = Daemon(nothing, Path(directory))
        await daemon.start()
        try:
            await page.goto(daemon.url + "/vpn")
            await expect(page.locator("#headline")).to_contain_text("tsmon cannot see the tailnet")
            await expect(page.locator("#no-nodes")).to_be_visible()
            yield
        finally:
            await daemon.stop()


@asynccontextmanager
async def error(page: Page) -> AsyncIterator[None]:
    """What stands between answers in tsmon's place."""

    async def refuse(route: Route) -> None:
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")

    async with _site() as found:
        await page.route("**/health-monitoring/table?**", refuse)
        await page.goto(found.daemon.url + "/vpn")
        await expect(page.locator("#headline")).to_contain_text("tsmon answers with", timeout=15_000)
        yield


@asynccontextmanager
async def outage(page: Page) -> AsyncIterator[None]:
    """Three critical nodes down: one alert firing, one acknowledged, one silenced."""
    async with _site() as found:
        await _open(page, found)
        monitor = found.daemon.monitor
        now = found.daemon.clock.wall()
        await found.daemon.parts.silencing.silence(
            Silence(id=0, author="bob", reason="rack", created=now, ends=now + 7200, hosts=("dev",))
        )
        found.tailnet.off(PROD, "git", "dev")
        await found.poll()
        await found.until(lambda: sum(a.state == "firing" for a in monitor.alerts.values()) == 3)
        await found.daemon.parts.operators.acknowledge(
            next(k for k, a in monitor.alerts.items() if a.hostname == "git"), "alice"
        )
        await found.poll()
        await expect(page.locator("#alerts")).to_contain_text("acknowledged by alice")
        await expect(page.locator("#alerts")).to_contain_text("silenced until")
        await expect(page.locator("#rows .pill[data-state=offline]")).to_have_count(3)
        yield


@asynccontextmanager
async def fresh(page: Page) -> AsyncIterator[None]:
    """A new tsmon in a tailnet where no name says what matters."""
    async with _site("attic-nas", "alices-laptop", "bobs-phone", "printer") as found:
        await _open(page, found)
        await expect(page.locator("#critical .welcome")).to_be_visible()
        yield


@asynccontextmanager
async def seeing_again(page: Page) -> AsyncIterator[None]:
    """Sight returned after a blindness that was notified; it settles."""
    async with _site(blind_after="2s", reconnect_grace="1s") as found:
        await _open(page, found)
        found.tailnet.stop()
        alerts = found.daemon.monitor.alerts
        await found.until(lambda: any(a.state == "firing" for a in alerts.values()), 20)
        # Settling takes half as long as the blindness that fires: more, so that it can be looked at.
        longer = msgspec.structs.replace(found.daemon.parts.settings, blind_after=600.0)
        await Reload(found.daemon.parts, None).apply(longer)
        found.tailnet.start()
        await found.poll()
        await expect(page.locator("#headline")).to_contain_text("sees again since")
        yield


@asynccontextmanager
async def many_alerts(page: Page) -> AsyncIterator[None]:
    """60 of 120 servers go dark at once, a few more for other reasons."""
    names = [f"web-{number:03d}" for number in range(120)]
    async with _site(*NAMES) as found:
        for name in names:
            found.tailnet.add(name, notify=False, tags=["tag:server"])
        await found.poll()
        await _open(page, found)
        found.tailnet.off(*names[:60])
        alerts = found.daemon.monitor.alerts
        await found.until(lambda: len(alerts) >= 60, 20)
        await expect(page.locator("#alerts")).to_contain_text("60 servers offline")
        yield


CRITICAL_40 = """
[[roles]]
name = "rack"
hosts = ["rack-*"]
critical = true
alert = "critical"
"""


@asynccontextmanager
async def crowd(page: Page) -> AsyncIterator[None]:
    """40 critical nodes of one role, two of them down."""
    names = [f"rack-{number:02d}" for number in range(40)]
    async with _site(*NAMES, *names, toml=CRITICAL_40) as found:
        await _open(page, found)
        found.tailnet.off(*names[7:9])
        await found.poll()
        await expect(page.locator("#headline")).to_contain_text("2 of 43 critical nodes are down")
        yield


@asynccontextmanager
async def hostile(page: Page) -> AsyncIterator[None]:
    """Names as long as they may be, alike but for their ends, and such as mean something elsewhere."""
    long = "chocolate-factory-" + "x" * 40
    names = [f"{long}-prod"[-63:], f"{long}-dev"[-63:], PROD, f"{PROD}-dev", "git", "online", "is"]
    async with _site(*names) as found:
        found.tailnet.add(
            f"{'very-' * 12}long.{'label-' * 10}end.{'other-' * 10}end.ts.example", shared=True, user=3
        )
        for name in (HOSTILE, "\u202egnirts", "'; DROP TABLE nodes; --", "${jndi:ldap://x}"):
            found.tailnet.add(f"x-{len(name)}", os_hostname=name, tags=[f"tag:{name}"])
        await found.poll()
        await _open(page, found)
        found.tailnet.off(names[0], "is", f"{PROD}-dev")
        await found.poll()
        await expect(page.locator("#headline")).to_contain_text("critical nodes are down")
        yield


@asynccontextmanager
async def node_page(page: Page) -> AsyncIterator[None]:
    """The page of a node after a hard day."""
    async with scripted(hard_day=True) as (url, _, _):
        await page.goto(url + "/vpn?node=git")
        await expect(page.locator("#node-latency svg")).to_be_visible()
        yield


@asynccontextmanager
async def unseen(page: Page) -> AsyncIterator[None]:
    """Machines that only the control server knows, with names as they may be; its last answer is an error."""
    script = ScriptedControl()
    async with serving(script.app()) as url:
        toml = f'[control]\nkind = "headscale"\nurl = "{url}"\ntoken = "{API_KEY}"\ninterval = "1s"\n'
        async with _site(*NAMES, toml=toml) as found:
            nodes = found.tailnet.nodes.values()
            script.nodes = [headscale_node(n.name, n.number, id=n.id, ipAddresses=n.ips) for n in nodes]
            next(row for row in script.nodes if row["name"] == "git")["availableRoutes"] = ["10.9.0.0/16"]
            for number, name in enumerate(("vault", HOSTILE, "x" * 63, "\u202egnirts")):
                script.nodes.append(headscale_node(name, 900 + number, online=False, lastSeen=None))
            monitor = found.daemon.monitor
            await found.until(
                lambda: monitor.view.inventory and len(monitor.view.inventory.devices) > len(NAMES)
            )
            script.tokens.clear()
            await found.until(lambda: monitor.view.inventory and monitor.view.inventory.error)
            await _open(page, found)
            await page.locator("#unseen-part summary").click()
            await expect(page.locator("#unseen li")).to_have_count(4)
            yield


@asynccontextmanager
async def services(page: Page) -> AsyncIterator[None]:
    """Ports that refuse, a router, an exit node, machines that are locked out; names as they may be."""

    def furnish(tailnet: SimTailnet) -> None:
        tailnet.add("db", ports={5432: "open"})
        tailnet.add("x" * 63, ports={})
        tailnet.add("router", online=False, alive=False, routes=["10.1.0.0/16"])
        tailnet.add("router-2", routes=["10.2.0.0/16"], exit_node_option=True)
        tailnet.lock = [HOSTILE, "newcomer"]

    toml = (
        'service_interval = "1s"\n[[roles]]\nname = "db"\nhosts = ["db", "x*"]\n'
        'checks = ["tcp:5432", "http:8080/healthz"]\n'
    )
    async with _site(*NAMES, toml=toml, furnish=furnish, over_socket=True) as found:
        monitor = found.daemon.monitor
        await found.until(lambda: sum(one.down for one in monitor.view.services.values()) == 3)
        await found.until(lambda: monitor.view.locked_out)
        await _open(page, found)
        await page.locator("#routes-part summary").click()
        await expect(page.locator("#services li")).to_have_count(4)
        await expect(page.locator("#routes li")).to_have_count(4)
        yield


async def to_the_wall(page: Page) -> None:
    """The open page as a wall: nothing is loaded anew, so that the state stays what it is."""
    await page.evaluate("history.pushState(null, '', '?view=wall'); dispatchEvent(new Event('popstate'))")
    await expect(page.locator("#wall-clock")).to_be_visible()


STATES: dict[str, Callable[[Page], AbstractAsyncContextManager[None]]] = {
    "blind": blind,
    "stale": stale,
    "demo": in_demo,
    "empty": empty,
    "error": error,
    "outage": outage,
    "fresh": fresh,
    "seeing again": seeing_again,
    "many alerts": many_alerts,
    "crowd": crowd,
    "hostile": hostile,
    "node": node_page,
    "unseen": unseen,
    "services": services,
}
LOOKS = [("light", 390), ("dark", 1280), ("light", 1920)]
WIDTHS = (390, 768, 1280, 1920, 3840)
