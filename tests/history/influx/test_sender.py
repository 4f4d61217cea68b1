"""Sending to InfluxDB through the unmodified client: what each answer of the server leads to."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path

import msgspec
import pytest
import structlog
from aiohttp import web

from tests.support.influx_server import HANG, RESET, TOKEN, Answer, FakeInflux, refusal
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.config import ConfigError, InfluxSettings, Secret
from tsmon.demo.servers import serving
from tsmon.history.influx import Influx
from tsmon.history.influx.outbox import Contents
from tsmon.history.store import Store
from tsmon.monitor.samples import Sample

SAMPLES = [
    Sample("git", "git", "Linux", 1, "100.64.0.2", 1.5),
    Sample("dev", "development", "Linux", 0, None, None),
]
PARSE = refusal("invalid", "unable to parse 'x': missing fields")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def fake() -> FakeInflux:
    return FakeInflux()


@pytest.fixture
async def chosen(fake: FakeInflux, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InfluxSettings]:
    monkeypatch.setattr("tsmon.history.influx.sender._FIRST_WAIT", 0.01)
    monkeypatch.setattr("tsmon.history.influx.sender._LONGEST_WAIT", 0.02)
    async with serving(fake.application()) as url:
        yield settings(influx__url=url, influx__token=TOKEN, influx__org="home").influx


@pytest.fixture
async def influx(chosen: InfluxSettings, store: Store) -> AsyncIterator[Influx]:
    influx = Influx(chosen, store, Clock())
    async with sending(influx):
        yield influx


@contextlib.asynccontextmanager
async def sending(influx: Influx) -> AsyncIterator[None]:
    task = asyncio.create_task(influx.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):  # the first test also waits for the import of the client
        while not condition():  # noqa: ASYNC110 (the server is what is waited for)
            await asyncio.sleep(0.005)


async def quarantine(store: Store) -> dict[str, str]:
    rows = await store.read(lambda db: db.execute("SELECT line, error FROM influx_quarantine").fetchall())
    return dict(rows)


async def waiting(store: Store) -> int:
    count = "SELECT count(*) FROM influx_outbox"
    return int(await store.read(lambda db: db.execute(count).fetchone()[0]))


async def all_sent(store: Store) -> None:
    """What was acknowledged leaves the outbox a moment later."""
    async with asyncio.timeout(20):
        while await waiting(store):  # noqa: ASYNC110 (the sender's work)
            await asyncio.sleep(0.005)


async def test_every_sample_arrives_once_in_order(fake: FakeInflux, influx: Influx, store: Store) -> None:
    for grid in (300.0, 600.0, 900.0):
        await influx.put_samples(grid, SAMPLES)
    await until(lambda: len(fake.stored) == 6 and influx.readiness()["last_success"])
    assert [point.time for point in fake.points()] == [300, 300, 600, 600, 900, 900]
    first = fake.writes[0]
    assert dict(first.query) == {"org": "home", "bucket": "analytics", "precision": "s"}
    assert first.headers["Authorization"] == f"Token {TOKEN}"
    assert first.headers["Content-Encoding"] == "gzip"
    assert fake.most_in_flight == 1
    ready = influx.readiness()
    assert ready["error"] is None
    await all_sent(store)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<!doctype html>"),
        Answer(202),
        Answer(301, headers={"Location": "/elsewhere"}),
        Answer(302, headers={"Location": "/elsewhere"}),
        Answer(308, headers={"Location": "/elsewhere"}),
        Answer(400, refusal("invalid", "invalid precision; valid precision units are ns, us, ms, s")),
        Answer(400, refusal("invalid", "gzip: invalid checksum")),
        Answer(400, "<html>Bad Request"),
        Answer(401, refusal("unauthorized", "unauthorized access")),
        Answer(403, refusal("forbidden", "insufficient permissions for write")),
        Answer(404, refusal("not found", 'bucket "analytics" not found')),
        Answer(404, "404 page not found"),
        Answer(405),
        Answer(418, b"\xff\xfe"),
        Answer(429),
        Answer(500, refusal("internal error", "timeout"), stored=True),
        Answer(500, refusal("internal error", "engine: cache-max-memory-size exceeded")),
        Answer(502, "<html>Bad Gateway"),
        Answer(503, "<html>"),
        Answer(504),
        Answer(500, "[" * 100_000),
        Answer(400, '{"code": "invalid", "message": 7}'),
        Answer(RESET),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:20]!r}",
)
async def test_what_is_not_stored_is_sent_again(
    answer: Answer, fake: FakeInflux, influx: Influx, store: Store
) -> None:
    """The same bytes, never cut, nothing set aside, the order kept; said once."""
    fake.script = [answer, answer]
    with structlog.testing.capture_logs() as lines:
        await influx.put_samples(300.0, SAMPLES)
        await influx.put_samples(600.0, SAMPLES)
        await until(lambda: len(fake.writes) == 4 and not influx.error and influx.last_success)
    assert fake.bodies[0] == fake.bodies[1] == fake.bodies[2]
    assert fake.stored[-4:] == fake.bodies[2] + fake.bodies[3]
    assert set(fake.kept().values()) == {1}
    assert await quarantine(store) == {}
    assert influx.readiness()["lines_dropped"] == 0
    assert [line["event"] for line in lines] == ["influx_refuses", "influx_accepts"]
    assert TOKEN not in str(lines)


async def test_a_server_that_hangs_or_is_not_there_holds_nobody_up(
    fake: FakeInflux, chosen: InfluxSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmon.history.influx.sender._TIMEOUT_MS", 100)
    fake.script = [Answer(HANG)]
    influx = Influx(chosen, store, Clock())
    async with sending(influx):
        await influx.put_samples(300.0, SAMPLES)
        await until(lambda: influx.error == "no answer in time")
        async with asyncio.timeout(1):
            await influx.put_samples(600.0, SAMPLES)
        await until(lambda: len(fake.stored) == 4 and not influx.error)
        async with asyncio.timeout(10):
            # The server may have stored what was answered too late: it is sent once more.
            while await waiting(store):  # noqa: ASYNC110 (the database)
                await asyncio.sleep(0.01)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = msgspec.structs.replace(chosen, url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        influx = Influx(gone, store, Clock())
        async with sending(influx):
            await influx.put_samples(900.0, SAMPLES)
            await until(lambda: influx.error == "connecting failed: ClientConnectorError")
    assert await waiting(store) == 1


@pytest.mark.parametrize(("status", "header"), [(429, "7"), (503, "Wed, 21 Oct 2099 07:28:00 GMT")])
async def test_retry_after_is_heeded(
    status: int, header: str, fake: FakeInflux, chosen: InfluxSettings, store: Store
) -> None:
    slept = []

    class Hasty(Clock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            await asyncio.sleep(0)

    fake.script = [Answer(status, headers={"Retry-After": header}), Answer(500)]
    influx = Influx(chosen, store, Hasty())
    async with sending(influx):
        await influx.put_samples(300.0, SAMPLES)
        await until(lambda: len(fake.stored) == 2)
    least, most = (5.6, 8.4) if status == 429 else (480.0, 720.0)
    assert least <= slept[0] <= most
    assert slept[1] < 1


async def test_a_rotated_token_is_taken_without_a_restart(
    fake: FakeInflux, chosen: InfluxSettings, store: Store
) -> None:
    found: list[InfluxSettings | ConfigError] = [
        ConfigError("influx.token_file: is not there"),
        chosen,
        msgspec.structs.replace(chosen, token=Secret("rotated")),
    ]

    def fresh() -> InfluxSettings:
        answer = found.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    fake.token = "rotated"
    influx = Influx(chosen, store, Clock(), fresh)
    async with sending(influx):
        await influx.put_samples(300.0, SAMPLES)
        await until(lambda: len(fake.stored) == 2)
    assert [write.headers["Authorization"] for write in fake.writes] == [
        *3 * [f"Token {TOKEN}"],
        "Token rotated",
    ]


async def test_bad_lines_that_are_named_are_taken_out_at_once(
    fake: FakeInflux, influx: Influx, store: Store
) -> None:
    fake.bad = {"dev", "bad"}
    await influx.put_samples(300.0, [*SAMPLES, Sample("bad", "other", "Linux", 1, None, None)])
    await until(lambda: len(fake.stored) == 1 and influx.readiness()["lines_quarantined"])
    assert [point.tags["hostname"] for point in fake.points()] == ["git"]
    assert len(fake.writes) == 2
    kept = await quarantine(store)
    assert [line.split(",")[1] for line in kept] == ["hostname=dev", "hostname=bad"]
    assert set(kept.values()) == {"invalid boolean"}
    await until(lambda: influx.readiness()["quarantine"])
    latest = influx.readiness()["quarantine"][0]
    assert latest["line"].startswith("tailscale_health,hostname=bad")
    assert latest["error"] == "invalid boolean"
    assert latest["time"].endswith("Z")


async def test_a_bad_line_that_is_not_named_is_found_by_halving(
    fake: FakeInflux, influx: Influx, store: Store
) -> None:
    """Only a parse error is about a line; every other 400 keeps the whole batch."""
    fake.script = [Answer(400, PARSE), Answer(204, stored=True), Answer(400, PARSE)]
    await influx.put_samples(300.0, SAMPLES)
    await influx.put_samples(600.0, SAMPLES)
    await until(lambda: len(fake.stored) == 3)
    kept = await quarantine(store)
    assert len(kept) == 1
    (line, error), *_ = kept.items()
    assert line.startswith("tailscale_health,hostname=dev")
    assert error == "answered 400 Bad Request: unable to parse 'x': missing fields"


async def test_a_batch_of_nothing_but_bad_lines_ends(fake: FakeInflux, influx: Influx, store: Store) -> None:
    fake.bad = {f"bad-{n}" for n in range(2000)}
    await influx.put_samples(300.0, [Sample(name, "other", "Linux", 1, None, None) for name in fake.bad])
    await influx.put_samples(600.0, SAMPLES)
    await until(lambda: len(fake.stored) == 2)
    assert len(await quarantine(store)) == 1000, "it is bounded"
    assert influx.readiness()["lines_quarantined"] == 2000


async def test_a_server_that_names_one_bad_line_at_a_time_ends(
    fake: FakeInflux, influx: Influx, store: Store
) -> None:
    """1,500 answers one after the other: more than Python's stack would bear."""
    samples = [Sample(f"bad-{n}", "other", "Linux", 1, None, None) for n in range(1500)]
    lines = [
        f"tailscale_health,hostname={s.hostname},node_type=other,os=Linux online=1i 300" for s in samples
    ]
    fake.script = [Answer(400, refusal("invalid", f"unable to parse '{line}': no")) for line in lines]
    await influx.put_samples(300.0, samples)
    await until(lambda: influx.readiness()["lines_quarantined"] == 1500)
    await all_sent(store)


