"""How long the event loop is blocked, and how much memory a process has taken."""

import asyncio
import ctypes
import gc
import resource
import sys
import time
from pathlib import Path


class LoopWatch:
    """How long the event loop was kept from running, in milliseconds, sampled every 2 ms."""

    def __init__(self) -> None:
        self.blocks: list[float] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.002)
            self.blocks.append(1000 * (time.perf_counter() - begun) - 2)

    def take(self) -> tuple[float, float]:
        """p99 and maximum since the last call."""
        blocks, self.blocks = sorted(self.blocks), []
        return (blocks[int(len(blocks) * 0.99)], blocks[-1]) if blocks else (0.0, 0.0)

    def stop(self) -> None:
        self._task.cancel()


def peak_mib() -> float:
    """Of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def give_back_memory() -> None:
    """What is free inside this process goes back to the machine, as far as its C library can: what is left
    is in use."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def pss_mib() -> float:
    """What this process holds of the machine's memory now, shared pages in part; where the system does not
    say that (it is Linux's), its peak."""
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return peak_mib()
    lines = rollup.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
