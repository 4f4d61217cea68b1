"""What the API, the metrics and `tsmon status` say of the control server's word."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from click.testing import CliRunner

from tests.support.control_api import API_KEY, ScriptedControl, headscale_node
from tests.support.fake_api import HOSTILE, FakeApi
from tests.support.fake_api import serving as served
from tests.support.site import Site, site
from tsmon.cli import main
from tsmon.demo.servers import serving

COVERAGE = "/health-monitoring/coverage"


def known(here: Site) -> int:
    """How many machines the control server's last answer had."""
    inventory = here.daemon.monitor.view.inventory
    return len(inventory.devices) if inventory is not None else 0


@asynccontextmanager
async def asking(tmp_path: Path, script: ScriptedControl) -> AsyncIterator[Site]:
    """A site that asks `script`, a headscale, which knows its nodes and `vault`."""
    async with serving(script.app()) as url:
        values = {"control__kind": "headscale", "control__url": url, "control__token": API_KEY}
        async with site(tmp_path, control__interval="1s", **values) as here:
            nodes = here.tailnet.nodes.values()
            script.nodes = [
                headscale_node(node.name, node.number, id=node.id, ipAddresses=node.ips) for node in nodes
            ]
            script.nodes.append(headscale_node("vault", 900, tags=["tag:secret"], online=False))
            await here.until(lambda: known(here) == 6)
            yield here


async def test_without_control_it_is_null(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert await here.get(COVERAGE) is None
        (git,) = await here.get("/health-monitoring/nodes?q=git")
        assert git["control"] is None
        assert (await here.get("/readyz"))["control"] is None
        assert "tsmon_control" not in await here.get("/metrics")


async def test_what_is_known_and_not_seen(tmp_path: Path) -> None:
    script = ScriptedControl()
    async with asking(tmp_path, script) as here:
        found = await here.get(COVERAGE)
        assert (found["kind"], found["known"], found["seen"], found["error"]) == ("headscale", 6, 5, None)
        (vault,) = found["unseen"]
        assert (vault["hostname"], vault["because"], vault["tags"]) == ("vault", "policy", ["tag:secret"])
        assert vault["why"] == "the tailnet's policy hides it from this monitor"
        assert (vault["control"]["online"], vault["control"]["version"]) == (False, None)
        assert found["local_only"] == []
        (git,) = await here.get("/health-monitoring/nodes?q=git")
        assert git["control"]["created"] == "2026-01-05T10:00:00Z"
        assert (await here.get("/health-monitoring/nodes/git"))["control"] == git["control"]
        ready = (await here.get("/readyz"))["control"]
        assert (ready["kind"], ready["error"], ready["unreadable_rows"]) == ("headscale", None, 0)
        assert API_KEY not in str(await here.get("/readyz"))
        metrics = await here.get("/metrics")
        assert 'tsmon_control_nodes{seen="true"} 5.0' in metrics
        assert 'tsmon_control_nodes{seen="false"} 1.0' in metrics
        assert "tsmon_control_failing 0.0" in metrics


async def test_a_page_of_the_unseen(tmp_path: Path) -> None:
    script = ScriptedControl()
    async with asking(tmp_path, script) as here:
        script.nodes += [headscale_node(f"far-{n}", 1000 + n) for n in range(20)]
        await here.until(lambda: known(here) == 26)
        found = await here.get(f"{COVERAGE}?limit=2&offset=3")
        assert [row["hostname"] for row in found["unseen"]] == ["far-11", "far-12"]
        assert (found["known"], found["seen"]) == (26, 5)
        async with here.client.get(f"{here.daemon.url}{COVERAGE}?limit=2") as response:
            assert response.headers["X-Total-Count"] == "21"


async def test_when_it_fails_the_last_answer_stays(tmp_path: Path) -> None:
    script = ScriptedControl()
    async with asking(tmp_path, script) as here:
        script.tokens.clear()
        await here.until(lambda: here.daemon.monitor.view.inventory.error)  # type: ignore[union-attr]
        found = await here.get(COVERAGE)
        assert (found["known"], found["seen"]) == (6, 5)
        assert "answered 401 to the list of nodes: Unauthorized: the API key is unknown" in found["error"]
        assert found["as_of"] is not None
        assert "tsmon_control_failing 1.0" in await here.get("/metrics")
        assert (await here.get("/health-monitoring/summary"))["blind"] is None


def test_the_command_says_it() -> None:
    api = FakeApi()
    api.answers["coverage"] = {
        "known": 60,
        "seen": 41,
        "as_of": "2026-11-25T20:00:00Z",
        "error": f"c: answered 401 {HOSTILE}",
        "unseen": [{"hostname": f"vault{HOSTILE}", "why": "the policy hides it"}, 3],
    }
    with served(api.application()) as url:
        out = CliRunner().invoke(main, ["status", "--all", "--url", url]).output
        assert "seeing 41 of 60 that the control server knows" in out
        assert "the policy hides it" in out
        assert "it gives no answer now: c: answered 401" in out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "seeing 41" not in CliRunner().invoke(main, ["status", "--url", url]).output
        api.answers["coverage"] = {"as_of": None, "error": "c: refused"}
        out = CliRunner().invoke(main, ["status", "--all", "--url", url]).output
        assert "The control server has not answered yet: c: refused" in out
        api.answers["coverage"] = None
        assert "control server" not in CliRunner().invoke(main, ["status", "--all", "--url", url]).output
