"""What the API answers of checked ports, routes and the tailnet lock."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.history.uptime import Bars, Outage, Uptime
from tsmon.monitor.alerts import Alert
from tsmon.monitor.services.service import Service, ServiceKey
from tsmon.monitor.state import View
from tsmon.source.check_answer import CheckOutcome


class ServiceBars(msgspec.Struct, omit_defaults=True, gc=False):
    """As of /history, of one check."""

    states: str
    uptime: list[float | None] | None = None
    coverage: list[float] | None = None


class ServiceOutage(msgspec.Struct, gc=False):
    start: str | None
    end: str | None
    duration_s: int


class ServiceAnswer(msgspec.Struct, kw_only=True, gc=False):
    node_id: str | None
    """Null for a Tailscale Service."""
    hostname: str
    """For a Tailscale Service its name."""
    check: str
    service: str | None
    """Name of the Tailscale Service (`svc:web`); null for a node's own port."""
    state: CheckOutcome
    since: str | None
    latency_ms: float | None
    detail: str | None
    """What the last failures looked like."""
    uptime_24h: float | None
    coverage_24h: float | None
    alert: str | None
    """Id of the alert that fires for it."""
    bars: ServiceBars | None
    """Null unless `buckets` is given."""
    outages: list[ServiceOutage] | None
    """Null unless `node` is given; newest first."""


class ServicesAnswer(msgspec.Struct, kw_only=True):
    services: list[ServiceAnswer]
    total: int
    """How many there are in all."""
    bounds: list[str | None] | None
    """Of the bars."""
    can_check: bool
    why_not: str | None
    as_of: str | None


class RouteAnswer(msgspec.Struct, kw_only=True, gc=False):
    prefix: str
    router: str | None
    """Null while nobody routes it, and while tsmon is blind."""
    routers: list[str]
    """All that route it now: several with regional routing."""
    last_router: str
    since: str | None
    standbys: list[str] | None
    """Approved for it, not routing it now; null without the control server's API."""
    moves_24h: int


class ExitNodeAnswer(msgspec.Struct, kw_only=True, gc=False):
    hostname: str
    online: bool | None
    """Null while its state is unknown."""


class LockedOutAnswer(msgspec.Struct, kw_only=True, gc=False):
    node_id: str
    hostname: str


class RoutesAnswer(msgspec.Struct, kw_only=True):
    routes: list[RouteAnswer]
    exit_nodes: list[ExitNodeAnswer]
    locked_out: list[LockedOutAnswer]
    """Machines whose keys wait for a signature of the tailnet lock."""
    as_of: str | None


class ServicePast(msgspec.Struct, frozen=True):
    """What the history says of the services that are shown."""

    uptime: Mapping[ServiceKey, Uptime]
    bounds: Sequence[float] = ()
    bars: Mapping[ServiceKey, Bars] = {}
    outages: Mapping[ServiceKey, list[Outage]] | None = None


def chosen_services(view: View, node: str, state: str) -> list[Service]:
    """By name and check; of `node` (name or ID, or a Tailscale Service; "": of all), in `state` as it
    is shown."""
    found = [
        service
        for service in view.services.values()
        if node in ("", service.name, service.owner) and state in ("", shown_state(service, view))
    ]
    return sorted(
        found,
        key=lambda one: (not one.down, one.tailscale_service is None, one.name, one.check.port, one.key),
    )


def shown_state(service: Service, view: View) -> CheckOutcome:
    """Nothing is known of it while tsmon is blind."""
    return "unknown" if view.blind is not None else service.state


def services_answer(
    view: View, services: Iterable[Service], total: int, alerts: Iterable[Alert], past: ServicePast
) -> ServicesAnswer:
    """The services that were chosen, with what the history says of them."""
    firing = {
        (alert.node_id or alert.hostname or "", alert.subject): str(alert.id)
        for alert in alerts
        if alert.kind == "service_down" and alert.state == "firing"
    }
    return ServicesAnswer(
        services=[_service(service, view, firing, past) for service in services],
        total=total,
        bounds=[rfc3339(bound) for bound in past.bounds] or None,
        can_check=not view.cannot_ask,
        why_not=view.cannot_ask or None,
        as_of=rfc3339(view.as_of),
    )


def _service(
    service: Service, view: View, firing: Mapping[tuple[str, str], str], past: ServicePast
) -> ServiceAnswer:
    key, blind = service.key, view.blind
    uptime, bars = past.uptime.get(key), past.bars.get(key)
    outages = past.outages.get(key, []) if past.outages is not None else None
    return ServiceAnswer(
        node_id=None if service.tailscale_service else service.owner,
        hostname=service.name,
        check=key.check,
        service=service.tailscale_service,
        state=shown_state(service, view),
        since=rfc3339(blind.since if blind is not None else service.since),
        latency_ms=service.latency_ms if blind is None else None,
        detail=(service.detail or None) if blind is None else None,
        uptime_24h=uptime.uptime_percentage if uptime is not None else None,
        coverage_24h=uptime.coverage if uptime is not None else None,
        alert=firing.get((key.owner, key.check)),
        bars=ServiceBars(bars.states, bars.uptime, bars.coverage) if bars is not None else None,
        outages=[_outage(outage, view.now) for outage in reversed(outages)] if outages is not None else None,
    )


def _outage(outage: Outage, now: float) -> ServiceOutage:
    length = (outage.end if outage.end is not None else now) - outage.start
    return ServiceOutage(rfc3339(outage.start), rfc3339(outage.end), round(length))


def routes_answer(view: View, moves: Mapping[str, int]) -> RoutesAnswer:
    """Who routes what, and how often that changed in the last 24 h, by prefix."""
    blind = view.blind is not None
    names = {id_: node.hostname for id_, node in view.nodes.items()}
    routes = []
    for route in view.routes.subnets.values():
        routers = [] if blind else [names.get(id_, id_) for id_ in route.routers]
        routes.append(
            RouteAnswer(
                prefix=route.prefix,
                router=routers[0] if routers else None,
                routers=routers,
                last_router=route.last_name,
                since=rfc3339(view.blind.since if view.blind is not None else route.since),
                standbys=_standbys(route.prefix, route.routers, view, names),
                moves_24h=moves.get(route.prefix, 0),
            )
        )
    return RoutesAnswer(
        routes=routes,
        exit_nodes=_exit_nodes(view),
        locked_out=[LockedOutAnswer(node_id=one.id, hostname=one.hostname) for one in view.locked_out],
        as_of=rfc3339(view.as_of),
    )


def _standbys(
    prefix: str, routers: tuple[str, ...], view: View, names: Mapping[str, str]
) -> list[str] | None:
    """Only the control server knows who is approved for it without routing it."""
    inventory = view.inventory
    if inventory is None or not inventory.knows_routes:
        return None
    return sorted(
        names.get(device.id, device.hostname)
        for device in inventory.devices.values()
        if prefix in (device.routes_approved or ()) and device.id not in routers
    )


def _exit_nodes(view: View) -> list[ExitNodeAnswer]:
    offered = [node for node in view.nodes.values() if node.facts.exit_node_option]
    states = {"online": True, "offline": False, "unknown": None}
    rows = [ExitNodeAnswer(hostname=node.hostname, online=states[view.shown(node).state]) for node in offered]
    return sorted(rows, key=lambda row: row.hostname)
