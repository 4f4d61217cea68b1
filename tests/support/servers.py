"""Real servers of other projects on loopback, for as long as a test asks them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp


@contextlib.asynccontextmanager
async def started(command: Sequence[str], ready: str, log: Path) -> AsyncIterator[None]:
    """A server that runs once `ready`, a URL of its own, answers 200. Raises AssertionError if it ends."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as client:
            while True:
                assert process.returncode is None, log.read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(ready) as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def prom_query(client: aiohttp.ClientSession, url: str, expr: str) -> list[dict[str, Any]]:
    """The instant vector that Prometheus' API gives; an error of the query is an AssertionError."""
    async with client.post(f"{url}/api/v1/query", data={"query": expr}) as response:
        answer = await response.json()
    assert answer["status"] == "success", (expr, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found
