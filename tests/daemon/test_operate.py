"""The commands that change something, against a running tsmon: silence, unsilence, ack, notify, reload."""

import asyncio
import getpass
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from tests.support.site import PROD, Site, site
from tsmon.cli import main
from tsmon.config import ConfigError, Settings


class Here(NamedTuple):
    site: Site
    got: list[dict[str, Any]]
    """What the webhook was sent."""
    answers: dict[str, int]
    """The status that it answers."""
    state_dir: Path

    async def run(self, *arguments: str) -> Result:
        where = ["--state-dir", str(self.state_dir)]
        return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, *where])

    async def fires(self) -> int:
        self.site.tailnet.off(PROD)
        monitor = self.site.daemon.monitor
        await self.site.until(lambda: any(a.state == "firing" for a in monitor.alerts.values()))
        return next(iter(monitor.alerts))


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    for name in os.environ:
        if name.startswith("TSMON_"):
            monkeypatch.delenv(name)
    got: list[dict[str, Any]] = []
    answers = {"status": 204}

    async def take(request: web.Request) -> web.Response:
        got.append(json.loads(await request.read()))
        return web.Response(status=answers["status"])

    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    toml = tmp_path / "tsmon.toml"
    url = f"webhook+http://127.0.0.1:{runner.addresses[0][1]}/in"
    toml.write_text(f'group_wait = "0s"\n[[notify]]\nname = "hook"\nurl = "{url}"\n')
    async with site(tmp_path, toml=toml, offline_after="1s") as found:
        yield Here(found, got, answers, tmp_path / "state")
    await runner.cleanup()


async def test_a_test_message_says_what_came_back(here: Here) -> None:
    result = await here.run("notify", "test")
    assert (result.exit_code, result.output) == (0, "hook: delivered\n")
    assert here.got[0]["kind"] == "test"
    here.answers["status"] = 404
    result = await here.run("notify", "test", "hook")
    assert (result.exit_code, result.output) == (1, "hook: answered 404\n")
    result = await here.run("notify", "test", "nobody")
    assert result.exit_code == 1
    assert "there are hook" in result.output
    result = await here.run("notify", "enable")
    assert result.output == "hook: tried again at once\n"


async def test_an_outage_is_told_and_acknowledged(here: Here) -> None:
    alert = await here.fires()
    await here.site.until(lambda: bool(here.got))
    assert here.got[0]["title"] == f"CRITICAL: {PROD} is offline"
    result = await here.run("ack", str(alert), "--author", "alice", "--reason", "part is ordered")
    assert result.output == f"acknowledged node_offline of {PROD}\n"
    shown = (await here.site.get("/health-monitoring/alerts"))["alerts"][0]
    own = getpass.getuser()
    assert shown["acknowledged_by"] == f"alice ({own})", "what the kernel says stands beside the claim"
    assert shown["notified"] is True
    (row,) = (await here.site.get("/health-monitoring/logs?event_type=operator"))["logs"]
    assert row["message"] == f"alice ({own}) acknowledged node_offline of {PROD}: part is ordered"
    assert (await here.run("ack", "999", "--author", "alice")).exit_code == 1


async def test_a_silence_holds_back_and_its_end_tells(here: Here) -> None:
    result = await here.run(
        "silence", "--host", "choc*", "--for", "1h", "--reason", "moving", "--author", "al"
    )
    assert result.output.startswith("silence 1: host choc* until ")
    await here.fires()
    node = await here.site.get(f"/health-monitoring/nodes/{PROD}")
    assert node["silenced_until"]
    listed = (await here.run("silence", "--list")).output
    assert "host choc*" in listed
    assert "moving" in listed
    assert here.got == []
    result = await here.run("unsilence", "1", "--author", "al")
    assert result.output == "ended the silence of host choc*\n"
    await here.site.until(lambda: bool(here.got))
    assert here.got[0]["kind"] == "quiet_over"
    assert (await here.run("unsilence", "1")).exit_code == 1
    assert (await here.run("silence", "--list")).output == "no silences\n"
    logs = await here.site.get("/health-monitoring/logs?event_type=operator")
    assert [row["details"]["action"] for row in logs["logs"]] == ["unsilence", "silence"]
    assert logs["logs"][1]["details"]["reason"] == "moving"


