"""One contract for every history: the embedded store and InfluxDB (a double, a real 2.x when there is one).

A scripted week of five machines is put into each; uptime and bars must say the same, within the error of
sampling every five minutes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness import settings
from tests.influx2 import MISSING, RealInflux, real_influx
from tests.virtual import VirtualClock, run_virtual
from tsmon.base.clock import Clock, grid_floor
from tsmon.classify import Classifier
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.chosen import ChosenHistory
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.influx import Influx, InfluxReader, ReadError
from tsmon.history.influx.queries import Tally
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch, Observed, SpanChange
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Node
from tsmon.server.figures import History
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

    interval = STEP

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


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "state")
    yield store
    await store.close()


@pytest.fixture(scope="module")
def week() -> Week:
    return Week()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealInflux | None]:
    with real_influx(tmp_path_factory.mktemp("influx")) as found:
        yield found


def chosen(store: Store, week: Week, reader: Any, source: Any = "influxdb") -> ChosenHistory:
    history = ChosenHistory(store, Clock(), week.nodes.values, failure=ReadError)
    history.choose(source, reader)
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


@pytest.fixture(params=["embedded", "double of InfluxDB", "InfluxDB 2.x", "half and half"])
async def history(
    request: pytest.FixtureRequest, store: Store, week: Week, real: RealInflux | None
) -> History:
    if request.param == "embedded":
        await week.fill(store)
        return EmbeddedHistory(store)
    if request.param == "half and half":
        await week.fill(store, since=84.0)
        return chosen(store, week, DoubleReader(week.samples()), "auto")
    # The nodes are known; nothing of their past is.
    await store.commit(Batch(nodes=list(week.nodes.values())))
    if request.param == "double of InfluxDB":
        return chosen(store, week, DoubleReader(week.samples()))
    if real is None:
        pytest.skip(MISSING)
    await written(store, real, week.samples())
    reader = InfluxReader(settings(**real.settings()).influx, Clock(), STEP)
    return chosen(store, week, reader)


async def test_uptime_and_coverage_of_a_week(history: History, week: Week) -> None:
    found = await history.uptime(week.start, week.end)
    by_name = {name: found[node.id] for name, node in week.nodes.items()}
    assert by_name["git"].uptime_percentage == 100
    assert by_name["chocolate-factory"].uptime_percentage == 0
    looked = 168.0 - (DARK[1] - DARK[0])
    # An error of one sample for each change.
    assert by_name["dev"].uptime_percentage == pytest.approx(100 * (1 - 1.75 / looked), abs=0.11)
    flapped = sum(1.0 for n in range(28) if not DARK[0] <= n * 6.0 < DARK[1])
    assert by_name["flaps"].uptime_percentage == pytest.approx(100 * (1 - flapped / looked), abs=1.2)
    assert by_name["young"].uptime_percentage == pytest.approx(100 * (1 - 1 / 18), abs=0.5)
    for name in ("git", "dev", "flaps"):
        assert by_name[name].coverage == pytest.approx(100 * looked / 168, abs=0.2)
    assert by_name["young"].coverage == pytest.approx(100, abs=0.6)
    assert all((uptime.coverage or 0) <= 100 for uptime in found.values())


async def test_of_some_nodes_only(history: History, week: Week) -> None:
    wanted = {week.nodes["git"].id}
    assert set(await history.uptime(week.start, week.end, wanted)) == wanted
    bounds = [week.start + n * DAY for n in range(8)]
    assert set(await history.bars(bounds, wanted)) == wanted


async def test_bars_of_a_week(history: History, week: Week) -> None:
    bounds = [week.start + n * 6 * 3600 for n in range(29)]
    found = await history.bars(bounds)
    by_name = {name: found[node.id] for name, node in week.nodes.items()}
    assert by_name["git"].states == "o" * 28
    assert by_name["chocolate-factory"].states == "x" * 28
    assert by_name["flaps"].states.count("m") >= 26
    assert by_name["dev"].states[1] == "m"
    assert by_name["dev"].states[2:8] == "o" * 6
    young = by_name["young"].states
    assert set(young[:24]) <= {"-", "u"}
    assert young[26:] == "mo"
    assert by_name["git"].coverage is not None
    assert min(by_name["git"].coverage) < 50


async def test_a_window_without_anything_is_unknown(history: History, week: Week) -> None:
    found = await history.uptime(week.hour(51), week.hour(55))
    assert {found[node.id].uptime_percentage for node in week.nodes.values()} == {None}


# -- which of them answers ---------------------------------------------------------------------------------


async def test_auto_asks_influxdb_only_for_what_lies_before(store: Store, week: Week) -> None:
    await week.fill(store, since=84.0)
    reader = DoubleReader(week.samples())
    history = chosen(store, week, reader, "auto")
    await history.uptime(week.hour(100), week.end)
    assert (reader.asked, history.kind(week.hour(100))) == (0, "embedded")
    await history.uptime(week.start, week.end)
    assert history.kind(week.start) == "influxdb"
    assert reader.asked > 0


async def test_embedded_never_asks(store: Store, week: Week) -> None:
    await week.fill(store, since=84.0)
    reader = DoubleReader(week.samples())
    history = chosen(store, week, reader, "embedded")
    found = await history.uptime(week.start, week.end)
    assert (reader.asked, history.kind(week.start)) == (0, "embedded")
    assert found[week.nodes["git"].id].coverage == pytest.approx(50, abs=0.1)


async def test_a_server_that_does_not_answer_leaves_the_embedded_figure(store: Store, week: Week) -> None:
    await week.fill(store)
    reader = DoubleReader(week.samples())
    reader.fails = True
    history = chosen(store, week, reader)
    assert (await history.uptime(week.start, week.end)) == (
        await EmbeddedHistory(store).uptime(week.start, week.end)
    )
    assert (await history.bars([week.start, week.end]))[week.nodes["git"].id].states == "o"
    assert history.kind(week.start) == "embedded"
    reader.fails = False
    await history.uptime(week.start, week.end)
    assert history.kind(week.start) == "influxdb"


async def test_an_answer_that_lacks_samples_is_doubted(store: Store, week: Week) -> None:
    """The trap of fields with two types: all hosts of one type vanish without an error."""
    await week.fill(store)
    reader = DoubleReader([(grid, row[:2]) for grid, row in week.samples()])
    history = chosen(store, week, reader)
    found = await history.uptime(week.start, week.end)
    assert found == await EmbeddedHistory(store).uptime(week.start, week.end)
    assert history.kind(week.start) == "embedded"
    assert "samples where about" in history.doubt
    reader.samples = week.samples()
    await history.uptime(week.start, week.end)
    assert history.doubt == ""
    assert history.kind(week.start) == "influxdb"


async def test_raw_hostnames_of_an_older_monitor_are_the_nodes(store: Store, week: Week) -> None:
    await store.commit(Batch(nodes=list(week.nodes.values())))
    reader = DoubleReader(week.samples())
    node = week.nodes["dev"]
    reader.renamed = {"dev": node.facts.os_hostname.upper()}
    found = await chosen(store, week, reader).uptime(week.start, week.end)
    assert found[node.id].uptime_percentage == pytest.approx(98.9, abs=0.2)


async def test_samples_written_twice_cover_no_more_than_the_window(store: Store, week: Week) -> None:
    await store.commit(Batch(nodes=list(week.nodes.values())))
    twice = [(grid + shift, row) for grid, row in week.samples() for shift in (0.0, 17.0)]
    found = await chosen(store, week, DoubleReader(twice)).uptime(week.start, week.end)
    git = found[week.nodes["git"].id]
    assert git.coverage == 100
    assert git.uptime_percentage == 100
    assert git.unknown_s == 0
