"""Reading samples back: the Flux that is asked, its answers, a real InfluxDB 2.x, an empty disk."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from influxdb_client.client._base import _BaseQueryApi
from influxdb_client.client.write_api_async import WriteApiAsync

from tests.support.flux import LSP, valid
from tests.support.influx2 import MISSING, RealInflux, real_influx
from tests.support.site import site
from tests.support.week import Week, chosen, written
from tests.support.world import settings
from tsmon.base.clock import Clock, grid_floor
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.influx import InfluxReader, ReadError
from tsmon.history.influx.points import library
from tsmon.history.influx.queries import (
    TALLIES,
    WINDOWS,
    AnswerError,
    Tally,
    bound,
    bound_windows,
    read_tallies,
    read_windows,
)
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

STEP = 300.0
KNOWN = "known-to-influxdb"
HOSTILE = ['a"b', "a'b", "a\\", "a b,c=d", "${1+1}", '") |> yield() //', "тест", "a\tb"]


# -- pure --------------------------------------------------------------------------------------------------


def test_an_answer_is_tables_with_a_header_each() -> None:
    text = (
        ",result,table,hostname,_value\r\n,online,0,a,7\r\n,online,1,b,0\r\n\r\n"
        ",result,table,hostname,_value\r\n,count,0,a,10\r\n,count,1,b,10\r\n,count,2,c,1\r\n\r\n"
        ",result,table,hostname,_time\r\n,first,0,a,2026-11-23T10:00:00Z\r\n,first,1,a,2026-11-23T09:00:00Z\r\n"
    )
    found = read_tallies(text)
    assert found["a"] == Tally(7, 10, 1795424400.0)
    assert found["b"] == Tally(0, 10)
    assert found["c"] == Tally(0, 1)
    assert read_tallies("\r\n") == {}


@pytest.mark.parametrize(
    "text",
    [
        ",error,reference\r\n,failed to execute query,897\r\n",
        "<!doctype html><html></html>",
        ",result,table,hostname,_value\r\n,count,0,a,many\r\n",
        ",result,table,hostname\r\n,count,0,a\r\n",
    ],
)
def test_what_is_no_answer_is_said(text: str) -> None:
    with pytest.raises(AnswerError):
        read_tallies(text)


def test_windows_are_named_by_their_stop() -> None:
    head = ",result,table,hostname,_time,_value\r\n"
    text = (
        f"{head},online,0,a,1970-01-01T00:20:00Z,2\r\n,online,0,a,1970-01-01T00:30:00Z,1\r\n\r\n"
        f"{head},count,0,a,1970-01-01T00:20:00Z,2\r\n,count,0,a,1970-01-01T00:30:00Z,2\r\n"
        f",count,0,a,1970-01-01T09:00:00Z,2\r\n"
    )
    found = read_windows(text, 600.0, 600.0, 3)
    assert found == {"a": [Tally(2, 2), Tally(1, 2), Tally(0, 0)]}


def test_windows_begin_where_they_are_asked_to() -> None:
    values = bound_windows("analytics", 1000.0, 600.4, 3)
    assert values["_every"] == timedelta(seconds=600)
    assert values["_offset"] == timedelta(seconds=400)
    assert (values["_stop"] - values["_start"]).total_seconds() == 1800


@given(st.text(max_size=2000))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(AnswerError):
        read_tallies(text)


# -- the Flux itself ---------------------------------------------------------------------------------------


def flux_with(values: dict[str, Any], text: str) -> str:
    """The query with its bound values as options, as the server sees both."""
    lines = []
    for statement in _BaseQueryApi._params_to_extern_ast(values):
        data = statement.to_dict()["assignment"]  # type: ignore[no-untyped-call]
        lines.append(f"option {data['id']['name']} = {_literal(data['init'])}")
    return "\n".join([*lines, text])


def _literal(init: dict[str, Any]) -> str:
    if init["type"] == "StringLiteral":
        return json.dumps(init["value"], ensure_ascii=False).replace("${", "\\${")
    if init["type"] == "DurationLiteral":
        return "".join(f"{part['magnitude']}{part['unit']}" for part in init["values"])
    return str(init["value"])


@pytest.mark.skipif(not LSP, reason="SKIPPED LOUDLY: no TSMON_TEST_FLUX_LSP: no Flux was analysed")
def test_every_flux_text_is_right_with_its_values() -> None:
    asked = [
        flux_with(bound("analytics", 1.7e9, 1.7e9 + 86400), TALLIES),
        flux_with(bound_windows("analytics", 1.7e9, 1800.0, 48), WINDOWS),
        *(flux_with(bound(name, 1.7e9, 1.7e9 + 300), TALLIES) for name in HOSTILE),
    ]
    assert valid(asked) == [True] * len(asked)
    assert valid([TALLIES, WINDOWS]) == [False, False], "the analyser finds what is not bound"


@hypothesis_settings(max_examples=200)
@given(st.text(max_size=80))
def test_a_hostile_bucket_stays_one_value(name: str) -> None:
    (bucket, *_) = _BaseQueryApi._params_to_extern_ast(bound(name, 0.0, 300.0))
    init = bucket.to_dict()["assignment"]["init"]  # type: ignore[no-untyped-call]
    assert init == {"type": "StringLiteral", "value": name}
    assert name not in TALLIES or len(name) < 20


# -- servers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealInflux]:
    with real_influx(tmp_path_factory.mktemp("influx")) as found:
        if found is None:
            pytest.skip(MISSING)
        yield found


@pytest.fixture(scope="module")
def week() -> Week:
    return Week()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "outbox")
    yield store
    await store.close()


@pytest.mark.server
async def test_hostile_hostnames_come_back_from_a_real_one(store: Store, real: RealInflux) -> None:
    start = grid_floor(Clock().wall(), STEP) - 3 * STEP
    # `Point` writes control characters as two letters: hostnames are cleaned of them before.
    names = [f"host{n} {name}" for n, name in enumerate(HOSTILE) if "\t" not in name and "\\" not in name]
    rows = [Sample(name, "other", "Linux", int(n % 2), None, None) for n, name in enumerate(names)]
    await written(store, real, [(start + n * STEP, rows) for n in range(3)])
    reader = InfluxReader(settings(**real.settings()).influx, Clock(), STEP)
    found = await reader.tallies(start, start + 3 * STEP)
    for n, name in enumerate(names):
        assert found[name][:2] == (3 * (n % 2), 3)
        assert found[name].first == start


@pytest.mark.server
async def test_a_rename_or_another_system_is_one_machine(store: Store, real: RealInflux) -> None:
    start = grid_floor(Clock().wall(), STEP) - 4 * STEP
    rows = [
        (start, [Sample("one", "other", "Linux", 1, None, None)]),
        (start + STEP, [Sample("one", "git", "Linux", 0, None, None)]),
        (start + 2 * STEP, [Sample("one", "git", "Darwin", 1, None, None)]),
    ]
    await written(store, real, rows)
    reader = InfluxReader(settings(**real.settings()).influx, Clock(), STEP)
    assert (await reader.tallies(start, start + 4 * STEP))["one"] == Tally(2, 3, start)
    windows = await reader.windows(start, STEP, 4)
    assert [tally[:2] for tally in windows["one"]] == [(1, 1), (0, 1), (1, 1), (0, 0)]


@pytest.mark.server
async def test_a_wrong_token_or_bucket_is_an_error_and_not_asked_again_at_once(real: RealInflux) -> None:
    for change in ({"influx__token": "wrong"}, {"influx__bucket": "nowhere"}):
        reader = InfluxReader(settings(**(real.settings() | change)).influx, Clock(), STEP)
        with pytest.raises(ReadError, match="answered 40"):
            await reader.tallies(0.0, 300.0)
        assert "wrong" not in reader.error
        with pytest.raises(ReadError):
            await reader.tallies(0.0, 600.0)


@pytest.mark.server
async def test_a_type_that_changed_between_shards_is_doubted(
    store: Store, real: RealInflux, week: Week
) -> None:
    """InfluxDB answers 200 with the rows of one type only: the other hosts vanish."""
    await week.fill(store)
    await written(store, real, week.samples())
    influxdb = library()
    async with influxdb.client.influxdb_client_async.InfluxDBClientAsync(
        url=real.url, token=real.token, org=real.org
    ) as client:
        # A float in another shard (a month ago) makes two types of one field.
        old = int(week.start - 40 * 86400)
        api: WriteApiAsync = client.write_api()
        line = f"tailscale_health,hostname=git,node_type=git,os=Linux online=1.0 {old}"
        assert await api.write(bucket=real.bucket, record=line, write_precision=influxdb.WritePrecision.S)
    reader = InfluxReader(settings(**real.settings()).influx, Clock(), STEP)
    history = chosen(store, week, reader)
    found = await history.uptime(week.start - 50 * 86400, week.end)
    embedded = await EmbeddedHistory(store).uptime(week.start - 50 * 86400, week.end)
    git = week.nodes["git"].id
    if found.kind == "embedded":
        assert found == embedded
    else:
        assert found[git].uptime_percentage == 100


async def test_a_server_that_hangs_or_is_a_web_page(unused_tcp_port: int) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><html></html>", content_type="text/html")

    app = web.Application()
    app.router.add_post("/api/v2/query", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    given_ = settings(influx__url=f"http://127.0.0.1:{unused_tcp_port}", influx__org="o").influx
    reader = InfluxReader(given_, Clock(), STEP)
    with pytest.raises(ReadError, match="none of InfluxDB's"):
        await reader.tallies(0.0, 300.0)
    await runner.cleanup()
    reader = InfluxReader(given_, Clock(), STEP)
    with pytest.raises(ReadError, match="asking failed"):
        await reader.tallies(0.0, 300.0)


async def test_one_question_serves_everybody_for_an_interval(unused_tcp_port: int) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return web.Response(text="\r\n", content_type="text/csv")

    app = web.Application()
    app.router.add_post("/api/v2/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    given_ = settings(influx__url=f"http://127.0.0.1:{unused_tcp_port}", influx__org="o").influx
    reader = InfluxReader(given_, Clock(), STEP)
    await asyncio.gather(*(reader.tallies(0.0, 300.0) for _ in range(10)))
    await reader.tallies(0.0, 300.0)
    assert asked == 1
    await runner.cleanup()


@pytest.mark.server
async def test_a_tsmon_on_an_empty_disk_shows_what_influxdb_knows(
    tmp_path: Path, store: Store, real: RealInflux
) -> None:
    start = grid_floor(Clock().wall(), STEP) - 86400.0
    rows = [
        (start + n * STEP, [Sample(KNOWN, "production", "linux", int(n % 4 != 0), None, None)])
        for n in range(287)
    ]
    await written(store, real, rows)
    async with site(tmp_path, KNOWN, collect_interval="5m", **real.settings()) as here:
        found = await here.get(f"/health-monitoring/uptime/{KNOWN}?hours=24")
        assert found["history"] == "influxdb"
        assert found["uptime_percentage"] == pytest.approx(75, abs=1)
        assert found["coverage"] == pytest.approx(99.7, abs=0.7)
        bars = await here.get("/health-monitoring/history?window=24h&buckets=24")
        row = next(node for node in bars["nodes"] if node["hostname"] == KNOWN)
        assert row["states"].count("m") >= 22
        node = await here.get(f"/health-monitoring/nodes/{KNOWN}")
        assert node["uptime_24h"] == pytest.approx(75, abs=1)
        assert (await here.get("/readyz"))["warnings"] == []
