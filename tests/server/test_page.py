"""What the dashboard asks for: one glance, one table."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import PROD, Site, site
from tsmon.history.store import StoreError

GLANCE = "/health-monitoring/glance"
TABLE = "/health-monitoring/table"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, offline_after="0s") as found:
        yield found


def names(answer: dict[str, Any]) -> list[str]:
    return [node["hostname"] for node in answer["nodes"]]


async def test_the_glance_is_the_other_answers_in_one(here: Site) -> None:
    here.tailnet.off(PROD)
    await here.poll()
    found = await here.get(GLANCE)
    assert found["summary"] == await here.get("/health-monitoring/summary")
    assert found["critical"] == await here.get("/health-monitoring/critical")
    assert found["incidents"] == await here.get("/health-monitoring/incidents")
    assert found["summary"]["headline"].startswith(f"{PROD} is down since ")
    assert found["summary"]["level"] == "critical"
    assert found["sparks"] is None
    assert int(found["newest_event"]) > 0
    assert (await here.get(GLANCE + "?sparks=true"))["sparks"] == {}


async def web_is_down(here: Site) -> None:
    """A server that was online, with its alert."""
    here.tailnet.add("web", tags=["tag:server"])
    await here.poll()
    here.tailnet.off("web")
    await here.poll()
    await here.until(lambda: any(a.state == "firing" for a in here.daemon.monitor.alerts.values()))


async def test_trouble_stands_first(here: Site) -> None:
    here.tailnet.off("dev", "alices-laptop")
    await here.poll()
    assert names(await here.get(TABLE)) == ["dev", PROD, "git", "alices-laptop", "monitor"]


async def test_sections_are_counted_and_folded(here: Site) -> None:
    await web_is_down(here)
    found = await here.get(TABLE + "?group=role")
    assert [(s["name"], s["total"], s["online"], s["alerting"]) for s in found["sections"]] == [
        ("dev", 1, 1, 0),
        ("git", 1, 1, 0),
        ("prod", 1, 1, 0),
        ("device", 2, 2, 0),
        ("server", 1, 0, 1),
    ]
    folded = await here.get(TABLE + "?group=role&folded=dev,git,server")
    assert (folded["total"], folded["rows"], names(folded)) == (6, 3, [PROD, "alices-laptop", "monitor"])


async def test_what_is_searched(here: Site) -> None:
    await web_is_down(here)
    expected = {
        "q=tag:server": ["web"],
        "q=LINUX web": ["web"],
        "q=web nothing": [],
        "alerting=true": ["web"],
        "role=server": ["web"],
        "user=nobody": [],
        "key_soon=true": [],
        "silenced=true": [],
        "flapping=true": [],
        "relayed=true": [],
    }
    assert {query: names(await here.get(f"{TABLE}?{query}")) for query in expected} == expected


async def test_an_address_and_a_reason_are_found(here: Site) -> None:
    here.tailnet.off("git")
    await here.poll()
    (git,) = (await here.get(TABLE + "?q=control"))["nodes"]
    assert git["hostname"] == "git"
    assert names(await here.get(f"{TABLE}?q={git['ip']}")) == ["git"]


async def test_bars_and_facets_come_when_they_are_asked_for(here: Site) -> None:
    plain = await here.get(TABLE)
    assert [plain[name] for name in ("bounds", "bars", "tags", "users", "roles")] == [None] * 5
    full = await here.get(TABLE + "?bars=true&facets=true&limit=2")
    assert (len(full["bounds"]), len(full["bars"]), len(full["nodes"]), full["rows"]) == (49, 2, 2, 5)
    assert full["roles"] == ["dev", "device", "git", "prod"]


async def test_the_glance_brings_the_page_of_a_node(here: Site) -> None:
    here.tailnet.off("git")
    await here.poll()
    (detail := await here.get("/health-monitoring/nodes/git")).pop("last_seen")
    plain = await here.get(f"{GLANCE}?node=git")
    assert plain["node"]["history"] is None
    assert plain["node"]["detail"].items() >= detail.items()
    full = (await here.get(f"{GLANCE}?node={detail['id']}&window=7d&with_history=1"))["node"]["history"]
    assert (len(full["bounds"]), full["bars"]["id"], full["uptime"]["hours"]) == (85, detail["id"], 168)
    assert full["uptime"]["outages"] == 1
    assert full["events"][0]["event_type"] in ("alert", "node_offline")
    assert full["latency"]["hostname"] == "git"


async def test_nobody_knows_such_a_node(here: Site) -> None:
    assert (await here.get(f"{GLANCE}?node=nobody"))["node"] == {"detail": None, "history": None}
    assert (await here.get(GLANCE))["node"] is None


async def test_a_history_that_cannot_be_read_takes_nothing_else_away(here: Site) -> None:
    async def refuse(*_: Any) -> Any:
        raise StoreError("disk gone")

    here.daemon.parts.api._one_node._history.bars = refuse  # type: ignore[method-assign, assignment]
    found = await here.get(f"{GLANCE}?node=git&with_history=1")
    assert found["summary"]["status"] == "healthy"
    assert found["node"]["detail"]["hostname"] == "git"
    assert found["node"]["history"] is None


async def test_a_year_is_as_much_of_it_as_is_kept(tmp_path: Path) -> None:
    async with site(tmp_path, retention="30d") as found:
        history = (await found.get(f"{GLANCE}?node=git&window=365d&with_history=1"))["node"]["history"]
        assert (history["uptime"]["hours"], len(history["bounds"])) == (720, 366)
