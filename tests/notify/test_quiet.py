"""Maintenance windows and silences: when messages are held back (rule 9.7)."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmon.config import MaintenanceSettings
from tsmon.config.windows import window_end
from tsmon.monitor.alerts import Alert, Silence
from tsmon.notify.quiet import Quiet

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def weekly(text: str, zone: str = "Europe/Berlin") -> MaintenanceSettings:
    return MaintenanceSettings(weekly=text, time_zone=zone)


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        ("sat 02:00-04:00", "2026-11-21T02:00", "2026-11-21T04:00"),
        ("sat 02:00-04:00", "2026-11-21T03:59", "2026-11-21T04:00"),
        ("sat 02:00-04:00", "2026-11-21T04:00", None),
        ("sat 02:00-04:00", "2026-11-21T01:59", None),
        ("sat 02:00-04:00", "2026-11-22T03:00", None),
        # over midnight
        ("fri 22:00-03:00", "2026-11-20T22:00", "2026-11-21T03:00"),
        ("fri 22:00-03:00", "2026-11-21T02:59", "2026-11-21T03:00"),
        ("fri 22:00-03:00", "2026-11-20T02:00", None),
        ("sun 23:00-01:00", "2026-11-23T00:30", "2026-11-23T01:00"),
        # the night in which the clock is set forward (29 March 2026, 2:00 becomes 3:00)
        ("sun 01:00-04:00", "2026-03-29T03:30", "2026-03-29T04:00"),
        ("sun 02:00-03:00", "2026-03-29T03:30", "2026-03-29T04:00"),
        ("sun 02:00-03:00", "2026-03-29T04:00", None),
        # and back (25 October 2026, 3:00 becomes 2:00)
        ("sun 01:00-04:00", "2026-10-25T03:30", "2026-10-25T04:00"),
    ],
)
def test_a_weekly_window_follows_the_clock_on_the_wall(window: str, now: str, end: str | None) -> None:
    assert window_end(weekly(window), at(now)) == (at(end) if end else None)


def test_the_night_of_the_second_two_oclock_is_covered_whole() -> None:
    window = weekly("sun 02:00-03:00")
    begin = datetime(2026, 10, 25, 0, 0, tzinfo=UTC).timestamp()  # 02:00 CEST
    end = begin + 7200  # 03:00 CET
    assert window_end(window, begin) == end
    assert window_end(window, begin + 5400) == end, "02:30 for the second time"
    assert window_end(window, begin - 1) is None


@given(
    st.integers(0, 6),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.floats(1.7e9, 1.9e9),
)
def test_a_weekly_window_ends_within_a_day_and_an_hour(
    day: int, first: int, last: int, zone: str, now: float
) -> None:
    if first == last:
        return
    name = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day]
    window = weekly(f"{name} {first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}", zone)
    end = window_end(window, now)
    if end is not None:
        assert now < end <= now + 25 * 3600 + 1
        assert window_end(window, end) is None
        assert window_end(window, (now + end) / 2) == end


def test_a_window_with_a_beginning_and_an_end() -> None:
    window = MaintenanceSettings(
        start="2026-12-24T20:00:00+01:00", end="2026-12-25T08:00", time_zone="Europe/Berlin"
    )
    assert window_end(window, at("2026-12-24T19:59")) is None
    assert window_end(window, at("2026-12-24T20:00")) == at("2026-12-25T08:00")
    assert window_end(window, at("2026-12-25T08:00")) is None


def alert(id_: int = 1, kind: str = "node_offline") -> Alert:
    return Alert(id=id_, kind=kind, severity="warning", pending_at=0.0)


def silence(**fields: object) -> Silence:
    base = {"id": 1, "author": "alice", "reason": "rack", "created": 100.0, "ends": 200.0}
    return Silence(**(base | fields))  # type: ignore[arg-type]


def test_a_silence_of_an_alert_holds_that_one_only() -> None:
    quiet = Quiet((), [silence(alert=1)])
    assert quiet.until(alert(1), None, 150.0) == 200.0
    assert quiet.until(alert(2), None, 150.0) is None
    assert quiet.until(alert(1), None, 200.0) is None
    assert quiet.until(alert(1), None, 99.0) is None


def test_the_longest_one_counts_and_what_expired_is_forgotten() -> None:
    quiet = Quiet((), [silence(id=1), silence(id=2, ends=300.0)])
    assert quiet.until(alert(kind="monitor_blind"), None, 150.0) == 300.0
    assert [found.id for found in quiet.take_expired(200.0)] == [1]
    assert quiet.remove(2) is not None
    assert quiet.remove(2) is None
    assert quiet.until(alert(), None, 150.0) is None


def test_only_what_has_no_selector_covers_tsmon_itself() -> None:
    quiet = Quiet((), [silence(hosts=("*",))])
    assert quiet.until(alert(kind="monitor_blind"), None, 150.0) is None
    quiet.add(silence(id=2))
    assert quiet.until(alert(kind="storage_failing"), None, 150.0) == 200.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"alert": 7}, "alert 7"),
        ({"hosts": ("a", "b*"), "tags": ("tag:x",)}, "host a, b*; tag tag:x"),
        ({}, "everything"),
    ],
)
def test_a_silence_says_what_it_is(fields: dict[str, object], words: str) -> None:
    assert silence(**fields).words() == words
