"""The sums of a report against a model that goes second by second, and its calendar."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.histories import LENGTH, History, histories
from tsmon.history.report import (
    Period,
    Sums,
    add_up,
    is_planned,
    merged,
    month_of,
    month_period,
    node_sums,
)
from tsmon.history.uptime import ObservedTime, Outage, Span

NAMES = ("online", "offline", "planned", "unknown", "absent")


def per_second(history: History, planned: list[tuple[int, int]], start: int, end: int) -> Counter[str]:
    """What each second was, the slow way."""
    spans, observed, first_seen = history
    found: Counter[str] = Counter()
    for second in range(start, end):
        state = next((span.state for span in spans if span.start <= second < span.end), None)
        begun = bool(spans) and spans[0].start <= second
        if state is None and (begun or second < first_seen):
            word = "absent"
        elif state in (None, "unknown") or not any(a <= second < b for a, b in observed):
            word = "unknown"
        elif state == "offline" and any(a <= second < b for a, b in planned):
            word = "planned"
        else:
            word = str(state)
        found[word] += 1
    return found


WINDOWS = st.lists(st.tuples(st.integers(-9, LENGTH), st.integers(-9, LENGTH + 99)), max_size=4)


@given(histories(), WINDOWS, st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_the_sums_are_what_counting_seconds_gives(
    history: History, windows: list[tuple[int, int]], a: int, b: int
) -> None:
    spans, observed, first_seen = history
    start, end = min(a, b), max(a, b)
    found = node_sums(
        spans, ObservedTime(observed), merged(windows), start=start, end=end, first_seen=first_seen
    )
    counted = per_second(history, windows, start, end)
    assert dict(zip(NAMES, found, strict=True)) == {name: counted[name] for name in NAMES}
    assert sum(found) == end - start


@given(histories(), WINDOWS, st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3))
def test_whole_seconds_add_up_to_the_window(
    history: History, windows: list[tuple[int, int]], parts: list[float]
) -> None:
    """Nobody goes offline on the second."""
    spans, observed, first_seen = history
    shifted = [Span(state, start + parts[0], end + parts[0]) for state, start, end in spans]
    seen = ObservedTime((start + parts[1], end + parts[1]) for start, end in observed)
    planned = merged((start + parts[2], end + parts[2]) for start, end in windows)
    found = node_sums(shifted, seen, planned, start=0, end=LENGTH, first_seen=first_seen + parts[0])
    whole = found.whole()
    assert sum(whole) == LENGTH
    assert all(part >= 0 and abs(part - exact) < 1 for part, exact in zip(whole, found, strict=True))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=10))
def test_merging_neither_loses_nor_adds_a_second(stretches: list[tuple[int, int]]) -> None:
    found = merged(stretches)
    for second in range(300):
        inside = any(a <= second < b for a, b in stretches)
        assert sum(a <= second < b for a, b in found) == inside
    assert all(one[1] < other[0] for one, other in pairwise(found))


def test_below_half_coverage_there_is_no_percentage_and_no_budget() -> None:
    seen = Sums(online=49, offline=1, planned=0, unknown=50, absent=0)
    assert (seen.coverage, seen.uptime_percentage) == (50.0, 98.0)
    unseen = Sums(online=49, offline=0, planned=0, unknown=51, absent=900)
    assert (unseen.coverage, unseen.uptime_percentage, unseen.budget_left(99.9, 1000)) == (49.0, None, None)
    nobody = Sums(0, 0, 0, 0, 100)
    assert (nobody.coverage, nobody.uptime_percentage, nobody.budget_left(99.9, 100)) == (None, None, None)


def test_the_budget_is_of_the_whole_period_without_planned_and_absent_time() -> None:
    month = 30 * 86400.0
    half = Sums(online=15 * 86400.0 - 600, offline=600, planned=0, unknown=0, absent=0)
    left = half.budget_left(99.9, month)
    assert left == pytest.approx(2592 - 600)
    short = Sums(online=month - 87000, offline=600, planned=0, unknown=0, absent=86400)
    assert short.budget_left(99.9, month) == pytest.approx(29 * 86.4 - 600)
    spent = Sums(online=month - 3000, offline=3000, planned=0, unknown=0, absent=0)
    assert spent.budget_left(99.9, month) == pytest.approx(2592 - 3000)


def test_sums_of_nodes_add_up() -> None:
    assert add_up([Sums(1, 2, 3, 4, 5), Sums(10, 20, 30, 40, 50)]) == Sums(11, 22, 33, 44, 55)
    assert add_up([]) == Sums(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("outage", "planned"),
    [
        (Outage(10, 20), True),
        (Outage(-50, 20), True),  # what lies before the period is not asked
        (Outage(10, 31), False),
        (Outage(25, None), False),
        (Outage(90, None), True),
    ],
)
def test_an_outage_is_planned_when_all_of_it_is(outage: Outage, planned: bool) -> None:
    assert is_planned(outage, [(0, 30), (80, 100)], 0, 100) is planned


@pytest.mark.parametrize(
    ("month", "zone", "hours", "odd"),
    [
        ("2026-10", "Europe/Berlin", 31 * 24 + 1, 25),
        ("2026-03", "Europe/Berlin", 31 * 24 - 1, 23),
        ("2026-10", "UTC", 31 * 24, 24),
        ("2028-02", "Asia/Kathmandu", 29 * 24, 24),
        ("2026-04", "Australia/Lord_Howe", 30 * 24 + 0.5, 24.5),
        ("2018-11", "America/Sao_Paulo", 30 * 24 - 1, 23),  # midnight itself is skipped
        ("2026-12", "America/St_Johns", 31 * 24, 24),
    ],
)
def test_a_month_is_as_long_as_it_is_there(month: str, zone: str, hours: float, odd: float) -> None:
    period = month_period(month, zone)
    assert period.end - period.start == hours * 3600
    lengths = Counter((b - a) / 3600 for a, b in pairwise(period.days))
    assert lengths.keys() <= {24.0, odd}
    assert lengths[odd] >= 1
    assert sum(length * count for length, count in lengths.items()) == hours
    assert month_of(period.start, zone) == month
    assert month_of(period.end - 1, zone) == month
    assert month_of(period.end, zone) != month


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "26-10", "2026-10-1", "1969-12", "9999-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        month_period(text, "UTC")


def test_a_period_may_begin_in_mid_day() -> None:
    period = Period(3600.0, 90_000.0, "UTC")
    assert period.days == [3600.0, 86_400.0, 90_000.0]
    assert Period(0.0, 60.0, "UTC").days == [0.0, 60.0]


def test_a_removal_is_no_outage_and_no_unknown_time() -> None:
    """Removed at 40, back from 60 on."""
    spans = [Span("online", 0, 40), Span("online", 60, float("inf"))]
    found = node_sums(spans, ObservedTime([(0, 100)]), [], start=0, end=100, first_seen=0)
    assert found == Sums(online=80, offline=0, planned=0, unknown=0, absent=20)


def test_what_the_retention_took_is_unknown() -> None:
    found = node_sums(
        [Span("online", 50, float("inf"))], ObservedTime([(50, 100)]), [], start=0, end=100, first_seen=-1000
    )
    assert found == Sums(online=50, offline=0, planned=0, unknown=50, absent=0)
