"""What nodes that are gone cost: the same tailnet with and without a million removed ones in its history."""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.history import NOW
from bench.soak import DAY
from tsmon.base.clock import Clock
from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import Store
from tsmon.monitor.state import Node
from tsmon.source.status import Decoder

_REPEATS = 5


async def measure(present: int, removed: int) -> dict[str, float]:
    """Milliseconds, and MiB of Python's memory for what is loaded at the start."""
    with tempfile.TemporaryDirectory() as directory:
        store = await Store.open(Path(directory))
        await store.write(lambda db: _fill(db, present, removed))
        await store.close()
        begun = time.perf_counter()
        store = await Store.open(Path(directory))
        opened = time.perf_counter() - begun
        try:
            history = EmbeddedHistory(store)
            bounds = [NOW - 30 * DAY * (1 - n / 48) for n in range(49)]
            tracemalloc.start()
            loaded = await store.load(NOW - 1800)
            memory = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            strangers = [f"removed-{n * 7}" for n in range(20)]
            figures = {
                "open, ms": 1000 * opened,
                "load, ms": await _timed(lambda: store.load(NOW - 1800)),
                "loaded, MiB": memory / 2**20,
                "24-hour uptime for all, ms": await _timed(lambda: history.uptime(NOW - DAY, NOW)),
                "30-day bars for all, ms": await _timed(lambda: history.bars(bounds)),
                "20 unknown IDs looked up, ms": await _timed(lambda: store.find_nodes(strangers)),
            }
            assert len(loaded.nodes) == present
        finally:
            await store.close()
    return {name: round(value, 1) for name, value in figures.items()}


async def _timed(call: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def _fill(db: sqlite3.Connection, present: int, removed: int) -> None:
    """The removed ones lived an hour each, spread over the retention."""
    tailnet = SimTailnet(Clock())
    tailnet.add("template", tags=["tag:ci"])
    settings = Settings()
    facts = next(f for f in Decoder().decode(tailnet.document()).nodes.values() if f.hostname == "template")
    node = Node(facts=facts, role=Classifier(settings).role(facts), first_seen=NOW, state="online")
    chance = random.Random(3)

    def row(n: int) -> tuple[Any, ...]:
        gone = n >= present
        begin = NOW - 40 * DAY if not gone else NOW - chance.uniform(1, 400) * DAY
        id_ = f"removed-{n - present}" if gone else f"n{n}"
        named = msgspec.structs.replace(facts, id=id_, hostname=id_)
        until = begin + 3600 if gone else None
        body = msgspec.msgpack.encode(
            msgspec.structs.replace(node, facts=named, first_seen=begin, removed_at=until)
        )
        return n, id_, id_, begin, until, body

    rows = (row(n) for n in range(present + removed))
    for num, id_, hostname, begin, until, body in rows:
        db.execute(
            "INSERT INTO nodes (num, id, hostname, first_seen, removed_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            (num, id_, hostname, begin, until, body),
        )
        db.execute(
            "INSERT INTO spans (node, start, state, end) VALUES (?, ?, 'online', ?)", (num, begin, until)
        )
    db.execute("INSERT INTO observed (scope, start, end) VALUES ('', ?, ?)", (NOW - 400 * DAY, NOW))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.removed")
    parser.add_argument("--present", type=int, default=1000)
    parser.add_argument("--removed", type=int, default=1_000_000)
    chosen = parser.parse_args()
    without = asyncio.run(measure(chosen.present, 0))
    among = asyncio.run(measure(chosen.present, chosen.removed))
    print(f"{chosen.present:,} nodes present; removed ones:".ljust(40) + f"{'none':>12}{chosen.removed:>12,}")
    for name, value in without.items():
        print(f"{name:<40}{value:>12}{among[name]:>12}")
    print(json.dumps({"removed": {"without": without, "with": among}}))


if __name__ == "__main__":
    main()
