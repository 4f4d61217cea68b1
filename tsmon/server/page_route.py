"""The routes that only the dashboard asks: its first glance, and its table."""

from collections.abc import Callable, Mapping

from aiohttp import web

from tsmon.base.clock import Clock, rfc3339
from tsmon.base.threads import MANY_NODES, off_loop
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.store import StoreError
from tsmon.history.uptime import Bars
from tsmon.server.answers import ReadyAnswer
from tsmon.server.beyond_answers import RoutesAnswer, ServicesAnswer
from tsmon.server.beyond_routes import BeyondRoutes, ServicesQuery
from tsmon.server.coverage_route import coverage_answer
from tsmon.server.figures import History
from tsmon.server.one_node import PAGE_WINDOWS, NodePage, OneNode
from tsmon.server.page import (
    SPARK_STEP,
    GlanceAnswer,
    GlanceQuery,
    Table,
    TableAnswer,
    TableQuery,
    glance_body,
)
from tsmon.server.present import PresentAnswers
from tsmon.server.render import DAY
from tsmon.server.replies import reply
from tsmon.server.routing import Route, Routes
from tsmon.server.waiting import BusyError

_MOST_SERVICES = 100
_MOST_UNSEEN = 200
_NODE_BARS = 48


class PageRoutes:
    """Everything of a screen in one answer each."""

    def __init__(
        self,
        clock: Clock,
        present: PresentAnswers,
        history: History,
        embedded: EmbeddedHistory,
        *,
        readiness: Callable[[], ReadyAnswer],
        one_node: OneNode,
        beyond: BeyondRoutes,
    ) -> None:
        """`embedded` has the latency, wherever `history` reads the states."""
        self._clock = clock
        self._present = present
        self._history = history
        self._embedded = embedded
        self._readiness = readiness
        self._one_node = one_node
        self._beyond = beyond

    def routes(self, base: str) -> Routes:
        return [
            Route(f"{base}/glance", self.glance, "The dashboard's first glance", GlanceAnswer, GlanceQuery),
            Route(f"{base}/table", self.table, "The dashboard's table", TableAnswer, TableQuery),
        ]

    async def glance(self, request: web.Request, query: GlanceQuery) -> web.StreamResponse:
        figures = await self._present.figures.get()
        sparks = await self._sparks() if query.sparks else None
        page = None
        if query.node:
            page = await self._one_node.page(
                query.node, query.window, query.outages, with_history=query.with_history
            )
        services, routes, of_node = await self._of_beyond(query, page)
        view, alerts, keys = self._present.view, self._present.alerts(), self._present.critical_keys
        answer = GlanceAnswer(
            summary=self._present.summary(),
            incidents=self._present.incidents(),
            warnings=self._readiness().warnings,
            newest_event=str(self._present.newest_event),
            sparks=sparks,
            node=page,
            services=services,
            routes=routes,
            coverage=coverage_answer(view, _MOST_UNSEEN) if query.beyond else None,
            node_services=of_node,
            critical={},
        )
        body = await off_loop(lambda: glance_body(answer, view, keys, alerts, figures), len(view.nodes))
        return await reply(request, body)

    async def _of_beyond(
        self, query: GlanceQuery, page: NodePage | None
    ) -> tuple[ServicesAnswer | None, RoutesAnswer | None, ServicesAnswer | None]:
        """Services, routes, the services of the node; what cannot be read now is left out: the rest of the
        dashboard does not depend on it."""
        try:
            services = routes = of_node = None
            if query.beyond:
                services = await self._beyond.services_answer(ServicesQuery(limit=_MOST_SERVICES))
                routes = await self._beyond.routes_answer()
            if query.with_history and page is not None and page.detail is not None and page.detail.services:
                seconds = min(PAGE_WINDOWS[query.window][0], self._present.settings.retention)
                asked = ServicesQuery(node=page.detail.id, window=seconds, buckets=_NODE_BARS)
                of_node = await self._beyond.services_answer(asked)
        except (StoreError, BusyError):
            return None, None, None
        return services, routes, of_node

    async def _sparks(self) -> dict[str, list[tuple[str | None, float | None]]]:
        ids = [node.id for node in self._present.view.nodes.values() if node.role.critical][:MANY_NODES]
        now = self._clock.wall()
        lines = await self._embedded.latency_lines(ids, now - DAY, now, SPARK_STEP)
        return {id_: [(rfc3339(at), ms) for at, ms in line] for id_, line in lines.items()}

    async def table(self, request: web.Request, query: TableQuery) -> web.StreamResponse:
        figures = await self._present.figures.get()
        view, alerts = self._present.view, self._present.alerts()
        found = await off_loop(lambda: Table(view, alerts, figures, query), len(view.nodes))
        bars: Mapping[str, Bars] = {}
        times = None
        if query.bars:
            now = self._clock.wall()
            bounds = [now - DAY + DAY * n / 48 for n in range(49)]
            times = [rfc3339(bound) for bound in bounds]
            bars = await self._history.bars(bounds, {node.id for node in found.page})
        return await reply(request, await off_loop(lambda: found.body(bars, times), len(view.nodes)))
