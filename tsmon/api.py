"""The routes of the JSON API: parameters, answers, errors. The contract is docs/api.md."""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tsmon import __version__
from tsmon.base.clock import Clock, rfc3339
from tsmon.base.threads import off_loop
from tsmon.config import Settings
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.log import resolved_alerts
from tsmon.history.store import Store
from tsmon.monitor.ledger import Published
from tsmon.monitor.monitor import Monitor
from tsmon.server.access import Access, add_security_headers
from tsmon.server.answers import (
    AlertsAnswer,
    CriticalEntry,
    IncidentsAnswer,
    NodeAnswer,
    NodeDetail,
    ReadyAnswer,
    SummaryAnswer,
)
from tsmon.server.assets import Pages
from tsmon.server.badge import badge
from tsmon.server.beyond_routes import BeyondRoutes
from tsmon.server.bodies import critical_body, nodes_body
from tsmon.server.coverage_route import CoverageRoutes
from tsmon.server.figures import FigureCache, History
from tsmon.server.find_node import find_node
from tsmon.server.history_route import HistoryRoutes
from tsmon.server.incidents import NotifiedAt
from tsmon.server.live import Live
from tsmon.server.log_route import LogRoute
from tsmon.server.one_node import OneNode
from tsmon.server.openapi import document
from tsmon.server.page_route import PageRoutes
from tsmon.server.params import BadParameterError, NoQuery
from tsmon.server.present import PresentAnswers
from tsmon.server.probes import Probes
from tsmon.server.render import NO_FIGURES, alert_answer, alert_order
from tsmon.server.replies import ApiError, Bodies, Body, encode, errors, note_begun, reply
from tsmon.server.report_route import ReportRoutes
from tsmon.server.route_params import AlertsQuery, NodesQuery
from tsmon.server.routing import Route, Routes, add_routes
from tsmon.server.versions import Versions
from tsmon.server.waiting import WaitingLine, Whois, WhoisLine


