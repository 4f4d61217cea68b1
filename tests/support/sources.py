"""What the tests of the sources share."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tsmon.demo.tailnet import SimTailnet
from tsmon.source import Source
from tsmon.source.errors import SourceError
from tsmon.source.pings import Ping


async def expect_answers(source: Source, tailnet: SimTailnet) -> None:
    """What every source answers about a tailnet with `git` and `dev` in it."""
    document = json.loads(await source.status())
    assert document["BackendState"] == "Running"
    git = tailnet.find("git")
    ping = await source.ping(git.ips[0])
    assert (ping.outcome, ping.path, ping.latency_ms) == ("answered", "direct", 12.0)
    tailnet.change("git", path="relay")
    assert (await source.ping(git.ips[0])).relay == "fra"
    tailnet.change("git", path="peer_relay")
    assert (await source.ping(git.ips[0])).path == "peer_relay"
    who = await source.whois(git.ips[1])
    assert who is not None
    assert who["Node"]["StableID"] == git.id
    assert await source.whois("100.64.9.9") is None
    tailnet.change("git", expired=True)
    assert await source.ping(git.ips[0]) == Ping("unmeasured", error="peer's node key has expired")
    assert (await source.ping("100.64.9.9")).outcome == "unmeasured"
    tailnet.hang("dev")
    assert await source.ping(tailnet.find("dev").ips[0]) == Ping("missed")


async def failure(call: Awaitable[Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await call
    return caught.value


async def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the conditions are of servers, not of tasks)
            await asyncio.sleep(0.005)
