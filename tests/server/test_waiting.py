"""Bounded work: so many at a time, so many who wait, and whoever comes then is asked to come again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import site
from tsmon.server.replies import Bodies, Body
from tsmon.server.waiting import BusyError, WaitingLine, WhoisLine


class SlowWhois:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.most = self.now = 0
        self.go = asyncio.Event()

    async def __call__(self, address: str) -> dict[str, Any]:
        self.asked.append(address)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
        finally:
            self.now -= 1
        return {"address": address}


async def test_a_crowd_makes_8_whois_at_a_time_and_the_rest_is_refused() -> None:
    whois = SlowWhois()
    line = WhoisLine(whois)
    tasks = [asyncio.create_task(line.ask(f"100.64.0.{n}:1", f"100.64.0.{n}")) for n in range(200)]
    await asyncio.sleep(0)
    whois.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert whois.most == 8
    assert sum(isinstance(answer, BusyError) for answer in found) == 200 - 8 - 64


async def test_one_address_has_one_whois_under_way() -> None:
    whois = SlowWhois()
    line = WhoisLine(whois)
    tasks = [asyncio.create_task(line.ask(f"100.64.0.9:{port}", "100.64.0.9")) for port in range(20)]
    await asyncio.sleep(0.01)
    assert len(whois.asked) == 1
    other = asyncio.create_task(line.ask("100.64.0.8:1", "100.64.0.8"))
    await asyncio.sleep(0.01)
    assert len(whois.asked) == 2, "another address does not wait for it"
    whois.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, BusyError) for answer in found) == 11
    assert await other == {"address": "100.64.0.8:1"}
    assert (line._asked, line._locks) == ({}, {}), "nothing is kept of who has gone"


async def test_who_leaves_gives_its_place() -> None:
    line = WaitingLine(at_work=1, waiting=1)
    release = asyncio.Event()

    async def work() -> None:
        async with line.turn():
            await release.wait()

    tasks = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        async with line.turn():
            pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with line.turn():
        pass


async def test_a_body_that_nobody_waits_for_is_not_made() -> None:
    bodies, ended, made = Bodies(), [], asyncio.Event()

    async def make() -> Body:
        try:
            await made.wait()
        finally:
            ended.append(made.is_set())
        return Body(b"{}")

    first, second = (asyncio.create_task(bodies.get("question", 1, make)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert ended == [], "somebody still waits"
    second.cancel()
    await asyncio.sleep(0.01)
    assert ended == [False]
    made.set()
    assert (await bodies.get("question", 1, make)).data == b"{}"


async def test_different_questions_beyond_the_line_are_refused() -> None:
    bodies, made = Bodies(), asyncio.Event()

    async def make() -> Body:
        await made.wait()
        return Body(b"{}")

    tasks = [asyncio.create_task(bodies.get(number, 1, make)) for number in range(100)]
    await asyncio.sleep(0.01)
    made.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, BusyError) for answer in found) == 100 - 34


async def test_a_client_that_leaves_ends_its_work_and_a_busy_line_is_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 abandoned questions kept the log from answering for a minute."""
    async with site(tmp_path) as here:
        working: list[int] = []

        async def bars(*_: Any) -> dict[str, Any]:
            working.append(1)
            try:
                await asyncio.sleep(60)
            finally:
                working.pop()
            return {}

        monkeypatch.setattr(here.daemon.api._past._history, "bars", bars)
        host, port = here.daemon.url.removeprefix("http://").split(":")
        writers = []
        for number in range(50):
            _, writer = await asyncio.open_connection(host, int(port))
            path = f"/health-monitoring/history?window={number + 1}h"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            writers.append(writer)
        await here.until(lambda: len(working) == 2)
        url = here.daemon.url + "/health-monitoring/history?window=100h"
        async with here.client.get(url) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
        await here.get("/health-monitoring/logs")
        for writer in writers:
            writer.transport.abort()
        await here.until(lambda: not working)
        assert here.daemon.api._past._bars._clients == {}


async def test_a_name_longer_than_a_file_may_have_is_not_found(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        for name in ("x" * 255 + ".js", "%00.js"):
            await here.get(f"/web/{name}", 404)
