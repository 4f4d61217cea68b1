"""Which alerts share a message, and when; what the fallen have in common (rules 9.1 to 9.5)."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual import VirtualClock, run_virtual
from tests.support.world import settings
from tsmon.classify import Classifier
from tsmon.demo.tailnet import SimTailnet
from tsmon.monitor.cause import common_cause
from tsmon.monitor.incidents import WINDOW
from tsmon.monitor.state import Node
from tsmon.notify.grouping import Draft, Groups, load_groups
from tsmon.notify.news import Word
from tsmon.source.status import Decoder


def none_before(_: float) -> bool:
    return False


def some_before(_: float) -> bool:
    return True


def standing(_: int) -> Word:
    return "lasts"


def over(_: int) -> Word:
    return "over"


def test_the_first_waits_for_its_siblings() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    groups.fell(2, "outage", 8.0, 10.0)
    assert groups.next_due(none_before, standing) == 10.0
    assert groups.take_due(9.0, none_before, standing) == []
    assert groups.take_due(10.0, none_before, standing) == [Draft("alert", (1, 2))]
    assert groups.take_due(11.0, none_before, standing) == []
    assert groups.next_due(none_before, standing) is None


def test_other_stories_have_messages_of_their_own() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    groups.fell(2, "monitor", 1.0, 10.0)
    assert groups.take_due(20.0, none_before, standing) == [Draft("alert", (1,)), Draft("alert", (2,))]


def test_late_siblings_make_one_update() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.fell(2, "outage", 20.0, 10.0)
    assert groups.take_due(20.0, some_before, standing) == [], "a third may still fall due"
    assert groups.next_due(some_before, standing) == 10.0 + WINDOW
    groups.fell(3, "outage", 40.0, 10.0)
    assert groups.next_due(none_before, standing) == 0.0
    assert groups.take_due(41.0, none_before, standing) == [Draft("update", (2, 3))]
    groups.fell(4, "outage", 60.0, 10.0)
    assert groups.take_due(69.0, none_before, standing) == [], "after its update the group is complete"
    assert groups.take_due(70.0, none_before, standing) == [Draft("alert", (4,))]


def test_the_update_waits_no_longer_than_five_minutes() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.fell(2, "outage", 20.0, 10.0)
    assert groups.take_due(309.0, some_before, standing) == []
    assert groups.take_due(310.0, some_before, standing) == [Draft("update", (2,))]


def test_one_recovery_when_all_are_back() -> None:
    groups = Groups()
    for alert in (1, 2):
        groups.fell(alert, "outage", 0.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.ended(1, 100.0)
    assert groups.take_due(100.0, none_before, standing) == []
    assert groups.next_due(none_before, standing) == 100.0 + WINDOW
    groups.ended(2, 150.0)
    assert groups.take_due(150.0, none_before, standing) == [Draft("recovery", (1, 2))]
    assert groups.alerts == set()


def test_recoveries_wait_five_minutes_for_the_rest() -> None:
    groups = Groups()
    for alert in (1, 2, 3):
        groups.fell(alert, "outage", 0.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.ended(1, 100.0)
    groups.ended(2, 200.0)
    assert groups.take_due(400.0, none_before, standing) == [Draft("recovery", (1, 2), 1)]
    groups.ended(3, 500.0)
    assert groups.take_due(500.0, none_before, standing) == [Draft("recovery", (3,))]


def test_one_that_is_over_before_the_message_has_no_recovery() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    assert groups.ended(1, 5.0)
    assert groups.take_due(10.0, none_before, over) == [Draft("alert", (1,))]
    assert groups.alerts == set()
    assert not groups.ended(1, 20.0)


def test_told_anew_it_belongs_to_a_new_group() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    groups.fell(1, "outage", 1.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.fell(1, "outage", 1000.0, 10.0)
    assert groups.take_due(1010.0, none_before, standing) == [Draft("alert", (1,))]
    groups.ended(1, 1100.0)
    assert groups.take_due(1100.0, none_before, standing) == [Draft("recovery", (1,))]


def test_the_forgotten_are_not_told() -> None:
    groups = Groups()
    for alert in (1, 2):
        groups.fell(alert, "outage", 0.0, 10.0)
    groups.take_due(10.0, none_before, standing)
    groups.ended(1, 20.0)
    assert groups.forget(1)
    assert groups.next_due(none_before, standing) is None
    assert groups.forget(2)
    assert not groups.forget(2)
    assert groups.alerts == set()


def test_the_adopted_recover_together() -> None:
    groups = Groups()
    groups.adopt([1, 2], "outage", 0.0)
    groups.adopt([], "outage", 0.0)
    groups.ended(1, 10.0)
    groups.ended(2, 20.0)
    assert groups.take_due(20.0, none_before, standing) == [Draft("recovery", (1, 2))]


def test_groups_are_kept_over_a_restart() -> None:
    groups = Groups()
    groups.fell(1, "outage", 100.0, 10.0)
    groups.take_due(110.0, none_before, standing)
    groups.fell(2, "outage", 120.0, 10.0)
    groups.ended(1, 130.0)
    groups.fell(3, "monitor", 130.0, 10.0)
    text = groups.store(wall_of=1e9)
    later = load_groups(text, now=5.0, wall=1e9 + 200.0, settle=17.0)
    assert later.alerts == {1, 2, 3}
    assert later.take_due(21.0, none_before, standing) == [Draft("update", (2,))]
    assert later.take_due(22.0, none_before, standing) == [Draft("alert", (3,))]
    assert later.next_due(none_before, standing) == 130.0 - 200.0 + 5.0 + WINDOW


def test_a_clock_that_was_set_makes_nothing_wait_for_ever() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    later = load_groups(groups.store(wall_of=2e9), now=0.0, wall=1e9, settle=10.0)
    assert (later.next_due(none_before, standing) or 0.0) <= WINDOW


STEPS = st.lists(
    st.tuples(st.sampled_from(["fell", "ended", "forget"]), st.integers(1, 8), st.integers(0, 400)),
    max_size=60,
)


@given(STEPS)
def test_every_fall_is_told_once_and_every_recovery_after_it(steps: list[tuple[str, int, int]]) -> None:
    groups, now, ended = Groups(), 0.0, set[int]()
    told: list[int] = []
    recovered: list[int] = []
    ids = iter(range(1000))
    open_: dict[int, int] = {}
    dropped: set[int] = set()
    all_: list[int] = []

    def take() -> None:
        for draft in groups.take_due(now, none_before, lambda id_: "over" if id_ in ended else "lasts"):
            (recovered if draft.kind == "recovery" else told).extend(draft.alerts)

    for what, name, seconds in steps:
        if what == "fell" and name not in open_:
            open_[name] = next(ids)
            all_.append(open_[name])
            groups.fell(open_[name], "outage", now, 10.0)
        elif what == "ended" and name in open_:
            alert = open_.pop(name)
            ended.add(alert)
            groups.ended(alert, now)
        elif what == "forget" and name in open_:
            alert = open_.pop(name)
            dropped.add(alert)
            groups.forget(alert)
        now += seconds
        take()
    now += 1000.0
    take()
    assert len(told) == len(set(told))
    assert set(told) >= set(all_) - dropped
    assert len(recovered) == len(set(recovered))
    assert set(recovered) <= set(told) & ended
    assert groups.alerts == set(open_.values())


def nodes_of(tailnet: SimTailnet) -> dict[str, Node]:
    classifier = Classifier(settings())
    found = {}
    for facts in Decoder(()).decode(tailnet.document()).nodes.values():
        found[facts.hostname] = Node(facts=facts, role=classifier.role(facts), first_seen=0.0, state="online")
    return found


def tailnet(rows: list[tuple[str, dict[str, Any]]]) -> dict[str, Node]:
    async def make() -> dict[str, Node]:
        sim = SimTailnet(VirtualClock())
        for name, fields in rows:
            sim.add(name, **fields)
        return nodes_of(sim)

    return run_virtual(make())


def test_the_cause_is_what_the_fallen_share_and_the_standing_do_not() -> None:
    rows = [(f"a-{n}", {"tags": ["tag:server", "tag:rack-a"]}) for n in range(5)]
    rows += [(f"b-{n}", {"tags": ["tag:server", "tag:rack-b"]}) for n in range(5)]
    nodes = tailnet(rows)
    down = [nodes[f"a-{n}"] for n in range(5)]
    up = [nodes[f"b-{n}"] for n in range(5)]
    assert common_cause(down, up) == "tag:rack-a"
    assert common_cause([*down, *up[:1]], up[1:]) == "tag:rack-a", "80 % are enough"
    assert common_cause([*down[:2], *up[:2]], [*down[2:], *up[2:]]) == ""
    assert common_cause(down[:1], up) == "", "of one nothing is common"
    assert common_cause(down, []) == "", "what everybody shares explains nothing"


def test_an_owner_or_a_relay_region_can_be_the_cause() -> None:
    rows = [(f"a-{n}", {"user": 2, "relay": "fra"}) for n in range(3)]
    rows += [(f"b-{n}", {"user": 1, "relay": "fra"}) for n in range(3)]
    rows += [(f"c-{n}", {"user": 3, "relay": "nyc"}) for n in range(9)]
    nodes = tailnet(rows)
    rest = [nodes[f"c-{n}"] for n in range(9)]
    a, b = [nodes[f"a-{n}"] for n in range(3)], [nodes[f"b-{n}"] for n in range(3)]
    assert common_cause(a, [*b, *rest]) == "owner bob@example.com"
    assert common_cause([*a, *b], rest) == "relay region fra"


def test_what_is_stored_is_json() -> None:
    groups = Groups()
    groups.fell(1, "outage", 0.0, 10.0)
    assert msgspec.json.decode(groups.store(0.0))[0]["waiting"] == [1]
