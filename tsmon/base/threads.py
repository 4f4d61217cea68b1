"""When work leaves the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MANY_NODES = 500
"""From this many nodes on, what is done to each of them leaves the event loop for a thread."""


async def off_loop(work: Callable[[], T], size: int, limit: int = MANY_NODES) -> T:
    """`work()`, in a thread when `size` reaches `limit`: below it the loop is blocked for less than about
    5 ms, and the way to a thread costs more than it saves."""
    return work() if size < limit else await asyncio.to_thread(work)
