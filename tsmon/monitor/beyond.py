"""What is known beyond nodes: checked ports, routes, the tailnet lock. Pure, time passed in."""

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from tsmon.base.clock import Moment
from tsmon.config import Settings
from tsmon.monitor.batch import Batch, LastRun
from tsmon.monitor.route_moves import compare_routes, cut_routes, given_up
from tsmon.monitor.routes import RouteTable
from tsmon.monitor.services.service import ServiceSpan
from tsmon.monitor.services.tracker import Services, targets
from tsmon.monitor.state import Event, Node
from tsmon.source.extras import LockedOut, TailscaleService
from tsmon.source.status import Snapshot

SETTLED = 60.0
"""Seconds after sight returned for which routes are left as they were (rule 13.6)."""


class Beyond:
    """All of it, as the last run left it until the first trusted document."""

    def __init__(self, settings: Settings, last: LastRun) -> None:
        self.services = Services(last.services)
        self.routes = _read_routes(last.meta.get("routes"))
        self.locked_out: tuple[LockedOut, ...] = _read_locked(last.meta.get("locked_out"))
        """Machines that wait for a signature, as they were last listed."""
        self.listed: tuple[TailscaleService, ...] = ()
        """Tailscale Services of the source's own list; the status document's come beside them."""
        self.cannot_ask = ""
        """Why no port can be asked, "" when they can."""
        self.suspects: list[str] = []
        """Nodes that lost a route to another in this step: to be asked at once."""
        self._with_services = settings.services
        self._settled = float("-inf")
        self._former: frozenset[str] = frozenset()

    def apply(self, settings: Settings) -> None:
        """New settings after a reload."""
        self._with_services = settings.services

    def step(
        self,
        snapshot: Snapshot,
        nodes: Mapping[str, Node],
        now: Moment,
        batch: Batch,
        *,
        returned: bool,
        path_suspect: bool,
    ) -> list[Event]:
        """Bring all of it up to this trusted document; what changed goes into `batch`. `returned`: it ended
        a time without sight, after which a control server is still finding out who is there."""
        if returned:
            self._settled = now.mono + SETTLED
        seen = {service.name: service for service in snapshot.services} if self._with_services else {}
        seen |= {service.name: service for service in self.listed} if self._with_services else {}
        asked = targets(nodes.values(), seen.values())
        changes = self.services.step(asked, nodes, now, unsure=path_suspect or bool(self.cannot_ask))
        batch.services += changes.stored
        batch.dropped_services += changes.gone
        batch.service_spans += changes.spans
        self.suspects = []
        if now.mono < self._settled and self.routes != RouteTable():
            return changes.events
        routes = compare_routes(self.routes, nodes, now)
        self.routes, self.suspects = routes.table, routes.suspects
        self._former = self._former.union(self.suspects).intersection(nodes)
        return [*changes.events, *routes.events]

    @property
    def routers(self) -> frozenset[str]:
        """Stable IDs of the nodes that route something, were the last that did, or lost it to another in this
        run."""
        subnets = self.routes.subnets.values()
        return self._former.union(id_ for route in subnets for id_ in (*route.routers, route.last))

    def fields(self) -> dict[str, Any]:
        """What the view shows of it."""
        return {
            "services": self.services.known,
            "cannot_ask": self.cannot_ask,
            "routes": self.routes,
            "locked_out": self.locked_out,
        }

    def meta(self) -> dict[str, str]:
        """What the next run needs beyond the services; "" where there is nothing."""
        return {
            "routes": msgspec.json.encode(self.routes, order="sorted").decode()
            if self.routes != RouteTable()
            else "",
            "locked_out": msgspec.json.encode(self.locked_out).decode() if self.locked_out else "",
        }

    def add_whole(self, batch: Batch, now: float) -> None:
        """Everything that a new database must hold of it; `now` in Unix seconds."""
        batch.services += self.services.known.values()
        batch.service_spans += [
            ServiceSpan(key, now, service.span_state) for key, service in self.services.known.items()
        ]

    def cut(self, now: float, batch: Batch) -> None:
        """The clock went back: nothing may lie beyond `now` (Unix seconds)."""
        batch.services += self.services.cut(now)
        self.routes = cut_routes(self.routes, now)

    def give_up(self, kind: str, subject: str) -> None:
        """An operator says that a route, or an exit node, is not needed any more."""
        self.routes = given_up(self.routes, subject if kind == "route_lost" else "")


def _read_routes(text: str | None) -> RouteTable:
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return msgspec.json.decode(text or "", type=RouteTable)
    return RouteTable()


def _read_locked(text: str | None) -> tuple[LockedOut, ...]:
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return msgspec.json.decode(text or "", type=tuple[LockedOut, ...])
    return ()
