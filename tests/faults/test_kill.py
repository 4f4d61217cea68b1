"""kill -9 of the whole daemon at random moments, while machines come and go, messages are sent and the API is
asked.

`TSMON_TEST_KILLS` says how often (24 in `make slow`, 32 in CI), in four lives with a database each.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.faults.whole import rows, until
from tests.support.process import tsmon
from tsmon.base.clock import Clock
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet

LIVES = 4
KILLS = int(os.environ.get("TSMON_TEST_KILLS", "24")) // LIVES
NAMES = ("git", "dev", "chocolate-factory", "db")
STANDING = 100
"""Nodes that do nothing but make each step heavier."""
MOMENTS = ("sending", "running", "sending", "starting", "running")
"""What it is at when it is killed: on a busy machine chance alone would hit the start only."""


class Inbox:
    """A webhook that is slow, so that kills hit messages in flight."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.bodies: dict[str, dict[str, Any]] = {}

    async def take(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.begun[body["id"]] += 1
        self.bodies[body["id"]] = body
        await asyncio.sleep(random.uniform(0, 0.05))
        self.acknowledged[body["id"]] += 1
        return web.Response(status=204)

    async def next_message(self) -> None:
        """Wait until one begins to arrive."""
        before = self.begun.total()
        await until(lambda: self.begun.total() > before, 60)


@pytest.mark.slow
@pytest.mark.parametrize("life", range(LIVES))
async def test_nothing_is_lost_or_doubled(life: int, tmp_path: Path) -> None:
    chance = random.Random(life)
    tailnet = SimTailnet(Clock())
    for name in NAMES:
        tailnet.add(name, tags=["tag:server"])
    for n in range(STANDING):
        tailnet.add(f"node-{n:03}", notify=False, tags=["tag:server"])
    inbox = Inbox()
    hook = web.Application()
    hook.router.add_post("/", inbox.take)
    config = tmp_path / "tsmon.toml"
    database = tmp_path / "state" / "tsmon.db"
    # The LocalAPI tells changes at once: messages wait for nobody.
    async with serving(FakeLocalApi(tailnet).application(), tmp_path / "s") as source, serving(hook) as url:
        config.write_text(
            'listen = "127.0.0.1:0"\npoll_interval = "1s"\noffline_after = "0s"\ngroup_wait = "0s"\n'
            f'reconnect_grace = "0s"\nflapping.changes = 1000\nsource = "{source}"\n'
            f'[[notify]]\nname = "hook"\nurl = "webhook+{url}/"\n'
        )
        command = ("run", "--config", str(config), "--state-dir", str(tmp_path / "state"))
        churn = asyncio.create_task(_churn(tailnet, chance))
        for n in range(KILLS):
            async with tsmon(*command) as running:
                asking = None
                moment = MOMENTS[n % len(MOMENTS)]
                if moment != "starting":
                    asking = asyncio.create_task(_ask((await running.line("started"))["url"]))
                if moment == "sending":
                    await inbox.next_message()
                await asyncio.sleep(chance.uniform(0.0, 0.3 if moment == "sending" else 2.0))
                running.process.send_signal(signal.SIGKILL)
                await running.process.wait()
                if asking is not None:
                    await asking
            _check_database(database)
        churn.cancel()
        tailnet.on(*NAMES)
        async with tsmon(*command) as running:
            await running.line("started")
            # A recovery may wait five minutes for its group: here all of it is back.
            await until(lambda: not _rows(database, _OPEN) and not _rows(database, _WAITING), 60)
            await asyncio.sleep(3)
            await until(lambda: not _rows(database, _WAITING), 60)
            running.process.terminate()
            await running.process.wait()
    _check_messages(inbox, database)


_OPEN = "SELECT 1 FROM alerts WHERE state <> 'resolved'"
_rows = partial(rows, timeout=10)
_WAITING = "SELECT 1 FROM notifications WHERE delivered_at IS NULL AND failed IS NULL"


async def _churn(tailnet: SimTailnet, chance: random.Random) -> None:
    while True:
        name = chance.choice(NAMES)
        if tailnet.find(name).online:
            tailnet.off(name)
        else:
            tailnet.on(name)
        await asyncio.sleep(chance.uniform(0.05, 0.6))


async def _ask(url: str) -> None:
    """Until the daemon is dead."""
    paths = ("/summary", "/nodes?project_only=false", "/logs", "/history?window=24h&buckets=48")
    async with aiohttp.ClientSession() as client:
        with contextlib.suppress(aiohttp.ClientError):
            for path in itertools.cycle(paths):
                async with client.get(f"{url}/health-monitoring{path}") as response:
                    await response.read()


def _check_database(path: Path) -> None:
    """It opens, is sound, and its log is one story: events without a gap, a node's states in turn."""
    if not path.exists() or _rows(path, "PRAGMA user_version") == [(0,)]:
        return  # killed before there was anything
    assert _rows(path, "PRAGMA integrity_check") == [("ok",)]
    events = _rows(path, "SELECT id, event_type, node_id, details FROM events ORDER BY id")
    assert [row[0] for row in events] == list(range(1, len(events) + 1))
    states: dict[str, str] = {}
    firing: set[str] = set()
    for _, kind, node_id, details in events:
        if kind in ("node_online", "node_offline"):
            assert states.get(node_id) != kind, f"{kind} of {node_id} twice"
            states[node_id] = kind
        if kind == "alert":
            alert = json.loads(details)["alert_id"]
            assert alert not in firing or json.loads(details)["again"]
            firing.add(alert)
        if kind == "alert_resolved":
            firing.remove(json.loads(details)["alert_id"])
    open_alerts = {str(id_) for (id_,) in _rows(path, "SELECT id FROM alerts WHERE state = 'firing'")}
    assert open_alerts == firing
    spans = _rows(
        path, "SELECT node, count(*) FROM spans WHERE end IS NULL GROUP BY node HAVING count(*) > 1"
    )
    assert spans == []


def _check_messages(inbox: Inbox, path: Path) -> None:
    """What was acknowledged and stored came once; the one in flight at a kill may have come again."""
    delivered = _rows(path, "SELECT body FROM notifications WHERE delivered_at IS NOT NULL")
    stored = {json.loads(body)["key"] for (body,) in delivered}
    assert stored, "messages were sent at all"
    sent = {key for key in stored if inbox.acknowledged[key]}
    again = [key for key in sent if inbox.begun[key] > 1]
    assert len(again) <= KILLS
    facts = Counter(
        (alert["id"], alert["phase"], alert["state"])
        for body in inbox.bodies.values()
        for alert in body["alerts"]
        if alert["phase"] != "still"
    )
    assert not [what for what, count in facts.items() if count > 1], "one fact in two messages"
    _check_words(inbox)
    _check_unsaid(inbox, path)


def _check_words(inbox: Inbox) -> None:
    """No end without its begin, and the last word about a node is true."""
    said: dict[str, str] = {}
    for body in inbox.bodies.values():
        for alert in body["alerts"]:
            name = alert["hostname"]
            if alert["phase"] == "back":
                assert said.get(name) == "firing", f"the end of an outage of {name}, but not its begin"
            said[name] = alert["state"]
    assert said
    assert "firing" not in said.values(), "all of them are online"


def _check_unsaid(inbox: Inbox, path: Path) -> None:
    """Each alert is in a message, but for one that ended before any message of it was sent, and whose node
    fell again: a message of that fall followed, and the log has its whole life (rule 9.16)."""
    rows_ = _rows(
        path,
        "SELECT id, event_type, json_extract(details, '$.alert_id'), node_id FROM events"
        " WHERE event_type IN ('alert', 'alert_resolved') ORDER BY id",
    )
    fired = {alert: (at, node) for at, kind, alert, node in rows_ if kind == "alert"}
    ended = {alert: at for at, kind, alert, _ in rows_ if kind == "alert_resolved"}
    named = {alert["id"] for body in inbox.bodies.values() for alert in body["alerts"]}
    for alert, (_, node) in fired.items():
        if alert not in named:
            assert alert in ended, f"alert {alert} fires and is in no message"
            assert any(
                later in named and other == node and at > ended[alert] for later, (at, other) in fired.items()
            ), f"alert {alert} is in no message, nor a later one"
