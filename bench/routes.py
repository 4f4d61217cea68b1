"""Every route under load: requests a second and p99, against a bare aiohttp handler with the same bytes.

Both are served by this process and asked in turn by a client in another one, four connections at once.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import aiohttp
import structlog
from aiohttp import web

from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import serving
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet

SIZES = (10, 1000, 10_000)
CONNECTIONS = 4
API = "/health-monitoring"
ROUTES = {
    "summary": f"{API}/summary",
    "nodes (of the project)": f"{API}/nodes",
    "nodes (all)": f"{API}/nodes?project_only=false",
    "one node": f"{API}/nodes/git",
    "critical": f"{API}/critical",
    "alerts": f"{API}/alerts?state=all",
    "logs": f"{API}/logs",
    "uptime": f"{API}/uptime/git",
    "history, 24 h": f"{API}/history?window=24h&buckets=48",
    "history, 30 d": f"{API}/history?window=30d&buckets=48",
    "history, 30 d, 50 nodes": f"{API}/history?window=30d&buckets=48&limit=50",
    "latency": f"{API}/latency/git",
    "whois": f"{API}/whois/100.64.0.2",
    "badge": f"{API}/badge/git.svg",
    "healthz": "/healthz",
    "readyz": "/readyz",
    "metrics": "/metrics",
    "openapi.json": "/openapi.json",
    "docs": "/docs",
    "dashboard": "/vpn",
    "dashboard's script": "/web/app.js",
}


class Row(NamedTuple):
    """One route."""

    size: int
    """Bytes of the answer."""
    per_second: float
    p99_ms: float
    bare_per_second: float
    bare_p99_ms: float


async def measure(nodes: int, directory: Path, seconds: float) -> dict[str, Row]:
    tailnet = SimTailnet(Clock())
    for name in ("git", "dev", "chocolate-factory"):
        tailnet.add(name)
    for n in range(nodes - 4):
        tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"])
    settings = load(None, {}, {"listen": "127.0.0.1:0", "poll_interval": "1h"})
    daemon = Daemon(settings, directory, clock=Clock(), source=SimSource(tailnet))
    await daemon.start()
    try:
        while not daemon.collector.polls:  # noqa: ASYNC110 (the daemon's own work)
            await asyncio.sleep(0.01)
        await asyncio.sleep(6)  # past the first look of the daemon
        return {name: await _compare(daemon.url + path, seconds) for name, path in ROUTES.items()}
    finally:
        await daemon.stop()


async def _compare(url: str, seconds: float) -> Row:
    async with aiohttp.request("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        assert response.status == 200, (url, response.status)
        body, kind = await response.read(), response.headers["Content-Type"]

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": kind})

    app = web.Application()
    app.router.add_get("/", handle)
    async with serving(app) as bare:
        # In turn, twice: what else the machine does meanwhile hits both.
        found = [await _load(where, seconds / 2) for where in (url, bare + "/", url, bare + "/")]
    ours, theirs = (found[0], found[2]), (found[1], found[3])
    return Row(
        len(body),
        sum(run["per_second"] for run in ours) / 2,
        min(run["p99_ms"] for run in ours),
        sum(run["per_second"] for run in theirs) / 2,
        min(run["p99_ms"] for run in theirs),
    )


async def _load(url: str, seconds: float) -> dict[str, float]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", url, str(seconds), str(CONNECTIONS)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    assert child.returncode == 0, url
    return json.loads(out)  # type: ignore[no-any-return]


def show(nodes: int, rows: dict[str, Row]) -> None:
    heads = ("bytes", "requests/s", "p99 ms", "bare req/s", "bare p99", "of bare")
    print(f"{f'{nodes:,} nodes':<26}" + "".join(f"{head:>12}" for head in heads))
    for name, row in rows.items():
        cells = (
            f"{row.size:,}",
            f"{row.per_second:,.0f}",
            f"{row.p99_ms:.1f}",
            f"{row.bare_per_second:,.0f}",
            f"{row.bare_p99_ms:.1f}",
            f"{row.per_second / row.bare_per_second:.2f}",
        )
        print(f"{name:<26}" + "".join(f"{cell:>12}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.routes")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=2.0, help="for each route, and for its bare twin")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    results = {}
    for nodes in chosen.nodes:
        with tempfile.TemporaryDirectory() as directory:
            results[nodes] = asyncio.run(measure(nodes, Path(directory), chosen.seconds))
        show(nodes, results[nodes])
    rows = {nodes: {name: row._asdict() for name, row in found.items()} for nodes, found in results.items()}
    print(json.dumps({"routes": rows}))


if __name__ == "__main__":
    main()
