"""Virtual time for tests: an event loop whose clock jumps to the next timer when nothing is left to do.

Work in threads (the store's writer, decoding) is waited for before the clock moves, and sockets are looked at
between jumps, so that a simulated day runs in seconds and is the same every time.
"""

import asyncio
import functools
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tsmon.base.clock import Clock

T = TypeVar("T")

START = 1_790_000_000.0 - 1_790_000_000.0 % 3600
"""Wall time at which virtual tests begin: a full hour."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual and starts at 0; nothing sleeps for real while a timer is pending."""

    def __init__(self) -> None:
        self._jobs = 0
        self._virtual = 0.0
        super().__init__(_VirtualSelector(self))

    def time(self) -> float:
        return self._virtual

    def jump(self, seconds: float) -> None:
        self._virtual += seconds

    @property
    def busy(self) -> bool:
        return self._jobs > 0

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        self._jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Without the time limit of newer Pythons: it would pass at once here."""
        await super().shutdown_default_executor()

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1


class _VirtualSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Alone, the loop's own socket tells only of threads: most of a simulated day asks the system nothing.
        alone = len(self.get_map()) == 1 and not self._loop.busy and timeout is not None
        ready: list[tuple[selectors.SelectorKey, int]] = [] if alone else super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self._loop.busy:
            # Nothing but a thread or a socket can go on: wait for it in real time, bounded.
            ready = super().select(5.0)
            if not ready and timeout is None and not self._loop.busy:
                raise RuntimeError("virtual time stands still: nothing is scheduled")
            return ready
        self._loop.jump(timeout)
        return ready


class VirtualClock(Clock):
    """Wall time that follows the virtual loop; `offset` may be moved to set the clock back or forward."""

    def __init__(self, start: float = START) -> None:
        self.start = start
        self.offset = 0.0

    def wall(self) -> float:
        return self.start + self.mono() + self.offset


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine and runs in virtual time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs))

    return run


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time; more than ten real minutes is a failure."""
    begun = time.monotonic()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
    assert time.monotonic() - begun < 600, "a virtual test took too long in real time"
    return result
