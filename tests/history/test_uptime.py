"""Uptime, outages and bars against a brute-force model that goes second by second (rules 10.2 to
10.5)."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.histories import LENGTH, History, histories
from tsmon.history.uptime import ObservedTime, Outage, Span, calculate_uptime, make_bars, outages, percentage


def per_second(spans: list[Span], observed: list[tuple[int, int]], start: int, end: int) -> list[str]:
    """The state of each second of the window, the slow way."""
    seconds = []
    for second in range(start, end):
        seen = any(a <= second < b for a, b in observed)
        state = next((span.state for span in spans if span.start <= second < span.end), "gone")
        seconds.append(state if seen and state != "gone" else "unknown")
    return seconds


@given(histories(), st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_uptime_is_what_counting_seconds_gives(history: History, a: int, b: int) -> None:
    spans, observed, first_seen = history
    start, end = min(a, b), max(a, b)
    seconds = per_second(spans, observed, start, end)
    online, offline = seconds.count("online"), seconds.count("offline")
    there = max(0, end - max(start, first_seen))
    found = calculate_uptime(spans, ObservedTime(observed), start, end, first_seen)
    assert (found.online_s, found.offline_s) == (online, offline)
    assert found.unknown_s == there - online - offline
    assert found.uptime_percentage == percentage(online, online + offline)
    assert found.coverage == percentage(online + offline, there)


@given(histories(), st.integers(1, 40))
def test_bars_are_what_counting_seconds_gives(history: History, buckets: int) -> None:
    spans, observed, first_seen = history
    width = LENGTH // buckets
    bounds = [n * width for n in range(buckets + 1)]
    bars = make_bars(spans, ObservedTime(observed), bounds, first_seen)
    for n, letter in enumerate(bars.states):
        seconds = per_second(spans, observed, bounds[n], bounds[n + 1])
        online, offline = seconds.count("online"), seconds.count("offline")
        if online and offline:
            assert letter == "m"
        elif online or offline:
            assert letter == ("o" if online else "x")
        else:
            assert letter == ("-" if bounds[n + 1] <= first_seen else "u")
        uptime = 100.0 if bars.uptime is None else bars.uptime[n]
        assert uptime == percentage(online, online + offline) or bars.uptime is None


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=10),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_observed_time_is_a_union(stretches: list[tuple[int, int]], a: int, b: int) -> None:
    """Overlaps (a stopped Self beside the rest) count once."""
    stretches = [(min(pair), max(pair)) for pair in stretches]
    start, end = min(a, b), max(a, b)
    seconds = sum(any(x <= second < y for x, y in stretches) for second in range(start, end))
    assert ObservedTime(stretches).between(start, end) == seconds
    halves = ObservedTime(stretches[::2]).joined(stretches[1::2])
    assert halves.between(start, end) == seconds


@given(histories())
def test_outages_cover_every_offline_second(history: History) -> None:
    spans, _, _ = history
    found = outages(spans, 0, LENGTH, LENGTH + 50)
    offline = [span for span in spans if span.state == "offline" and span.start < LENGTH]
    for span in offline:
        assert any(o.start <= span.start and (o.end is None or o.end >= span.end) for o in found)
    for one, other in pairwise(found):
        assert one.end is not None
        assert one.end <= other.start


def test_an_unknown_stretch_does_not_part_an_outage() -> None:
    spans = [
        Span("offline", 10, 20),
        Span("unknown", 20, 30),
        Span("offline", 30, 40),
        Span("online", 40, 50),
    ]
    assert outages(spans, 0, 100, float("inf")) == [Outage(10, 40)]


def test_a_removal_parts_an_outage() -> None:
    spans = [Span("offline", 10, 20), Span("offline", 30, 40)]
    assert outages(spans, 0, 100, float("inf")) == [Outage(10, 20), Outage(30, 40)]


def test_a_running_outage_has_no_end() -> None:
    assert outages([Span("offline", 10, float("inf"))], 0, 100, float("inf")) == [Outage(10, None)]


def test_no_observation_is_null_never_0_or_100() -> None:
    found = calculate_uptime([Span("online", 0, 100)], ObservedTime([]), 0, 100, 0)
    assert (found.uptime_percentage, found.coverage) == (None, 0.0)
    not_yet = calculate_uptime([], ObservedTime([(0, 100)]), 0, 100, 200)
    assert (not_yet.uptime_percentage, not_yet.coverage) == (None, None)


def test_retention_that_cut_the_spans_leaves_time_unknown() -> None:
    """Spans older than the retention are gone; the window reaches further back."""
    found = calculate_uptime([Span("online", 50, 100)], ObservedTime([(50, 100)]), 0, 100, -1000)
    assert (found.uptime_percentage, found.coverage) == (100.0, 50.0)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2028-02-29", "2026-12-31"])
def test_days_of_clock_changes_and_leap_days_are_24_hours(day: str) -> None:
    """All arithmetic is in UTC: a day has 86,400 s whatever a calendar does."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    found = calculate_uptime(
        [Span("online", start - 1e6, start + 43_200), Span("offline", start + 43_200, start + 1e6)],
        ObservedTime([(start - 1e6, start + 1e6)]),
        start,
        start + 86_400,
        start - 1e6,
    )
    assert (found.uptime_percentage, found.coverage) == (50.0, 100.0)


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, None), (0, 10, 0.0), (10, 10, 100.0), (1, 10**9, 0.01), (10**9 - 1, 10**9, 99.99), (2, 3, 66.67)],
)
def test_only_a_whole_is_100_and_only_nothing_is_0(part: float, whole: float, shown: float | None) -> None:
    assert percentage(part, whole) == shown
