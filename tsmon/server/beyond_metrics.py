"""What Prometheus scrapes of checked ports, routes and the tailnet lock."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from tsmon.monitor.services.service import Service
from tsmon.monitor.state import View
from tsmon.server.families import gauge, labelled

_SERVICE = ["hostname", "node_type", "check"]


def service_families(view: View, names: Mapping[str, str]) -> Iterator[Metric]:
    """`names`: each node's label by its ID. Nothing of a service whose state nobody knows."""
    known = [one for one in view.services.values() if view.blind is None and one.state != "unknown"]
    yield labelled(
        "service_up",
        "1 while a checked port answers as it should, 0 while it does not; absent while nobody knows.",
        _SERVICE,
        ((_labels(one, view, names), float(not one.down)) for one in known),
    )
    yield labelled(
        "service_latency_seconds",
        "How long the last check took, of one that answered.",
        _SERVICE,
        ((_labels(one, view, names), one.latency_ms / 1000) for one in known if one.latency_ms is not None),
    )


def _labels(service: Service, view: View, names: Mapping[str, str]) -> list[str]:
    node = view.nodes.get(service.owner)
    node_type = node.role.node_type if node is not None else "service"
    return [names.get(service.owner, service.name), node_type, str(service.check)]


def route_families(view: View) -> Iterator[Metric]:
    """Nothing is known of a route while tsmon is blind."""
    table = view.routes
    rows = table.subnets.values() if view.blind is None else ()
    yield labelled(
        "route_up",
        "1 while an online node routes the prefix, 0 while none does; absent while tsmon is blind.",
        ["prefix"],
        (([route.prefix], float(not route.lost)) for route in rows),
    )
    known = table.exit_since is not None and view.blind is None
    yield from gauge(
        "exit_nodes_online",
        "Exit nodes that are online; absent where there never was one, and while tsmon is blind.",
        float(len(table.exit_nodes)) if known else None,
    )
    yield from gauge(
        "locked_out_nodes",
        "Machines that wait for a signature of the tailnet lock.",
        float(len(view.locked_out)),
    )
