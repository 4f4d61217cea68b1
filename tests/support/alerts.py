"""Alerts and views, made up."""

from typing import Any

import msgspec

from tests.support.facts import facts
from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import Node, OfflineReason, State, View
from tsmon.source.status import Tailnet

NOW = 1_790_000_000.0
ROLES = Classifier(Settings())


def alert(id_: int = 1, **fields: Any) -> Alert:
    base: dict[str, Any] = {
        "id": id_,
        "kind": "node_offline",
        "severity": "critical",
        "state": "firing",
        "node_id": f"n{id_}",
        "hostname": "chocolate-factory",
        "node_type": "production",
        "since": NOW - 180,
        "pending_at": NOW - 180,
        "fired_at": NOW - 60,
        "message": "chocolate-factory is offline",
    }
    return Alert(**(base | fields))


def view() -> View:
    return View(
        version=1,
        now=NOW,
        as_of=NOW,
        nodes={},
        removed={},
        blind=None,
        self_id="",
        self_stopped=False,
        tailnet=Tailnet("tail.example", "tail.example"),
        tun=True,
        excluded=0,
    )


def seen(*alerts: Alert) -> View:
    """A view in which the nodes of these alerts are as the alerts say."""
    nodes = {}
    for about in alerts:
        if about.node_id is None or about.cause in ("removed", "acknowledged"):
            continue
        up = about.state == "resolved" or about.kind in ("key_expiring", "path_degraded")
        found = facts(about.hostname or "", id=about.node_id)
        state: State = "online" if up else "offline"
        reason: OfflineReason | None = None if up else "control"
        nodes[about.node_id] = Node(
            facts=found, role=ROLES.role(found), first_seen=0.0, state=state, reason=reason
        )
    return msgspec.structs.replace(view(), nodes=nodes)


def tailnet(*names: str, state: State = "offline", **values: object) -> View:
    """A view of nodes in one state."""
    nodes = {}
    for name in names:
        found = facts(name, id=name, **values)
        node = Node(facts=found, role=ROLES.role(found), first_seen=0.0, state=state)
        nodes[node.id] = node
    return msgspec.structs.replace(view(), nodes=nodes)


def of(view_: View, name: str) -> dict[str, Any]:
    """The fields of a warning about a node of `view_`."""
    node = next(node for node in view_.nodes.values() if node.hostname == name)
    return {"node_id": node.id, "hostname": name, "severity": "warning"}
