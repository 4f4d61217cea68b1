"""The report over HTTP: a daemon whose history is written by hand; every form of the answer."""

import asyncio
import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.support.site import PROD, Site, site
from tsmon.base.clock import rfc3339
from tsmon.cli import main
from tsmon.history.notes import Note, add_note
from tsmon.monitor.state import Node
from tsmon.server.report_answers import ReportAnswer

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = (TODAY.replace(day=1) - timedelta(days=1)).replace(day=1)
"""Last month's first day."""
MONTH = FIRST.strftime("%Y-%m")
START = FIRST.timestamp()
END = TODAY.replace(day=1).timestamp()
HOUR, DAY = 3600.0, 86400.0

TOML = f"""
[[roles]]
name = "prod"
hosts = ["{PROD}"]
node_type = "production"
critical = true
alert = "critical"
target = 99.9

[[maintenance]]
start = "{(FIRST + timedelta(days=4)).isoformat()}"
end = "{(FIRST + timedelta(days=4, hours=2)).isoformat()}"
hosts = ["git"]
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Last month: git was down in a maintenance window and once without; production once; dev was not watched
    half the time; the laptop was removed in mid-month."""
    toml = tmp_path / "tsmon.toml"
    toml.write_text(TOML)
    async with site(tmp_path, toml=toml, reconnect_grace="0s") as found:
        await found.daemon.store.write(_write)
        yield found


