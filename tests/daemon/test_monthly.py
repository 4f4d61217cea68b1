"""The month's summary by message (rule 9.19): once, in its time zone's first hour, over restarts too."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.virtual import VirtualClock, virtual
from tests.support.world import TEAM, World
from tsmon.history.store import StoreError
from tsmon.notify.outcome import Outcome

MONTHLY = """
public_url = "https://t.example/x"

[report]
monthly = true
time_zone = "Europe/Berlin"
"""
HOUR, DAY = 3600.0, 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def world(tmp_path: Path, toml: str = TEAM, start: str = "2026-10-31T20:00", **values: Any) -> World:
    """Three hours before November in Berlin. Few polls: they are not what is tested."""
    values = {"poll_interval": "1m", "collect_interval": "1h"} | values
    return World(tmp_path, toml=MONTHLY + toml, clock=VirtualClock(at(start)), **values)


def reports(world: World, channel: str = "team") -> list[str]:
    return [title for title in world.messages(channel) if title.startswith("Report")]


@virtual
async def test_the_summary_comes_in_the_first_hour_of_the_month_there(tmp_path: Path) -> None:
    here = world(tmp_path)
    await here.start()
    await here.run(2 * HOUR)
    here.tailnet.off("git")
    await here.run(HOUR)
    assert reports(here) == [], "in Berlin it is midnight now"
    await here.run(HOUR)
    assert reports(here) == ["Report of October 2026"]
    (message,) = (m for m in here.told_to["team"] if m.notice.kind == "report")
    made = here.since_start(message.notice.made_at)
    assert 3 * HOUR + 900 <= made <= 3 * HOUR + 1200
    heading, *_, longest, where = message.lines[0].splitlines()
    assert heading == "2026-10-01 00:00 CEST to 2026-11-01 00:00 CET (Europe/Berlin)"
    # It goes on over midnight: of that month it is an hour, but for what the control plane needs to see it.
    assert longest in {"Longest offline: git 1 h", "Longest offline: git 59 min"}
    assert where.endswith("https://t.example/x/health-monitoring/report?month=2026-10")
    assert (message.severity, message.down) == ("ok", frozenset())
    await here.kill()


@virtual
async def test_it_comes_once_over_restarts_and_at_the_next_start_if_tsmon_was_off(tmp_path: Path) -> None:
    here = world(tmp_path)
    await here.start()
    await here.run(2 * HOUR)
    # Off over the turn of the month, and dead at once when it was sent.
    await here.restart(after=12 * HOUR)
    await here.run(299)
    assert reports(here) == []
    await here.run(2)
    assert reports(here) == ["Report of October 2026"]
    for _ in range(3):
        await here.restart(after=60.0)
        await here.run(2 * HOUR)
    assert reports(here) == ["Report of October 2026"]
    # A month that tsmon slept through has no summary; the next one has.
    await here.restart(after=62 * DAY)
    await here.run(HOUR)
    assert reports(here) == ["Report of October 2026"]
    here.clock.offset += 31 * DAY
    await here.run(HOUR)
    assert reports(here) == ["Report of October 2026", "Report of January 2027"]
    await here.kill()


@virtual
async def test_what_was_stored_and_not_delivered_is_delivered_after_a_restart(tmp_path: Path) -> None:
    here = world(tmp_path)
    here.outcomes["team"] = Outcome(False, "out of order")
    await here.start()
    await here.run(4 * HOUR)
    here.outcomes.clear()
    await here.restart()
    await here.run(2 * HOUR)
    assert reports(here) == ["Report of October 2026"]
    await here.kill()


@virtual
async def test_a_clock_set_back_sends_nothing_twice_and_one_set_forth_nothing_false(tmp_path: Path) -> None:
    here = world(tmp_path)
    await here.start()
    await here.run(4 * HOUR)
    here.clock.offset -= 2 * HOUR
    await here.run(4 * HOUR)
    assert reports(here) == ["Report of October 2026"]
    here.clock.offset += 400 * DAY
    await here.run(HOUR)
    here.clock.offset -= 400 * DAY
    await here.run(HOUR)
    assert reports(here) == ["Report of October 2026"], "of November 2027 nothing was seen"
    here.clock.offset += 30 * DAY
    await here.run(HOUR)
    assert reports(here)[1:] == ["Report of November 2026"]
    await here.kill()


@virtual
async def test_the_month_in_which_it_is_switched_on_is_the_first(tmp_path: Path) -> None:
    here = world(tmp_path, start="2026-11-20T12:00")
    await here.start()
    await here.run(HOUR)
    assert reports(here) == [], "October was before"
    here.clock.offset += 12 * DAY
    await here.run(HOUR)
    assert reports(here) == ["Report of November 2026"]
    # Switched off over the turn of the year and on again, none is owed.
    path = here.state_dir / "tsmon.toml"
    for state, later in (("false", 31 * DAY), ("true", DAY)):
        path.write_text(MONTHLY.replace("true", state) + TEAM)
        await here.reload_file()
        await here.run(HOUR)
        here.clock.offset += later
        await here.run(HOUR)
    assert reports(here) == ["Report of November 2026"]
    await here.kill()


CHANNELS = """
[[notify]]
name = "prod-team"
url = "webhook+http://127.0.0.1:1/"
roles = ["prod*"]

[[notify]]
name = "pager"
url = "webhook+http://127.0.0.1:1/"
min_severity = "critical"
"""


@virtual
async def test_it_goes_to_the_channels_for_everything(tmp_path: Path) -> None:
    here = world(tmp_path, TEAM + CHANNELS)
    await here.start()
    assert here.notifier.warnings() == []
    await here.run(4 * HOUR)
    assert {name: len(reports(here, name)) for name in here.notifier.names} == {
        "team": 1,
        "prod-team": 0,
        "pager": 0,
    }
    await here.kill()


@virtual
async def test_when_no_channel_takes_it_tsmon_says_so(tmp_path: Path) -> None:
    here = world(tmp_path, CHANNELS)
    await here.start()
    (words,) = here.notifier.warnings()
    assert words.startswith("report.monthly reaches nobody")
    await here.kill()


@virtual
async def test_a_history_that_cannot_be_read_is_logged_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(tmp_path)
    await here.start()

    async def fail(_: object) -> Any:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(here.parts.monthly, "_answer", fail)
        await here.run(5 * HOUR)
        lines = [line for line in here.lines if line["event"] == "monthly_report_failed"]
        assert [line["error"] for line in lines] == ["the disk is gone"]
        assert reports(here) == []
    await here.run(301)
    assert reports(here) == ["Report of October 2026"]
    await here.kill()


@virtual
async def test_channels_that_change_at_that_very_moment_lose_nothing(tmp_path: Path) -> None:
    """The lines that take their place have what was announced before, and it is stored with its mark."""
    here = world(tmp_path)
    await here.start()
    (here.state_dir / "tsmon.toml").write_text(MONTHLY.replace("t.example", "u.example") + TEAM)
    async with here.parts.ledger.lock:
        announced = asyncio.create_task(here.notifier.announce("k", "Report of X", "words", {"x": "y"}))
        await asyncio.sleep(0)
        assert here.notifier.apply(here.settings_of_file())
    await announced
    await here.restart()
    await here.run(60)
    assert reports(here) == ["Report of X"]
    assert (await here.store.load(0)).meta["x"] == "y"
    await here.kill()
