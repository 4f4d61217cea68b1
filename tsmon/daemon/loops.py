"""Supervised loops: one that dies is logged and restarted with growing waits, one that hangs is named."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_STUCK = "stuck"
_STEADY = 300.0
"""Seconds of running after which a loop counts as well again."""


@dataclass(slots=True)
class _Loop:
    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    patience: float
    beat: float
    task: asyncio.Task[None] | None = None
    failed: str = ""


class Loops:
    """The background loops of the daemon. Each shows a beat; the one whose beat is too old is stuck."""

    def __init__(self) -> None:
        self._loops: dict[str, _Loop] = {}

    def start(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], patience: float = float("inf")
    ) -> None:
        """Run a loop until `stop`. `patience`: seconds between two beats after which it counts as stuck."""
        loop = _Loop(name, run, patience, asyncio.get_running_loop().time())
        loop.task = asyncio.create_task(self._supervise(loop), name=name)
        self._loops[name] = loop

    def set_patience(self, name: str, patience: float) -> None:
        """The settings changed; nothing when there is none of that name."""
        loop = self._loops.get(name)
        if loop is not None:
            loop.patience = patience

    async def end(self, name: str) -> None:
        """Stop one loop and forget it; nothing when there is none of that name."""
        loop = self._loops.pop(name, None)
        if loop is not None and loop.task is not None:
            loop.task.cancel()
            await asyncio.gather(loop.task, return_exceptions=True)

    def beat(self, name: str) -> None:
        """The loop `name` is alive; one that is not supervised here is not missed."""
        loop = self._loops.get(name)
        if loop is not None:
            loop.beat = asyncio.get_running_loop().time()
            loop.failed = ""

    def stuck(self) -> str | None:
        """Name of a loop that is stuck or waits to be restarted, None when all tick."""
        now = asyncio.get_running_loop().time()
        for loop in self._loops.values():
            if loop.failed or now - loop.beat > loop.patience:
                return loop.name
        return None

    def mend(self) -> None:
        """Start every loop again whose last beat is too old; it counts as stuck until it beats."""
        now = asyncio.get_running_loop().time()
        for loop in self._loops.values():
            if now - loop.beat <= loop.patience or loop.task is None:
                continue
            log.error("loop_stuck", loop=loop.name, silent_s=round(now - loop.beat))
            loop.task.cancel()
            loop.beat, loop.failed = now, _STUCK
            loop.task = asyncio.create_task(self._supervise(loop), name=loop.name)

    async def _supervise(self, loop: _Loop) -> None:
        wait = _FIRST_WAIT
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                loop.beat = begun
                loop.failed = _STUCK if loop.failed == _STUCK else ""
                await loop.run()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:
                loop.failed = type(error).__name__
                wait = _FIRST_WAIT if clock() - begun >= _STEADY else wait
                log.exception("loop_failed", loop=loop.name, restart_in_s=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def stop(self) -> None:
        """Cancel all loops and wait for their end."""
        tasks = [loop.task for loop in self._loops.values() if loop.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