async def test_a_silence_outlives_a_restart_and_may_be_of_one_alert(here: Here) -> None:
    alert = await here.fires()
    assert (await here.run("silence", str(alert), "--reason", "known")).exit_code == 0
    rows = await here.site.daemon.store.read(lambda db: db.execute("SELECT id FROM silences").fetchall())
    assert rows == [(1,)]
    assert "no open alert" in (await here.run("silence", "999", "--reason", "x")).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "x"], "say why"),
        (["--reason", "x"], "say what to silence"),
        (["--all", "--host", "x", "--reason", "x"], "say what to silence"),
        (["--all", "--for", "soon", "--reason", "x"], "--for"),
        (["--all", "--for", "800d", "--reason", "x"], "to a year"),
    ],
)
async def test_a_silence_that_makes_no_sense(here: Here, arguments: list[str], words: str) -> None:
    result = await here.run("silence", *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/silence", {"author": "a", "reason": "b", "seconds": True, "all": True}),
        ("/silence", {"author": "a", "reason": "b", "seconds": 5, "hosts": "x"}),
        ("/silence", {"author": "a", "reason": "b", "seconds": 5, "hosts": [""]}),
        ("/silence", {"author": "a", "reason": "b", "seconds": 5, "alert": "1"}),
        ("/silence", {"author": "", "reason": "b", "seconds": 5, "all": True}),
        ("/unsilence", {"id": "x", "author": "a"}),
        ("/ack", {"id": "²", "author": "a"}),
        ("/ack", {"id": "9" * 5000, "author": "a"}),
        ("/ack", ["not an object"]),
        ("/notify/test", {"channel": 7}),
    ],
)
async def test_bad_requests_are_named(here: Here, path: str, body: Any) -> None:

    connector = aiohttp.UnixConnector(str(here.state_dir / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://tsmon{path}", json=body) as response,
    ):
        assert response.status in (400, 404)
        assert (await response.json())["error"]["message"]


async def test_the_doctor_asks_the_one_that_runs(here: Here) -> None:
    here.answers["status"] = 404
    await here.fires()
    await here.site.until(lambda: here.site.daemon.notifier.readiness()[0]["parked"])
    result = await here.run("doctor", "--json")
    found = {row["what"]: row for row in json.loads(result.output)}
    assert found["running tsmon"]["level"] == "ok"
    assert found["channel"]["level"] == "failed"
    assert "parked: answered 404; 1 messages wait" in found["channel"]["says"]
    assert found["channel"]["remedy"] == "mend it, then: tsmon notify enable"


async def test_reload_says_what_came_of_it(here: Here) -> None:
    result = await here.run("reload")
    assert result.output == "there is no configuration to read again\n"


async def test_a_reload_of_a_bad_file_changes_nothing(here: Here) -> None:
    def bad() -> Settings:
        raise ConfigError("poll_interval: takes a duration, as 15s")

    here.site.daemon.reloading.reread = bad
    before = here.site.daemon.settings
    result = await here.run("reload")
    assert result.exit_code == 1
    assert "poll_interval: takes a duration, as 15s; the old settings stay in force" in result.output
    assert here.site.daemon.settings is before


async def test_nobody_runs(tmp_path: Path) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, main, ["reload", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "does tsmon run" in result.output


@pytest.mark.parametrize("path", ["/ack", "/silence", "/import", "/influx/lines"])
async def test_a_body_nested_too_deeply_is_a_bad_request(here: Here, path: str) -> None:
    connector = aiohttp.UnixConnector(str(here.state_dir / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://tsmon{path}", data=b"[" * 5000) as response,
    ):
        assert response.status == 400
