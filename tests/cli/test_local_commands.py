"""The commands that look at this machine: config, doctor, export, run, demo."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from tests.support.fake_api import serving
from tsmon import __version__
from tsmon.base.clock import Clock
from tsmon.cli import export, main, template
from tsmon.cli.doctor.everything import examine_clock, examine_config
from tsmon.cli.options import Given
from tsmon.cli.run import tailnet_here
from tsmon.config import ConfigError, Secret, Settings, load, load_all, setting_keys
from tsmon.demo.servers import FakeLocalApi, FakeSidecar
from tsmon.demo.tailnet import SimTailnet
from tsmon.history.schema import MIGRATIONS
from tsmon.history.store import Store
from tsmon.history.table_rows import TABLES
from tsmon.source.status import Decoder

COMMAND = [sys.executable, "-c", "from tsmon.cli import main; main()"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration, state or tailnet of the machine that runs the tests."""
    for name in os.environ:
        if name.startswith("TSMON_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("TSMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("tsmon.config.loading.DEFAULT_FILE", tmp_path / "none.toml")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tailnet() -> SimTailnet:
    net = SimTailnet(Clock())
    net.add("chocolate-factory", tags=["tag:server"])
    net.add("git")
    net.add("db1", tags=["tag:server", "tag:data"])
    net.add("db2")
    net.add("alices-laptop")
    return net


@pytest.fixture
def sidecar(tailnet: SimTailnet, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(FakeSidecar(tailnet, ping_timeout=0.1).application()) as url:
        monkeypatch.setenv("TSMON_SOURCE", url)
        yield url


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def written(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    file = tmp_path / "tsmon.toml"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


# -- config ------------------------------------------------------------------------------------------------


def test_config_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, 'poll_interval = "20s"\n[[roles]]\nname = "a"\n')
    result = run("config", "check", "--config", file)
    assert (result.exit_code, result.output) == (0, f"{file}: fine (3 settings, 1 [[roles]])\n")
    assert run("config", "check").output == "no file (environment and defaults): fine (1 settings)\n"
    monkeypatch.setenv("TSMON_POL_INTERVAL", "1s")
    result = run("config", "check")
    assert result.exit_code == 0
    assert result.stderr.startswith("tsmon: TSMON_POL_INTERVAL: there is no such setting; did you mean")


@pytest.mark.parametrize("command", ["check", "show", "init"])
def test_a_wrong_configuration_is_one_line(tmp_path: Path, command: str) -> None:
    file = written(tmp_path, "poll_interval = 20")
    result = run("config", command, "--config", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"tsmon: {file}: poll_interval: takes a duration")
    assert result.stderr.count("\n") == 1


FILE = """
source = "http://user:topsecret@sidecar:8765"
poll_interval = "90s"
key_expiry_steps = []
[path_degraded]
latency = "250ms"
[influx]
token = "topsecret"
tags = { site = "höme" }
[[roles]]
name = "db"
hosts = ["db*"]
critical = true
offline_after = "30s"
[[notify]]
name = "phone"
url = "tgram://topsecret/chat"
hmac_secret = "topsecret"
[[notify]]
name = "hook"
url = "webhook+https://hook.example/topsecret"
"""


def test_config_show_says_what_holds_and_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, FILE)
    monkeypatch.setenv("TSMON_PING_INTERVAL", "2m")
    output = run("config", "show", "--config", file, "--log-level", "debug").output
    assert "topsecret" not in output
    origins = {
        line.split(" = ")[0]: line.rpartition("# ")[2] for line in output.splitlines() if " = " in line
    }
    assert origins["poll_interval"] == file
    assert origins["ping_interval"] == "TSMON_PING_INTERVAL"
    assert origins["level"] == "--log-level"
    assert origins["check_interval"] == "default"
    shown = tomllib.loads(output)
    assert shown["source"] == "http://sidecar:8765"
    assert (shown["poll_interval"], shown["key_expiry_steps"]) == ("90s", [])
    assert shown["path_degraded"]["latency"] == "250ms"
    assert shown["influx"]["token"] == "***"
    assert shown["influx"]["tags"] == {"site": "höme"}
    assert shown["roles"] == [{"name": "db", "hosts": ["db*"], "critical": True, "offline_after": "30s"}]
    assert [channel["url"] for channel in shown["notify"]] == ["tgram://***", "webhook+https://hook.example"]
    assert shown["notify"][0]["hmac_secret"] == "***"


def test_what_config_show_prints_is_read_back_as_the_same_settings(tmp_path: Path) -> None:
    output = run("config", "show").output
    file = tmp_path / "again.toml"
    file.write_text(output)
    assert load(file, {}, {}) == load(None, dict(os.environ), {})


def test_config_init_writes_a_sound_file_with_suggestions(sidecar: str, tmp_path: Path) -> None:
    result = run("config", "init")
    assert result.exit_code == 0, result.stderr
    assert result.output.startswith("tsmon.toml: written, after a look at 6 machines.")
    text = (tmp_path / "tsmon.toml").read_text()
    assert f'source = "{sidecar}"' in text
    assert "#   prod     chocolate-factory\n" in text
    assert "#   device   alices-laptop, db2, monitor\n" in text
    assert '# hosts = ["db1", "db2"]' in text
    assert '# tags = ["tag:data"]' in text
    assert load(tmp_path / "tsmon.toml", {}, {}).source.reveal() == sidecar
    again = run("config", "init")
    assert again.exit_code == 1
    assert "is there already (--force overwrites it" in again.stderr
    assert run("config", "init", "--force").exit_code == 0


def uncommented(text: str) -> str:
    """The file with everything that is a setting in force."""
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    return "\n".join(
        line for line in lines if line.startswith(("[", "source =")) or " = " in line.split("#")[0]
    )


def test_everything_in_the_file_is_sound_when_the_comments_are_taken_away(
    tmp_path: Path, tailnet: SimTailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tsmon.config.loading._read_secret", lambda *_: Secret("https://host.example/0123456789abcdef")
    )
    tailnet.add("web-prod", tags=["tag:server", "tag:we.b_x"])
    text = template.render("auto", Decoder().decode(tailnet.document()))
    file = tmp_path / "all.toml"
    file.write_text(uncommented(text))
    settings = load(file, {}, {})
    assert [rule.name for rule in settings.roles] == ["db", "web", "tag-data", "tag-server", "tag-we.b_x"]
    assert settings.notify[0].name == "phone"
    instead_of_a_token = {"control.client_id", "control.client_secret"}
    assert set(load_all(file, {}, {}).origins) == set(setting_keys()) - instead_of_a_token
    # What is commented out is the default, but for the examples of what has none.
    defaults = load(None, {}, {})
    assert settings.flapping == defaults.flapping
    assert (settings.retention, settings.collect_interval) == (defaults.retention, defaults.collect_interval)
    assert (settings.exclude, settings.key_expiry_steps) == (defaults.exclude, defaults.key_expiry_steps)


def test_a_tailnet_without_production_is_told_so() -> None:
    net = SimTailnet(Clock())
    for number in range(12):
        net.add(f"laptop-{number:02}")
    text = template.render("auto", Decoder().decode(net.document()))
    assert "# None is production: set project_name" in text
    assert "laptop-07 and 5 more" in text
    assert "[[roles]]" not in text.partition("The default roles make")[2]


def test_config_init_without_a_tailnet(tmp_path: Path) -> None:
    result = run("config", "init", "-", "--source", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert "the tailnet could not be read: http://127.0.0.1:1: " in result.stderr
    assert "so no roles are suggested" in result.stdout
    assert tomllib.loads(result.stdout) == {"source": "http://127.0.0.1:1"}
    result = run("config", "init", str(tmp_path / "no" / "dir.toml"), "--source", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.stderr


# -- doctor ------------------------------------------------------------------------------------------------


def findings(*arguments: str) -> dict[str, dict[str, Any]]:
    """What the doctor finds, by name; of several of one name the worst."""
    result = run("doctor", "--json", *arguments)
    found: dict[str, dict[str, Any]] = {}
    order = ("skipped", "ok", "warning", "failed")
    for finding in json.loads(result.stdout):
        known = found.setdefault(finding["what"], finding)
        if order.index(finding["level"]) > order.index(known["level"]):
            found[finding["what"]] = finding
        assert finding["level"] in ("ok", "skipped") or finding["remedy"]
    assert result.exit_code == any(finding["level"] == "failed" for finding in found.values())
    return found


def levels(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: finding["level"] for name, finding in found.items()}


def test_a_healthy_machine(sidecar: str, tmp_path: Path) -> None:
    found = findings("--listen", f"127.0.0.1:{free_port()}")
    assert levels(found) == {
        "configuration": "ok",
        "clock": "ok",
        "source": "ok",
        "view": "ok",
        "roles": "ok",
        "ping": "ok",
        "access": "ok",
        "state": "ok",
        "listen": "ok",
        "influxdb": "skipped",
        "control": "skipped",
        "running tsmon": "skipped",
    }
    assert found["view"]["says"] == "example.com: 6 nodes, 6 online, 0 left out"
    assert found["roles"]["says"] == "2 critical nodes: chocolate-factory, git"
    assert found["ping"]["says"].startswith("chocolate-factory answers in ")
    assert not (tmp_path / "state").exists()


def test_the_doctor_speaks_to_people(sidecar: str) -> None:
    result = run("doctor", "--source", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok      configuration no file, ")
    at = next(
        n for n, line in enumerate(lines) if line.startswith("failed  source        http://127.0.0.1:1: ")
    )
    assert lines[at + 1].strip().startswith("→ start tailscaled or the sidecar")


def test_a_wrong_configuration_ends_the_round(tmp_path: Path) -> None:
    found = findings("--config", written(tmp_path, "x = 1"))
    assert levels(found) == {"configuration": "failed", "clock": "ok"}


def test_secrets_that_everybody_may_read(tmp_path: Path, sidecar: str) -> None:
    text = '[heartbeat]\nurl = "https://hc.example/x"\n'
    found = findings("--config", written(tmp_path, text, 0o644))
    assert found["secrets"]["level"] == "warning"
    assert "chmod o-r" in found["secrets"]["remedy"]
    assert "secrets" not in findings("--config", written(tmp_path, text, 0o640))
    assert "secrets" not in findings("--config", written(tmp_path, 'monitor = "x"', 0o644))
    channel = '[[notify]]\nname = "x"\nurl = "json://x"'
    assert "secrets" in findings("--config", written(tmp_path, channel, 0o644))


def test_a_channel_whose_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(Path(written(tmp_path, '[[notify]]\nname = "phone"\nurl = "tgram://a/b"')), {})
    assert [finding.what for finding in examine_config(given)[1]] == ["configuration"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    last = examine_config(given)[1][-1]
    assert (last.what, last.level, last.remedy) == ("notifications", "failed", "pip install 'tsmon[notify]'")
    given = Given(Path(written(tmp_path, '[[notify]]\nname = "hook"\nurl = "webhook+https://h.example"')), {})
    assert [finding.what for finding in examine_config(given)[1]] == ["configuration"]


def test_unknown_variables_are_told(sidecar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_LISTN", "x")
    assert findings()["environment"]["level"] == "warning"


@pytest.mark.parametrize(
    ("break_it", "what", "says"),
    [
        (lambda net: net.stop(), "view", "Tailscale is stopped"),
        (lambda net: net.lose_control(), "view", "no connection to the control server"),
        (lambda net: setattr(net, "fault", "garbage"), "source", "no JSON"),
        (lambda net: setattr(net, "fault", "bad_gateway"), "source", "answered 502"),
    ],
)
def test_what_a_broken_tailnet_says(
    sidecar: str, tailnet: SimTailnet, break_it: Any, what: str, says: str
) -> None:
    break_it(tailnet)
    found = findings()
    assert found[what]["level"] == "failed"
    assert says in found[what]["says"]


def test_a_hung_node_and_one_without_a_role(sidecar: str, tailnet: SimTailnet, tmp_path: Path) -> None:
    tailnet.hang("chocolate-factory")
    assert findings()["ping"]["says"] == "chocolate-factory is called online but answers no ping"
    found = findings("--config", written(tmp_path, "default_roles = false"))
    assert (found["roles"]["level"], found["ping"]["level"]) == ("warning", "skipped")


async def test_a_source_that_cannot_ping_or_say_who(
    tailnet: SimTailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(_: web.Request) -> web.Response:
        body = b"Warning: client version != server version\n" + tailnet.document()
        return web.Response(body=body)

    async def whois(_: web.Request) -> web.Response:
        return web.Response(text="Machine: git")

    async def refused(_: web.Request) -> web.Response:
        return web.Response(status=502)

    def looked(app: web.Application) -> dict[str, dict[str, Any]]:
        with serving(app) as url:
            monkeypatch.setenv("TSMON_SOURCE", url)
            return findings()

    monkeypatch.setenv("TSMON_AUTH_MODE", "tailnet")
    monkeypatch.setenv("TSMON_AUTH_USERS", "alice@example.com")
    app = web.Application()
    app.router.add_get("/status", status)
    found = await asyncio.to_thread(looked, app)
    assert (found["ping"]["level"], found["whois"]["level"]) == ("warning", "failed")
    assert "the sidecar's command line warns: Warning: client version" in found["rows"]["says"]
    assert found["access"]["says"] == "auth.mode tailnet"
    app = web.Application()
    app.router.add_get("/status", status)
    app.router.add_get("/whois/{ip}", whois)
    found = await asyncio.to_thread(looked, app)
    assert found["whois"]["says"] == "the source does not say in JSON who an address is"
    app = web.Application()
    app.router.add_get("/status", status)
    app.router.add_get("/whois/{ip}", refused)
    assert "answered 502" in (await asyncio.to_thread(looked, app))["whois"]["says"]
    found = await asyncio.to_thread(looked, FakeSidecar(tailnet).application())
    assert found["whois"]["level"] == "ok"


def test_a_document_with_few_or_broken_rows(tmp_path: Path) -> None:
    document = json.loads(SimTailnet(Clock()).document())
    document["Peer"] = {"nodekey:x": {"ID": 3}}
    document["Self"]["TailscaleIPs"] = []

    async def status(_: web.Request) -> web.Response:
        return web.json_response(document)

    app = web.Application()
    app.router.add_get("/status", status)
    with serving(app) as url:
        config = f'source = "{url}"\n[auth]\nmode = "tailnet"\nusers = ["a"]\n'
        found = findings("--config", written(tmp_path, config))
    assert found["rows"]["says"].startswith("1 rows cannot be read: nodekey:x")
    assert found["peers"]["says"] == "this machine sees no other"
    assert found["whois"]["says"] == "this machine has no tailnet address"


def test_userspace_tailscaled_opens_loopback(
    sidecar: str, tailnet: SimTailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet.tun = False
    assert findings()["access"]["says"].startswith("tailscaled runs in userspace mode (TUN false)")
    monkeypatch.setenv("TSMON_AUTH_MODE", "token")
    monkeypatch.setenv("TSMON_AUTH_TOKEN", "0123456789abcdef")
    assert findings()["access"]["level"] == "ok"
    monkeypatch.setenv("TSMON_AUTH_TRUSTED_NETWORKS", "127.0.0.1,10.0.0.0/8")
    assert findings()["access"]["level"] == "failed"
    tailnet.tun = True
    assert findings()["access"]["says"] == "auth.mode token, without it from 127.0.0.1, 10.0.0.0/8"


def test_an_open_address_is_warned_about(sidecar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_AUTH_MODE", "none")
    found = findings("--listen", "0.0.0.0:0")
    assert found["access"]["says"] == "everybody who reaches 0.0.0.0 may read"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The database of a tsmon that ran."""

    async def make() -> None:
        store = await Store.open(tmp_path / "state")
        await store.write(
            lambda db: db.execute(
                "INSERT INTO observed VALUES ('', ?, ?)", (time.time() - 500, time.time() - 100)
            )
        )
        await store.close()

    asyncio.run(make())
    return tmp_path / "state" / "tsmon.db"


def changed(database: Path, *statements: str) -> None:
    db = sqlite3.connect(database)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_the_database(sidecar: str, database: Path) -> None:
    found = findings()["database"]
    assert found["level"] == "ok"
    assert "MB; last saw the tailnet 1 min ago" in found["says"]


@pytest.mark.parametrize(
    ("statement", "what", "says"),
    [
        ("PRAGMA application_id = 77", "database", "is not tsmon's"),
        (f"PRAGMA user_version = {len(MIGRATIONS) + 1}", "database", "is of a newer tsmon"),
        ("UPDATE observed SET end = end + 7400", "clock", "the clock is 2 h 1 min behind what"),
    ],
)
def test_a_database_that_will_not_do(
    sidecar: str, database: Path, statement: str, what: str, says: str
) -> None:
    changed(database, statement)
    found = findings()[what]
    assert found["level"] == "failed"
    assert says in found["says"]


def test_a_broken_database(sidecar: str, database: Path) -> None:
    database.write_bytes(b"not a database at all" * 1000)
    assert "is broken: file is not a database" in findings()["database"]["says"]
    database.unlink()
    database.mkdir()
    assert findings()["database"]["level"] == "failed"


def test_a_database_with_a_broken_page(sidecar: str, database: Path) -> None:
    changed(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(database.read_bytes())
    raw[4096 * 3 : 4096 * 3 + 200] = b"\xff" * 200
    database.write_bytes(raw)
    found = findings()["database"]
    assert found["level"] == "failed"
    assert "is broken" in found["says"]


def test_a_large_database_is_not_checked_whole(
    sidecar: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(
        database,
        "CREATE TABLE t (x)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 200000)"
        " INSERT INTO t SELECT x FROM n",
    )
    monkeypatch.setattr("tsmon.cli.doctor.machine.TIMEOUT", -1.0)
    assert "too large to check it whole" in findings()["database"]["says"]


def test_the_state_directory(sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1, 1, 5_000_000))
    found = findings("--state-dir", str(blocked))
    assert (found["state"]["level"], found["database"]["level"]) == ("ok", "skipped")
    assert found["disk"]["says"] == f"5 MB are free at {blocked}"
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written by this user" in findings("--state-dir", str(blocked))["state"]["says"]
    assert (
        "this user may not make it in" in findings("--state-dir", str(blocked / "a" / "b"))["state"]["says"]
    )


def healthz(code: int, body: str) -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=code, text=body)

    app = web.Application()
    app.router.add_get("/healthz", answer)
    return app


def test_the_port(sidecar: str) -> None:
    with serving(healthz(200, "ok")) as url:
        found = findings("--listen", url.removeprefix("http://"))["listen"]
        assert (found["level"], "says that it is healthy" in found["says"]) == ("ok", True)
    with serving(healthz(503, "poll hangs")) as url:
        found = findings("--listen", url.removeprefix("http://"))["listen"]
        assert (found["level"], "answered 503: poll hangs" in found["says"]) == ("failed", True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        closing = subprocess.Popen(
            [sys.executable, "-c", "import socket, sys; s = socket.socket(fileno=0); s.accept()[0].close()"],
            stdin=other.fileno(),
        )
        found = findings("--listen", f"127.0.0.1:{other.getsockname()[1]}")["listen"]
        assert closing.wait(10) == 0
    assert "taken by something that does not answer as tsmon does" in found["says"]


def test_an_address_that_is_not_this_machines(sidecar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_AUTH_MODE", "none")
    assert "cannot assign requested address" in findings("--listen", "192.0.2.1:8000")["listen"]["says"]
    assert findings("--listen", "no-such-host.invalid:8000")["listen"]["level"] == "failed"


def influx(
    code: int, body: str = "", headers: dict[str, str] | None = None
) -> tuple[web.Application, list[Any]]:
    asked: list[Any] = []

    async def write(request: web.Request) -> web.Response:
        asked.append((dict(request.query), request.headers.get("Authorization"), await request.read()))
        return web.Response(status=code, text=body, headers=headers)

    app = web.Application()
    app.router.add_post("/api/v2/write", write)
    return app, asked


@pytest.mark.parametrize(
    ("code", "level", "remedy"),
    [
        (204, "ok", ""),
        (401, "failed", "give a valid influx.token"),
        (403, "failed", "influx.token must be allowed to write bucket 'analytics'"),
        (404, "failed", "check influx.org, influx.bucket and influx.url"),
        (500, "failed", "is influx.url that of an InfluxDB 2?"),
    ],
)
def test_influxdb(sidecar: str, tmp_path: Path, code: int, level: str, remedy: str) -> None:
    app, asked = influx(code, "words" if code != 204 else "")
    with serving(app) as url:
        text = 'history.uptime_source = "embedded"\n'
        text += f'[influx]\nurl = "{url}/"\ntoken = "influx-secret"\norg = "acme"\n'
        found = findings("--config", written(tmp_path, text))["influxdb"]
    assert (found["level"], found["remedy"]) == (level, remedy)
    assert "influx-secret" not in json.dumps(found)
    assert asked == [({"org": "acme", "bucket": "analytics", "precision": "s"}, "Token influx-secret", b"")]


@pytest.mark.parametrize(
    ("answer", "status", "level", "says"),
    [
        ("\r\n", 200, "ok", "holds samples of 0 machines"),
        ("no", 401, "warning", "uptime cannot be read back: answered 401"),
        ("<html></html>", 200, "warning", "none of InfluxDB's"),
    ],
)
def test_influxdb_is_read_back(
    sidecar: str, tmp_path: Path, answer: str, status: int, level: str, says: str
) -> None:
    app, _ = influx(204)

    async def query(_: web.Request) -> web.Response:
        return web.Response(text=answer, status=status)

    app.router.add_post("/api/v2/query", query)
    with serving(app) as url:
        found = findings("--config", written(tmp_path, f'[influx]\nurl = "{url}"\norg = "acme"\n'))
    assert found["history"]["level"] == level
    assert says in found["history"]["says"]


def test_influxdb_shows_a_wrong_clock(sidecar: str, tmp_path: Path) -> None:
    app, _ = influx(204, headers={"Date": "Mon, 02 Jan 2012 00:00:00 GMT"})
    with serving(app) as url:
        found = findings("--config", written(tmp_path, f'[influx]\nurl = "{url}"\norg = "acme"\n'))
    assert found["clock"]["level"] == "warning"
    assert "ahead of that of" in found["clock"]["says"]
    app, _ = influx(204, headers={"Date": "yesterday"})
    with serving(app) as url:
        found = findings("--config", written(tmp_path, f'[influx]\nurl = "{url}"\norg = "acme"\n'))
    assert found["clock"]["level"] == "ok"


def test_influxdb_that_is_not_there(sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[influx]\nurl = "http://127.0.0.1:1"\norg = "acme"\n'
    assert "connection refused" in findings("--config", written(tmp_path, text))["influxdb"]["says"]
    monkeypatch.setattr("tsmon.cli.doctor.everything.TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        text = f'[influx]\nurl = "http://127.0.0.1:{silent.getsockname()[1]}"\norg = "acme"\n'
        assert "no answer within 0.2 s" in findings("--config", written(tmp_path, text))["influxdb"]["says"]


def test_a_clock_that_was_never_set() -> None:
    finding = examine_clock(86400.0)
    assert (finding.level, finding.says) == (
        "failed",
        "the clock says 1970-01-02 00:00 UTC, which is long ago",
    )


# -- export ------------------------------------------------------------------------------------------------


class FakeAdmin:
    """The admin socket's `/export`."""

    def __init__(self, lines: bytes, status: int = 200, *, breaks: bool = False) -> None:
        self.lines, self.status, self.breaks = lines, status, breaks
        self.queries: list[dict[str, str]] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/export", self._export)
        return app

    async def _export(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for start in range(0, len(self.lines), 1000):
            await response.write(self.lines[start : start + 1000])
        if self.breaks and request.transport is not None:
            request.transport.abort()
        else:
            await response.write_eof()
        return response


def exported(tmp_path: Path, fake: FakeAdmin, *arguments: str) -> Result:
    directory = tmp_path / "state"
    directory.mkdir(exist_ok=True)
    with serving(fake.application(), directory / "admin.sock"):
        return run("export", *arguments)


LINES = b"".join(json.dumps({"id": number, "name": "x" * 90}).encode() + b"\n" for number in range(100))


def test_the_tables_are_those_of_the_daemon() -> None:
    assert set(export.TABLES) == set(TABLES)


def test_export_to_stdout(tmp_path: Path) -> None:
    fake = FakeAdmin(LINES)
    result = exported(tmp_path, fake, "events", "--since", "2026-09-21T14:00:00Z")
    assert (result.exit_code, result.stdout_bytes) == (0, LINES)
    assert fake.queries == [{"table": "events", "since": "2026-09-21T14:00:00Z"}]


def test_export_to_a_terminal_is_tame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    result = exported(tmp_path, FakeAdmin('{"name": "a\u202eb\u009bc"}\n'.encode()), "spans")
    assert result.stdout == '{"name": "a\\u202eb\\u009bc"}\n'


def test_export_to_a_file_that_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("the last one")
    result = exported(tmp_path, FakeAdmin(LINES, breaks=True), "events", "-o", str(file))
    assert result.exit_code == 1
    assert "the answer broke off: the export is not complete" in result.stderr
    assert file.read_text() == "the last one"
    assert exported(tmp_path, FakeAdmin(LINES), "events", "-o", str(file)).exit_code == 0
    assert file.read_bytes() == LINES
    assert [path.name for path in tmp_path.glob("*events*")] == ["events.ndjson"]
    result = exported(tmp_path, FakeAdmin(LINES), "events", "-o", str(tmp_path / "no" / "x"))
    assert "cannot be written: No such file" in result.stderr


def test_export_refused(tmp_path: Path) -> None:
    body = b'{"error": {"code": "bad_request", "message": "no \x1b[2J"}}'
    result = exported(tmp_path, FakeAdmin(body, 400), "latency")
    assert result.exit_code == 1
    assert "answered 400: " in result.stderr
    assert "\x1b" not in result.stderr


def test_export_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("export", "events")
    socket_path = tmp_path / "state" / "admin.sock"
    assert result.exit_code == 1
    assert result.stderr.startswith(f"tsmon: {socket_path}: no such file or directory: does tsmon run")
    assert run("export", "nothing").exit_code == 2

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("asyncio.unix_events._UnixSelectorEventLoop.create_unix_connection", denied)
    assert "permission denied: run this as root (sudo)" in run("export", "events").stderr


def test_an_export_that_is_interrupted_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(coroutine: Any) -> None:
        coroutine.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("tsmon.cli.export.asyncio.run", interrupted)
    result = run("export", "events")
    assert result.exit_code == 1
    assert "interrupted: the export is not complete" in result.stderr


# -- run and demo ------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the daemon was started with."""
    calls: list[tuple[Any, ...]] = []

    def start(*arguments: Any) -> int:
        calls.append(arguments)
        return 7

    monkeypatch.setattr("tsmon.daemon.process.run", start)
    monkeypatch.setattr("tsmon.daemon.process.run_demo", start)
    return calls


def test_run_hands_the_settings_over_and_a_way_to_read_them_again(
    tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, 'poll_interval = "20s"')
    result = run("run", "--config", file, "--ping-interval", "7s")
    assert result.exit_code == 7
    settings, reread = started[0]
    assert (settings.poll_interval, settings.ping_interval) == (20, 7)
    written(tmp_path, 'poll_interval = "30s"')
    again = reread()
    assert (again.poll_interval, again.ping_interval) == (30, 7)
    written(tmp_path, "poll_interval = 3")
    with pytest.raises(ConfigError):
        reread()


def test_run_with_a_wrong_setting_starts_nothing(started: list[Any]) -> None:
    result = run("run", "--poll-interval", "3")
    assert (result.exit_code, started) == (78, [])
    assert result.stderr.startswith("tsmon: --poll-interval: takes a duration")


def test_run_warns_of_unknown_variables(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMON_POL_INTERVAL", "1s")
    assert "tsmon: TSMON_POL_INTERVAL: there is no such setting" in run("run").stderr


def test_the_demo_takes_nothing_but_where_it_answers(
    tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'source = "http://real:8765"\n[influx]\nurl = "http://real:8086"\norg = "x"'
    monkeypatch.setenv("TSMON_CONFIG", written(tmp_path, text))
    monkeypatch.setenv("TSMON_NOTIFY_URL", "webhook+https://real.example")
    monkeypatch.setenv("TSMON_SOURCE", "http://real:8765")
    monkeypatch.setenv("TSMON_LISTEN", "127.0.0.1:8001")
    monkeypatch.setenv("TSMON_LOG_LEVEL", "debug")
    assert run("demo", "--nodes", "50", "--log-level", "error").exit_code == 7
    settings, nodes = started[0]
    assert nodes == 50
    assert (settings.listen, settings.log.level) == ("127.0.0.1:8001", "error")
    assert (settings.source.reveal(), settings.influx.url, settings.notify) == ("auto", "", ())
    assert settings.state_dir == ""
    assert run("demo", "--listen", "nowhere").stderr.startswith("tsmon: listen: takes HOST:PORT")
    assert run("demo", "--nodes", "-1").exit_code == 2


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a tailnet is looked for: a socket that is not there, a port where nobody listens."""
    monkeypatch.setattr("tsmon.source.auto.SOCKETS", (str(tmp_path / "tailscaled.sock"),))
    monkeypatch.setattr("tsmon.source.auto.SIDECAR_URL", f"http://127.0.0.1:{free_port()}")
    return tmp_path / "tailscaled.sock"


def test_without_a_tailnet_make_run_shows_the_demo_and_says_so(places: Path, started: list[Any]) -> None:
    result = run("run", "--or-demo", "--listen", "127.0.0.1:8002")
    assert result.exit_code == 7
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(
        f"tsmon: no tailnet to watch here (no tailscaled at {places}, no sidecar at "
    )
    settings, nodes = started[0]
    assert (settings.listen, nodes) == ("127.0.0.1:8002", 0)


def test_with_a_source_named_there_is_no_demo(places: Path, started: list[Any]) -> None:
    run("run", "--or-demo", "--source", "http://127.0.0.1:1")
    assert started[0][0].source.reveal() == "http://127.0.0.1:1"


def test_tsmon_run_never_falls_back(places: Path, started: list[Any]) -> None:
    run("run")
    settings, _ = started[0]
    assert isinstance(settings, Settings)


def here() -> bool:
    return asyncio.run(tailnet_here(Settings()))


def test_what_counts_as_a_tailnet(places: Path, tailnet: SimTailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not here()
    fake = FakeSidecar(tailnet)
    with serving(fake.application()) as url:
        monkeypatch.setattr("tsmon.source.auto.SIDECAR_URL", url)
        assert here()
        tailnet.fault = "bad_gateway"  # a sidecar whose Tailscale is down is one all the same
        assert here()
    with serving(web.Application()) as url:
        monkeypatch.setattr("tsmon.source.auto.SIDECAR_URL", url)
        assert not here()
    places.touch()
    assert here()


def wait_for(url: str, child: subprocess.Popen[str]) -> bytes:
    """The answer at `url` once there is one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def test_run_in_a_process_answers_the_other_commands(tailnet: SimTailnet, tmp_path: Path) -> None:
    """The whole way: LocalAPI socket, daemon, API, and the commands that read it."""
    url = f"http://127.0.0.1:{free_port()}"
    tailscaled = tmp_path / "tailscaled.sock"
    with serving(FakeLocalApi(tailnet).application(), tailscaled):
        listen = url.removeprefix("http://")
        child = subprocess.Popen(
            [
                *COMMAND,
                "run",
                "--source",
                f"unix://{tailscaled}",
                "--listen",
                listen,
                "--log-level",
                "warning",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for(f"{url}/readyz", child)
            result = run("status", "--url", url)
            assert "chocolate-factory" in result.output, result.output
            result = run("check", "--url", url)
            assert (result.exit_code, result.output[:10]) == (0, "TSMON OK -"), result.output
            assert "tsmon started" in run("logs", "--url", url).output
            rows = [json.loads(line) for line in run("export", "events").output.splitlines()]
            assert "monitor_started" in {row["event_type"] for row in rows}
            assert stat.S_IMODE((tmp_path / "state" / "admin.sock").stat().st_mode) == 0o600
            found = findings("--source", f"unix://{tailscaled}", "--listen", listen)
            assert (found["listen"]["level"], found["database"]["level"]) == ("ok", "ok")
        finally:
            child.send_signal(signal.SIGTERM)
            out, words = child.communicate(timeout=20)
    assert (child.returncode, out) == (0, ""), words


def test_the_version_is_an_option_too() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"tsmon {__version__}\n"
