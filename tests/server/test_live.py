"""The live stream: what it tells, how it resumes, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.support.site import Site, site
from tsmon.config import Secret
from tsmon.history.store import StoreError
from tsmon.monitor.ledger import Published
from tsmon.server.live import make_message

STREAM = "/health-monitoring/stream"


class Events:
    """A reader of Server-Sent Events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.comments = 0

    async def any(self) -> tuple[str, str | None, Any]:
        """Kind, id and data of the next message."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for raw in self._response.content:
                line = raw.decode().rstrip("\r\n")
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    return fields["event"], fields.get("id"), json.loads(fields["data"])
        raise EOFError("the stream ended")

    async def next(self, kind: str) -> tuple[str | None, Any]:
        """Id and data of the next message of a kind."""
        while True:
            found, id_, data = await self.any()
            if found == kind:
                return id_, data

    async def ended(self) -> bool:
        """Reads until the end; raises TimeoutError when nothing comes, neither news nor the end."""
        while True:
            try:
                await self.any()
            except (EOFError, aiohttp.ClientPayloadError):
                return True


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as found:
        yield found


@asynccontextmanager
async def listening(at: Site, **headers: str) -> AsyncIterator[Events]:
    """An open stream whose first snapshot was read."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with at.client.get(at.daemon.url + STREAM, headers=named) as response:
        assert response.content_type == "text/event-stream"
        events = Events(response)
        kind, id_, snapshot = await events.any()
        assert (kind, id_) == ("snapshot", None)
        assert snapshot["summary"]["total_nodes"] > 0
        yield events


async def test_it_tells_what_happens(here: Site) -> None:
    async with listening(here) as events:
        here.tailnet.off("git")
        await here.poll()
        id_, data = await events.next("event")
        assert (data["event"]["event_type"], data["node"]["hostname"]) == ("node_offline", "git")
        assert id_ == data["event"]["id"]
        assert data["node"]["state"] == "offline"
        _, snapshot = await events.next("snapshot")
        assert snapshot["summary"]["offline_nodes"] == 1