async def test_a_batch_that_is_too_large_is_halved_until_it_passes(
    fake: FakeInflux, influx: Influx, store: Store
) -> None:
    samples = [Sample(f"host-{n}", "other", "Linux", 1, f"100.64.0.{n}", n / 7) for n in range(64)]
    fake.most = 400
    await influx.put_samples(300.0, samples)
    await until(lambda: len(fake.stored) == 64)
    assert [point.tags["hostname"] for point in fake.points()] == [sample.hostname for sample in samples]
    assert await quarantine(store) == {}
    fake.most = 10
    await influx.put_samples(600.0, SAMPLES[:1])
    await until(lambda: influx.readiness()["lines_quarantined"] == 1)
    assert list((await quarantine(store)).values()) == [f"answered 413 {HTTPStatus(413).phrase}"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(422, refusal("unprocessable entity", "failure writing points to database: partial write")),
        Answer(400, json.dumps({"error": "partial write: field type conflict: dropped=1"})),
    ],
    ids=["2.x", "1.x"],
)
async def test_a_partial_write_is_not_sent_again(answer: Answer, fake: FakeInflux, influx: Influx) -> None:
    fake.script = [answer]
    await influx.put_samples(300.0, SAMPLES)
    await influx.put_samples(600.0, SAMPLES)
    await until(lambda: len(fake.stored) == 2)
    assert len(fake.writes) == 2
    assert influx.readiness()["requests_partly_refused"] == 1


