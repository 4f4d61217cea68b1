"""tsmon as a process: what it asks of the system before anything runs, its run, its exit code."""

import asyncio
import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tsmon.base.clock import Clock
from tsmon.base.journal import for_stderr
from tsmon.config import Settings, state_dir
from tsmon.daemon.daemon import Daemon
from tsmon.daemon.listening import StartError
from tsmon.daemon.logging import configure

_FILES = 8192
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE = 512 * 1024


def run(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Run tsmon until a signal stops it; returns the exit code. A failure to start is one line on stderr."""
    configure(settings.log)
    return _main(lambda: _run(Daemon(settings, state_dir(settings, os.environ), reread=reread)))


def run_demo(settings: Settings, nodes: int) -> int:
    """Run tsmon over the simulated tailnet, in a state directory of its own that is thrown away."""
    configure(settings.log)
    return _main(lambda: _run_demo(settings, nodes))


async def _run(daemon: Daemon) -> None:
    await daemon.start()
    try:
        await daemon.serve()
    finally:
        await daemon.stop()


async def _run_demo(settings: Settings, nodes: int) -> None:
    from tsmon.demo.show import demo_settings, open_demo

    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="tsmon-demo-") as directory:
        async with open_demo(clock, Path(directory), nodes) as urls:
            await _run(Daemon(demo_settings(settings, urls), Path(directory), clock=clock, demo=True))


def _main(make: Callable[[], Coroutine[Any, Any, None]]) -> int:
    prepare()
    try:
        asyncio.run(make())
    except StartError as error:
        print(for_stderr(f"tsmon: {error}", "error"), file=sys.stderr)  # noqa: T201 (before anything runs there is no log to read)
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


def prepare() -> None:
    """Files for this user alone, descriptors enough for the API's connections, and memory that goes back to
    the system."""
    os.umask(0o077)
    raise_limit()
    _give_memory_back()


def raise_limit() -> None:
    """Allow as many open files as may be needed, as far as this process may (1,024 is a common default)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _give_memory_back() -> None:
    """glibc keeps what was freed, in pieces that the next large block does not fit: 400 clients that did not
    read a large answer cost 170 MB more each time they came. With a threshold that does not move by itself
    each large block is a mapping of its own; smaller ones (what a socket is read into) would pay for that.
    Other C libraries have no such function."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
