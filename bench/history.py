"""The embedded history: how much it grows a day, and how long a month of it takes to read.

Growth is of a whole daemon in virtual time at 100 changes an hour. The month is written by hand: as many
changes, and a blind stretch of ten minutes a day.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from bench.soak import DAY, play, virtual_pace
from bench.watch import LoopWatch
from tests.support.virtual import VirtualClock, VirtualLoop
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import Store

SIZES = (10, 1000, 10_000)
CHANGES = 2400
"""A day."""
NOW = 1_790_000_000.0
_GROWTH_DAYS = {10: 1.26, 1000: 1.26, 10_000: 0.51}
"""How long growth is watched; its first quarter of a day, which makes the tables, is not counted."""
_CONFIG = 'listen = "127.0.0.1:0"\n'


def growth(nodes: int, tags: list[str]) -> float:
    """MiB a day."""
    days = _GROWTH_DAYS[nodes]
    # Of ten nodes not twenty can be away at a time.
    away = 1800.0 if nodes > 10 else 240.0
    pace = virtual_pace(days)._replace(blind_every=1e9, measure_every=DAY / 4, away=away)
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        played = runner.run(
            play(pace, VirtualClock(), Path(directory), nodes=nodes, tags=tags, config=_CONFIG)
        )
    # The first quarter makes the tables and the rows of the nodes.
    sizes = played.database_mib[1:]
    return round((sizes[-1] - sizes[0]) / (len(sizes) - 1) * 4, 2)


async def month(nodes: int) -> dict[str, Any]:
    """Milliseconds to read 30 days of all nodes, and how long the loop was blocked meanwhile."""
    with tempfile.TemporaryDirectory() as directory:
        store = await Store.open(Path(directory))
        try:
            await store.write(lambda db: fill(db, nodes))
            history = EmbeddedHistory(store)
            bounds = [NOW - 30 * DAY * (1 - n / 48) for n in range(49)]
            bars = await _timed(lambda: history.bars(bounds))
            uptime = await _timed(lambda: history.uptime(NOW - 30 * DAY, NOW))
            one = await _timed(lambda: history.uptime(NOW - 30 * DAY, NOW, {"n0"}))
            # Apart from the times: who looks every 2 ms keeps the reader waiting.
            watch = LoopWatch()
            await history.bars(bounds)
            await history.uptime(NOW - 30 * DAY, NOW)
            watch.stop()
            _, block = watch.take()
        finally:
            await store.close()
    return {
        "30-day bars for all, ms": bars,
        "30-day uptime for all, ms": uptime,
        "30-day uptime of one, ms": one,
        "loop block meanwhile, max ms": round(block, 1),
    }


async def _timed(call: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - begun))
    return round(statistics.median(times), 1)


def fill(db: sqlite3.Connection, nodes: int) -> None:
    """Forty days of `nodes` machines with `CHANGES` a day, until NOW."""
    chance = random.Random(5)
    begin = NOW - 40 * DAY
    db.executemany(
        "INSERT INTO nodes (num, id, hostname, first_seen, body) VALUES (?, ?, ?, ?, ?)",
        [(num, f"n{num}", f"node-{num}", begin, b"x" * 800) for num in range(nodes)],
    )
    state = ["online"] * nodes
    since = [begin] * nodes
    at = begin
    while (at := at + DAY / CHANGES) < NOW:
        num = chance.randrange(nodes)
        db.execute(
            "INSERT INTO spans (node, state, start, end) VALUES (?, ?, ?, ?)",
            (num, state[num], since[num], at),
        )
        state[num] = "offline" if state[num] == "online" else "online"
        since[num] = at
    db.executemany(
        "INSERT INTO spans (node, state, start, end) VALUES (?, ?, ?, NULL)",
        [(num, state[num], since[num]) for num in range(nodes)],
    )
    db.executemany(
        "INSERT INTO observed VALUES ('', ?, ?)",
        [(begin + day * DAY, begin + (day + 1) * DAY - 600) for day in range(40)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.history")
    parser.add_argument("--nodes", type=int, nargs="*", choices=SIZES, default=list(SIZES))
    chosen = parser.parse_args()
    results: dict[int, dict[str, Any]] = {}
    for nodes in chosen.nodes:
        results[nodes] = asyncio.run(month(nodes))
        results[nodes]["growth, nobody is told, MiB a day"] = growth(nodes, [])
        results[nodes]["growth, each outage is told, MiB a day"] = growth(nodes, ["tag:server"])
    structlog.reset_defaults()
    print(f"{'the embedded history':<46}" + "".join(f"{nodes:>10,}" for nodes in results))
    for name in next(iter(results.values()), {}):
        print(f"{name:<46}" + "".join(f"{row[name]:>10}" for row in results.values()))
    print(json.dumps({"history": results}))


if __name__ == "__main__":
    main()