async def test_a_request_that_fails_for_ever_is_sent_in_ever_smaller_pieces(
    fake: FakeInflux, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 may come from one line: what is good arrives."""
    monkeypatch.setattr("tsmon.history.influx.sender._TRIES", 2)
    fake.script = [Answer(500), Answer(500), Answer(204, stored=True), Answer(500), Answer(204, stored=True)]
    await influx.put_samples(300.0, SAMPLES)
    await until(lambda: len(fake.writes) >= 6 and not influx.error)
    assert [len(body) for body in fake.bodies[:4]] == [2, 2, 1, 1]
    assert {point.tags["hostname"] for point in fake.points()} == {"git", "dev"}


async def test_the_outbox_survives_a_restart(fake: FakeInflux, chosen: InfluxSettings, store: Store) -> None:
    await Influx(chosen, store, Clock()).put_samples(300.0, SAMPLES)
    async with sending(Influx(chosen, store, Clock())):
        await until(lambda: len(fake.stored) == 2)


async def test_the_end_does_not_wait_for_influxdb(
    fake: FakeInflux, chosen: InfluxSettings, store: Store
) -> None:
    fake.refusing = Answer(HANG)
    influx = Influx(chosen, store, Clock())
    async with sending(influx):
        await influx.put_samples(300.0, SAMPLES)
        await until(lambda: fake.in_flight)
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 0.5
    assert await waiting(store) == 1


async def test_a_lag_is_told(fake: FakeInflux, influx: Influx, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.refusing = Answer(503)
    await influx.put_samples(300.0, SAMPLES)
    await until(lambda: influx.error)
    assert influx.lag_error == ""
    monkeypatch.setattr("tsmon.history.influx.sender.LAG_LIMIT", -1.0)
    assert "answered 503" in influx.lag_error
    fake.refusing = None
    await until(lambda: not influx.lag_error)


async def test_what_is_being_sent_is_among_what_waits(
    fake: FakeInflux, chosen: InfluxSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that came between the count and the look for the oldest were sent, but not counted: while they
    failed, no lag was told."""
    fake.refusing = Answer(503)
    influx = Influx(chosen, store, Clock())
    count, counted = influx._outbox.contents, 0

    async def count_then_put() -> Contents:
        nonlocal counted
        found = await count()
        counted += 1
        if counted == 1:
            await influx.put_samples(300.0, SAMPLES)
        return found

    monkeypatch.setattr(influx._outbox, "contents", count_then_put)
    async with sending(influx):
        await until(lambda: influx.error)
        assert influx.contents.requests == 1


async def test_the_wrong_url_answers_html_and_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    async with serving(app) as url:
        influx = Influx(settings(influx__url=url, influx__org="home").influx, store, Clock())
        async with sending(influx):
            await influx.put_samples(300.0, SAMPLES)
            await until(lambda: influx.error)
        assert "check influx.url" in influx.error
    assert await waiting(store) == 1


def test_the_same_lines_are_the_same_bytes() -> None:
    from tsmon.history.influx.points import compress, unpack  # noqa: PLC0415 (only here)

    lines = ["a b=1i 1", "a b=2i 2"]
    assert compress(lines) == compress(lines)
    assert unpack(compress(lines)) == lines
    assert gzip.decompress(compress(lines)) == b"a b=1i 1\na b=2i 2"
