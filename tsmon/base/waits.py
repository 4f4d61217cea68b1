"""Waiting for something, for a time at most."""

import asyncio


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until `event` is set; False when that did not happen within `seconds` (None: however long)."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
