"""One who watches a random life and knows what may be said of it."""

from typing import Any

from tests.support.world import World
from tsmon.monitor.alerts import Alert

NAMES = ("git", "dev", "chocolate-factory", "server-1")


NODE_KINDS = ("node_offline", "node_detached", "node_missing", "node_flapping", "key_expiring")


class Witness:
    """Sees every step and remembers what it promised."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alerts: dict[int, Alert] = {}
        self.faults: list[str] = []

    def attach(self) -> None:
        self.world.watchers.append(self.look)

    def look(self, published: Any) -> None:
        blind = published.view.blind is not None
        for alert in published.alerts:
            before = self.alerts.get(alert.id)
            self.alerts[alert.id] = alert
            told = before is not None and before.state == alert.state
            if blind and alert.kind in NODE_KINDS and not told:
                self.faults.append(f"{alert.kind} became {alert.state} while blind")
            if before is not None and before.state == "resolved" and alert.state != "resolved":
                self.faults.append(f"alert {alert.id} came back after its end")
        for event in published.events:
            own = event.node_id == published.view.self_id
            if blind and event.event_type in ("node_online", "node_offline", "node_removed") and not own:
                self.faults.append(f"{event.event_type} of {event.hostname} while blind")


async def act(world: World, kind: str, name: str) -> None:
    tailnet = world.tailnet
    simple = {"off": tailnet.off, "on": tailnet.on, "hang": tailnet.hang}
    if kind in simple:
        simple[kind](name)
    elif kind == "detach":
        tailnet.change(name, online=False, alive=True)
    elif kind in ("refuse", "answer"):
        tailnet.fault = "refused" if kind == "refuse" else ""
    elif kind in ("stop", "start", "lose_control", "regain_control"):
        getattr(tailnet, kind)()
    elif kind in ("cut", "uplink"):
        tailnet.uplink = kind == "uplink"
    elif kind in ("empty", "full"):
        tailnet.hide_peers = kind == "empty"
    elif kind == "kill":
        await world.restart(after=20)
