"""`tsmon report`: asks the route, writes what comes."""

from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.support.fake_api import error, serving
from tsmon.cli import main


@pytest.fixture
def asked() -> list[dict[str, str]]:
    return []


def application(asked: list[dict[str, str]]) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        if request.query.get("month") == "2099-01":
            return error(400, "bad_parameter", "month takes a time that is past: this one has not begun")
        return web.Response(text=f"{request.query['format']}  git\n")

    app = web.Application()
    app.router.add_get("/health-monitoring/report", answer)
    return app


def test_what_is_asked_and_shown(asked: list[dict[str, str]], tmp_path: Path) -> None:
    with serving(application(asked)) as url:
        shown = CliRunner().invoke(main, ["report", "--url", url, "--month", "2026-10", "--role", "prod"])
        assert (shown.exit_code, shown.output) == (0, "text  git\n")
        file = tmp_path / "october.html"
        more = ["--from", "2026-10-01", "--to", "2026-10-07", "--time-zone", "UTC", "--format", "html"]
        written = CliRunner().invoke(main, ["report", "--url", url, *more, "-o", str(file)])
        assert (written.exit_code, written.output, file.read_text()) == (0, "", "html  git\n")
    assert asked == [
        {"month": "2026-10", "role": "prod", "format": "text"},
        {"from": "2026-10-01", "to": "2026-10-07", "time_zone": "UTC", "format": "html"},
    ]


def test_what_is_refused_is_one_clear_line(asked: list[dict[str, str]], tmp_path: Path) -> None:
    with serving(application(asked)) as url:
        refused = CliRunner().invoke(main, ["report", "--url", url, "--month", "2099-01"])
        assert refused.exit_code == 1
        assert "has not begun" in refused.output
        unwritten = CliRunner().invoke(main, ["report", "--url", url, "-o", str(tmp_path)])
        assert unwritten.exit_code == 1
        assert "cannot be written" in unwritten.output
