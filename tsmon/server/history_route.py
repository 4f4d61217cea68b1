"""The routes of the past: uptime of a node, state bars, latency."""

from aiohttp import web

from tsmon.base.clock import Clock
from tsmon.base.threads import off_loop
from tsmon.server.answers import HistoryAnswer, LatencyAnswer, UptimeAnswer
from tsmon.server.bodies import history_body, page_of
from tsmon.server.choose_nodes import choose_nodes
from tsmon.server.figures import History
from tsmon.server.one_node import OneNode
from tsmon.server.params import BadParameterError
from tsmon.server.present import PresentAnswers
from tsmon.server.render import DAY, Figures, NodeAlerts
from tsmon.server.replies import Bodies, Body, encode, reply
from tsmon.server.route_params import HistoryQuery, LatencyQuery, UptimeQuery
from tsmon.server.routing import Route, Routes


class HistoryRoutes:
    """Of one node, or of all."""

    def __init__(self, clock: Clock, present: PresentAnswers, history: History, one_node: OneNode) -> None:
        self._clock = clock
        self._present = present
        self._history = history
        self._one_node = one_node
        self._bars = Bodies()

    def routes(self, base: str) -> Routes:
        return [
            Route(f"{base}/uptime/{{node}}", self.uptime, "Uptime of a node", UptimeAnswer, UptimeQuery),
            Route(f"{base}/history", self.history, "State bars", HistoryAnswer, HistoryQuery),
            Route(f"{base}/latency/{{node}}", self.latency, "Latency", LatencyAnswer, LatencyQuery),
        ]

    async def uptime(self, request: web.Request, query: UptimeQuery) -> web.StreamResponse:
        node = await self._one_node.find(request.match_info["node"])
        self._within_retention(query.hours * 3600, "hours")
        answer = await self._one_node.uptime(node, query.hours * 3600, query.limit)
        return await reply(request, Body(encode(answer)))

    async def history(self, request: web.Request, query: HistoryQuery) -> web.StreamResponse:
        self._within_retention(query.window, "window")
        figures = await self._present.figures.get()

        async def make() -> Body:
            return await self._history_body(query, figures)

        made_of = (self._present.figures.version, self._present.changes)
        body = await self._bars.get(query, made_of, make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def _history_body(self, query: HistoryQuery, figures: Figures) -> Body:
        view = self._present.view
        alerts = NodeAlerts(self._present.alerts())
        chosen = await off_loop(lambda: choose_nodes(view, alerts, query, figures), len(view.nodes))
        shown = page_of(chosen, query.limit, query.offset)
        now = self._clock.wall()
        start, count = now - query.window, query.buckets
        bounds = [start + query.window * n / count for n in range(count + 1)]
        everyone = len(shown) == len(view.nodes)
        found = await self._history.bars(bounds, None if everyone else {node.id for node in shown})
        return await off_loop(lambda: history_body(shown, found, bounds, found.kind, len(chosen)), len(shown))

    async def latency(self, request: web.Request, query: LatencyQuery) -> web.StreamResponse:
        self._within_retention(query.window, "window")
        node = await self._one_node.find(request.match_info["node"])
        return await reply(request, Body(encode(await self._one_node.latency(node, query.window))))

    def _within_retention(self, seconds: float, name: str) -> None:
        if seconds <= 0 or seconds > self._present.settings.retention:
            days = self._present.settings.retention / DAY
            raise BadParameterError(
                f"{name} takes more than nothing and at most the retention ({days:g} days)"
            )
