"""The routes of the JSON API: parameters, answers, errors. The contract is docs/api.md."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from tsmon import __version__
from tsmon.access import AUTHORIZED, Access, Whois, add_security_headers
from tsmon.alerts import ALERT_KINDS, Alert
from tsmon.answers import (
    AlertsAnswer,
    CriticalEntry,
    HistoryAnswer,
    LatencyAnswer,
    LogsAnswer,
    NodeAnswer,
    NodeDetail,
    Pagination,
    SummaryAnswer,
    UptimeAnswer,
)
from tsmon.classify import Classifier
from tsmon.clock import Clock, rfc3339
from tsmon.config import Settings
from tsmon.figures import FigureCache, History
from tsmon.history import EmbeddedHistory
from tsmon.live import Live
from tsmon.logs import (
    EventFilter,
    all_events,
    answers,
    csv_text,
    ndjson_lines,
    page_of_events,
    resolved_alerts,
)
from tsmon.monitor import Monitor, Published
from tsmon.params import BadParameterError, Param, parse_query
from tsmon.render import (
    DAY,
    NodeAlerts,
    alert_answer,
    alert_order,
    critical_answer,
    history_node,
    latency_answer,
    node_detail,
    node_fields,
    summary_answer,
    uptime_answer,
)
from tsmon.replies import ApiError, Body, encode, encode_list, errors, reply
from tsmon.selection import NODE_FILTERS, SORTS, choose_nodes
from tsmon.source import SourceError
from tsmon.state import EVENT_TYPES, Node, View
from tsmon.store import Store

WEB = Path(__file__).parent / "web"
_MANY = 500
_PAGE = (
    Param("limit", "int", "how many nodes at most", least=1, most=10_000),
    Param("offset", "int", "how many nodes to skip", 0, least=0, most=1_000_000),
)
_NODE_NAMES = NodeAnswer.__struct_fields__


class Route(NamedTuple):
    """One route: what it takes and answers. The OpenAPI document is made of these."""

    path: str
    handler: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
    summary: str
    answer: Any
    params: Sequence[Param] = ()


class Readiness(NamedTuple):
    """What /readyz says: ready or not, and the parts by name."""

    ready: bool
    parts: dict[str, Any]


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
        demo: bool = False,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._monitor = monitor
        self._store = store
        self._history = history
        self._embedded = EmbeddedHistory(store)
        self._whois = whois
        self._source_name = source_name
        self._readiness = readiness
        self._stuck_loop = stuck_loop
        self._demo = demo
        self._keys = Classifier(settings).critical_keys
        self.figures = FigureCache(history, clock)
        self.live = Live(store, self._summary_of, self._alerts)
        self.access = Access(settings, lambda: monitor.view, whois)
        self._bodies: dict[tuple[Any, ...], Body] = {}
        self._bodies_of: tuple[int, int] = (0, 0)
        self._files: dict[tuple[str, str, int], Body] = {}
        self._versions: dict[str, tuple[float, str | None]] = {}
        monitor.subscribe(self._published)

    def apply(self, settings: Settings) -> None:
        """Take new settings after a reload."""
        self.settings = settings
        self._keys = Classifier(settings).critical_keys
        self.access.apply(settings)
        self._bodies.clear()

    def routes(self) -> list[Route]:
        """The route table."""
        base = "/health-monitoring"
        return [
            Route(f"{base}/summary", self.summary, "The tailnet in one look", SummaryAnswer),
            Route(
                f"{base}/nodes",
                self.nodes,
                "The nodes",
                list[NodeAnswer],
                (*NODE_FILTERS, *_NODE_LIST, *_PAGE),
            ),
            Route(f"{base}/nodes/{{node}}", self.node, "One node", NodeDetail),
            Route(f"{base}/critical", self.critical, "The critical roles", dict[str, CriticalEntry]),
            Route(f"{base}/alerts", self.alerts, "The alerts", AlertsAnswer, _ALERT_PARAMS),
            Route(f"{base}/logs", self.logs, "The event log, newest first", LogsAnswer, _LOG_PARAMS),
            Route(f"{base}/uptime/{{node}}", self.uptime, "Uptime of one node", UptimeAnswer, _UPTIME_PARAMS),
            Route(
                f"{base}/history",
                self.history,
                "State bars of the nodes",
                HistoryAnswer,
                (*_HISTORY_PARAMS, *NODE_FILTERS, *_HISTORY_LIST, *_PAGE),
            ),
            Route(f"{base}/latency/{{node}}", self.latency, "Latency of one node", LatencyAnswer, _WINDOW),
            Route(f"{base}/whois/{{ip}}", self.whois, "Who an address of the tailnet is", dict[str, Any]),
            Route(f"{base}/stream", self.stream, "Server-Sent Events", str),
            Route("/healthz", self.healthz, "Liveness", dict[str, str]),
            Route("/readyz", self.readyz, "Readiness", dict[str, Any]),
            Route("/vpn", self.dashboard, "The dashboard", str),
            Route("/", self.root, "Redirects to the dashboard", str),
        ]

    def application(self, further: Sequence[Route] = ()) -> web.Application:
        """The aiohttp application with every route; `further` ones come from other rooms."""
        app = web.Application(middlewares=[errors, self.access.middleware])
        app.on_response_prepare.append(add_security_headers)
        app.on_shutdown.append(self.live.close)
        prefix = self.settings.path_prefix
        for route in (*self.routes(), *further):
            for path in {route.path, prefix + route.path}:
                app.router.add_get(path, self._checked(route))
        for path in {"", prefix}:
            app.router.add_get(path + "/web/{name}", self._asset)
        return app

    def _checked(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            values = {} if route.path in ("/vpn", "/") else parse_query(request.query, route.params)
            return await route.handler(request, values)

        return handle

    # -- the mission's five ----------------------------------------------------------------------------

    async def summary(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await reply(request, Body(encode(self._summary_of(self._monitor.view))))

    async def nodes(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        view = self._monitor.view
        key = ("nodes", *values.values())
        body = self._cached(key, view)
        if body is None:
            chosen = choose_nodes(view, values, figures)
            page = _page(chosen, values)
            alerts = NodeAlerts(self._alerts())

            def make() -> bytes:
                rows = [node_fields(node, view, alerts, figures) for node in page]
                if values["fields"]:
                    return encode_list([{name: row[name] for name in values["fields"]} for row in rows])
                return encode_list([NodeAnswer(**row) for row in rows])

            body = self._keep(key, Body(await _off_loop(len(page), make), total=len(chosen)), view)
        return await reply(request, body, {"X-Total-Count": str(body.total)})

    async def critical(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        figures = await self.figures.get()
        answer = critical_answer(self._monitor.view, self._keys, NodeAlerts(self._alerts()), figures)
        return await reply(request, Body(encode(answer)))

    async def alerts(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        wanted = values["state"]
        found = [alert for alert in self._alerts() if wanted in ("all", alert.state)]
        if wanted in ("resolved", "all"):
            found += await resolved_alerts(self._store)
        for name in ("severity", "kind", "hostname"):
            if values[name]:
                found = [alert for alert in found if getattr(alert, name) == values[name]]
        found.sort(
            key=lambda alert: (alert.state == "resolved", alert.state == "pending", *alert_order(alert))
        )
        now = self._clock.wall()
        shown = found[values["offset"] : values["offset"] + values["limit"]]
        rows = [alert_answer(alert, now) for alert in shown]
        answer = AlertsAnswer(rows, len(found), rfc3339(self._monitor.view.as_of))
        return await reply(request, Body(encode(answer)))

    async def logs(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        chosen = EventFilter(
            severity=values["severity"],
            event_type="" if values["event_type"] == "all" else values["event_type"],
            hostname=values["hostname"],
            node_id=values["node_id"],
            since=values["since"],
            until=values["until"],
            q=values["q"],
            before=values["before"],
        )
        accept = request.headers.get("Accept", "")
        if "text/csv" in accept:
            return await self._export(request, chosen, "text/csv")
        if "application/x-ndjson" in accept:
            return await self._export(request, chosen, "application/x-ndjson")
        page, per_page = values["page"], values["per_page"]
        events, total, summary = await page_of_events(self._store, chosen, per_page, (page - 1) * per_page)
        pages = -(-total // per_page)
        filters = {name: values[name] for name in _FILTER_NAMES} | {
            name: rfc3339(values[name]) for name in ("since", "until")
        }
        answer = LogsAnswer(
            logs=answers(events),
            pagination=Pagination(page, per_page, total, pages, page < pages, page > 1),
            filters=filters,
            summary=summary,
        )
        return await reply(request, Body(encode(answer)))

    async def _export(self, request: web.Request, chosen: EventFilter, kind: str) -> web.StreamResponse:
        """The whole filtered log, streamed."""
        ending = "csv" if kind == "text/csv" else "ndjson"
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{kind}; charset=utf-8",
                "Content-Disposition": f'attachment; filename="tsmon-log.{ending}"',
                "Cache-Control": "no-cache",
            }
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if kind == "text/csv":
            await response.write(csv_text((), header=True).encode())
        async for events in all_events(self._store, chosen):
            data = csv_text(events, header=False).encode() if kind == "text/csv" else ndjson_lines(events)
            await response.write(data)
        await response.write_eof()
        return response

    # -- beyond the mission ----------------------------------------------------------------------------

    async def node(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        node = self._find(request.match_info["node"])
        figures = await self.figures.get()
        version = await self._version_of(node)
        answer = node_detail(node, self._monitor.view, NodeAlerts(self._alerts()), figures, version)
        return await reply(request, Body(encode(answer)))

    async def _version_of(self, node: Node) -> str | None:
        """The node's own Tailscale version: only whois tells it (LocalAPI), so it is asked rarely."""
        now = self._clock.mono()
        known = self._versions.get(node.id)
        if known is not None and known[0] > now:
            return known[1]
        version = None
        try:
            answer = await self._whois(node.facts.ip) if node.facts.ip and node.removed_at is None else None
            info = ((answer or {}).get("Node") or {}).get("Hostinfo") or {}
            version = str(info["IPNVersion"])[:64] if info.get("IPNVersion") else None
        except (SourceError, AttributeError, TypeError):
            pass
        if len(self._versions) > 10_000:
            self._versions.clear()
        self._versions[node.id] = (now + 600.0, version)
        return version

    async def uptime(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        node = self._find(request.match_info["node"])
        now = self._clock.wall()
        start = now - values["hours"] * 3600
        self._within_retention(now - start, "hours")
        found = await self._history.uptime(start, now, {node.id})
        outages = await self._history.outages(node.id, start, now)
        answer = uptime_answer(
            node.hostname, values["hours"], found[node.id], outages, now=now, kind=self._history.kind
        )
        return await reply(request, Body(encode(answer)))

    async def history(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        self._within_retention(values["window"], "window")
        figures = await self.figures.get()
        view = self._monitor.view
        chosen = choose_nodes(view, values, figures)
        page = _page(chosen, values)
        now = self._clock.wall()
        start, count = now - values["window"], values["buckets"]
        bounds = [start + values["window"] * n / count for n in range(count + 1)]
        everyone = len(page) == len(view.nodes)
        found = await self._history.bars(bounds, None if everyone else {node.id for node in page})

        def make() -> bytes:
            head = HistoryAnswer(
                rfc3339(start), rfc3339(now), count, [rfc3339(b) for b in bounds], self._history.kind, []
            )
            rows = encode_list([history_node(node, found[node.id]) for node in page if node.id in found])
            return encode(head)[:-3] + rows + b"}"

        headers = {"X-Total-Count": str(len(chosen))}
        return await reply(request, Body(await _off_loop(len(page), make)), headers)

    async def latency(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        self._within_retention(values["window"], "window")
        node = self._find(request.match_info["node"])
        now = self._clock.wall()
        rows = await self._embedded.latency(node.id, now - values["window"], now)
        return await reply(request, Body(encode(latency_answer(node.hostname, rows))))

    async def whois(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        text = request.match_info["ip"]
        try:
            address = str(ipaddress.ip_address(text))
        except ValueError:
            raise BadParameterError("ip takes an IPv4 or IPv6 address") from None
        answer = await self._whois(address)
        if answer is None:
            raise ApiError(404, "not_found", f"nobody in the tailnet has the address {address}")
        return await reply(request, Body(encode(answer)))

    async def stream(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(content_type="text/event-stream")
        return await self.live.stream(request, self._monitor.view)

    async def healthz(self, _: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        stuck = self._stuck_loop()
        answer = {"status": "ok"} if stuck is None else {"status": "stuck", "loop": stuck}
        headers = {"Cache-Control": "no-store"}
        return web.json_response(answer, status=200 if stuck is None else 503, headers=headers)

    async def readyz(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        readiness = self._readiness()
        status = 200 if readiness.ready else 503
        headers = {"Cache-Control": "no-store"}
        if not request.get(AUTHORIZED, False):
            return web.Response(status=status, headers=headers)
        body = encode({"ready": readiness.ready, **readiness.parts})
        return web.Response(
            status=status, body=body, content_type="application/json", charset="utf-8", headers=headers
        )

    # -- the dashboard ---------------------------------------------------------------------------------

    async def dashboard(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await self._file(request, "vpn.html")

    async def root(self, _: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        # Relative, so that it holds below any path prefix.
        return web.Response(status=302, headers={"Location": "vpn", "Cache-Control": "no-cache"})

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return await self._file(request, request.match_info["name"])

    async def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        kind = _FILE_TYPES.get(Path(name).suffix)
        path = WEB / name
        if kind is None or path.name != name or not path.is_file():
            raise ApiError(404, "not_found", f"there is nothing at {request.path[:200]}")
        key = ("file", name, path.stat().st_mtime_ns)
        if key not in self._files:
            self._files[key] = Body(path.read_bytes(), kind)
        return await reply(request, self._files[key])

    # -- helpers ---------------------------------------------------------------------------------------

    def _alerts(self) -> list[Alert]:
        return list(self._monitor.alerts.values())

    def _summary_of(self, view: View) -> SummaryAnswer:
        return summary_answer(
            view, self._alerts(), source=self._source_name(), version=__version__, demo=self._demo
        )

    def _published(self, published: Published) -> None:
        if any(event.event_type != "health_check" for event in published.events):
            self.figures.expire()
        self.live.publish(published)

    def _find(self, name: str) -> Node:
        """A present hostname, else an ID, else the latest removed hostname."""
        view = self._monitor.view
        present = next((node for node in view.nodes.values() if node.hostname == name), None)
        found = present or view.nodes.get(name) or view.removed.get(name)
        if found is None:
            gone = [node for node in view.removed.values() if node.hostname == name]
            found = max(gone, key=lambda node: node.removed_at or 0.0, default=None)
        if found is None:
            raise ApiError(404, "not_found", f"there is no node {name[:100]!r}")
        return found

    def _within_retention(self, seconds: float, name: str) -> None:
        if seconds <= 0 or seconds > self.settings.retention:
            days = self.settings.retention / DAY
            raise BadParameterError(
                f"{name} takes more than nothing and at most the retention ({days:g} days)"
            )

    def _cached(self, key: tuple[Any, ...], view: View) -> Body | None:
        return self._bodies.get(key) if self._bodies_of == (view.version, self.figures.version) else None

    def _keep(self, key: tuple[Any, ...], body: Body, view: View) -> Body:
        """Keep a body until the view or the figures change; only a few kinds of question are kept."""
        if self._bodies_of != (view.version, self.figures.version) or len(self._bodies) >= 16:
            self._bodies = {}
            self._bodies_of = (view.version, self.figures.version)
        self._bodies[key] = body
        return body


_FILE_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
_NODE_LIST = (
    Param("project_only", "bool", "the critical nodes only", True),
    Param("sort", "choice", "the order; - reverses", "", choices=SORTS),
    Param("fields", "names", "the fields to keep", (), choices=_NODE_NAMES),
)
_HISTORY_LIST = (
    Param("project_only", "bool", "the critical nodes only", False),
    Param("sort", "choice", "the order; - reverses", "", choices=SORTS),
)
_ALERT_PARAMS = (
    Param("state", "choice", "which alerts", "firing", choices=("firing", "pending", "resolved", "all")),
    Param("severity", "choice", "only this severity", "", choices=("warning", "critical", "")),
    Param("kind", "choice", "only this kind", "", choices=(*ALERT_KINDS, "")),
    Param("hostname", "text", "only of this node", ""),
    Param("limit", "int", "how many at most", 1000, least=1, most=10_000),
    Param("offset", "int", "how many to skip", 0, least=0, most=1_000_000),
)
_LOG_PARAMS = (
    Param("page", "int", "which page, from 1", 1, least=1, most=1_000_000),
    Param("severity", "choice", "only this severity", "", choices=("", "ok", "warning", "critical")),
    Param("event_type", "choice", "only this type", "", choices=("", "all", *EVENT_TYPES)),
    Param("hostname", "text", "only of this node", ""),
    Param("node_id", "text", "only of this node", ""),
    Param("since", "time", "only what happened then or later"),
    Param("until", "time", "only what happened until then"),
    Param("q", "text", "only with this text in message or hostname", ""),
    Param("before", "int", "only events with a smaller id", least=1, most=10**18 - 1),
    Param("per_page", "int", "entries a page", 20, least=1, most=200),
)
_FILTER_NAMES = ("severity", "event_type", "hostname", "node_id", "q", "before")
_UPTIME_PARAMS = (
    Param("hours", "int", "the window in hours, up to the retention", 24, least=1, most=100_000),
)
_WINDOW = (Param("window", "duration", "how far back, up to the retention", DAY),)
_HISTORY_PARAMS = (
    *_WINDOW,
    Param("buckets", "int", "how many bars", 48, least=1, most=400),
)


def _page(nodes: list[Node], values: dict[str, Any]) -> list[Node]:
    limit = values["limit"]
    end = None if limit is None else values["offset"] + limit
    return nodes[values["offset"] : end]


async def _off_loop(size: int, make: Callable[[], bytes]) -> bytes:
    return make() if size < _MANY else await asyncio.to_thread(make)
