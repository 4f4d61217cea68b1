"""Who routes what now: subnets and exit nodes as the view holds them. Pure."""

import msgspec

EXIT_ROUTES = ("0.0.0.0/0", "::/0")


class SubnetRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One prefix that a node routes, or routed last; times in Unix seconds."""

    prefix: str
    routers: tuple[str, ...]
    """Stable IDs of the nodes that route it now: several with regional routing, none while it is lost."""
    last: str
    """Stable ID of the last router, and its hostname."""
    last_name: str
    since: float
    """Begin of the present state: routed by these, or by nobody."""

    @property
    def lost(self) -> bool:
        return not self.routers


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """All prefixes that were ever routed and not given up, and the exit nodes."""

    subnets: dict[str, SubnetRoute] = {}
    exit_nodes: tuple[str, ...] = ()
    """Stable IDs of the nodes that offer to be one and are online."""
    exit_last: str = ""
    """The last of them, and its hostname, while there is none."""
    exit_last_name: str = ""
    exit_since: float | None = None
    """Since when there are exit nodes, or none any more; None: there never was one."""

    @property
    def exit_lost(self) -> bool:
        return self.exit_since is not None and not self.exit_nodes
