"""The routes of the JSON API: parameters, answers, errors. The contract is docs/api.md."""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tsmon import __version__
from tsmon.base.clock import Clock, rfc3339
from tsmon.base.threads import MANY_NODES, off_loop
from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.log import EventFilter, page_of_events, resolved_alerts
from tsmon.history.store import Store
from tsmon.history.uptime import Uptime
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import Incident, join_alerts
from tsmon.monitor.ledger import Published
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.state import Node
from tsmon.server import route_params as queries
from tsmon.server.access import Access, add_security_headers
from tsmon.server.answers import (
    AlertsAnswer,
    CriticalEntry,
    HistoryAnswer,
    IncidentsAnswer,
    LatencyAnswer,
    NodeAnswer,
    NodeDetail,
    SummaryAnswer,
    UptimeAnswer,
)
from tsmon.server.assets import Pages
from tsmon.server.badge import badge
from tsmon.server.bodies import critical_body, history_body, nodes_body, page_of
from tsmon.server.choose_nodes import choose_nodes
from tsmon.server.figures import FigureCache, History
from tsmon.server.incidents import NotifiedAt, SightReturned, incident_answer, sight_returned
from tsmon.server.live import Live
from tsmon.server.log_route import LogRoute
from tsmon.server.openapi import document
from tsmon.server.page import GLANCE, SPARK_STEP, TABLE, GlanceAnswer, Table, TableAnswer, glance_body
from tsmon.server.params import BadParameterError
from tsmon.server.probes import Probes, Readiness
from tsmon.server.render import (
    DAY,
    NO_FIGURES,
    Figures,
    NodeAlerts,
    alert_answer,
    alert_order,
    latency_answer,
    node_detail,
    summary_answer,
    uptime_answer,
)
from tsmon.server.replies import ApiError, Bodies, Body, encode, errors, note_begun, reply
from tsmon.server.report_route import ReportRoutes
from tsmon.server.routing import Route, add_routes
from tsmon.server.versions import Versions
from tsmon.server.waiting import WaitingLine, Whois, WhoisLine