async def test_an_alert_follows_the_event_that_tells_of_it(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as at, listening(at) as events:
        at.tailnet.off("git")
        await at.poll()
        id_, alert = await events.next("alert")
        assert (alert["hostname"], alert["state"]) == ("git", "firing")
        log = (await at.get("/health-monitoring/logs?event_type=alert"))["logs"]
        assert [entry["id"] for entry in log] == [id_]
        at.tailnet.on("git")
        await at.poll()
        assert (await events.next("alert"))[1]["state"] == "resolved"


async def test_it_resumes_with_events_and_alerts(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as at:
        at.tailnet.off("git")
        await at.poll()
        await at.until(lambda: any(a.state == "firing" for a in at.daemon.monitor.alerts.values()))
        async with listening(at, Last_Event_ID="1") as events:
            told = [await events.any() for _ in range(6)]
        assert [id_ for _, id_, _ in told] == ["2", "3", "4", "5", "6", "6"]
        assert [kind for kind, _, _ in told] == ["event"] * 5 + ["alert"]
        assert told[-1][2]["hostname"] == "git"


async def test_a_resumed_stream_goes_on_without_doubles(here: Site) -> None:
    async with listening(here, Last_Event_ID="3") as events:
        assert (await events.next("event"))[0] == "4"
        here.tailnet.off("git")
        await here.poll()
        assert (await events.next("event"))[0] == "5"


@pytest.mark.parametrize("last", ["nonsense", "-1", "9" * 30, "", "\u0663"])
async def test_an_odd_last_event_id_is_no_resume(here: Site, last: str) -> None:
    async with listening(here, Last_Event_ID=last) as events:
        here.tailnet.off("git")
        await here.poll()
        assert (await events.next("event"))[1]["event"]["event_type"] == "node_offline"


async def test_an_id_of_a_former_database_holds_nothing_back(here: Site) -> None:
    async with listening(here, Last_Event_ID="4000") as events:
        here.tailnet.off("git")
        await here.poll()
        assert (await events.next("event"))[0] == "5"


async def test_a_great_many_changes_at_once_are_read_from_the_store(tmp_path: Path) -> None:
    names = [f"node-{n}" for n in range(350)]
    async with site(tmp_path, *names) as at, listening(at) as events:
        for name in names:
            at.tailnet.change(name, online=False, alive=False)
        await at.poll()
        told = [await events.next("event") for _ in names]
        ids = [int(id_ or 0) for id_, _ in told]
        assert ids == list(range(ids[0], ids[0] + 350)), "none is lost, none told twice"
        assert {data["event"]["hostname"] for _, data in told} == set(names)
        at.tailnet.on("node-7")
        await at.poll()
        assert (await events.next("event"))[1]["event"]["hostname"] == "node-7"


async def test_a_store_that_cannot_be_read_stops_no_stream(
    here: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise StoreError("tsmon.db: the disk reports an I/O error")

    monkeypatch.setattr("tsmon.server.live.events_after", refuse)
    async with listening(here, Last_Event_ID="1") as events:
        here.tailnet.off("git")
        await here.poll()
        assert (await events.next("event"))[1]["event"]["event_type"] == "node_offline"


async def test_a_quiet_stream_is_kept_alive(
    here: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tsmon.server.live._PING", 0.05)
    async with listening(here) as events:
        for _ in range(2):
            await here.poll()
            await events.next("snapshot")
        await asyncio.sleep(0.2)
        await here.poll()
        await events.next("snapshot")
        assert events.comments > 0


async def test_it_ends_at_once_when_tsmon_stops(tmp_path: Path) -> None:
    async with site(tmp_path) as at, listening(at) as events:
        begun = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(at.daemon.stop())
        assert await events.ended()
        await stopping
        assert asyncio.get_running_loop().time() - begun < 3


async def test_no_stream_begins_while_tsmon_stops(here: Site) -> None:
    await here.daemon.api.live.close()
    error = await here.get(STREAM, 503)
    assert error["error"]["code"] == "stopping"


async def test_a_slow_client_is_dropped_and_the_others_are_not(here: Site) -> None:
    live = here.daemon.api.live
    async with listening(here) as slow, listening(here) as quick:
        assert live.clients == 2
        stuck, _ = sorted(live._clients, key=id)
        for _ in range(95):
            stuck.put_nowait([make_message("snapshot", {})])
        # In one go: the clients' tasks have no turn in between.
        for _ in range(7):
            live.publish(Published(here.daemon.monitor.view, (), ()))
        assert live.clients == 1
        ended = [asyncio.create_task(events.ended()) for events in (slow, quick)]
        done, going_on = await asyncio.wait(ended, timeout=8, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == len(going_on) == 1
        for task in ended:
            task.cancel()
        await asyncio.wait(ended)


async def test_head_and_too_many_clients(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with here.client.head(here.daemon.url + STREAM) as response:
        assert response.content_type == "text/event-stream"
    monkeypatch.setattr("tsmon.server.live.MOST_CLIENTS", 0)
    assert (await here.get(STREAM, 503))["error"]["code"] == "too_many_clients"


async def test_clients_that_go_are_forgotten(here: Site) -> None:
    live = here.daemon.api.live
    async with listening(here):
        assert live.clients == 1
    for _ in range(2):  # the first write after it went tells
        await here.poll()
    await here.until(lambda: live.clients == 0)


async def test_a_stream_ends_with_the_token_that_opened_it(tmp_path: Path) -> None:
    async with site(tmp_path, auth__mode="token", auth__token="old-token-of-some-length") as at:
        async with listening(at, Authorization="Bearer old-token-of-some-length") as events:
            auth = msgspec.structs.replace(at.daemon.settings.auth, token=Secret("another-token-of-length"))
            at.daemon.api.apply(msgspec.structs.replace(at.daemon.settings, auth=auth))
            assert await events.ended()
        headers = {"Authorization": "Bearer old-token-of-some-length"}
        async with at.client.get(at.daemon.url + STREAM, headers=headers) as response:
            assert response.status == 401


async def test_a_stream_ends_when_its_reader_may_not_read_any_more(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tailnet mode nothing is reloaded: the tailnet names somebody else, or nobody."""
    monkeypatch.setattr("tsmon.server.live._LOOK", 0.05)

    async def nobody(_: Any) -> bool:
        return False

    monkeypatch.setattr(here.daemon.api.access, "lets_in", nobody)
    async with listening(here) as events:
        assert await events.ended()
