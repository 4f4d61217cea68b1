"""`tsmon mcp`, asked by the SDK's own client, over a running tsmon."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.support.fake_api import HOSTILE, FakeApi, serving
from tests.support.fake_api import node as a_node
from tests.support.site import Site, site
from tsmon.cli.mcp_tools import make_server

TOOLS = {"summary", "nodes", "node", "outages", "uptime", "logs", "incidents", "why_blind"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, reconnect_grace="0s") as found:
        yield found


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    answer: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]
    assert {"as_of", "blind", "coverage"} <= answer.keys(), tool
    return answer


async def test_why_was_git_down(here: Site) -> None:
    here.tailnet.off("git")
    await here.until(lambda: any(n.state == "offline" for n in here.daemon.monitor.view.nodes.values()))
    async with Client(make_server(here.daemon.url, 10.0)) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all(tool.description for tool in tools)
        async with asyncio.timeout(10):  # a report ends with the last whole second
            while not (found := (await ask(client, "outages", node="git"))["outages"]):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        (outage,) = found
        assert (outage["hostname"], outage["reason"], outage["end"]) == ("git", "control", None)
        event = (await ask(client, "logs", node="git"))["events"][0]
        assert (event["hostname"], event["event_type"]) == ("git", "node_offline")
        assert (await ask(client, "node", name="git"))["state"] == "offline"
        assert (await ask(client, "summary"))["offline_nodes"] == 1
        assert [n["hostname"] for n in (await ask(client, "nodes", state="offline"))["nodes"]] == ["git"]
        assert (await ask(client, "uptime", node="git", hours=1))["outages"] == 1
        assert (await ask(client, "incidents"))["incidents"] == []
        assert (await ask(client, "why_blind"))["sees"] is True


async def test_blindness_stands_in_every_answer(here: Site) -> None:
    here.tailnet.fault = "refused"
    await here.until(lambda: here.daemon.monitor.view.blind is not None, seconds=30)
    async with Client(make_server(here.daemon.url, 10.0)) as client:
        for tool in ("summary", "nodes", "outages", "logs", "incidents"):
            assert (await ask(client, tool))["blind"]["reason"], tool
        answer = await ask(client, "why_blind")
        assert answer["sees"] is False
        assert answer["last_days"][0]["event_type"] == "monitor_blind"


async def test_names_are_cleaned_and_lists_cut() -> None:
    fake = FakeApi()
    fake.nodes = [a_node(HOSTILE + "x" * 1000), *(a_node(f"n{number}") for number in range(150))]
    with serving(fake.application()) as url:
        async with Client(make_server(url, 10.0)) as client:
            rows = (await ask(client, "nodes"))["nodes"]
    assert len(rows) == 101
    assert rows[-1] == "and 51 more"
    assert len(rows[0]["hostname"]) <= 300
    assert rows[0]["hostname"].isprintable()


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("node", {"name": "nobody"}, "there is no node"),
        ("node", {"name": ".."}, "a node has a hostname"),
        ("outages", {"node": "nobody"}, "there is no node"),
        ("uptime", {"node": "git", "hours": 0}, "hours"),
        ("nodes", {"state": "sleeping"}, "state takes"),
    ],
)
async def test_what_is_wrong_is_said(here: Site, tool: str, arguments: dict[str, Any], words: str) -> None:
    async with Client(make_server(here.daemon.url, 10.0)) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert words in str(result.content)
    assert "Traceback" not in str(result.content)


async def test_over_standard_input_and_output(here: Site) -> None:
    arguments = ["-m", "tsmon", "mcp", "--url", here.daemon.url]
    async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
        assert (await ask(client, "summary"))["total_nodes"] == 5
