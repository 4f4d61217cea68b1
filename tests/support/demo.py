"""The demo: `tsmon demo` as a process of its own, or its tailnet and history with nobody telling a story."""

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.daemon.daemon import Daemon
from tsmon.demo.control_server import FakeControl
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.demo.show import DemoUrls, demo_settings, demo_tailnet, seed_history
from tsmon.demo.tailnet import SimTailnet

HOUR = 3600.0


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


@asynccontextmanager
async def scripted(*, hard_day: bool = False) -> AsyncIterator[tuple[str, SimTailnet, Daemon]]:
    """The demo's tailnet and history: what happens is up to the caller. `hard_day`: see `make_hard_day`."""
    clock = Clock()
    tailnet = demo_tailnet(clock)
    tailnet.change("backup", key_expiry=None)
    with tempfile.TemporaryDirectory() as directory:
        await seed_history(Path(directory), tailnet, Settings(), clock.wall())
        if hard_day:
            make_hard_day(Path(directory), clock.wall())
        async with (
            serving(FakeSidecar(tailnet, ping_timeout=1.0).application()) as source,
            serving(FakeControl(tailnet).application()) as control,
        ):
            settings = demo_settings(Settings(listen="127.0.0.1:0"), DemoUrls(source, control))
            daemon = Daemon(settings, Path(directory), clock=clock, demo=True)
            await daemon.start()
            try:
                yield daemon.url, tailnet, daemon
            finally:
                await daemon.stop()


def make_hard_day(state_dir: Path, now: float) -> None:
    """The last day of `git`: an outage of 40 min eight hours ago, an hour over a relay and half an hour of
    lost pings before it; nobody saw anything from 16 to 13 hours ago."""
    with closing(sqlite3.connect(state_dir / "tsmon.db")) as db, db:
        (num,) = db.execute("SELECT num FROM nodes WHERE hostname = 'git'").fetchone()
        fell, rose = now - 8 * HOUR, now - 8 * HOUR + 2400
        db.execute("UPDATE spans SET end = ? WHERE node = ? AND end IS NULL", (fell, num))
        db.execute("INSERT INTO spans VALUES (?, ?, 'offline', ?)", (num, fell, rose))
        db.execute("INSERT INTO spans VALUES (?, ?, 'online', NULL)", (num, rose))
        relayed, lost = (now - 10 * HOUR, now - 9 * HOUR), (now - 8.5 * HOUR, fell)
        between = "WHERE node = ? AND time BETWEEN ? AND ?"
        db.execute(f"UPDATE latency SET path = 'relay', mean_ms = mean_ms * 4 {between}", (num, *relayed))
        db.execute(f"UPDATE latency SET mean_ms = NULL, loss = 1, path = NULL {between}", (num, *lost))
        db.execute(f"DELETE FROM latency {between}", (num, fell, rose))
        (end,) = db.execute("SELECT max(end) FROM observed WHERE scope = ''").fetchone()
        db.execute("UPDATE observed SET end = ? WHERE scope = '' AND end = ?", (now - 16 * HOUR, end))
        db.execute("INSERT INTO observed VALUES ('', ?, ?)", (now - 13 * HOUR, end))
