"""The heartbeat: called while tsmon is well, silent while it is not (rule 9.15)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.virtual import virtual
from tests.support.world import running
from tsmon.base.clock import Clock
from tsmon.config import HeartbeatSettings, Secret
from tsmon.notify.heartbeat import Heartbeat, stopped_url

UUID = "0b5c2f6e-6a0e-4c2a-9d0a-1f2e3d4c5b6a"


class Switch:
    """A dead-man's switch."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.status = 200
        self.methods = {"GET", "POST"}

    async def answer(self, request: web.Request) -> web.Response:
        if request.method not in self.methods:
            return web.Response(status=405)
        self.calls.append((request.method, request.path_qs))
        return web.Response(status=self.status)


@pytest.fixture
async def switch(unused_tcp_port: int) -> AsyncIterator[tuple[Switch, str]]:
    found = Switch()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    yield found, f"http://127.0.0.1:{unused_tcp_port}"
    await runner.cleanup()


def heartbeat(url: str, problem: str = "") -> Heartbeat:
    return Heartbeat(HeartbeatSettings(url=Secret(url)), Clock(), lambda: problem)


async def test_a_service_that_wants_post_gets_it(switch: tuple[Switch, str]) -> None:
    there, base = switch
    there.methods = {"POST"}
    beat = heartbeat(f"{base}/x?key=1")
    await beat._beat(beat._url)
    await beat._beat(beat._url)
    assert there.calls == [("POST", "/x?key=1")] * 2
    assert beat.error == ""
    assert beat.last_success is not None


async def test_a_failure_is_told_without_the_url(switch: tuple[Switch, str]) -> None:
    there, base = switch
    there.status = 500
    beat = heartbeat(f"{base}/token")
    await beat._beat(beat._url)
    assert beat.readiness()["error"] == "answered 500"
    assert "token" not in str(beat.readiness())
    there.status = 200
    await beat._beat(beat._url)
    assert beat.readiness()["error"] is None


async def test_nobody_there(unused_tcp_port: int) -> None:
    beat = heartbeat(f"http://127.0.0.1:{unused_tcp_port}/x")
    await beat._beat(beat._url)
    assert beat.error.startswith("connecting failed")


async def test_a_stop_in_order_is_noted_where_the_service_takes_it(switch: tuple[Switch, str]) -> None:
    there, base = switch
    await heartbeat(f"{base}/{UUID}").stopped()
    await heartbeat(f"{base}/anything").stopped()
    assert there.calls == [("GET", f"/{UUID}/log")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"https://hc-ping.com/{UUID}", f"https://hc-ping.com/{UUID}/log"),
        ("https://hc-ping.com/key/slug/", "https://hc-ping.com/key/slug/log"),
        (f"https://hc.example/ping/{UUID}", f"https://hc.example/ping/{UUID}/log"),
        (
            "https://kuma.example/api/push/abc?status=up&msg=OK&ping=",
            "https://kuma.example/api/push/abc?status=up&msg=tsmon+was+stopped",
        ),
        ("https://beat.example/x", ""),
        ("", ""),
    ],
)
def test_where_a_stop_is_noted(url: str, expected: str) -> None:
    assert stopped_url(url) == expected


@virtual
async def test_it_beats_every_minute_but_while_blind_or_unable_to_store(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        beats: list[float] = []

        async def beat(url: str) -> None:
            assert url
            beats.append(world.clock.mono())

        def problem() -> str:
            return world.parts.backlog.error if world.monitor.sees else "blind"

        heart = Heartbeat(HeartbeatSettings(url=Secret("http://127.0.0.1:1/")), world.clock, problem)
        heart._beat = beat  # type: ignore[method-assign]
        await world.run(31)
        world.background(heart.run())
        await world.run(605)  # not just when a beat is due
        assert len(beats) == 11
        world.tailnet.fault = "refused"
        await world.run(600)
        count = len(beats)
        assert count <= 12
        world.tailnet.fault = ""
        await world.run(600)
        assert len(beats) >= count + 9
        world.break_store("disk full")
        await world.run(60)
        count = len(beats)
        await world.run(600)
        assert len(beats) == count
        assert heart.readiness()["held_back"]
        world.mend_store()
        await world.run(180)
        assert len(beats) > count


async def test_a_redirect_is_a_failure(switch: tuple[Switch, str]) -> None:
    """Where it leads may answer 200 to anything: a login page, say."""
    service, url = switch
    service.status = 302
    heart = heartbeat(f"{url}/ping")
    await heart._beat(f"{url}/ping")
    assert heart.error.startswith("answered 302, a redirect")
    assert heart.last_success is None
    assert len(service.calls) == 1
