"""What the control server tells a node, as it comes in: the notification bus of its tailscaled, read raw."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

_MASK = 2 + 16 + 128 + 4096 + 32768
"""State, no private keys, health, changed peers, patches of peers."""


class Patch(NamedTuple):
    """A peer's number, what control says of it, and when that came (Unix seconds)."""

    number: str
    online: bool
    at: float


class Patches:
    """The patches that came so far."""

    def __init__(self) -> None:
        self.seen: list[Patch] = []

    def first(self, number: str, *, online: bool, after: float) -> float:
        """When control first said so after a time (Unix seconds); raises StopIteration when it did not."""
        return next(
            patch.at
            for patch in self.seen
            if patch.number == number and patch.online == online and patch.at >= after
        )

    async def follow(self, socket: Path) -> None:
        """Read the bus for ever, over restarts of the daemon."""
        timeout = aiohttp.ClientTimeout(total=None)
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with (
                    aiohttp.ClientSession(
                        connector=aiohttp.UnixConnector(str(socket)), timeout=timeout
                    ) as session,
                    session.get(
                        f"http://local-tailscaled.sock/localapi/v0/watch-ipn-bus?mask={_MASK}"
                    ) as response,
                ):
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            self._take(line)
            await asyncio.sleep(0.1)

    def _take(self, line: bytes) -> None:
        notice = json.loads(line) if line.strip() else {}
        for patch in notice.get("PeerChangedPatch") or ():
            if isinstance(patch.get("Online"), bool):
                self.seen.append(Patch(str(patch["NodeID"]), patch["Online"], time.time()))


@asynccontextmanager
async def patches_of(socket: Path) -> AsyncIterator[Patches]:
    patches = Patches()
    task = asyncio.create_task(patches.follow(socket))
    try:
        yield patches
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
