"""`tsmon status` and `tsmon check --services` say how the checked ports are."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from tests.support.fake_api import HOSTILE, FakeApi, node, prod, serving
from tsmon.cli import main


def row(hostname: str, check: str, state: str, **values: Any) -> dict[str, Any]:
    plain = {
        "node_id": f"id-{hostname}",
        "hostname": hostname,
        "check": check,
        "service": None,
        "state": state,
        "since": "2026-09-21T12:00:00Z",
        "latency_ms": 3.25 if state == "ok" else None,
        "detail": None,
        "uptime_24h": 99.5,
    }
    return plain | values


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    found = FakeApi()
    with serving(found.application()) as url:
        found.url = url
        monkeypatch.setenv("TSMON_URL", url)
        yield found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def say(api: FakeApi, *rows: dict[str, Any], why_not: str | None = None) -> None:
    api.answers["services"] = {"services": list(rows), "can_check": why_not is None, "why_not": why_not}


def test_status_names_what_is_down_and_counts_the_rest(api: FakeApi) -> None:
    say(
        api,
        row("db", "tcp:5432", "refused", detail="the port is closed"),
        row("db", "tcp:22", "ok"),
        row("svc:web", "tcp:443", "unknown", service="svc:web"),
    )
    shown = run("status").stdout
    assert "3 services checked, 1 well" in shown
    assert "db tcp:5432  refuses" in shown
    assert "(the port is closed)" in shown
    assert "svc:web tcp:443  unknown" in shown
    assert "db tcp:22" not in shown
    assert "db tcp:22  answers" in run("status", "--all").stdout


def test_status_without_checks_says_nothing_of_them(api: FakeApi) -> None:
    assert "service" not in run("status").stdout
    api.overrides["services"] = lambda: web.Response(status=404)
    result = run("status")
    assert result.exit_code == 0, "an older tsmon has no such route"


def test_status_says_why_nobody_can_be_asked(api: FakeApi) -> None:
    say(api, row("db", "tcp:22", "unknown"), why_not="there is no TUN")
    assert "nobody can be asked: there is no TUN" in run("status").stdout


def test_nothing_hostile_reaches_the_terminal(api: FakeApi) -> None:
    say(api, row(HOSTILE, HOSTILE, "refused", detail=HOSTILE), why_not=HOSTILE)
    shown = run("status").stdout
    assert not [character for character in shown if character < " " and character != "\n"]
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([row("git", "tcp:22", "ok")], 0, "1 of 1 services well"),
        ([row("git", "tcp:22", "refused")], 1, "git: tcp:22 refused"),
        ([row("chocolate-factory", "tcp:22", "no_answer")], 2, "chocolate-factory: tcp:22 no answer"),
        ([row("svc:web", "tcp:443", "refused", service="svc:web")], 1, "svc:web: tcp:443 refused"),
        ([row("stranger", "tcp:22", "refused")], 0, "0 of 0 services well"),
    ],
)
def test_check_counts_a_service_as_its_node(
    api: FakeApi, rows: list[dict[str, Any]], code: int, says: str
) -> None:
    say(api, *rows)
    result = run("check", "--services")
    assert (result.exit_code, says in result.stdout) == (code, True), result.stdout
    assert "services_ok=" in result.stdout


def test_check_without_the_option_does_not_ask(api: FakeApi) -> None:
    say(api, row("git", "tcp:22", "refused"))
    assert run("check").exit_code == 0
    assert "services" not in [path for path, _ in api.requests]


def test_check_of_one_node_with_its_services(api: FakeApi) -> None:
    api.nodes = [node("x"), prod()]
    say(api, row("x", "tcp:22", "refused"))
    assert run("check", "--host", "x", "--services").exit_code == 1
    assert ("services", "x") in [(path, query.get("node")) for path, query in api.requests]


def test_check_that_cannot_ask_is_unknown(api: FakeApi) -> None:
    say(api, row("git", "tcp:22", "unknown"), why_not="there is no TUN")
    result = run("check", "--services")
    assert (result.exit_code, "there is no TUN" in result.stdout) == (3, True)