def _write(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM nodes WHERE hostname NOT IN ('git', 'dev', 'alices-laptop', ?)", (PROD,))
    nums = dict(db.execute("SELECT hostname, num FROM nodes"))
    ids = dict(db.execute("SELECT hostname, id FROM nodes"))
    gone = START + 5 * DAY
    (body,) = db.execute("SELECT body FROM nodes WHERE hostname = 'alices-laptop'").fetchone()
    node = msgspec.msgpack.decode(body, type=Node)
    facts = msgspec.structs.replace(node.facts, id="gone", hostname="old-laptop")
    removed = msgspec.msgpack.encode(msgspec.structs.replace(node, facts=facts, removed_at=gone))
    row = ("gone", "old-laptop", gone, removed, nums["alices-laptop"])
    db.execute("UPDATE nodes SET id = ?, hostname = ?, removed_at = ?, body = ? WHERE num = ?", row)
    db.execute("UPDATE nodes SET first_seen = ?", (START - DAY,))
    db.execute("DELETE FROM spans")
    db.execute("DELETE FROM observed")
    db.execute("INSERT INTO observed VALUES ('', ?, ?)", (START - DAY, START + 20 * DAY))
    plan, down = START + 4 * DAY, START + 10 * DAY
    _put(db, nums["git"], [("online", plan), ("offline", plan + HOUR), ("online", down)])
    _put(db, nums["git"], [("offline", down + HOUR), ("online", None)], begin=down)
    _put(db, nums[PROD], [("online", down), ("offline", down + 60), ("online", None)])
    _put(db, nums["dev"], [("unknown", START + 16 * DAY), ("online", None)])
    _put(db, nums["alices-laptop"], [("online", gone)])
    db.execute(
        "INSERT INTO events VALUES (900, ?, ?, 'node_offline', 'warning', ?, 'git', 'git', 'x', ?)",
        (down, down, ids["git"], '{"reason": "unreachable"}'),
    )
    note = Note(
        node_id=ids["git"],
        start=down,
        end=down + HOUR,
        planned=False,
        created=down,
        author="<b>al</b>",
        text="=cable & fan",
    )
    add_note(db, note)


def _put(
    db: sqlite3.Connection, num: int, spans: list[tuple[str, float | None]], begin: float = START - DAY
) -> None:
    for state, end in spans:
        db.execute(
            "INSERT INTO spans (node, start, state, end) VALUES (?, ?, ?, ?)", (num, begin, state, end)
        )
        begin = end or 0.0


async def report(here: Site, query: str = f"month={MONTH}") -> dict[str, Any]:
    answer: dict[str, Any] = await here.get(f"/health-monitoring/report?{query}")
    return answer


async def test_a_month(here: Site) -> None:
    answer = await report(here)
    msgspec.convert(answer, ReportAnswer, strict=True)
    window = round(END - START)
    assert (answer["window_s"], answer["period_s"], answer["time_zone"]) == (window, window, "UTC")
    nodes = {node["hostname"]: node for node in answer["nodes"]}
    assert [node["hostname"] for node in answer["nodes"]] == ["git", PROD, "dev", "old-laptop"]
    for row in nodes.values():
        parts = ("online_s", "offline_s", "planned_s", "unknown_s", "absent_s")
        assert sum(row[part] for part in parts) == window, row
    git = nodes["git"]
    assert (git["offline_s"], git["planned_s"]) == (3600, 3600)
    assert (git["outages"], git["longest_outage_s"]) == (1, 3600)
    planned, sudden = git["outage_list"]
    assert (planned["planned"], planned["duration_s"], planned["reason"]) == (True, 3600, None)
    assert (sudden["planned"], sudden["reason"]) == (False, "unreachable")
    assert [note["text"] for note in sudden["notes"]] == ["=cable & fan"]
    assert git["days"][4] == "p"
    assert git["days"][10] == "m"
    assert git["days"][20:] == "u" * len(git["days"][20:])


async def test_targets_and_what_was_not_seen(here: Site) -> None:
    answer = await report(here)
    nodes = {node["hostname"]: node for node in answer["nodes"]}
    window = answer["window_s"]
    prod = nodes[PROD]
    assert (prod["target"], prod["budget_left_s"]) == (99.9, round(window * 0.001 - 60))
    assert nodes["git"]["budget_left_s"] is None
    assert (nodes["dev"]["online_s"], nodes["dev"]["uptime_percentage"]) == (4 * 86400, None)
    assert nodes["dev"]["coverage"] < 50
    laptop = nodes["old-laptop"]
    assert (laptop["removed"], laptop["online_s"], laptop["uptime_percentage"]) == (True, 5 * 86400, 100.0)
    assert laptop["absent_s"] == window - 5 * 86400
    assert laptop["days"] == "ooooo" + "-" * (len(laptop["days"]) - 5)
    roles = {role["role"]: role for role in answer["roles"]}
    assert roles["prod"]["budget_left_s"] == prod["budget_left_s"]
    assert roles["git"]["offline_s"] == 3600


async def test_a_role_and_a_part_of_the_month(here: Site) -> None:
    day = (FIRST + timedelta(days=10)).strftime("%Y-%m-%d")
    answer = await report(here, f"from={day}&to={day}&role=git")
    assert [node["hostname"] for node in answer["nodes"]] == ["git"]
    assert (answer["window_s"], answer["nodes"][0]["offline_s"]) == (86400, 3600)
    west = await report(here, f"from={day}&to={day}&role=git&time_zone=America/New_York")
    assert west["window_s"] == 86400
    assert west["nodes"][0]["offline_s"] == 0, "midnight of UTC is the day before there"


async def test_the_month_under_way_ends_now(here: Site) -> None:
    answer = await report(here, "")
    assert answer["start"] == TODAY.replace(day=1).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert 0 < answer["window_s"] <= answer["period_s"]
    assert answer["period_s"] >= 28 * 86400


async def test_csv_has_a_row_a_node_and_no_formulas(here: Site) -> None:
    text = await here.get(f"/health-monitoring/report?month={MONTH}", Accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["hostname"] for row in rows] == ["git", PROD, "dev", "old-laptop"]
    assert (rows[0]["offline_s"], rows[1]["over_budget_s"]) == ("3600", "0")
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@"))]


async def test_text(here: Site) -> None:
    text = await here.get(f"/health-monitoring/report?month={MONTH}", Accept="text/plain")
    assert "not enough seen" in text
    assert "does not answer pings; <b>al</b>: =cable & fan" in text
    assert "min left" in text
    assert "\x1b" not in text


class Page(HTMLParser):
    """What a page asks for, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "style", "onclick")]

    def handle_data(self, data: str) -> None:
        self.words += data


async def test_html_needs_nothing_from_outside_and_shows_names_as_text(here: Site) -> None:
    url = f"{here.daemon.url}/health-monitoring/report?month={MONTH}"
    async with here.client.get(url, headers={"Accept": "text/html,*/*"}) as response:
        policy, text = response.headers["Content-Security-Policy"], await response.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = Page()
    page.feed(text)
    assert page.links == [f"?month={MONTH}&format=csv"]
    assert not {"script", "img", "link", "b", "iframe"} & set(page.tags)
    assert "<b>al</b>: =cable & fan" in page.words
    assert page.tags.count("svg") == 4 + 5  # the nodes and the legend
    assert "prefers-color-scheme: dark" in page.words
    assert "@media print" in page.words


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("month=2026-13", "month takes a month as 2026-10"),
        ("month=2099-01", "has not begun"),
        ("month=1999-01", "within the retention"),
        (f"month={MONTH}&from=2026-01-01", "keep one of them"),
        ("to=2026-01-01", "from is missing"),
        ("from=2026-02-01&to=2026-01-01", "to takes a time after from"),
        ("from=yesterday", "from takes a day as"),
        ("time_zone=Mars/Olympus", "time_zone takes a time zone"),
        ("time_zone=../../etc/passwd", "time_zone takes a time zone"),
        ("format=pdf", "format takes one of html, csv, text, json"),
    ],
)
async def test_bad_parameters_are_named(here: Site, query: str, words: str) -> None:
    answer = await here.get(f"/health-monitoring/report?{query}", status=400)
    assert words in answer["error"]["message"]


async def test_the_calendar_lists_the_windows(here: Site) -> None:
    text = await here.get("/maintenance.ics")
    assert text.startswith("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n")
    assert text.endswith("END:VCALENDAR\r\n")
    assert "SUMMARY:Maintenance: host git\r\n" in text or (TODAY - FIRST).days > 36


async def test_while_blind_the_report_says_so(here: Site) -> None:
    here.tailnet.fault = "refused"
    await here.until(lambda: here.daemon.monitor.view.blind is not None, seconds=30)
    assert json.loads(json.dumps(await report(here)))["blind"]


async def note(here: Site, *arguments: str) -> Result:
    state = str(here.daemon.state_dir)
    given = ["note", *arguments, "--state-dir", state, "--author", "alice"]
    return await asyncio.to_thread(CliRunner().invoke, main, given)


async def test_a_note_afterwards_makes_an_outage_planned_and_deletes_nothing(here: Site) -> None:
    begin = START + 10 * DAY
    times = ["--from", rfc3339(begin) or "", "--to", rfc3339(begin + HOUR) or ""]
    before = (await report(here))["nodes"][0]
    found = await note(here, "git", *times, "--text", "new disk\x1b[2J", "--planned")
    assert found.exit_code == 0, found.output
    git = {row["hostname"]: row for row in (await report(here))["nodes"]}["git"]
    assert (before["offline_s"], git["offline_s"]) == (3600, 0)
    assert (before["planned_s"], git["planned_s"]) == (3600, 7200)
    assert [outage["planned"] for outage in git["outage_list"]] == [True, True]
    assert [(row["author"][:5], row["text"]) for row in git["outage_list"][1]["notes"]][-1] == (
        "alice",
        "new disk[2J",
    )
    (event,) = (await here.get("/health-monitoring/logs?event_type=operator"))["logs"]
    assert "as planned of git: new disk" in event["message"]


async def test_a_note_of_an_alert_has_its_times(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as here:
        here.tailnet.off("git")
        await here.until(lambda: here.daemon.monitor.alerts)
        (alert,) = here.daemon.monitor.alerts.values()
        found = await note(here, str(alert.id), "--text", "a cable")
        assert found.exit_code == 0, found.output
        assert str(rfc3339(alert.since)) in found.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["999", "--text", "x"], "no alert of a node has the id 999"),
        (["nobody", "--from", "2h", "--to", "1h", "--text", "x"], "there is no node 'nobody'"),
        (["git", "--text", "x"], "takes the times from and to"),
        (["git", "--from", "1h", "--to", "2h", "--text", "x"], "to takes a time after from"),
    ],
)
async def test_a_bad_note_is_refused(here: Site, arguments: list[str], words: str) -> None:
    found = await note(here, *arguments)
    assert found.exit_code == 1
    assert words in found.output
