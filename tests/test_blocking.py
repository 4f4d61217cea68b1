"""Nothing in the event loop waits for a disk or a network: a blocking call there is an error."""

import asyncio
from pathlib import Path

from blockbuster import blockbuster_ctx

from tests.support.site import site


async def test_the_running_daemon_never_blocks_its_loop(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        with blockbuster_ctx("tsmon") as guard:
            guard.functions["os.stat"].deactivate()  # a stat of a file just opened is no wait
            for path in (
                "summary",
                "nodes?project_only=false",
                "nodes/git",
                "critical",
                "alerts?state=all",
                "logs",
                "uptime/git",
                "history",
                "latency/git",
            ):
                await here.get(f"/health-monitoring/{path}")
            await here.get("/readyz")
            await here.get("/vpn")
            await here.get("/vpn")
            here.tailnet.off("git")
            await here.poll()
            await here.daemon.collector.collect_health_metrics(1e10)
            await asyncio.sleep(0)
            assert not [loop for loop in (here.daemon.parts.loops.stuck(),) if loop]
