"""A week of one tailnet, known to the second, for every kind of history."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.support.influx2 import RealInflux
from tests.support.virtual import VirtualClock, run_virtual
from tests.support.world import settings
from tsmon.base.clock import Clock, grid_floor
from tsmon.classify import Classifier
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.chosen import ChosenHistory
from tsmon.history.influx import Influx, ReadError
from tsmon.history.influx.queries import Tally
from tsmon.history.intervals import Intervals
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch, Observed, SpanChange
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Node
from tsmon.source.status import Decoder

STEP = 300.0


DAY = 86400.0


# When each machine was down, in hours since the start of the week.
OUTAGES = {
    "git": [],
    "dev": [(10.0, 11.5), (100.0, 100.25)],
    "chocolate-factory": [(0.0, 168.0)],
    "flaps": [(n * 6.0, n * 6.0 + 1.0) for n in range(28)],
    "young": [(160.0, 161.0)],
}


YOUNG = 150.0  # the hour in which `young` joined


DARK = (50.0, 56.0)  # nobody looked


def online_at(name: str, hour: float) -> bool | None:
    if DARK[0] <= hour < DARK[1] or (name == "young" and hour < YOUNG):
        return None
    return not any(begin <= hour < end for begin, end in OUTAGES[name])


class Week:
    """The scripted week, ending now."""

    def __init__(self) -> None:
        self.start = grid_floor(Clock().wall(), STEP) - 7 * DAY
        self.end = self.start + 7 * DAY

        async def document() -> bytes:
            tailnet = SimTailnet(VirtualClock())
            for name in OUTAGES:
                tailnet.add(name, notify=False)
            return tailnet.document()

        classifier = Classifier(settings())
        self.nodes: dict[str, Node] = {}
        for facts in Decoder(()).decode(run_virtual(document())).nodes.values():
            if facts.hostname in OUTAGES:
                first = self.hour(YOUNG if facts.hostname == "young" else 0.0)
                node = Node(facts=facts, role=classifier.role(facts), first_seen=first, state="online")
                self.nodes[facts.hostname] = node

    def hour(self, hour: float) -> float:
        return self.start + hour * 3600

    async def fill(self, store: Store, since: float = 0.0) -> None:
        """The embedded history, from hour `since` on."""
        begin = self.hour(since)
        batch = Batch(nodes=list(self.nodes.values()))
        for observed in ((0.0, DARK[0]), (DARK[1], 168.0)):
            if self.hour(observed[1]) > begin:
                batch.observed.append(Observed(max(begin, self.hour(observed[0])), self.hour(observed[1])))
        for name, node in self.nodes.items():
            joined = max(begin, node.first_seen)
            changes = [(joined, online_at(name, (joined - self.start) / 3600 + 1e-9))]
            for down, up in OUTAGES[name]:
                changes += [(self.hour(down), False), (self.hour(up), True)]
            batch.spans += [
                SpanChange(node.id, at, "online" if on else "offline")
                for at, on in changes
                if joined <= at < self.end
            ]
        await store.commit(batch)

    def samples(self) -> list[tuple[float, list[Sample]]]:
        """What was written every five minutes."""
        found = []
        for n in range(int(7 * DAY / STEP)):
            hour = n * STEP / 3600
            row = [
                Sample(name, "other", "Linux", int(state), None, None)
                for name in OUTAGES
                if (state := online_at(name, hour)) is not None
            ]
            found.append((self.start + n * STEP, row))
        return found


class DoubleReader:
    """Samples in memory, asked as InfluxDB is."""

    def __init__(self, samples: Sequence[tuple[float, Sequence[Sample]]]) -> None:
        self.samples = samples
        self.asked = 0
        self.fails = False
        self.renamed: dict[str, str] = {}

    async def tallies(self, start: float, stop: float) -> dict[str, Tally]:
        self.asked += 1
        if self.fails:
            raise ReadError("no answer in time")
        found: dict[str, Tally] = {}
        for time, row in self.samples:
            for sample in row if start <= time < stop else ():
                name = self.renamed.get(sample.hostname, sample.hostname)
                old = found.get(name, Tally(0, 0, time))
                found[name] = Tally(old.online + sample.online, old.samples + 1, old.first)
        return found

    async def windows(self, start: float, every: float, count: int) -> dict[str, list[Tally]]:
        parts = [await self.tallies(start + n * every, start + (n + 1) * every) for n in range(count)]
        names = {name for part in parts for name in part}
        return {name: [part.get(name, Tally(0, 0)) for part in parts] for name in names}


def chosen(store: Store, week: Week, reader: Any, source: Any = "influxdb") -> ChosenHistory:
    history = ChosenHistory(store, Clock(), week.nodes.values, failure=ReadError)
    history.choose(source, reader, Intervals(((0.0, STEP),)))
    return history


async def written(store: Store, real: RealInflux, samples: Sequence[tuple[float, list[Sample]]]) -> None:
    """Everything is in InfluxDB."""
    influx = Influx(settings(**real.settings()).influx, store, Clock())
    sending = asyncio.create_task(influx.run())
    for grid, row in samples:
        await influx.put_samples(grid, row)
    async with asyncio.timeout(120):
        count = "SELECT count(*) FROM influx_outbox"
        while await store.read(lambda db: db.execute(count).fetchone()[0]):  # noqa: ASYNC110 (a server's work)
            await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
