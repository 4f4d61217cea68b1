"""A tsmon's write side as a process that can be killed: samples in, InfluxDB out.

Run with a state directory, URL, token, org and bucket of a server, the first grid time and how many. It says
each grid time on a line of its own once its samples are committed, and `sent` when nothing waits any more.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from tests.support.influx2 import RealInflux
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.history.influx import Influx
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

HOSTS = [f"host-{n}" for n in range(50)]


async def main(directory: Path, where: RealInflux, begin: int, count: int) -> None:
    store = await Store.open(directory)
    influx = Influx(settings(**where.settings()).influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    for grid in range(begin, begin + 300 * count, 300):
        await influx.put_samples(grid, [Sample(name, "other", "Linux", 1, None, None) for name in HOSTS])
        print(grid, flush=True)
    waiting = "SELECT count(*) FROM influx_outbox"
    while await store.read(lambda db: db.execute(waiting).fetchone()[0]):  # noqa: ASYNC110 (a server's work)
        await asyncio.sleep(0.02)
    print("sent", flush=True)
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    await store.close()


if __name__ == "__main__":
    state_dir, *server, first, times = sys.argv[1:]
    asyncio.run(main(Path(state_dir), RealInflux(*server), int(first), int(times)))