class Api:
    """The handlers, over what the daemon hands to them."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        monitor: Monitor,
        store: Store,
        history: History,
        whois: Whois,
        source_name: Callable[[], str],
        readiness: Callable[[], ReadyAnswer],
        stuck_loop: Callable[[], str | None],
        notified_at: Callable[[], NotifiedAt],
        demo: bool = False,
    ) -> None:
        self._clock = clock
        self._store = store
        self._whois = WhoisLine(whois)
        self._log_line = WaitingLine()
        self.figures = FigureCache(history, clock)
        self._present = PresentAnswers(
            settings,
            monitor,
            self.figures,
            source_name=source_name,
            notified_at=notified_at,
            demo=demo,
        )
        self.live = Live(store, lambda: monitor.view, self._present.alerts, self._present.summary)
        self.access = Access(settings, lambda: monitor.view, self._whois)
        embedded = EmbeddedHistory(store)
        self._log = LogRoute(store, self._log_line)
        versions = Versions(lambda address: self._whois.ask(address, address), clock)
        self._one_node = OneNode(clock, self._present, store, history, embedded=embedded, versions=versions)
        self._beyond = BeyondRoutes(clock, self._present, store)
        self._page = PageRoutes(
            clock,
            self._present,
            history,
            embedded,
            readiness=readiness,
            one_node=self._one_node,
            beyond=self._beyond,
        )
        self._coverage = CoverageRoutes(self._present)
        self._past = HistoryRoutes(clock, self._present, history, self._one_node)
        self.reports = ReportRoutes(
            store,
            clock,
            lambda: self._present.settings,
            lambda: monitor.view,
            lambda: self._present.changes,
        )
        self._probes = Probes(readiness, stuck_loop)
        self._pages = Pages()
        self._bodies = Bodies()
        self._document = Body(b"{}")

    def apply(self, settings: Settings) -> None:
        """Take new settings after a reload."""
        if settings.auth != self._present.settings.auth:
            self.live.end_all()
        self._present.apply(settings)
        self.access.apply(settings)

    def publish(self, published: Published) -> None:
        """A step was committed: what was made of the state before is old, and the stream says so."""
        self._present.renew(published)
        self.live.publish(published)

    def routes(self) -> Routes:
        """The route table."""
        base = "/health-monitoring"
        return [
            Route(f"{base}/summary", self.summary, "The tailnet in one look", SummaryAnswer, NoQuery),
            Route(f"{base}/nodes", self.nodes, "The nodes", list[NodeAnswer], NodesQuery),
            Route(f"{base}/nodes/{{node}}", self.node, "One node", NodeDetail, NoQuery),
            Route(f"{base}/critical", self.critical, "The critical roles", dict[str, CriticalEntry], NoQuery),
            Route(f"{base}/alerts", self.alerts, "The alerts", AlertsAnswer, AlertsQuery),
            Route(
                f"{base}/incidents",
                self.incidents,
                "The alerts, joined as in messages",
                IncidentsAnswer,
                NoQuery,
            ),
            *self._page.routes(base),
            self._log.route(f"{base}/logs"),
            *self._past.routes(base),
            *self._coverage.routes(base),
            *self._beyond.routes(base),
            Route(f"{base}/whois/{{ip}}", self.whois, "Who an address is", dict[str, Any], NoQuery),
            *self.reports.routes(),
            Route(f"{base}/stream", self.stream, "Server-Sent Events", str, NoQuery),
            Route(f"{base}/badge/{{node}}.svg", self.badge, "State and uptime as an image", bytes, NoQuery),
            *self._probes.routes(),
            Route("/openapi.json", self.openapi, "This API as OpenAPI 3.1", dict[str, Any], NoQuery),
            *self._pages.routes(),
        ]

    def application(self, further: Sequence[Route[Any]] = ()) -> web.Application:
        """The aiohttp application with every route; `further` ones come from elsewhere."""
        app = web.Application(middlewares=[errors, self.access.middleware])
        app.on_response_prepare.append(add_security_headers)
        app.on_response_prepare.append(note_begun)
        app.on_shutdown.append(self.live.close)
        routes = (*self.routes(), *further)
        self._document = Body(encode(document(routes, __version__, self._present.settings.retention)))
        add_routes(app, routes, lambda: self._present.settings.path_prefix)
        return app

    # -- what older monitors answer, too ---------------------------------------------------------------

    async def summary(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        return await reply(request, Body(encode(self._present.summary())))

    async def nodes(self, request: web.Request, query: NodesQuery) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts = self._present.view, self._present.alerts()

        async def make() -> Body:
            return await off_loop(lambda: nodes_body(view, alerts, figures, query), len(view.nodes))

        body = await self._bodies.get(query, self._present.made_of, make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def critical(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts, keys = self._present.view, self._present.alerts(), self._present.critical_keys

        async def make() -> Body:
            return await off_loop(lambda: critical_body(view, keys, alerts, figures), len(view.nodes))

        return await reply(request, await self._bodies.get("critical", self._present.made_of, make))

    async def alerts(self, request: web.Request, query: AlertsQuery) -> web.StreamResponse:
        found = [alert for alert in self._present.alerts() if query.state in ("all", alert.state)]
        if query.state in ("resolved", "all"):
            async with self._log_line.turn():
                found += await resolved_alerts(self._store)
        chosen = {"severity": query.severity, "kind": query.kind, "hostname": query.hostname}
        for name, wanted in chosen.items():
            if wanted:
                found = [alert for alert in found if getattr(alert, name) == wanted]
        found.sort(
            key=lambda alert: (alert.state == "resolved", alert.state == "pending", *alert_order(alert))
        )
        now = self._clock.wall()
        shown = found[query.offset : query.offset + query.limit]
        as_of = rfc3339(self._present.view.as_of)

        def make() -> Body:
            rows = [alert_answer(alert, now) for alert in shown]
            return Body(encode(AlertsAnswer(rows, len(found), as_of)))

        return await reply(request, await off_loop(make, len(shown)))

    async def incidents(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        return await reply(request, Body(encode(self._present.incidents())))

    # -- what only tsmon answers -----------------------------------------------------------------------

    async def node(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        node = await self._one_node.find(request.match_info["node"])
        return await reply(request, Body(encode(await self._one_node.detail(node))))

    async def whois(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        text = request.match_info["ip"]
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        # A zone ("fe80::1%x") may hold any text, and no address of a tailnet has one.
        if address is None or "%" in text:
            raise BadParameterError("ip takes an IPv4 or IPv6 address")
        answer = await self._whois.ask(str(address), request.remote or "")
        if answer is None:
            raise ApiError(404, "not_found", f"nobody in the tailnet has the address {address}")
        return await reply(request, Body(encode(answer)))

    async def stream(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        return await self.live.stream(request, self.access.lets_in)

    async def badge(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        node = await find_node(request.match_info["node"], self._present.view, self._store)
        uptime = (await self.figures.get()).get(node.id, NO_FIGURES)[0]
        gone = node.removed_at is not None
        state = "unknown" if gone else self._present.view.shown(node).state
        # Pages of the same site may show it; strangers would read the state from the size of the image.
        headers = {"Cross-Origin-Resource-Policy": "same-site"}
        return await reply(request, Body(badge(node.hostname, state, uptime), "image/svg+xml"), headers)

    async def openapi(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        return await reply(request, self._document)
