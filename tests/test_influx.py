"""Samples to InfluxDB through the unmodified client: a scripted server that answers as 2.x does."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import settings
from tests.virtual import VirtualClock, virtual
from tsmon.clock import Clock
from tsmon.collector import Sample
from tsmon.demo.servers import serving
from tsmon.influx import Influx, lines_of
from tsmon.influx.outbox import Outbox
from tsmon.influx.verdicts import seconds_to_wait
from tsmon.status import clean_hostname
from tsmon.store import Store

SAMPLES = [
    Sample("git", "git", "Linux", 1, "100.64.0.2", 1.5),
    Sample("dev", "development", "Linux", 0, None, None),
]


class FakeInflux:
    """Answers writes with what the script says, 204 when it is empty."""

    def __init__(self) -> None:
        self.script: list[tuple[int, str]] = []
        self.writes: list[tuple[dict[str, str], dict[str, str], str]] = []
        self.stored: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/v2/write", self._write)
        return app

    async def _write(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = gzip.decompress(raw).decode() if raw[:2] == b"\x1f\x8b" else raw.decode()
        self.writes.append((dict(request.query), dict(request.headers), body))
        status, text = self.script.pop(0) if self.script else (204, "")
        if status == 204:
            self.stored += body.splitlines()
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status or 500, text=text)


@pytest.fixture
async def fake() -> FakeInflux:
    return FakeInflux()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def influx(fake: FakeInflux, store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Influx]:
    monkeypatch.setattr("tsmon.influx.sender._FIRST_WAIT", 0.01)
    monkeypatch.setattr("tsmon.influx.sender._LONGEST_WAIT", 0.02)
    async with serving(fake.application()) as url:
        chosen = settings(influx__url=url, influx__token="secret-token", influx__org="home").influx
        yield Influx(chosen, store, Clock())


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):  # the first test also waits for the import of the client
        while not condition():  # noqa: ASYNC110 (the server is what is waited for)
            await asyncio.sleep(0.005)


async def test_every_sample_arrives_in_order(fake: FakeInflux, influx: Influx) -> None:
    sending = asyncio.create_task(influx.run())
    for grid in (300.0, 600.0, 900.0):
        await influx.put_samples(grid, SAMPLES)
    await until(lambda: len(fake.stored) == 6)
    assert [line.rsplit(" ", 1)[1] for line in fake.stored] == ["300", "300", "600", "600", "900", "900"]
    query, headers, _ = fake.writes[0]
    assert (query["bucket"], query["org"], query["precision"]) == ("analytics", "home", "s")
    assert headers["Authorization"] == "Token secret-token"
    assert influx.readiness()["error"] is None
    sending.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        (500, "timeout"),
        (503, "<html>"),
        (429, ""),
        (401, '{"code": "unauthorized", "message": "unauthorized access"}'),
        (404, '{"code": "not found", "message": "bucket \\"analytics\\" not found"}'),
        (302, ""),
        (200, "<html>"),
        (0, ""),
    ],
)
async def test_what_is_not_stored_is_sent_again(
    answer: tuple[int, str], fake: FakeInflux, influx: Influx
) -> None:
    fake.script = [answer, answer]
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(300.0, SAMPLES)
    await until(lambda: len(fake.stored) == 2)
    assert len(fake.writes) == 3
    assert fake.writes[0][2] == fake.writes[2][2], "the same bytes"
    assert "secret-token" not in str(influx.readiness())
    sending.cancel()


async def test_a_bad_line_is_cut_out_and_kept(fake: FakeInflux, influx: Influx, store: Store) -> None:
    """Only a parse error is about a line; every other 400 keeps the whole batch."""
    bad = '{"code": "invalid", "message": "unable to parse \'x\': missing fields"}'
    configuration = (
        '{"code": "invalid", "message": "invalid precision; valid precision units are ns, us, ms, s"}'
    )
    fake.script = [(400, configuration), (400, bad), (204, ""), (400, bad)]
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(300.0, SAMPLES)
    await influx.put_samples(600.0, SAMPLES)
    await until(lambda: len(fake.stored) == 3)
    kept = await store.read(lambda db: db.execute("SELECT line, error FROM influx_quarantine").fetchall())
    assert len(kept) == 1
    assert kept[0][0].startswith("tailscale_health,hostname=dev")
    assert "missing fields" in kept[0][1]
    assert influx.readiness()["lines_quarantined"] == 1
    sending.cancel()


async def test_a_batch_that_is_too_large_is_halved(fake: FakeInflux, influx: Influx) -> None:
    fake.script = [(413, "<html>nginx")]
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(300.0, SAMPLES)
    await until(lambda: len(fake.stored) == 2)
    assert [body.count("\n") for _, _, body in fake.writes] == [1, 0, 0]
    sending.cancel()


async def test_a_partial_write_is_not_sent_again(fake: FakeInflux, influx: Influx) -> None:
    fake.script = [(422, '{"code": "unprocessable entity", "message": "partial write: field type conflict"}')]
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(300.0, SAMPLES)
    await influx.put_samples(600.0, SAMPLES)
    await until(lambda: len(fake.stored) == 2)
    assert len(fake.writes) == 2
    assert influx.readiness()["requests_partly_refused"] == 1
    sending.cancel()


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (None, 0, 0),
        ("7", 7, 7),
        ("99999", 600, 600),
        ("soon", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 600, 600),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(text: str | None, least: float, most: float) -> None:
    assert least <= seconds_to_wait(text, 1_790_000_000.0) <= most


async def test_the_outbox_survives_a_restart(fake: FakeInflux, influx: Influx, store: Store) -> None:
    await influx.put_samples(300.0, SAMPLES)
    again = Influx(influx._settings, store, Clock())
    sending = asyncio.create_task(again.run())
    await until(lambda: len(fake.stored) == 2)
    sending.cancel()


async def test_a_lag_is_told(fake: FakeInflux, influx: Influx, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.script = [(503, "")] * 50
    sending = asyncio.create_task(influx.run())
    await influx.put_samples(300.0, SAMPLES)
    await until(lambda: influx.error)
    assert influx.lag_error == ""
    monkeypatch.setattr("tsmon.influx.sender.LAG_LIMIT", -1.0)
    assert "answered 503" in influx.lag_error
    sending.cancel()


async def test_the_outbox_is_bounded(store: Store) -> None:
    small = msgspec.structs.replace(settings().influx, outbox_bytes=300)
    outbox = Outbox(small, store, Clock())
    for grid in range(1, 11):
        await outbox.put_samples(300.0 * grid, SAMPLES)
    kept = await store.read(lambda db: [row[0] for row in db.execute("SELECT grid FROM influx_outbox")])
    assert kept[-1] == 3000.0
    assert 0 < len(kept) < 10
    assert outbox.dropped == 2 * (10 - len(kept))


@virtual
async def test_what_is_too_old_leaves_the_outbox(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    clock = VirtualClock()
    outbox = Outbox(settings(influx__outbox_age="1d").influx, store, clock)
    await outbox.put_samples(300.0, SAMPLES)
    clock.offset = 86_000.0
    await outbox.put_samples(600.0, SAMPLES)
    assert await outbox.waiting() == (2, 4)
    clock.offset = 87_000.0
    await outbox.put_samples(900.0, SAMPLES)
    assert await outbox.waiting() == (2, 4)
    assert outbox.dropped == 2
    oldest = await outbox.oldest()
    assert oldest is not None
    assert oldest.grid == 600.0
    await store.close()


def test_extra_tags() -> None:
    assert "monitor=here" in lines_of(300.0, SAMPLES[:1], {"monitor": "here"})[0]


@given(st.text(max_size=100))
def test_no_hostname_breaks_a_line(text: str) -> None:
    hostname = clean_hostname(text) or "x"
    lines = lines_of(300.0, [Sample(hostname, "other", "unknown", 1, "100.64.0.1", 1.0)], {})
    assert len(lines) == 1
    assert len(lines[0].splitlines()) == 1
    assert lines[0].endswith("online=1i 300")
