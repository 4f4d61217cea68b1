"""How alerts join to incidents."""

import msgspec

from tests.support.alerts import NOW, alert, of, tailnet
from tsmon.monitor.incidents import WINDOW, join_alerts


def test_what_falls_together_is_one_incident_and_what_comes_late_another() -> None:
    found = tailnet("a", "b", "c", tags=("tag:server",))
    alerts = [
        alert(1, fired_at=NOW, **of(found, "a")),
        alert(2, fired_at=NOW + 9 + WINDOW, **of(found, "b")),
        alert(3, fired_at=NOW + 10 + WINDOW, **of(found, "c")),
    ]
    first, second = join_alerts(alerts, found, group_wait=10.0)
    assert ([a.id for a in first.alerts], [a.id for a in second.alerts]) == ([1, 2], [3])
    assert (first.noun, first.id, first.kind) == ("server", 1, "node_offline")


def test_keys_and_outages_are_different_stories_and_pending_ones_none() -> None:
    found = tailnet("a", "b")
    alerts = [
        alert(1, **of(found, "a")),
        alert(2, kind="key_expiring", **of(found, "b")),
        alert(3, state="pending", **of(found, "b")),
    ]
    assert [i.kind for i in join_alerts(alerts, found, 10.0)] == ["node_offline", "key_expiring"]


def test_worst_first_then_critical_nodes_and_what_is_taken_care_of_last() -> None:
    found = tailnet("git", "a", "b")
    alerts = [
        alert(1, fired_at=NOW, **of(found, "a")),
        alert(2, fired_at=NOW + 1000, **of(found, "git")),
        alert(3, fired_at=NOW + 2000, **(of(found, "b") | {"severity": "critical"})),
        alert(4, kind="key_expiring", acknowledged_by="al", **(of(found, "b") | {"severity": "critical"})),
    ]
    incidents = join_alerts(alerts, found, 10.0)
    assert [i.id for i in incidents] == [3, 2, 1, 4]
    assert [i.is_calm for i in incidents] == [False, False, False, True]


def test_the_common_cause_is_named() -> None:
    fallen = tailnet("a", "b", "c", tags=("tag:rack-a",))
    standing = tailnet("d", "e", "f", tags=("tag:rack-b",))
    both = msgspec.structs.replace(fallen, nodes=fallen.nodes | standing.nodes)
    alerts = [alert(n, **of(both, name)) for n, name in enumerate("abc", 1)]
    assert [i.cause for i in join_alerts(alerts, both, 10.0)] == ["tag:rack-a"]
