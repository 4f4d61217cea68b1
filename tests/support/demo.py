"""`tsmon demo` as a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[str]:
    """A running `tsmon demo`; its URL."""
    command = [sys.executable, "-c", "from tsmon.cli import main; main()", "demo", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--log-format",
        "json",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            if b'"started"' in line:
                yield line.decode().partition('"url": "')[2].partition('"')[0]
                return
        raise SystemExit("tsmon demo did not start")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
