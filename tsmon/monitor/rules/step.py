"""What the rules are given: one step of the monitor, the settings, and what they all ask of a node."""

from collections.abc import Container, Iterable, Mapping

import msgspec

from tsmon.base.clock import Moment
from tsmon.monitor.alerts import Alert, AlertSeverity
from tsmon.monitor.control.drift import Drift
from tsmon.monitor.control.inventory import Inventory
from tsmon.monitor.routes import RouteTable
from tsmon.monitor.services.service import Service, ServiceKey
from tsmon.monitor.state import Blind, Event, Node
from tsmon.source.extras import LockedOut

EPSILON = 1e-6


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the rules, in seconds."""

    blind_after: float
    flapping_changes: int
    flapping_window: float
    flapping_settle: float
    path_latency: float | None = None
    """A slower path is degraded; None: no path is too slow."""
    path_relay: bool = False
    """A path through a relay is degraded."""
    credential_steps: tuple[float, ...] = ()
    """How long before its end a credential is worth a word."""
    device_joined: bool = False
    """A new device is worth an alert."""
    offline_after: float = 0.0
    """Of what no role has one of its own for."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the source and what it means, as the rules need it."""

    now: Moment
    limits: Limits
    trusted: bool
    elapsed: float
    """Observed seconds since the last trusted document."""
    observed_from: float | None
    """Wall time at which the present observed stretch began."""
    nodes: Mapping[str, Node]
    removed: Mapping[str, Node]
    missing_roles: Mapping[str, Node]
    """Keys of critical roles that no node fits any more -> the last that did, as it was then."""
    ephemeral: Container[str] = ()
    """IDs of nodes that leave the tailnet when they go offline, as the control server says."""
    events: Iterable[Event]
    """The node events of this step."""
    blind: Blind | None
    blind_for: float
    """Running seconds of the present blind stretch."""
    self_node: Node | None
    self_stopped: bool
    isolated_since: Moment | None
    pings_answered: bool
    can_ping: bool
    storage_error: str = ""
    """Why the embedded store cannot be written, "" when it can."""
    influx_error: str | None = ""
    """Why InfluxDB lags longer than its limit, "" when it does not; None: it is not configured."""
    control: Inventory | None = None
    """What the control server knows; None: it is not asked."""
    drifts: tuple[Drift, ...] = ()
    """What it says that changed, in this step."""
    services: Mapping[ServiceKey, Service] = {}
    routes: RouteTable = RouteTable()
    locked_out: tuple[LockedOut, ...] = ()


def alerts_for(node: Node) -> bool:
    """The node's role asks for alerts, and the node was seen online once (or is critical; rule 8.3)."""
    return node.role.alert != "none" and (node.seen_online or node.role.critical)


def severity_of(node: Node) -> AlertSeverity:
    return "critical" if node.role.alert == "critical" else "warning"


def observed_since(since: float | None, step: Step) -> float:
    """Observed seconds of a condition that began at `since`."""
    if since is None or step.observed_from is None:
        return 0.0
    return max(0.0, step.now.wall - max(since, step.observed_from))


def until_due(alert: Alert, node: Node) -> float:
    """Observed seconds until `alert`, which is about `node`, falls due; 0 or less when it has."""
    delay = node.role.offline_after if alert.delay is None else alert.delay
    return delay - alert.waited
