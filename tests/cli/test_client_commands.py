"""The client commands (status, check, logs) against a double of the API."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.fake_api import HOSTILE, FakeApi, alert, entry, error, git, node, prod, serving, text
from tsmon.base.text import length_words
from tsmon.cli import COMMANDS, main
from tsmon.cli.logs import render as render_entry
from tsmon.cli.picture import Report, render, state_words
from tsmon.cli.terminal import CliError, local_time, plain, read_moment

WHEN = 1_789_999_200.0  # 2026-09-21T14:00:00Z


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TSMON_") or name in ("COLUMNS", "LINES"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    fake = FakeApi()
    with serving(fake.application()) as url:
        fake.url = url
        monkeypatch.setenv("TSMON_URL", url)
        yield fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def is_tame(output: str) -> bool:
    """Nothing in it acts on a terminal, no line was forged."""
    return all(c.isprintable() or c == "\n" for c in output)


# -- the command itself ------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(re.search(rf"^  {name} +\w", result.output, re.M) for name in COMMANDS)
    for name in COMMANDS:
        assert run(name, "--help").exit_code == 0


def test_an_unknown_command_is_a_usage_error() -> None:
    assert run("statsu").exit_code == 2


def test_the_shell_completes_commands() -> None:
    completer = ShellComplete(main, {}, "tsmon", "_TSMON_COMPLETE")
    assert [item.value for item in completer.get_completions([], "st")] == ["status"]


def test_version() -> None:
    assert re.fullmatch(r"tsmon \d+\.\d+\.\d+\S*\n", run("version").output)


def test_the_heavy_modules_stay_out_of_the_start() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from tsmon.cli import main;"
        "import tsmon.cli.status, tsmon.cli.check, tsmon.cli.run;"
        "print([m for m in ('aiohttp', 'rich', 'sqlite3', 'influxdb_client', 'apprise') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


# -- the client: every failure is one line -----------------------------------------------------------------


def refusal(*arguments: str) -> str:
    result = run("status", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("tsmon: ")
    assert result.stderr.count("\n") == 1
    assert is_tame(result.stderr)
    return result.stderr


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert f"{url}: connection refused: does tsmon run there?" in refusal("--url", url)
    assert "does tsmon run there?" in refusal("--url", "http://no-such-host.invalid")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[::1", "http://h:99999", "http://\x1b[2J"])
def test_an_address_that_is_none(url: str) -> None:
    assert "tsmon: " in refusal("--url", url)


def test_credentials_in_the_address_are_refused_and_not_shown() -> None:
    words = refusal("--url", "http://user:topsecret@host")
    assert "set TSMON_TOKEN" in words
    assert "topsecret" not in words


def test_the_address_may_leave_out_the_scheme_and_have_a_prefix(api: FakeApi) -> None:
    assert run("status", "--url", api.url.removeprefix("http://") + "/").exit_code == 0
    assert "answered 404" in refusal("--url", api.url + "/prefix")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: error(401, "unauthorized", "who are you"), "answered 401: who are you: it wants a token"),
        (lambda: error(403, "forbidden", "not you"), "answered 403: not you: it does not let you in"),
        (lambda: text("nothing here", 404), "answered 404: is that tsmon, and of this version?"),
        (lambda: error(503, "unavailable", HOSTILE), "answered 503: "),
        (lambda: text("<html>", 500), "answered 500\n"),
        (lambda: text("[" * 100_000, 500), "answered 500\n"),
        (
            lambda: web.Response(status=302, headers={"Location": "http://x/"}),
            "a redirect, which is not followed",
        ),
        (lambda: text("<html>hello"), "the answer is no JSON: is that tsmon?"),
        (lambda: web.Response(body=b"\xff\xff"), "the answer is no JSON"),
        (lambda: text("[" * 100_000), "the answer is no JSON"),
        (lambda: text("[]"), "the answer is not tsmon's"),
    ],
)
def test_answers_that_are_none(api: FakeApi, answer: Any, says: str) -> None:
    api.overrides["summary"] = answer
    assert says in refusal()


def test_a_server_that_is_slow(api: FakeApi) -> None:
    api.on_request = lambda _: time.sleep(1)
    assert "no answer within 0.2 s" in refusal("--timeout", "0.2")


def test_a_server_that_speaks_no_http() -> None:
    def greet(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.recv(1000)

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(10)
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert refusal("--url", url).endswith("is that tsmon? (--url)\n")
        thread.join(10)


def test_the_token(api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api.token = "0123456789abcdef"
    assert "set TSMON_TOKEN" in refusal()
    monkeypatch.setenv("TSMON_TOKEN", "0123456789abcdef")
    assert run("status").exit_code == 0
    monkeypatch.delenv("TSMON_TOKEN")
    file = tmp_path / "token"
    monkeypatch.setenv("TSMON_TOKEN_FILE", str(file))
    assert "TSMON_TOKEN_FILE: the file" in refusal()
    file.write_bytes(b"\xff")
    assert "is not UTF-8 text" in refusal()
    file.write_text("bad\ntoken")
    assert "TSMON_TOKEN: holds characters that no token has" in refusal()
    file.write_text("0123456789abcdef\n")
    assert run("status").exit_code == 0


# -- status ------------------------------------------------------------------------------------------------


def drawn(report: Report, *, limit: int = 40, width: int = 120, terminal: bool = False, **more: Any) -> str:
    out = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        color_system="truecolor" if terminal else None,
    )
    out.print(render(report, WHEN, limit, out, **more))
    file: Any = out.file
    drawing: str = file.getvalue()
    return drawing


def report(fake: FakeApi) -> Report:
    return Report(fake.summary(), fake.nodes, fake.alerts)


def test_status_is_a_table(api: FakeApi) -> None:
    api.nodes[0] |= {"latency_ms": 12.345, "path": "relay"}
    output = run("status").output
    assert "HEALTHY  factory.example  seen" in output
    assert "3 nodes: 3 online; critical: 2 of 2 online (100 %); no alerts" in output
    rows = [line.split() for line in output.splitlines()]
    assert ["NODE", "STATE", "LATENCY", "UP", "24", "H", "TYPE", "OS", "ADDRESS"] in rows
    table = [row[1] for row in rows if row and row[0] == "●"]
    assert table == ["chocolate-factory", "git", "alices-laptop"]
    assert "12.3 ms relayed" in output
    assert is_tame(output)


def test_trouble_stands_above_the_rest_but_below_the_critical_nodes() -> None:
    fake = FakeApi()
    fake.nodes = [node("a"), node("z", state="offline"), git(), prod(state="offline", reason="unreachable")]
    lines = drawn(report(fake)).splitlines()
    names = [line.split()[1] for line in lines if line[:1] in "●✖○" and line]
    assert names == ["chocolate-factory", "git", "z", "a"]
    row = next(line for line in lines if "chocolate-factory" in line)
    assert "offline 1 d 14 h, answers no ping" in row


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "online 1 d 14 h"),
        ({"since": None}, "online"),
        ({"since": "nonsense"}, "online"),
        ({"state": "offline", "since": "2026-09-21T13:59:30Z"}, "offline 30 s"),
        ({"state": "offline", "reason": "key_expired"}, "offline 1 d 14 h, key expired"),
        ({"state": "offline", "reason": "stopped"}, "offline 1 d 14 h, Tailscale stopped"),
        ({"state": "offline", "reason": "control"}, "offline 1 d 14 h"),
        ({"state": "offline", "reason": "control", "reachable": True}, "offline 1 d 14 h, but answers pings"),
        (
            {
                "state": "unknown",
                "since": None,
                "last_state": "online",
                "last_state_at": "2026-09-21T13:00:00Z",
            },
            "unknown, online before 13:00:00",
        ),
        ({"state": "unknown", "last_state": "online"}, "unknown 1 d 14 h"),
        ({"flapping": True, "silenced_until": "2026-09-22T00:00:00Z"}, "online 1 d 14 h, flapping, silenced"),
    ],
)
def test_the_words_for_a_state(values: dict[str, Any], words: str) -> None:
    assert state_words(node("x", **values), WHEN) == words


def test_blindness_is_said_before_anything_else() -> None:
    fake = FakeApi()
    blind = {"reason": "control_lost", "since": "2026-09-21T13:55:00Z", "message": "no connection"}
    fake.changes = {"blind": blind, "status": "unknown"}
    fake.nodes = [prod(state="unknown", last_state="online", last_state_at="2026-09-21T13:55:00Z")]
    lines = drawn(report(fake)).splitlines()
    assert lines[0].startswith("UNKNOWN  factory.example")
    assert lines[2] == "tsmon cannot see the tailnet for 5 min: no connection"
    fake.changes = {"blind": blind | {"since": None}}
    assert "cannot see the tailnet: no connection" in drawn(report(fake))


def test_before_the_first_snapshot_and_in_the_demo() -> None:
    fake = FakeApi()
    fake.nodes = []
    fake.changes = {"tailnet": None, "as_of": None, "demo": True, "critical_nodes": None, "total_nodes": None}
    output = drawn(report(fake))
    assert output.startswith("DEMO, a simulated tailnet  HEALTHY  no tailnet seen yet  never seen")
    assert "No node has been seen yet." in output


def test_the_headline_is_the_page_s_in_local_time() -> None:
    fake = FakeApi()
    fake.changes = {"headline": "git is down since 2026-09-21T13:55:00Z", "level": "critical"}
    (line,) = [line for line in drawn(report(fake)).splitlines() if line.startswith("git is down since")]
    assert line.endswith(":55:00")
    assert "Z" not in line


def test_alerts_are_told_with_their_length() -> None:
    fake = FakeApi()
    fake.alerts = [
        alert("chocolate-factory is offline"),
        alert(
            "", severity="warning", kind="monitor_isolated", since=None, fired_at=None, acknowledged_by="bob"
        ),
    ]
    lines = drawn(report(fake)).splitlines()
    assert lines[1] == "All 3 critical nodes online"
    assert lines[2].endswith("; 2 alerts")
    assert lines[-2] == "critical #7 chocolate-factory is offline  14 h"
    assert lines[-1] == "warning  #7 monitor_isolated  acknowledged by bob"


def test_a_large_tailnet_is_cut_with_a_word() -> None:
    fake = FakeApi()
    fake.nodes = [prod(), *(node(f"n{number}") for number in range(98)), node("zz", state="offline")]
    lines = drawn(report(fake)).splitlines()
    assert lines[-1] == "and 60 more, 60 of them online (--all shows them)"
    assert any("✖ zz" in line for line in lines)
    assert "more," not in drawn(report(fake), limit=0)


def test_figures_have_colours_on_a_terminal() -> None:
    fake = FakeApi()
    fake.nodes = [
        prod(state="offline"),
        node("a", uptime_24h=96.0),
        node("b", uptime_24h=1.0, state="offline"),
    ]
    fake.nodes[1] |= {"latency_ms": 2345.6, "path": "peer_relay"}
    output = drawn(report(fake), terminal=True)
    assert "\x1b[31m✖ " in output
    assert "\x1b[33m96.00 %" in output
    assert "2346 ms peer relay" in output
    assert "\x1b" not in drawn(report(fake))


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, "NODE STATE LATENCY UP 24 H TYPE OS ADDRESS"),
        (80, "NODE STATE LATENCY UP 24 H ADDRESS"),
        (60, "NODE STATE LATENCY UP 24 H"),
        (20, "NODE STATE"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_but_whole_figures(width: int, columns: str) -> None:
    fake = FakeApi()
    fake.nodes = [
        prod(latency_ms=11.4),
        git(uptime_24h=100.0),
        node("a-name-that-is-much-longer-than-the-others"),
    ]
    lines = drawn(report(fake), width=width).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("NODE"))
    assert " ".join(lines[at].split()) == columns
    if width > 20:
        assert "99.95 %" in lines[at + 1]
        assert "11.4 ms" in lines[at + 1]
        assert lines[at + 3].startswith("● a-name-that-is-")
        assert max(len(line.rstrip()) for line in lines[at:]) <= width


def test_an_old_terminal_gets_plain_marks() -> None:
    out = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), width=100)
    out.print(render(report(FakeApi()), WHEN, 40, out))
    out.file.flush()
    raw: Any = out.file
    assert b"+ git" in raw.buffer.getvalue()


def test_nothing_hostile_reaches_the_terminal(api: FakeApi) -> None:
    api.nodes = [node(HOSTILE, node_type=HOSTILE, os=HOSTILE, ip=HOSTILE, state="offline", critical=True)]
    api.alerts = [alert(HOSTILE, acknowledged_by=HOSTILE, severity="critical")]
    blind = {"reason": HOSTILE, "since": HOSTILE, "message": HOSTILE}
    api.changes = {"tailnet": HOSTILE, "source": HOSTILE, "status": HOSTILE, "blind": blind}
    api.entries = [entry(1, HOSTILE, hostname=HOSTILE, event_type=HOSTILE, severity=HOSTILE)]
    plainly = [run("status").stdout, run("check").stdout, run("logs").stdout]
    assert all(is_tame(output) for output in plainly)
    assert "[31mevil[2J1m[bold red]loud[/]" in plainly[0]
    coloured = drawn(report(api), terminal=True, problem=HOSTILE)
    assert "[2J" in coloured
    assert "\x1b[2J" not in coloured
    assert not {"\u202e", "\x9b", "\r"} & set(coloured)
    # Only colours: no escape sequence but those that end in m.
    assert set(re.findall(r"\x1b\[[0-9;]*(.)", coloured)) <= {"m"}
    for command in (("status", "--json"), ("logs", "--json")):
        assert is_tame(run(*command).stdout)


@given(st.text(max_size=300))
def test_any_text_is_only_printed(text: str) -> None:
    assert is_tame(plain(text))
    assert "\n" not in plain(text)


def test_status_as_json(api: FakeApi) -> None:
    api.alerts = [alert("é")]
    document = json.loads(run("status", "--json").output)
    assert set(document) == {"summary", "nodes", "alerts"}
    assert document["summary"]["total_nodes"] == 3
    assert [row["hostname"] for row in document["nodes"]] == ["chocolate-factory", "git", "alices-laptop"]
    assert document["alerts"][0]["message"] == "é"


def interrupt_after(fake: FakeApi, requests: int) -> None:
    """Ctrl-C at the so-manieth request: the command waits for its answer then."""

    def on_request(number: int) -> None:
        if number == requests:
            os.kill(os.getpid(), signal.SIGINT)

    fake.on_request = on_request


def test_watch_as_json_is_one_line_a_step_and_survives_a_failure(api: FakeApi) -> None:
    interrupt_after(api, 10)
    failing = iter([False, True, False, False])
    api.overrides["summary"] = lambda: (
        error(503, "busy", "later") if next(failing) else web.json_response(api.summary())
    )
    result = run("status", "--watch", "--json", "--every", "0.5")
    assert result.exit_code == 0
    assert [json.loads(line)["summary"]["total_nodes"] for line in result.stdout.splitlines()] == [3, 3]
    assert "answered 503: later" in result.stderr


def test_watch_begins_with_an_answer_or_not_at_all(api: FakeApi) -> None:
    api.overrides["summary"] = lambda: error(503, "busy", "later")
    result = run("status", "--watch")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "later" in result.stderr


def test_watch_on_a_terminal_draws_in_place(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(api, 8)
    failing = iter([False, True, False])
    api.overrides["alerts"] = lambda: (
        error(503, "busy", "later") if next(failing) else web.json_response({"alerts": []})
    )
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, height=14, legacy_windows=False)
    monkeypatch.setattr("tsmon.cli.status.console", lambda: screen)
    api.nodes += [node(f"n{number}") for number in range(20)]
    result = run("status", "--watch", "--every", "0.5")
    assert result.exit_code == 0
    file: Any = screen.file
    drawing = file.getvalue()
    assert drawing.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in drawing
    assert "and 18 more" in drawing
    assert "no answer now: " in drawing


# -- check -------------------------------------------------------------------------------------------------

BLIND = {"reason": "control_lost", "since": "2026-09-21T13:55:00Z", "message": "no connection"}
DETACHED = {"state": "offline", "reason": "control", "reachable": True}
PERFDATA = re.compile(r"'?[a-z_0-9]+'?=(-?[0-9.]+(s|ms|%)?|U)(;[0-9.]*){0,4}")


def checked(*arguments: str) -> tuple[int, str]:
    """Exit code and first line; the output keeps to the convention."""
    result = run("check", *arguments)
    first = result.stdout.splitlines()[0]
    head, _, perfdata = first.partition(" | ")
    words = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}
    assert head.startswith(f"TSMON {words[result.exit_code]} - ")
    assert "|" not in head
    assert all(PERFDATA.fullmatch(item) for item in perfdata.split())
    return result.exit_code, first


@pytest.mark.parametrize(
    ("nodes", "changes", "code", "says"),
    [
        ([prod(), git()], {}, 0, "2 of 2 critical nodes online, 2 of 2 nodes online"),
        ([prod(), node("x", state="offline")], {}, 0, "1 of 1 critical nodes online, 1 of 2 nodes online"),
        ([prod(state="offline"), git()], {}, 2, "chocolate-factory (production) offline"),
        ([prod(), git(state="offline")], {}, 1, "git (git) offline"),
        ([prod(state="offline"), git(state="offline")], {}, 2, "chocolate-factory (production) offline"),
        ([prod(**DETACHED)], {}, 1, "but answers pings"),
        ([prod(), node("x", **DETACHED)], {}, 1, "x (other) offline"),
        ([prod(state="unknown"), git(state="unknown")], {"blind": BLIND}, 3, "cannot see the tailnet"),
        (
            [prod(state="offline", reason="stopped"), git(state="unknown")],
            {"blind": BLIND},
            2,
            "Tailscale stopped",
        ),
        (
            [prod(state="unknown"), git(state="offline", reason="stopped")],
            {"blind": BLIND},
            1,
            "Tailscale stopped",
        ),
        ([prod(state="unknown")], {}, 3, "chocolate-factory (production) unknown"),
        ([], {}, 0, "0 of 0 critical nodes online"),
    ],
)
def test_check_of_the_whole(
    api: FakeApi, nodes: list[dict[str, Any]], changes: dict[str, Any], code: int, says: str
) -> None:
    api.nodes, api.changes = nodes, changes
    found, line = checked()
    assert (found, says in line) == (code, True), line


def test_check_gives_performance_data(api: FakeApi) -> None:
    api.nodes.append(node("x", state="offline"))
    _, line = checked()
    data = line.partition(" | ")[2].split()
    assert data[:-1] == [
        "critical_online=2;;;0;2",
        "critical_offline=0;;;0;2",
        "critical_unknown=0;;;0;2",
        "critical_health=100%",
        "online_nodes=3;;;0;4",
        "offline_nodes=1;;;0;4",
        "unknown_nodes=0;;;0;4",
        "active_alerts=0;;;0",
    ]
    assert re.fullmatch(r"time=\d+\.\d{3}s;;;0", data[-1])


def test_check_of_the_critical_nodes_alone(api: FakeApi) -> None:
    api.nodes.append(node("x", **DETACHED))
    assert checked()[0] == 1
    code, line = checked("--critical-only")
    assert code == 0
    assert "online_nodes" not in line
    assert ("nodes", "true") in [(path, query.get("project_only")) for path, query in api.requests]


def test_every_problem_has_a_line_of_its_own(api: FakeApi) -> None:
    api.nodes = [node(f"n{number:02}", state="offline", critical=True) for number in range(12)] + [
        prod(state="offline")
    ]
    result = run("check")
    first, *others = result.stdout.splitlines()
    assert first.startswith("TSMON CRITICAL - chocolate-factory")
    assert "; and 3 more | " in first
    assert len(others) == 13


@pytest.mark.parametrize(
    ("alerts", "code", "says"),
    [
        ([alert("", kind="node_missing", state="pending")], 2, "chocolate-factory is gone from the tailnet"),
        (
            [alert("", kind="node_missing", node_type="git", hostname="git")],
            1,
            "git is gone from the tailnet",
        ),
        ([], 1, "a critical node is gone from the tailnet"),
    ],
)
def test_a_critical_node_that_was_removed(api: FakeApi, alerts: list[Any], code: int, says: str) -> None:
    api.nodes, api.missing_critical, api.alerts = [node("x")], 1, alerts
    found, line = checked()
    assert (found, says in line) == (code, True), line


@pytest.mark.parametrize(
    ("values", "code", "says"),
    [
        ({}, 0, "x (other) online"),
        ({"state": "offline"}, 1, "x (other) offline"),
        ({"state": "offline", "node_type": "production"}, 2, "x (production) offline"),
        ({**DETACHED, "node_type": "production"}, 1, "but answers pings"),
        ({"state": "unknown"}, 3, "x (other) unknown"),
    ],
)
def test_check_of_one_node(api: FakeApi, values: dict[str, Any], code: int, says: str) -> None:
    api.nodes = [node("x", latency_ms=12.5, **values)]
    found, line = checked("--host", "x")
    assert (found, says in line) == (code, True), line
    online = {"offline": "0", "unknown": "U"}.get(values.get("state", ""), "1")
    assert f"online={online};;;0;1 latency=12.5ms uptime_24h=99.95%" in line


def test_check_of_one_node_that_cannot_be_seen(api: FakeApi) -> None:
    api.nodes, api.changes = [node("x", state="unknown", uptime_24h=None)], {"blind": BLIND}
    code, line = checked("--host", "x")
    assert code == 3
    assert "; no connection | online=U;;;0;1 latency=U uptime_24h=U" in line


def test_whatever_is_no_outcome_is_unknown(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked("--host", "nope") == (3, f"TSMON UNKNOWN - {api.url}: answered 404: there is no such node")
    assert checked("--bogus")[0] == 3
    assert checked("--timeout", "soon")[0] == 3
    assert checked("--host", "x", "--critical-only")[0] == 3
    assert checked("--url", "http://127.0.0.1:1")[0] == 3
    api.overrides["summary"] = lambda: text("{}")
    assert "the answer is not tsmon's" in checked()[1]
    monkeypatch.setattr("tsmon.cli.check.connect", lambda *_: 1 / 0)
    assert "tsmon check failed itself: ZeroDivisionError" in checked()[1]


def test_check_helps_and_succeeds() -> None:
    assert run("check", "--help").exit_code == 0


# -- logs --------------------------------------------------------------------------------------------------


def test_logs_are_told_oldest_first(api: FakeApi) -> None:
    api.entries = [entry(number, f"message {number}") for number in range(1, 31)]
    lines = run("logs", "-n", "3").output.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["28", "29", "30"]
    assert lines[0] == "2026-09-21 12:00:00  warning   node_offline      git: message 28"
    assert run("logs", "-n", "0").output == ""
    assert len(run("logs").output.splitlines()) == 20


def test_logs_page_back_as_far_as_asked(api: FakeApi) -> None:
    api.entries = [entry(number) for number in range(1, 451)]
    assert len(run("logs", "-n", "430").output.splitlines()) == 430
    assert [query.get("before") for _, query in api.requests] == [None, "251", "51"]
    assert len(run("logs", "-n", "5000").output.splitlines()) == 450


def test_logs_pass_their_filters_on(api: FakeApi) -> None:
    run(
        *("logs", "--severity", "critical", "--type", "alert", "--host", "git", "-g", "key"),
        *("--since", "2026-09-21T10:00:00+02:00", "--until", "2026-09-21 10:00"),
    )
    query = api.requests[0][1]
    assert query == {
        "per_page": "200",
        "severity": "critical",
        "event_type": "alert",
        "hostname": "git",
        "q": "key",
        "since": "2026-09-21T08:00:00Z",
        "until": "2026-09-21T10:00:00Z",
    }


def test_logs_as_json(api: FakeApi) -> None:
    api.entries = [entry(1), entry(2, "é")]
    rows = [json.loads(line) for line in run("logs", "--json").output.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--until", "15x"), ("--since", "99999999999d")]
)
def test_a_time_that_is_none(api: FakeApi, arguments: tuple[str, str]) -> None:
    result = run("logs", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("tsmon: ")
    assert not api.requests


@pytest.mark.parametrize(
    "answer", ["[]", '{"logs": 3}', '{"logs": [{}]}', '{"logs": [{"id": "x", "message": ""}]}']
)
def test_a_log_that_is_none(api: FakeApi, answer: str) -> None:
    api.overrides["logs"] = lambda: text(answer)
    assert "the answer is not tsmon's" in run("logs").stderr


def test_follow_shows_what_comes_once_and_waits_for_a_restart(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmon.cli.logs._FOLLOW_SECONDS", 0.05)
    api.entries = [entry(1, "old one")]

    def on_request(number: int) -> None:
        if number == 2:
            api.entries.extend(entry(new, f"new {new}") for new in range(2, 300))
        if number in (4, 5):
            api.overrides["logs"] = lambda: error(503, "starting", "one moment")
        if number == 6:
            api.overrides.clear()
            api.entries.append(entry(300, "after the restart"))
        if number == 8:
            os.kill(os.getpid(), signal.SIGINT)

    api.on_request = on_request
    result = run("logs", "--follow", "--json")
    assert result.exit_code == 0
    assert [int(json.loads(line)["id"]) for line in result.stdout.splitlines()] == list(range(1, 301))
    assert result.stderr.count("one moment") == 1


def test_follow_an_empty_log(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsmon.cli.logs._FOLLOW_SECONDS", 0.05)

    def on_request(number: int) -> None:
        if number == 2:
            api.entries.append(entry(1, "first"))
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    api.on_request = on_request
    assert run("logs", "-f").output.count("first") == 1


def test_an_entry_names_its_node_once() -> None:
    assert render_entry(entry(1, "git is offline"), WHEN).plain.count("git") == 1
    assert render_entry(entry(1, "x", hostname=None), WHEN).plain.endswith("node_offline      x")
    assert render_entry(entry(1, "x", timestamp=None), WHEN).plain.startswith("?  ")


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_lengths(seconds: float, words: str) -> None:
    assert length_words(seconds) == words


def test_moments() -> None:
    assert local_time(WHEN, WHEN + 60) == "14:00:00"
    assert local_time(WHEN, WHEN + 86400) == "2026-09-21 14:00:00"
    assert read_moment("90m", WHEN) == WHEN - 5400
    assert read_moment("2026-09-21T14:00:00Z", 0) == WHEN
    assert read_moment("2026-09-21", 0) == WHEN - 14 * 3600
    with pytest.raises(CliError, match="is no time"):
        read_moment("\x1b[2J", 0)


# -- as a process ------------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_watch_with_0(api: FakeApi) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from tsmon.cli import main; main()", "status", "--watch", "--every", "0.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    while "alices-laptop" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=10)
    assert (child.returncode, words) == (0, "")


def test_check_in_a_process(api: FakeApi) -> None:
    api.nodes = [prod(state="offline")]
    command = [sys.executable, "-c", "from tsmon.cli import main; main()", "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("TSMON CRITICAL - chocolate-factory (production) offline")
