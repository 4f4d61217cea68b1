"""One contract for every history: the embedded store and InfluxDB (a double, a real 2.x when there is one).

A scripted week of five machines is put into each; uptime and bars must say the same, within the error of
sampling every five minutes.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.influx2 import MISSING, RealInflux, real_influx
from tests.support.week import DARK, DAY, STEP, DoubleReader, Week, chosen, written
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.influx import InfluxReader
from tsmon.history.intervals import Intervals
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch
from tsmon.server.figures import History


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


@pytest.fixture(
    params=[
        "embedded",
        "double of InfluxDB",
        pytest.param("InfluxDB 2.x", marks=pytest.mark.server),
        "half and half",
    ]
)
async def history(request: pytest.FixtureRequest, store: Store, week: Week) -> History:
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
    real: RealInflux | None = request.getfixturevalue("real")
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
    late = await history.uptime(week.hour(100), week.end)
    assert (reader.asked, late.kind) == (0, "embedded")
    early = await history.uptime(week.start, week.end)
    assert early.kind == "influxdb"
    assert reader.asked > 0
    assert late.kind == "embedded", "each answer says it of itself"
    nobody = await history.uptime(week.start, week.end, {week.nodes["git"].id} - {week.nodes["git"].id})
    assert nobody.kind == "embedded"


async def test_samples_of_two_intervals_stand_for_their_own(store: Store, week: Week) -> None:
    """A reload took every third sample from hour 84 on: coverage is what it was, and nothing is doubted."""
    await week.fill(store)
    change = week.hour(84)
    rare = [(grid, row) for grid, row in week.samples() if grid < change or grid % (3 * STEP) == 0]
    history = chosen(store, week, DoubleReader(rare))
    history.choose("influxdb", DoubleReader(rare), Intervals(((0.0, STEP), (change, 3 * STEP))))
    found = await history.uptime(week.start, week.end)
    assert (history.doubt, found.kind) == ("", "influxdb")
    every = await chosen(store, week, DoubleReader(week.samples())).uptime(week.start, week.end)
    for name in ("git", "dev"):
        id_ = week.nodes[name].id
        assert found[id_].coverage == pytest.approx(every[id_].coverage, abs=0.3)
        assert found[id_].uptime_percentage == pytest.approx(every[id_].uptime_percentage, abs=0.3)


async def test_embedded_never_asks(store: Store, week: Week) -> None:
    await week.fill(store, since=84.0)
    reader = DoubleReader(week.samples())
    history = chosen(store, week, reader, "embedded")
    found = await history.uptime(week.start, week.end)
    assert (reader.asked, found.kind) == (0, "embedded")
    assert found[week.nodes["git"].id].coverage == pytest.approx(50, abs=0.1)


async def test_a_server_that_does_not_answer_leaves_the_embedded_figure(store: Store, week: Week) -> None:
    await week.fill(store)
    reader = DoubleReader(week.samples())
    reader.fails = True
    history = chosen(store, week, reader)
    found = await history.uptime(week.start, week.end)
    assert found == await EmbeddedHistory(store).uptime(week.start, week.end)
    assert (await history.bars([week.start, week.end]))[week.nodes["git"].id].states == "o"
    assert found.kind == "embedded"
    reader.fails = False
    assert (await history.uptime(week.start, week.end)).kind == "influxdb"


async def test_an_answer_that_lacks_samples_is_doubted(store: Store, week: Week) -> None:
    """The trap of fields with two types: all hosts of one type vanish without an error."""
    await week.fill(store)
    reader = DoubleReader([(grid, row[:2]) for grid, row in week.samples()])
    history = chosen(store, week, reader)
    found = await history.uptime(week.start, week.end)
    assert found == await EmbeddedHistory(store).uptime(week.start, week.end)
    assert found.kind == "embedded"
    assert "samples where about" in history.doubt
    reader.samples = week.samples()
    found = await history.uptime(week.start, week.end)
    assert history.doubt == ""
    assert found.kind == "influxdb"


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
