"""tsmon as a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.support.paths import ROOT


def busy(seconds: float) -> float:
    """As many seconds as this on an idle machine: more where more runs than there are processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Process:
    """`tsmon run` as a user starts it; its log lines are read as JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def line(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while raw := await self.process.stderr.readline():
                line: dict[str, Any] = {"event": raw.decode()}
                with suppress(ValueError):
                    line = json.loads(raw)
                self.lines.append(line)
                if line["event"] == event:
                    return line
        raise AssertionError(f"no line {event!r} in {self.lines}")


@asynccontextmanager
async def tsmon(*arguments: str, **environ: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tsmon",
        *arguments,
        env=os.environ | {"TSMON_LOG_FORMAT": "json"} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
