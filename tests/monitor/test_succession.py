"""Which new node follows which old one: the pure rules."""

from typing import Any

import pytest

from tests.support.facts import facts
from tsmon.classify import Classifier
from tsmon.config import load
from tsmon.monitor.changes import Changes
from tsmon.monitor.state import Node
from tsmon.monitor.succession import family, look_for_successors
from tsmon.source.status import NodeFacts

NOW = 1_000_000.0
CLASSIFIER = Classifier(load(None, {}, {}))


def node(name: str, **values: Any) -> Node:
    """A node that has been there for a day and is online."""
    of_facts = {"id": name, "os_hostname": "box", "created": NOW - 86400}
    own = {key: values.pop(key) for key in list(values) if key in Node.__struct_fields__}
    known = facts(name, **(of_facts | values))
    plain: dict[str, Any] = {"state": "online", "first_seen": NOW - 86400, "last_online": NOW - 86400}
    return Node(facts=known, role=CLASSIFIER.role(known), **(plain | own))


def off(name: str, **values: Any) -> Node:
    return node(name, **({"state": "offline", "last_online": NOW - 600} | values))


def new(name: str = "box-1", **values: Any) -> Node:
    return node(name, **({"first_seen": NOW, "created": NOW - 5} | values))


def followed(one: Node, *others: Node, removed: tuple[Node, ...] = ()) -> list[str]:
    changes = Changes(nodes={other.id: other for other in (*others, one)})
    look_for_successors(changes, removed, NOW)
    return [before.id for before in changes.nodes[one.id].predecessors]


@pytest.mark.parametrize(
    ("old", "name"), [("box", "box-1"), ("box-1", "box"), ("box-1", "box-2"), ("box", "box-12")]
)
def test_the_number_of_control_says_nothing(old: str, name: str) -> None:
    assert followed(new(name), off(old)) == [old]


def test_a_removed_one_is_followed_and_of_several_the_one_seen_last() -> None:
    gone = [
        off("box", id="first", removed_at=NOW - 9000, last_online=NOW - 9000),
        off("box", id="second", removed_at=NOW - 5000, last_online=NOW - 5000),
    ]
    assert followed(new("box"), removed=tuple(gone)) == ["second"]


@pytest.mark.parametrize(
    "values",
    [
        {"os_hostname": "other"},
        {"os": "Windows"},
        {"user": "bob@example.com"},
        {"tags": ("tag:server",)},
        {"shared": True},
        {"created": NOW - 2000, "last_online": NOW - 600},
        {"state": "online"},
        {"state": "unknown"},
        {"successor": "another"},
        {"last_online": NOW + 600},
        {"first_seen": NOW},
        {"left_out": True, "removed_at": NOW - 60},
    ],
)
def test_who_is_not_followed(values: dict[str, Any]) -> None:
    """Another name, system or owner; one of many alike that live for minutes; one that is there, that was
    followed already, that was there beside the new one, or was seen together with it first."""
    assert followed(new(), off("box", **values)) == []


def test_localhost_is_no_name() -> None:
    assert followed(new(os_hostname="localhost"), off("box", os_hostname="localhost")) == []


def test_the_dns_name_must_fit() -> None:
    assert followed(new("web"), off("db")) == []


def test_where_several_machines_bear_the_name_nobody_is_followed() -> None:
    """A fleet of boards that all call themselves raspberrypi."""
    assert followed(new("box-7"), off("box-2"), node("box-1")) == []
    assert followed(new("box-7"), off("box-2"), off("box-1")) == []
    assert followed(new("box-7"), new("box-8"), off("box-1")) == []


def test_one_that_the_document_lacks_is_gone() -> None:
    """An ephemeral container: its removal is not certain yet when the next one joins."""
    assert followed(new(), node("box", missing_since=NOW)) == ["box"]


def test_a_killed_one_that_goes_offline_after_the_other_joined() -> None:
    late = new(first_seen=NOW - 40, created=NOW - 45)
    assert followed(late, off("box", last_online=NOW)) == ["box"]
    assert followed(new(first_seen=NOW - 400, created=NOW - 405), off("box")) == []


@pytest.mark.parametrize("same", [True, False])
def test_who_is_alike_is_found_without_a_look_at_every_pair(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All nodes of a tailnet are new for the first minutes of a tsmon."""
    looks = 0

    def counted(facts: NodeFacts) -> str:
        nonlocal looks
        looks += 1
        return family(facts)

    monkeypatch.setattr("tsmon.monitor.succession.family", counted)
    found = []
    for many in (200, 400):
        nodes = [new(f"box-{n}", os_hostname="box" if same else f"box-{n}") for n in range(many)]
        old = [off(f"box-{n}", id=f"old-{n}", os_hostname=f"box-{n}") for n in range(many)]
        looks = 0
        changes = Changes(nodes={one.id: one for one in (*nodes, *old)})
        look_for_successors(changes, (), NOW)
        found.append(looks)
        assert len(changes.stored) == (0 if same else 2 * many)
    assert found[1] <= 2.1 * found[0]
