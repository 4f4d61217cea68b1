"""Alerts and views, made up."""

from typing import Any

from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import View
from tsmon.source.status import Tailnet

NOW = 1_790_000_000.0


def alert(id_: int = 1, **fields: Any) -> Alert:
    base: dict[str, Any] = {
        "id": id_,
        "kind": "node_offline",
        "severity": "critical",
        "state": "firing",
        "node_id": "n1",
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
