"""The channels against real servers: a webhook's receiver, an ntfy-like sink, SMTP, Alertmanager."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller

from tests.support.alerts import NOW, alert, seen, view
from tsmon.base.clock import Clock, rfc3339
from tsmon.config import ChannelSettings, Secret
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch
from tsmon.notify.alertmanager import AlertmanagerLine, Posted, labels_of
from tsmon.notify.details import Facts
from tsmon.notify.news import News
from tsmon.notify.notice import Entry, Notice
from tsmon.notify.outcome import Outcome
from tsmon.notify.poster import Poster
from tsmon.notify.services import AppriseService, without_secrets
from tsmon.notify.texts import Message, write
from tsmon.notify.webhook import Webhook, payload


def message(*alerts: Alert, kind: str = "alert", **fields: Any) -> Message:
    alerts = alerts or (alert(),)
    phase = "back" if kind == "recovery" else "fell"
    entries = tuple(Entry(a.id, phase) for a in alerts)  # type: ignore[arg-type]
    notice = Notice(key="k" * 32, kind=kind, made_at=NOW, entries=entries, **fields)  # type: ignore[arg-type]
    known = {a.id: a for a in alerts}
    facts = Facts(known, known.keys(), (), seen(*alerts), NOW, link="https://t.example/vpn")
    found = write(notice, facts)
    assert found is not None
    return found


class Receiver:
    """Keeps what is posted to it and answers as told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[], web.Response] = lambda: web.Response(status=204)

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        return self.answer()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    there = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", there.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield there, f"{host}:{port}"
    await runner.cleanup()


# -- webhook -----------------------------------------------------------------------------------------------


