"""The routes of checked ports, and of who routes what."""

from typing import Annotated

from aiohttp import web

from tsmon.base.clock import Clock
from tsmon.base.threads import off_loop
from tsmon.history.log import route_moves
from tsmon.history.service_history import ServiceHistory
from tsmon.history.store import Store
from tsmon.monitor.services.service import Service
from tsmon.server.beyond_answers import (
    RoutesAnswer,
    ServicePast,
    ServicesAnswer,
    chosen_services,
    routes_answer,
    services_answer,
)
from tsmon.server.params import BadParameterError, NoQuery, Query, Takes
from tsmon.server.present import PresentAnswers
from tsmon.server.render import DAY
from tsmon.server.replies import Bodies, Body, encode, reply
from tsmon.server.routing import Route, Routes
from tsmon.server.waiting import WaitingLine

_STATES = ("", "ok", "refused", "no_answer", "bad_answer", "unknown")


class ServicesQuery(Query, frozen=True):
    """/services."""

    node: Annotated[str, Takes("text", "only of this node (name or ID) or Tailscale Service")] = ""
    state: Annotated[str, Takes("choice", "only in this state", choices=_STATES)] = ""
    window: Annotated[float, Takes("duration", "of bars and outages, up to the retention")] = DAY
    buckets: Annotated[int, Takes("int", "how many bars of each; 0 for none", 0, 400)] = 0
    limit: Annotated[int, Takes("int", "how many checks at most", 1, 100_000)] = 10_000
    offset: Annotated[int, Takes("int", "how many of them to skip", 0, 1_000_000)] = 0


class BeyondRoutes:
    """What is known beyond nodes; its history is read in a line of its own."""

    def __init__(self, clock: Clock, present: PresentAnswers, store: Store) -> None:
        self._clock = clock
        self._present = present
        self._store = store
        self._history = ServiceHistory(store)
        self._line = WaitingLine()
        self._bodies = Bodies()

    def routes(self, base: str) -> Routes:
        return [
            Route(f"{base}/services", self.services, "The checked ports", ServicesAnswer, ServicesQuery),
            Route(f"{base}/routes", self.subnets, "Subnet routers and exit nodes", RoutesAnswer, NoQuery),
        ]

    async def services(self, request: web.Request, query: ServicesQuery) -> web.StreamResponse:
        retention = self._present.settings.retention
        if not 0 < query.window <= retention:
            days = retention / DAY
            raise BadParameterError(
                f"window takes more than nothing and at most the retention ({days:g} days)"
            )

        async def make() -> Body:
            return await self._body(query)

        # Uptime moves with time, too: no answer is older than the figures of nodes.
        await self._present.figures.get()
        body = await self._bodies.get(query, self._present.made_of, make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def routes_answer(self) -> RoutesAnswer:
        """What /routes answers. Raises StoreError."""
        view = self._present.view
        moves = await route_moves(self._store, self._clock.wall() - DAY) if view.routes.subnets else {}
        return await off_loop(lambda: routes_answer(view, moves), len(view.nodes))

    async def _body(self, query: ServicesQuery) -> Body:
        answer = await self.services_answer(query)
        return await off_loop(lambda: Body(encode(answer), total=answer.total), len(answer.services))

    async def services_answer(self, query: ServicesQuery) -> ServicesAnswer:
        """What /services answers. Raises StoreError and BusyError."""
        view, alerts = self._present.view, self._present.alerts()
        found = await off_loop(lambda: chosen_services(view, query.node, query.state), len(view.services))
        shown = found[query.offset : query.offset + query.limit]
        past = await self._past(query, shown) if shown else ServicePast({})
        return await off_loop(lambda: services_answer(view, shown, len(found), alerts, past), len(shown))

    async def _past(self, query: ServicesQuery, shown: list[Service]) -> ServicePast:
        now = self._clock.wall()
        owner = shown[0].owner if query.node else None
        start, count = now - query.window, query.buckets
        bounds = [start + query.window * n / count for n in range(count + 1)] if count else []
        async with self._line.turn():
            uptime = await self._history.uptime(now - DAY, now, owner)
            bars = await self._history.bars(bounds, owner) if bounds else {}
            outages = await self._history.outages(start, now, owner) if owner is not None else None
        return ServicePast(uptime, bounds, bars, outages)

    async def subnets(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        async def make() -> Body:
            return Body(encode(await self.routes_answer()))

        return await reply(request, await self._bodies.get("routes", self._present.made_of, make))
