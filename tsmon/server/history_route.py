"""The routes of the past: uptime of a node, state bars, latency."""

from aiohttp import web

from tsmon.base.clock import Clock
from tsmon.base.threads import off_loop
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.log import EventFilter, page_of_events
from tsmon.history.store import Store
from tsmon.history.uptime import Uptime
from tsmon.server.answers import HistoryAnswer, LatencyAnswer, UptimeAnswer
from tsmon.server.bodies import history_body, page_of
from tsmon.server.choose_nodes import choose_nodes
from tsmon.server.figures import History
from tsmon.server.find_node import find_node
from tsmon.server.params import BadParameterError
from tsmon.server.present import Present
from tsmon.server.render import DAY, Figures, NodeAlerts, latency_answer, uptime_answer
from tsmon.server.replies import Bodies, Body, encode, reply
from tsmon.server.route_params import HistoryQuery, LatencyQuery, UptimeQuery
from tsmon.server.routing import Route, Routes
from tsmon.server.waiting import WaitingLine

_NOT_RECORDED = Uptime(0.0, 0.0, 0.0, None, None)


class HistoryRoutes:
    """Reads the history in a line of its own: those who ask about the present do not wait behind it."""

    def __init__(
        self, clock: Clock, present: Present, store: Store, history: History, embedded: EmbeddedHistory
    ) -> None:
        """`embedded` has the latency, wherever `history` reads the states."""
        self._clock = clock
        self._present = present
        self._store = store
        self._history = history
        self._embedded = embedded
        self._line = WaitingLine()
        self._bars = Bodies()

    def routes(self, base: str) -> Routes:
        return [
            Route(f"{base}/uptime/{{node}}", self.uptime, "Uptime of a node", UptimeAnswer, UptimeQuery),
            Route(f"{base}/history", self.history, "State bars", HistoryAnswer, HistoryQuery),
            Route(f"{base}/latency/{{node}}", self.latency, "Latency", LatencyAnswer, LatencyQuery),
        ]

    async def uptime(self, request: web.Request, query: UptimeQuery) -> web.StreamResponse:
        node = await find_node(request.match_info["node"], self._present.view, self._store)
        now = self._clock.wall()
        start = now - query.hours * 3600
        self._within_retention(now - start, "hours")
        async with self._line.turn():
            found = await self._history.uptime(start, now, {node.id})
            outages = await self._history.outages(node.id, start, now)
        uptime = found.get(node.id, _NOT_RECORDED)
        fell = EventFilter(node_id=node.id, event_type="node_offline", since=start)
        events, _, _ = await page_of_events(self._store, fell, query.limit, 0)
        answer = uptime_answer(
            node.hostname,
            query.hours,
            uptime,
            outages,
            now=now,
            kind=self._history.kind(start),
            limit=query.limit,
            reasons={round(event.timestamp): str(event.details.get("reason", "")) for event in events},
        )
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
        kind, total = self._history.kind(start), len(chosen)
        return await off_loop(lambda: history_body(shown, found, bounds, kind, total), len(shown))

    async def latency(self, request: web.Request, query: LatencyQuery) -> web.StreamResponse:
        self._within_retention(query.window, "window")
        node = await find_node(request.match_info["node"], self._present.view, self._store)
        now = self._clock.wall()
        async with self._line.turn():
            rows = await self._embedded.latency(node.id, now - query.window, now)
        return await reply(request, Body(encode(latency_answer(node.hostname, rows))))

    def _within_retention(self, seconds: float, name: str) -> None:
        if seconds <= 0 or seconds > self._present.settings.retention:
            days = self._present.settings.retention / DAY
            raise BadParameterError(
                f"{name} takes more than nothing and at most the retention ({days:g} days)"
            )