_NOT_RECORDED = Uptime(0.0, 0.0, 0.0, None, None)


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
        readiness: Callable[[], Readiness],
        stuck_loop: Callable[[], str | None],
        notified_at: Callable[[], NotifiedAt],
        demo: bool = False,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._monitor = monitor
        self._store = store
        self._history = history
        self._embedded = EmbeddedHistory(store)
        self._whois = WhoisLine(whois)
        self._log_line, self._uptime_line = WaitingLine(), WaitingLine()
        self._source_name = source_name
        self._readiness = readiness
        self._probes = Probes(readiness, stuck_loop)
        self._notified_at = notified_at
        self._demo = demo
        self._keys = Classifier(settings).critical_keys
        self.figures = FigureCache(history, clock)
        self.live = Live(store, lambda: monitor.view, self._alerts, self._summary)
        self.access = Access(settings, lambda: monitor.view, self._whois)
        self.reports = ReportRoutes(
            store, clock, lambda: self.settings, lambda: monitor.view, lambda: self._changes
        )
        self._bodies = Bodies()
        self._bars = Bodies()
        self._log = LogRoute(store, self._log_line)
        self._pages = Pages()
        self._document = Body(b"{}")
        self._steps = 0
        self._changes = 0
        self._newest_event = 0
        self._last_summary: tuple[tuple[int, ...], SummaryAnswer] | None = None
        self._tailscale_versions = Versions(lambda address: self._whois.ask(address, address), clock)

    def apply(self, settings: Settings) -> None:
        """Take new settings after a reload."""
        if settings.auth != self.settings.auth:
            self.live.end_all()
        self.settings = settings
        self._keys = Classifier(settings).critical_keys
        self.access.apply(settings)
        self._steps += 1

    def routes(self) -> list[Route]:
        """The route table."""
        base = "/health-monitoring"
        return [
            Route(f"{base}/summary", self.summary, "The tailnet in one look", SummaryAnswer),
            Route(f"{base}/nodes", self.nodes, "The nodes", list[NodeAnswer], queries.NODES),
            Route(f"{base}/nodes/{{node}}", self.node, "One node", NodeDetail),
            Route(f"{base}/critical", self.critical, "The critical roles", dict[str, CriticalEntry]),
            Route(f"{base}/alerts", self.alerts, "The alerts", AlertsAnswer, queries.ALERTS),
            Route(f"{base}/incidents", self.incidents, "The alerts, joined as in messages", IncidentsAnswer),
            Route(f"{base}/glance", self.glance, "The dashboard's first glance", GlanceAnswer, GLANCE),
            Route(f"{base}/table", self.table, "The dashboard's table", TableAnswer, TABLE),
            self._log.route(f"{base}/logs"),
            Route(f"{base}/uptime/{{node}}", self.uptime, "Uptime of a node", UptimeAnswer, queries.UPTIME),
            Route(f"{base}/history", self.history, "State bars", HistoryAnswer, queries.HISTORY),
            Route(f"{base}/latency/{{node}}", self.latency, "Latency", LatencyAnswer, queries.LATENCY),
            Route(f"{base}/whois/{{ip}}", self.whois, "Who an address is", dict[str, Any]),
            *self.reports.routes(),
            Route(f"{base}/stream", self.stream, "Server-Sent Events", str),
            Route(f"{base}/badge/{{node}}.svg", self.badge, "State and uptime as an image", bytes),
            *self._probes.routes(),
            Route("/openapi.json", self.openapi, "This API as OpenAPI 3.1", dict[str, Any]),
            *self._pages.routes(),
        ]

    def application(self, further: Sequence[Route] = ()) -> web.Application:
        """The aiohttp application with every route; `further` ones come from elsewhere."""
        app = web.Application(middlewares=[errors, self.access.middleware])
        app.on_response_prepare.append(add_security_headers)
        app.on_response_prepare.append(note_begun)
        app.on_shutdown.append(self.live.close)
        routes = (*self.routes(), *further)
        self._document = Body(encode(document(routes, __version__, self.settings.retention)))
        add_routes(app, routes, lambda: self.settings.path_prefix)
        return app

    # -- what older monitors answer, too ---------------------------------------------------------------

    async def summary(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await reply(request, Body(encode(self._summary())))

    async def nodes(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts = self._monitor.view, self._alerts()

        async def make() -> Body:
            return await off_loop(lambda: nodes_body(view, alerts, figures, values), len(view.nodes))

        body = await self._bodies.get(("nodes", *values.values()), self._made_of(), make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def critical(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts, keys = self._monitor.view, self._alerts(), self._keys

        async def make() -> Body:
            return await off_loop(lambda: critical_body(view, keys, alerts, figures), len(view.nodes))

        return await reply(request, await self._bodies.get("critical", self._made_of(), make))

    async def alerts(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        wanted = values["state"]
        found = [alert for alert in self._alerts() if wanted in ("all", alert.state)]
        if wanted in ("resolved", "all"):
            async with self._log_line.turn():
                found += await resolved_alerts(self._store)
        for name in ("severity", "kind", "hostname"):
            if values[name]:
                found = [alert for alert in found if getattr(alert, name) == values[name]]
        found.sort(
            key=lambda alert: (alert.state == "resolved", alert.state == "pending", *alert_order(alert))
        )
        now = self._clock.wall()
        shown = found[values["offset"] : values["offset"] + values["limit"]]
        as_of = rfc3339(self._monitor.view.as_of)

        def make() -> Body:
            rows = [alert_answer(alert, now) for alert in shown]
            return Body(encode(AlertsAnswer(rows, len(found), as_of)))

        return await reply(request, await off_loop(make, len(shown)))

    async def incidents(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await reply(request, Body(encode(self._incidents_answer())))

    async def glance(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts, keys = self._monitor.view, self._alerts(), self._keys
        sparks = None
        if values["sparks"]:
            ids = [node.id for node in view.nodes.values() if node.role.critical][:MANY_NODES]
            now = self._clock.wall()
            lines = await self._embedded.latency_lines(ids, now - DAY, now, SPARK_STEP)
            sparks = {id_: [(rfc3339(at), ms) for at, ms in line] for id_, line in lines.items()}
        answer = GlanceAnswer(
            summary=self._summary(),
            incidents=self._incidents_answer(),
            warnings=self._readiness().parts.get("warnings", []),
            newest_event=str(self._newest_event),
            sparks=sparks,
            critical={},
        )
        body = await off_loop(lambda: glance_body(answer, view, keys, alerts, figures), len(view.nodes))
        return await reply(request, body)

    async def table(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        view, alerts = self._monitor.view, self._alerts()
        found = await off_loop(lambda: Table(view, alerts, figures, values), len(view.nodes))
        bars, times = {}, None
        if values["bars"]:
            now = self._clock.wall()
            bounds = [now - DAY + DAY * n / 48 for n in range(49)]
            times = [rfc3339(bound) for bound in bounds]
            bars = await self._history.bars(bounds, {node.id for node in found.page})
        return await reply(request, await off_loop(lambda: found.body(bars, times), len(view.nodes)))

    # -- what only tsmon answers -----------------------------------------------------------------------

    async def node(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        node = await self._find(request.match_info["node"])
        figures = await self.figures.get()
        # A source that tsmon is blind through is not asked: the page must not wait for it.
        asked = node.removed_at is None and self._monitor.view.blind is None
        version = await self._tailscale_versions.of(node) if asked else None
        answer = node_detail(node, self._monitor.view, NodeAlerts(self._alerts()), figures, version)
        return await reply(request, Body(encode(answer)))

    async def uptime(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        node = await self._find(request.match_info["node"])
        now = self._clock.wall()
        start = now - values["hours"] * 3600
        self._within_retention(now - start, "hours")
        async with self._uptime_line.turn():
            found = await self._history.uptime(start, now, {node.id})
            outages = await self._history.outages(node.id, start, now)
        uptime = found.get(node.id, _NOT_RECORDED)
        fell = EventFilter(node_id=node.id, event_type="node_offline", since=start)
        events, _, _ = await page_of_events(self._store, fell, values["limit"], 0)
        answer = uptime_answer(
            node.hostname,
            values["hours"],
            uptime,
            outages,
            now=now,
            kind=self._history.kind(start),
            limit=values["limit"],
            reasons={round(event.timestamp): str(event.details.get("reason", "")) for event in events},
        )
        return await reply(request, Body(encode(answer)))

    async def history(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        self._within_retention(values["window"], "window")
        figures = await self.figures.get()

        async def make() -> Body:
            return await self._history_body(values, figures)

        made_of = (self.figures.version, self._changes)
        body = await self._bars.get(tuple(values.values()), made_of, make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def _history_body(self, values: dict[str, Any], figures: Figures) -> Body:
        view = self._monitor.view
        alerts = NodeAlerts(self._alerts())
        chosen = await off_loop(lambda: choose_nodes(view, alerts, values, figures), len(view.nodes))
        shown = page_of(chosen, values)
        now = self._clock.wall()
        start, count = now - values["window"], values["buckets"]
        bounds = [start + values["window"] * n / count for n in range(count + 1)]
        everyone = len(shown) == len(view.nodes)
        found = await self._history.bars(bounds, None if everyone else {node.id for node in shown})
        kind, total = self._history.kind(start), len(chosen)
        return await off_loop(lambda: history_body(shown, found, bounds, kind, total), len(shown))

    async def latency(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        self._within_retention(values["window"], "window")
        node = await self._find(request.match_info["node"])
        now = self._clock.wall()
        async with self._uptime_line.turn():
            rows = await self._embedded.latency(node.id, now - values["window"], now)
        return await reply(request, Body(encode(latency_answer(node.hostname, rows))))

    async def whois(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
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

    async def stream(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        return await self.live.stream(request, self.access.lets_in)

    async def badge(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        node = await self._find(request.match_info["node"])
        uptime = (await self.figures.get()).get(node.id, NO_FIGURES)[0]
        gone = node.removed_at is not None
        state = "unknown" if gone else self._monitor.view.shown(node).state
        # Pages of the same site may show it; strangers would read the state from the size of the image.
        headers = {"Cross-Origin-Resource-Policy": "same-site"}
        return await reply(request, Body(badge(node.hostname, state, uptime), "image/svg+xml"), headers)

    async def openapi(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await reply(request, self._document)

    # -- helpers ---------------------------------------------------------------------------------------

    def _alerts(self) -> list[Alert]:
        return list(self._monitor.alerts.values())

    def _incidents(self) -> list[Incident]:
        return join_alerts(self._alerts(), self._monitor.view, self.settings.group_wait)

    def _sight(self) -> SightReturned | None:
        return sight_returned(self._alerts(), self._monitor.view, self.settings.blind_after)

    def _incidents_answer(self) -> IncidentsAnswer:
        sight, notified = self._sight(), self._notified_at()
        rows = [incident_answer(incident, notified, sight) for incident in self._incidents()]
        return IncidentsAnswer(rows, len(rows), rfc3339(self._monitor.view.as_of))

    def _made_of(self) -> tuple[int, ...]:
        """What the answers about the present are made of: when it changes they are made again."""
        return self._monitor.view.version, self._steps, self.figures.version

    def _summary(self) -> SummaryAnswer:
        made_of = self._made_of()
        if self._last_summary is None or self._last_summary[0] != made_of:
            answer = summary_answer(
                self._monitor.view,
                self._alerts(),
                self._incidents(),
                self._sight(),
                source=self._source_name(),
                version=__version__,
                demo=self._demo,
            )
            self._last_summary = made_of, answer
        return self._last_summary[1]

    def publish(self, published: Published) -> None:
        """A step was committed: what was made of the state before is old, and the stream says so."""
        self._steps += 1
        if published.events:
            self._newest_event = published.events[-1].id
        if any(event.event_type != "health_check" for event in published.events):
            self._changes += 1
            self.figures.expire()
        self.live.publish(published)

    async def _find(self, name: str) -> Node:
        """A present hostname, else an ID, else the latest removed hostname."""
        view = self._monitor.view
        present = next((node for node in view.nodes.values() if node.hostname == name), None)
        found = present or view.nodes.get(name) or await self._store.find_removed(name)
        if found is None:
            raise ApiError(404, "not_found", f"there is no node {name[:100]!r}")
        return found

    def _within_retention(self, seconds: float, name: str) -> None:
        if seconds <= 0 or seconds > self.settings.retention:
            days = self.settings.retention / DAY
            raise BadParameterError(
                f"{name} takes more than nothing and at most the retention ({days:g} days)"
            )
