"""The trust rules alone (1.1 to 1.11 of docs/rules.md): reasons, grace, collapse, blind stretches, observed
time, clock jumps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import document, peer
from tsmon.base.clock import Moment
from tsmon.monitor.sight import Failure, Sight, Verdict, describe
from tsmon.source.status import Decoder, Snapshot, Tailnet

DOWN = Failure("source_unreachable", "refused")

REASONS = (
    "source_unreachable",
    "source_timeout",
    "bad_document",
    "tailscale_stopped",
    "logged_out",
    "starting",
    "control_lost",
    "peer_map_collapsed",
    "other_tailnet",
    "stale",
)
"""Every reason that docs/rules.md names (1.2)."""


def snapshot(*ids: str, **head: Any) -> Snapshot:
    return Decoder().decode(document(*(peer(id_, id_) for id_ in ids), **head))


class Watch:
    """A sight with a clock that the test moves."""

    def __init__(self, **values: Any) -> None:
        self.wall, self.mono = 1000.0, 0.0
        self.sight = Sight(
            started=self.now,
            **({"reconnect_grace": 30.0, "poll_interval": 15.0, "source_timeout": 10.0} | values),
        )

    @property
    def now(self) -> Moment:
        return Moment(self.wall, self.mono)

    def after(
        self, seconds: float, answer: Snapshot | Failure, *codes: str, wall: float | None = None
    ) -> Verdict:
        self.mono += seconds
        self.wall += seconds if wall is None else wall
        return self.sight.judge(answer, self.now, frozenset(codes))


GOOD = snapshot("a", "b", "c", "d")


def seeing() -> Watch:
    watch = Watch()
    watch.after(1, GOOD)
    watch.after(15, GOOD)
    return watch


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"BackendState": "InUseOtherUser"}, "source_unreachable"),
        ({"BackendState": "Sleeping"}, "bad_document"),
        ({"BackendState": "Stopped"}, "tailscale_stopped"),
        ({"BackendState": "NeedsLogin"}, "logged_out"),
        ({"BackendState": "NeedsMachineAuth"}, "logged_out"),
        ({"BackendState": "NoState"}, "starting"),
        ({"BackendState": "Starting"}, "starting"),
        ({"CurrentTailnet": None}, "starting"),
        ({"Self": {"ID": "", "Online": True}}, "starting"),
        ({"Self": {"ID": "self", "Online": False}}, "control_lost"),
    ],
)
def test_reasons(head: dict[str, Any], reason: str) -> None:
    watch = Watch()
    watch.after(1, snapshot("a", **head))
    assert watch.sight.blind is not None
    assert watch.sight.blind.reason == reason
    assert reason in REASONS
    assert watch.sight.blind.message


def test_the_first_reason_of_the_table_counts() -> None:
    """Rule 1.2: stopped, and Self offline as well, and on another tailnet."""
    watch = Watch(tailnet=Tailnet("mine", "mine.example"))
    watch.after(1, snapshot("a", BackendState="Stopped", Self={"ID": "self", "Online": False}))
    assert watch.sight.blind is not None
    assert watch.sight.blind.reason == "tailscale_stopped"


def test_before_the_first_trusted_document_it_is_blind_without_an_event() -> None:
    watch = Watch()
    assert watch.sight.blind is not None
    assert watch.sight.blind.reason == "starting"
    assert not watch.after(5, DOWN).tell
    assert not watch.after(24, DOWN).tell
    assert watch.after(1, DOWN).tell
    assert not watch.after(15, DOWN).tell, "once"
    back = watch.after(15, GOOD)
    assert (back.trusted, back.restored, back.tell) == (True, True, True)


def test_a_start_that_sees_at_once_tells_nothing() -> None:
    verdict = Watch().after(2, GOOD)
    assert (verdict.trusted, verdict.restored, verdict.tell) == (True, True, False)


def test_the_grace() -> None:
    watch = seeing()
    last = watch.wall
    first = watch.after(15, DOWN)
    assert (first.trusted, first.went_blind, watch.sight.blind) == (False, False, None)
    begun = watch.mono
    waits = []
    while (due := watch.sight.next_read(watch.now)) is not None:
        waits.append(due - begun)
        watch.after(due - watch.mono, DOWN)
    assert waits == [2, 6, 14, 30]
    assert watch.sight.blind is not None
    assert watch.sight.blind.since == last, "a blind stretch begins at the last trusted document"
    assert watch.sight.blind_for(watch.now) == 45


def test_one_good_answer_ends_the_grace() -> None:
    watch = seeing()
    watch.after(15, DOWN)
    watch.after(6, DOWN)
    verdict = watch.after(8, GOOD)
    assert (verdict.trusted, verdict.restored, verdict.continuous, verdict.elapsed) == (True, False, True, 29)
    watch.after(15, DOWN)
    watch.after(29, DOWN)
    assert watch.sight.blind is None, "the grace begins anew"
    assert watch.sight.next_read(watch.now) is not None


@pytest.mark.parametrize(
    "head",
    [
        {"BackendState": "Stopped"},
        {"BackendState": "NeedsLogin"},
        {"CurrentTailnet": {"Name": "x", "MagicDNSSuffix": "y"}},
    ],
)
def test_what_blinds_at_once(head: dict[str, Any]) -> None:
    watch = seeing()
    verdict = watch.after(15, snapshot("a", "b", "c", "d", **head))
    assert (verdict.went_blind, verdict.tell) == (True, True)


@pytest.mark.parametrize("code", ["not-in-map-poll", "mapresponse-timeout"])
def test_health_codes_of_an_open_bus(code: str) -> None:
    watch = seeing()
    watch.after(15, GOOD, code, "warming-up")
    watch.after(30, GOOD, code)
    assert watch.sight.blind is not None
    assert watch.sight.blind.reason == "control_lost"
    assert watch.after(1, GOOD).trusted


def test_the_reason_may_change_without_a_word() -> None:
    watch = seeing()
    watch.after(15, DOWN)
    watch.after(30, DOWN)
    assert watch.sight.blind is not None
    since = watch.sight.blind.since
    verdict = watch.after(15, Failure("bad_document", "html"))
    assert (verdict.tell, watch.sight.blind.reason, watch.sight.blind.since) == (False, "bad_document", since)


# -- collapse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "blind"),
    [("abcd", False), ("abc", False), ("ab", False), ("a", True), ("", True)],
)
def test_more_than_half_gone_is_a_collapse(left: str, blind: bool) -> None:
    watch = seeing()
    watch.after(15, snapshot(*left))
    assert (watch.sight.blind is not None) == blind


def test_two_peers_one_gone_is_none() -> None:
    watch = Watch()
    watch.after(1, snapshot("a", "b"))
    assert watch.after(15, snapshot("a")).trusted
    assert watch.after(15, snapshot()).trusted, "one of one: a removal, not a collapse"


def test_a_collapse_ends_when_no_more_than_half_lack() -> None:
    watch = seeing()
    watch.after(15, snapshot())
    verdict = watch.after(15, snapshot("a", "b"))
    assert (verdict.trusted, verdict.taken_away) == (True, frozenset())


def test_three_documents_over_30_s_make_it_a_removal() -> None:
    watch = seeing()
    watch.after(15, snapshot("a"))
    first = watch.wall
    assert not watch.after(10, snapshot("a")).trusted
    assert not watch.after(10, snapshot("a")).trusted, "three, but not over 30 s"
    verdict = watch.after(10, snapshot("a"))
    assert verdict.trusted
    assert (verdict.taken_away, verdict.taken_away_at) == (frozenset("bcd"), first)


def test_a_changing_or_interrupted_collapse_begins_anew() -> None:
    watch = seeing()
    for ids in (("a",), ("b",), ("a",), ("b",)):
        assert not watch.after(15, snapshot(*ids)).trusted
    watch.after(15, DOWN)
    assert not watch.after(15, snapshot("b")).trusted
    assert not watch.after(15, snapshot("b")).trusted
    assert watch.after(15, snapshot("b")).trusted


def test_after_a_start_the_store_knows_the_peers() -> None:
    watch = Watch(peers=frozenset("abcd"), tailnet=GOOD.tailnet)
    assert not watch.after(1, snapshot()).trusted
    assert watch.sight.blind is not None
    assert watch.sight.blind.reason == "peer_map_collapsed"


def test_undecodable_rows_may_be_the_missing_ones() -> None:
    watch = seeing()
    broken = [peer(f"x{n}", Online="no") for n in range(3)]
    raw = document(peer("a", "a"), *broken)
    assert watch.after(15, Decoder().decode(raw)).trusted


# -- another tailnet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix", "other"),
    [
        ("t", "t.example", False),
        ("renamed", "t.example", False),
        ("t", "new.example", False),
        ("x", "y", True),
    ],
)
def test_another_tailnet_is_one_whose_name_and_suffix_both_differ(
    name: str, suffix: str, other: bool
) -> None:
    watch = seeing()
    head = {"CurrentTailnet": {"Name": name, "MagicDNSSuffix": suffix}}
    assert watch.after(15, snapshot("a", "b", "c", "d", **head)).trusted != other
    if other:
        assert watch.sight.blind is not None
        assert "state_dir" in describe(watch.sight.blind)


# -- a stopped Self ----------------------------------------------------------------------------------------


def test_a_stopped_self_is_observed() -> None:
    watch = seeing()
    begun = watch.sight.judge(GOOD, watch.now).self_observed_from
    stopped = watch.after(15, snapshot("a", "b", "c", "d", BackendState="Stopped"))
    assert watch.sight.self_stopped
    assert (stopped.self_elapsed, stopped.self_observed_from) == (15, begun)
    watch.after(15, snapshot("a", "b", "c", "d", BackendState="Stopped"))
    back = watch.after(15, GOOD)
    assert (back.continuous, back.self_elapsed, back.self_observed_from) == (False, 15, begun)
    assert back.unobserved_since is not None


def test_any_other_reason_makes_self_unknown() -> None:
    watch = seeing()
    watch.after(15, snapshot("a", BackendState="Stopped"))
    watch.after(15, DOWN)
    assert not watch.sight.self_stopped
    assert watch.after(15, GOOD).self_elapsed == 0


# -- observed time and clocks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mono", "wall", "observed"),
    [
        (15, 15, True),
        (15, 16, True),
        (60, 60, True),
        (61, 61, False),
        (15, 3615, False),
        (3600, 15, False),
        (15, -3585, False),
        (15, -1, False),
        (15, 0, True),
    ],
)
def test_what_counts_as_observed(mono: float, wall: float, observed: bool) -> None:
    watch = seeing()
    verdict = watch.after(mono, GOOD, wall=wall)
    assert verdict.trusted
    assert verdict.continuous == observed
    assert verdict.elapsed == (mono if observed else 0)


def test_a_long_poll_interval_widens_the_limit() -> None:
    watch = Watch(poll_interval=600.0)
    watch.after(1, GOOD)
    assert watch.after(1800, GOOD).continuous
    assert not watch.after(1801, GOOD).continuous


def test_a_clock_set_back_is_told_with_its_length() -> None:
    watch = seeing()
    verdict = watch.after(15, GOOD, wall=-3600)
    assert verdict.clock_back == 3615
    assert verdict.observed_from == watch.wall
    blind = Watch()
    blind.after(1, GOOD)
    blind.after(15, DOWN)
    blind.after(40, DOWN)
    blind.after(15, DOWN, wall=-3600)
    assert blind.sight.blind is not None
    assert blind.sight.blind.since <= blind.wall


def test_a_blind_stretch_goes_on_over_a_restart() -> None:
    watch = Watch(blind_since=400.0, last_trusted=400.0)
    assert watch.sight.has_event
    verdict = watch.after(40, DOWN)
    assert not verdict.tell
    assert watch.sight.blind is not None
    assert watch.sight.blind.since == 400.0
    back = watch.after(15, GOOD)
    assert (back.restored, back.tell, back.unobserved_since) == (True, True, 400.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["good", "down", "stopped", "starting", "empty", "other"]),
        st.floats(0.5, 100),
        st.sampled_from([None, None, None, -500.0, 5000.0]),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_the_verdicts_hold_together(steps: list[tuple[str, float, float | None]]) -> None:
    """Trust and blindness exclude each other; what is observed never overlaps or lies in the future; begin
    and end of a told stretch alternate."""
    answers: dict[str, Snapshot | Failure] = {
        "good": GOOD,
        "down": DOWN,
        "stopped": snapshot("a", "b", "c", "d", BackendState="Stopped"),
        "starting": snapshot("a", BackendState="Starting"),
        "empty": snapshot(),
        "other": snapshot("z", CurrentTailnet={"Name": "x", "MagicDNSSuffix": "y"}),
    }
    watch = Watch()
    told = False
    for kind, seconds, jump in steps:
        verdict = watch.after(seconds, answers[kind], wall=jump)
        assert verdict.trusted == (watch.sight.blind is None and watch.sight._untrusted is None)
        if verdict.trusted:
            assert verdict.observed_from is not None
            assert verdict.observed_from <= watch.wall
        if watch.sight.blind is not None:
            assert watch.sight.blind.since <= watch.wall
        if verdict.tell:
            assert verdict.restored == told
            told = not told
        if verdict.clock_back:
            assert not verdict.continuous
        assert verdict.elapsed >= 0
        assert not (verdict.continuous and verdict.restored)
