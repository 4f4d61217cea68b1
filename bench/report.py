"""The report of a month: how long it takes over HTTP, and how long the loop is blocked meanwhile.

The month is that of `bench.history`: 2,400 changes a day, ten blind minutes a day; nodes are real ones. What
is kept between two questions is left out.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bench.history import NOW, fill
from bench.soak import DAY
from bench.watch import LoopWatch
from tests.support.rows import nodes as some_nodes
from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.history.report import Period
from tsmon.history.store import Store
from tsmon.monitor.state import View
from tsmon.server.report import report_csv, report_json
from tsmon.server.report_html import report_html
from tsmon.server.report_route import ReportRoutes

SIZES = (1000, 10_000)
_ROUNDS = 4


class _Then(Clock):
    def wall(self) -> float:
        return NOW


async def month(count: int) -> dict[str, Any]:
    """Milliseconds of reading and of each form, and the longest block of the loop."""
    with tempfile.TemporaryDirectory() as directory:
        store = await Store.open(Path(directory))
        try:
            await store.write(lambda db: fill(db, count))
            view = _view(count)
            gc.collect()
            gc.freeze()  # as the daemon does
            routes = ReportRoutes(store, _Then(), Settings, lambda: view, lambda: 0)
            period = Period(NOW - 30 * DAY, NOW, "Europe/Berlin")
            reads = []
            for _ in range(_ROUNDS):
                begun = time.perf_counter()
                answer = await routes.answer(period)
                reads.append(time.perf_counter() - begun)
            read = min(reads)
            times = {"reading and sums, ms": round(1000 * read)}
            for name, make in (("JSON", report_json), ("CSV", report_csv), ("HTML", report_html)):
                begun = time.perf_counter()
                size = len(make(answer))
                times[f"{name}, ms"] = round(1000 * (time.perf_counter() - begun))
                times[f"{name}, kB"] = round(size / 1000)
            # Apart from the times: who looks every 2 ms keeps the reader waiting. Of some rounds the
            # quietest: whatever else the machine does is in the others.
            watch = LoopWatch()
            blocks = []
            for _ in range(_ROUNDS):
                answer = await routes.answer(period)
                for make in (report_json, report_csv, report_html):
                    await asyncio.to_thread(make, answer)
                blocks.append(watch.take()[1])
            watch.stop()
        finally:
            await store.close()
    return {**times, "loop block meanwhile, max ms": round(min(blocks), 1)}


def _view(count: int) -> View:
    pattern = some_nodes()[0]
    replace = msgspec.structs.replace
    named = (replace(pattern.facts, id=f"n{num}", hostname=f"node-{num}") for num in range(count))
    found = {facts.id: replace(pattern, facts=facts, first_seen=NOW - 40 * DAY) for facts in named}
    return View(
        version=1,
        now=NOW,
        as_of=NOW,
        nodes=found,
        removed={},
        blind=None,
        self_id="n0",
        self_stopped=False,
        tailnet=None,
        tun=True,
        excluded=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    chosen = parser.parse_args()
    results = {count: asyncio.run(month(count)) for count in chosen.nodes}
    structlog.reset_defaults()
    print(f"{'the report of a month':<46}" + "".join(f"{count:>10,}" for count in results))
    for name in next(iter(results.values()), {}):
        print(f"{name:<46}" + "".join(f"{row[name]:>10}" for row in results.values()))
    print(json.dumps({"report": results}))


if __name__ == "__main__":
    main()