async def test_a_webhook_is_one_signed_post(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    hook = Webhook(Secret(f"webhook+http://{where}/in?x=1"), Secret("s3cret"), "rpi", Clock())
    assert (await hook.send(message())).delivered
    ((path, headers, body),) = there.requests
    assert path == "/in?x=1"
    assert headers["Idempotency-Key"] == "k" * 32
    digest = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["X-Tsmon-Signature"] == f"sha256={digest}"
    data = json.loads(body)
    assert (data["version"], data["id"], data["kind"]) == (1, "k" * 32, "alert")
    assert (data["status"], data["severity"], data["monitor"]) == ("firing", "critical", "rpi")
    assert data["title"] == "CRITICAL: chocolate-factory is offline"
    assert data["alerts"][0]["hostname"] == "chocolate-factory"
    assert data["alerts"][0]["confirmed_by"] == "the control plane calls it offline"
    assert data["alerts"][0]["duration_s"] == 180
    await hook.close()


async def test_user_and_password_of_the_url_are_basic_auth(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    hook = Webhook(Secret(f"webhook+http://al:p%40ss@{where}/"), None, "rpi", Clock())
    assert (await hook.send(message())).delivered
    headers = there.requests[0][1]
    assert headers["Authorization"] == "Basic YWw6cEBzcw=="
    assert "X-Tsmon-Signature" not in headers
    assert "p@ss" not in hook.service
    await hook.close()


@pytest.mark.parametrize(
    ("status", "headers", "refused", "wait"),
    [
        (401, {}, True, 0),
        (404, {}, True, 0),
        (410, {}, True, 0),
        (302, {"Location": "https://elsewhere.example/"}, True, 0),
        (429, {"Retry-After": "120"}, False, 120),
        (503, {"Retry-After": "7"}, False, 7),
        (500, {}, False, 0),
        (408, {}, False, 0),
    ],
)
async def test_what_an_answer_means(
    receiver: tuple[Receiver, str], status: int, headers: dict[str, str], refused: bool, wait: float
) -> None:
    there, where = receiver
    there.answer = lambda: web.Response(status=status, headers=headers, text="no\u0007pe")
    hook = Webhook(Secret(f"webhook+http://{where}/"), None, "rpi", Clock())
    outcome = await hook.send(message())
    assert (outcome.delivered, outcome.refused, outcome.wait) == (False, refused, wait)
    assert outcome.error == f"answered {status}: nope"
    assert len(there.requests) == 1
    await hook.close()


async def test_nobody_there_may_come_back(unused_tcp_port: int) -> None:
    poster = Poster(f"http://127.0.0.1:{unused_tcp_port}/", Clock())
    outcome = await poster.post(b"{}")
    assert (outcome.delivered, outcome.refused) == (False, False)
    await poster.close()


def test_a_body_is_bounded() -> None:
    for count, held in ((500, 500), (1000, 1000), (1001, 1000)):
        many = [alert(n, hostname=f"node-{n}") for n in range(count)]
        data = payload(message(*many), "rpi")
        assert (data["count"], len(data["alerts"]), data["truncated"]) == (count, held, count > held)
        assert len(data["text"]) < 600
        assert len(msgspec.json.encode(data)) < 1_000_000


# -- Apprise -----------------------------------------------------------------------------------------------


async def test_apprise_delivers_to_an_ntfy_like_sink(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    there.answer = lambda: web.json_response({"id": "x"})
    service = AppriseService(Secret(f"ntfy://{where}/my-topic"))
    outcome = await service.send(message())
    assert outcome == Outcome(True)
    body = there.requests[0][2].decode()
    assert "CRITICAL: chocolate-factory is offline" in body or any(
        "CRITICAL" in value for value in there.requests[0][1].values()
    )
    assert "my-topic" not in service.service


async def test_apprise_failures_are_told_without_the_token(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    there.answer = lambda: web.Response(status=403, text="forbidden for tk_verysecret")
    service = AppriseService(Secret(f"ntfy://tk_verysecret@{where}/my-topic?auth=token"))
    outcome = await service.send(message())
    assert (outcome.delivered, outcome.refused) == (False, False)
    assert outcome.error
    assert "verysecret" not in outcome.error


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("macosx://_/?sound=default", "acts on the desktop"),
        ("nosuchservice://token-1234", "cannot read"),
        ("ntfys://ntfy.example/topic-a/topic-b", "2 targets"),
    ],
)
async def test_apprise_urls_that_cannot_work_are_refused(url: str, words: str) -> None:
    outcome = await AppriseService(Secret(url)).send(message())
    assert outcome.refused
    assert words in outcome.error
    assert "token-1234" not in outcome.error


def test_no_part_of_a_url_stays_in_words() -> None:
    words = "POST https://hooks.example/T00/B00XYZ/s%2Fecret failed: s/ecret is no token"
    cleaned = without_secrets(words, "slack://hooks.example/T00/B00XYZ/s%2Fecret")
    assert "B00XYZ" not in cleaned
    assert "ecret" not in cleaned
    assert "hooks.example" in cleaned


class Mailbox:
    """Takes every mail."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        self.mails.append(envelope.content)
        return "250 OK"


async def test_mail_arrives_as_plain_text(unused_tcp_port: int) -> None:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=unused_tcp_port)
    server.start()
    try:
        url = f"mailto://127.0.0.1:{unused_tcp_port}/?from=tsmon@example.com&to=ops@example.com&mode=insecure"
        outcome = await AppriseService(Secret(url)).send(message())
        assert outcome == Outcome(True)
    finally:
        server.stop()
    mail = message_from_bytes(box.mails[0], policy=policy.default)
    assert mail["Subject"] == "CRITICAL: chocolate-factory is offline"
    assert mail["To"] == "ops@example.com"
    text = mail.get_body(("plain",))
    assert text is not None
    assert "the control plane calls it offline" in text.get_content()


# -- Alertmanager ------------------------------------------------------------------------------------------


class FakeOffice:
    """What a line asks for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told_of: list[int] = []
        self.failed: list[str] = []

    def facts(self, told: Any, ended: Any) -> Facts:
        raise NotImplementedError

    def next_id(self) -> int:
        raise NotImplementedError

    async def notified(self, alerts: list[Alert], also: Any) -> None:
        assert also == []
        self.told_of += [found.id for found in alerts]

    async def fails(self, name: str, reason: str) -> None:
        self.failed.append(f"{name}: {reason}")


def line(url: str, office: FakeOffice, monitor: str = "rpi", **fields: Any) -> AlertmanagerLine:
    channel = ChannelSettings(name="am", url=Secret(f"alertmanager+{url}"), **fields)
    return AlertmanagerLine(channel, None, office, monitor=monitor, link="https://t.example/vpn")


def news(clock: Clock, *alerts: Alert, sighted: bool = True, quiet: float | None = None) -> News:
    return News(
        now=clock.now(),
        view=view(),
        alerts={a.id: a for a in alerts},
        fired=(),
        resolved=(),
        sighted=sighted,
        group_wait=10.0,
        quiet=lambda *_: quiet,
    )


def step(there: AlertmanagerLine, told: News) -> None:
    there.step(told, Batch(), 86400.0)
    there.release()


@contextlib.asynccontextmanager
async def running(there: AlertmanagerLine) -> AsyncIterator[None]:
    task = asyncio.create_task(there.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await there.close()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 (what it waits for is no event)
            await asyncio.sleep(0.01)


async def test_alertmanager_is_handed_states(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    office = FakeOffice()
    am = line(f"http://{where}", office)
    now = office.clock.wall()
    async with running(am):
        step(am, news(office.clock, alert(since=now - 60)))
        await until(lambda: len(there.requests) == 1)
        (row,) = json.loads(there.requests[0][2])
        assert there.requests[0][0] == "/api/v2/alerts"
        assert row["labels"] == {
            "alertname": "TsmonNodeOffline",
            "severity": "critical",
            "tailnet": "tail.example",
            "node_id": "n1",
            "hostname": "chocolate-factory",
            "node_type": "production",
        }
        assert row["generatorURL"] == "https://t.example/vpn"
        await until(lambda: office.told_of == [1])
        # A new name is another alert there: the old one ends.
        step(am, news(office.clock, alert(since=now - 60, hostname="factory")))
        await until(lambda: len(there.requests) == 2)
        ended, begun = json.loads(there.requests[1][2])
        assert ended["labels"]["hostname"] == "chocolate-factory"
        assert ended["endsAt"] <= begun["endsAt"][:4] + "-12-31"
        assert begun["labels"]["hostname"] == "factory"
        resolved = alert(state="resolved", resolved_at=now, cause="recovered", since=now - 60)
        step(am, news(office.clock, resolved))
        await until(lambda: len(there.requests) == 3)
        (row,) = json.loads(there.requests[2][2])
        assert row["labels"]["hostname"] == "factory"
        assert row["startsAt"] <= row["endsAt"]
        assert am.alerts == set()


async def test_alertmanager_hears_nothing_in_a_quiet_nor_again_while_blind(
    receiver: tuple[Receiver, str],
) -> None:
    there, where = receiver
    office = FakeOffice()
    am = line(f"http://{where}/", office)
    now = office.clock.wall()
    async with running(am):
        step(am, news(office.clock, alert(since=now - 60), quiet=now + 100))
        step(am, news(office.clock, alert(since=now - 60)))
        await until(lambda: len(there.requests) == 1)
        # Quiet again: it stays as it is, and its end waits.
        step(am, news(office.clock, alert(state="resolved", resolved_at=now), quiet=now + 100))
        assert am.readiness()["waiting"] == 0
        step(am, news(office.clock, alert(state="resolved", resolved_at=now)))
        await until(lambda: len(there.requests) == 2)
        # Blind: only the news.
        blind = alert(2, kind="monitor_blind", severity="warning", node_id=None, hostname=None)
        step(am, news(office.clock, alert(since=now - 60)))
        await until(lambda: len(there.requests) == 3)
        step(am, news(office.clock, alert(since=now - 60), blind, sighted=False))
        await until(lambda: len(there.requests) == 4)
        (row,) = json.loads(there.requests[3][2])
        assert row["labels"]["monitor"] == "rpi"


async def test_alertmanager_that_refuses_is_parked(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    there.answer = lambda: web.Response(status=404)
    office = FakeOffice()
    am = line(f"http://{where}", office)
    async with running(am):
        step(am, news(office.clock, alert()))
        await until(lambda: bool(office.failed))
        assert office.failed == ["am: answered 404"]
        assert am.readiness()["parked"]
        there.answer = lambda: web.Response(status=200)
        am.try_now()
        await until(lambda: not am.readiness()["parked"])
        assert office.told_of == [1]


async def test_alertmanager_that_took_what_it_did_not_answer_hears_the_end(
    receiver: tuple[Receiver, str],
) -> None:
    """Of each post that may have been taken, under each name that the alert had; by the next tsmon, too."""
    there, where = receiver
    there.answer = lambda: web.Response(status=503)
    office = FakeOffice()
    am = line(f"http://{where}", office)
    now = office.clock.wall()
    async with running(am):
        step(am, news(office.clock, alert(since=now - 60)))
        await until(lambda: am.readiness()["failed"] == 1)
        step(am, news(office.clock, alert(since=now - 60, hostname="factory")))
        am.try_now()
        await until(lambda: am.readiness()["failed"] == 2)
    kept = am.kept()
    there.answer = lambda: web.Response(status=200)
    there.requests.clear()
    again = AlertmanagerLine(
        ChannelSettings(name="am", url=Secret(f"alertmanager+http://{where}")),
        msgspec.json.decode(kept, type=Posted),
        office,
        monitor="rpi",
        link="",
    )
    assert again.alerts == {1}, "its record is needed"
    async with running(again):
        step(again, news(office.clock, alert(state="resolved", resolved_at=now, since=now - 60)))
        await until(lambda: again.alerts == set())
    ((_, _, body),) = there.requests
    rows = json.loads(body)
    assert {row["labels"]["hostname"] for row in rows} == {"chocolate-factory", "factory"}
    assert all(row["endsAt"] <= rfc3339(office.clock.wall()) for row in rows)
    assert not office.told_of, "nobody is known to have been notified"


async def test_what_alertmanager_itself_has_ended_is_forgotten(receiver: tuple[Receiver, str]) -> None:
    there, where = receiver
    there.answer = lambda: web.Response(status=503)
    office = FakeOffice()
    am = line(f"http://{where}", office)
    now = office.clock.wall()
    async with running(am):
        step(am, news(office.clock, alert(since=now - 9 * 86400)))
        await until(lambda: am.readiness()["failed"] == 1)
        step(am, news(office.clock, alert(state="resolved", resolved_at=now - 6 * 86400)))
        assert am.alerts == {1}
        step(am, news(office.clock, alert(state="resolved", resolved_at=now - 8 * 86400)))
        assert am.alerts == set()
        assert am.readiness()["waiting"] == 0


def test_own_alerts_name_the_monitor() -> None:
    own = alert(kind="storage_failing", node_id=None, hostname=None, node_type=None, subject="influx")
    assert labels_of(own, "rpi", "t") == {
        "alertname": "TsmonStorageFailing",
        "severity": "critical",
        "tailnet": "t",
        "monitor": "rpi",
        "subject": "influx",
    }


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[str]:
    """A real one."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("no Alertmanager on PATH (Debian: prometheus-alertmanager): its real API was NOT tested")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = tmp_path / "am.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={config}",
        f"--storage.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/-/ready") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def active(url: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v2/alerts") as response:
        found: list[dict[str, Any]] = await response.json()
        return found


async def test_two_tsmon_on_one_tailnet_are_one_alert_in_a_real_alertmanager(alertmanager: str) -> None:
    offices = [FakeOffice(), FakeOffice()]
    lines = [line(alertmanager, office, f"rpi-{n}") for n, office in enumerate(offices)]
    now = offices[0].clock.wall()
    async with running(lines[0]), running(lines[1]):
        for n, (am, office) in enumerate(zip(lines, offices, strict=True)):
            own = alert(9, kind="monitor_blind", node_id=None, hostname=None, node_type=None, since=now - 60)
            step(am, news(office.clock, alert(since=now - 60 - n), own))
            await until(lambda office=office: office.told_of == [1, 9])  # type: ignore[misc]
        found = await active(alertmanager)
        names = sorted(row["labels"]["alertname"] for row in found)
        assert names == ["TsmonMonitorBlind", "TsmonMonitorBlind", "TsmonNodeOffline"]
        ended = alert(state="resolved", resolved_at=now, cause="recovered")
        for am, office in zip(lines, offices, strict=True):
            step(am, news(office.clock, ended))
            await until(lambda office=office: len(office.told_of) >= 3)  # type: ignore[misc]
        async with asyncio.timeout(10):
            while await active(alertmanager):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.1)


async def test_the_test_message_of_a_real_alertmanager(alertmanager: str) -> None:
    am = line(alertmanager, FakeOffice())
    assert await am.test(message()) == Outcome(True)
    assert [row["labels"]["alertname"] for row in await active(alertmanager)] == ["TsmonTest"]
    await am.close()
