"""What 2,000 checks a minute cost: how long the loop is kept, and processor time, beside none of them.

The tailnet answers in a process of its own, by tailscaled's dial on a unix socket; a tenth of the ports are
closed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.watch import LoopWatch
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet

NODES = 1000
WARM = 75.0
"""Seconds until every port has been asked once."""
MEASURED = 60.0
ROLE = """
[[roles]]
name = "all"
hosts = ["node-*"]
checks = ["tcp:22", "http:8080/healthz"]
"""


async def serve(path: Path) -> None:
    """The tailnet's process, until it is killed."""
    tailnet = SimTailnet(Clock())
    for n in range(NODES):
        ports = {22: "open", 8080: "refused" if n % 5 == 0 else "open"}
        tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"], ports=ports)
    async with serving(FakeLocalApi(tailnet).application(), path):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def measure(directory: Path, config: Path) -> dict[str, Any]:
    """One tsmon with this configuration."""
    socket = directory / "s"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.services", "--serve", str(socket), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    await server.stdout.readline()
    daemon = Daemon(load(config, {}, {"listen": "127.0.0.1:0", "source": f"unix://{socket}"}), directory)
    await daemon.start()
    try:
        await asyncio.sleep(WARM)
        watch = LoopWatch()
        asked, cpu = daemon.parts.checking.asked, time.process_time()
        await asyncio.sleep(MEASURED)
        cpu = time.process_time() - cpu
        watch.stop()
        p99, most = watch.take()
        down = sum(one.down for one in daemon.monitor.view.services.values())
        return {
            "checks asked in a minute": daemon.parts.checking.asked - asked,
            "down": down,
            "loop block p99, ms": round(p99, 1),
            "loop block max, ms": round(most, 1),
            "processor seconds in a minute": round(cpu, 1),
        }
    finally:
        await daemon.stop()
        server.kill()
        await server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
        return
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, toml in (("without checks", ""), ("2,000 checks a minute", ROLE)):
            home = Path(directory, name[:4])
            home.mkdir()
            (home / "tsmon.toml").write_text(toml)
            found[name] = asyncio.run(measure(home, home / "tsmon.toml"))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
