"""The event log: one page as JSON, or all of it as CSV or NDJSON."""

from aiohttp import web

from tsmon.base.clock import rfc3339
from tsmon.history.log import EventFilter, page_of_events
from tsmon.history.store import Store
from tsmon.monitor.state import EVENT_TYPES
from tsmon.server.answers import LogFilters, LogsAnswer, Pagination
from tsmon.server.exports import send_log, wanted_export
from tsmon.server.render import event_answer, severity_counts
from tsmon.server.replies import Body, encode, reply
from tsmon.server.route_params import LogsQuery
from tsmon.server.routing import Route
from tsmon.server.waiting import WaitingLine


class LogRoute:
    """The route of the log."""

    def __init__(self, store: Store, line: WaitingLine) -> None:
        self._store = store
        self._line = line

    def route(self, path: str) -> Route[LogsQuery]:
        return Route(path, self.logs, "The event log, newest first", LogsAnswer, LogsQuery)

    async def logs(self, request: web.Request, query: LogsQuery) -> web.StreamResponse:
        chosen = EventFilter(
            severity=query.severity,
            event_type="" if query.event_type == "all" else query.event_type,
            hostname=query.hostname,
            node_id=query.node_id,
            since=query.since,
            until=query.until,
            q=query.q,
            checks=query.checks,
            before=query.before,
        )
        kind = wanted_export(request)
        if kind is not None:
            return await send_log(request, self._store, chosen, kind)
        page, per_page = query.page, query.per_page
        async with self._line.turn():
            events, total, counts = await page_of_events(self._store, chosen, per_page, (page - 1) * per_page)
        pages = -(-total // per_page)
        filters = LogFilters(
            severity=query.severity,
            event_type=query.event_type,
            hostname=query.hostname,
            node_id=query.node_id,
            q=query.q,
            checks=query.checks,
            before=query.before,
            since=rfc3339(query.since),
            until=rfc3339(query.until),
            event_types=EVENT_TYPES,
        )
        answer = LogsAnswer(
            logs=[event_answer(event) for event in events],
            pagination=Pagination(page, per_page, total, pages, page < pages, page > 1),
            filters=filters,
            summary=severity_counts(counts),
        )
        return await reply(request, Body(encode(answer)), {"Vary": "Accept, Accept-Encoding"})
