"""The routes of the report and of the maintenance calendar."""

import asyncio
import math
from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import hdrs, web

from tsmon.base.clock import Clock, parse_rfc3339
from tsmon.config import Settings
from tsmon.history.report import Period, midnight, month_of, month_period
from tsmon.history.reported import read_report
from tsmon.history.reported_services import read_services
from tsmon.history.store import Store
from tsmon.monitor.state import Node, View
from tsmon.server.calendar import calendar
from tsmon.server.params import BadParameterError, NoQuery, Query, Takes
from tsmon.server.replies import Bodies, Body, reply
from tsmon.server.report import Question, report_answer, report_csv, report_json
from tsmon.server.report_answers import ReportAnswer
from tsmon.server.report_html import POLICY, report_html
from tsmon.server.report_text import report_text
from tsmon.server.routing import Route, Routes
from tsmon.server.waiting import WaitingLine

_FRESH = 30.0
"""Seconds for which the figures of a period that is under way serve."""
_FORMATS = {"html": "text/html", "csv": "text/csv", "text": "text/plain", "json": "application/json"}


class ReportQuery(Query, frozen=True):
    """/report."""

    month: Annotated[str, Takes("month", "the calendar month; the one under way when nothing is given")] = ""
    start: Annotated[str, Takes("moment", "where it begins; a day begins at midnight")] = msgspec.field(
        default="", name="from"
    )
    end: Annotated[str, Takes("moment", "where it ends; a day is in it; now when left out")] = msgspec.field(
        default="", name="to"
    )
    time_zone: Annotated[str, Takes("zone", "whose calendar; `report.time_zone` when left out")] = ""
    role: Annotated[str, Takes("text", "only nodes of this role")] = ""
    format: Annotated[str, Takes("choice", "instead of the header `Accept`", choices=("", *_FORMATS))] = ""


class ReportRoutes:
    """Reads a period's history and answers with it in the form that is asked for."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Callable[[], Settings],
        view: Callable[[], View],
        changes: Callable[[], int],
    ) -> None:
        """`changes` grows with what changes the history besides time."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._view = view
        self._changes = changes
        self._bodies = Bodies()
        self._line = WaitingLine(at_work=1)

    def routes(self) -> Routes:
        """For the route table."""
        words = "The report of a period"
        return [
            Route("/health-monitoring/report", self._report, words, ReportAnswer, ReportQuery),
            Route("/maintenance.ics", self._calendar, "The maintenance windows as a calendar", str, NoQuery),
        ]

    async def answer(self, whole: Period, role: str = "") -> ReportAnswer:
        """The report of a period that has begun. Raises StoreError and BusyError."""
        settings, view = self._settings(), self._view()
        question = Question(whole, math.floor(self._clock.wall()))

        def wanted(node: Node) -> bool:
            return not role or node.role.name == role

        # One at a time: the threads that read are few, and others need them.
        async with self._line.turn():
            found = await read_report(self._store, question.period, settings.maintenance, view.nodes, wanted)
            services = await read_services(
                self._store,
                question.period,
                settings.maintenance,
                view.nodes,
                wanted if role else None,
            )
        targets = {rule.name: rule.target for rule in settings.roles if rule.target is not None}
        blind = view.blind.message if view.blind is not None else None
        return await asyncio.to_thread(
            report_answer, found, question, targets, services, as_of=view.as_of, blind=blind
        )

    async def _report(self, request: web.Request, query: ReportQuery) -> web.StreamResponse:
        kind = query.format or _wanted(request.headers.get(hdrs.ACCEPT, ""))
        zone = query.time_zone or self._settings().report.time_zone
        whole = self._period(query, zone)
        link = "?" + urlencode({**msgspec.to_builtins(query), "format": "csv"})

        async def make() -> Body:
            answer = await self.answer(whole, query.role)
            return Body(await asyncio.to_thread(_rendered, answer, kind, link), _FORMATS[kind])

        made_of = int(self._clock.wall() // _FRESH), self._changes(), id(self._settings())
        body = await self._bodies.get((kind, query), made_of, make)
        headers: dict[str, str] = {hdrs.VARY: "Accept, Accept-Encoding"}
        if kind == "html":
            headers["Content-Security-Policy"] = POLICY
        if kind == "csv":
            headers[hdrs.CONTENT_DISPOSITION] = 'attachment; filename="tsmon-report.csv"'
        return await reply(request, body, headers)

    def _period(self, query: ReportQuery, time_zone: str) -> Period:
        """What is asked for. Raises BadParameterError."""
        now = self._clock.wall()
        if query.month and (query.start or query.end):
            raise BadParameterError("month is given beside from or to: keep one of them")
        if query.end and not query.start:
            raise BadParameterError("from is missing: to needs it")
        if query.start:
            zone = ZoneInfo(time_zone)
            start = math.floor(_moment(query.start, zone, 0))
            end = math.floor(_moment(query.end, zone, 1) if query.end else now)
            whole = Period(start, end, time_zone)
        else:
            whole = month_period(query.month or month_of(now, time_zone), time_zone)
        if whole.start >= math.floor(now):
            raise BadParameterError(
                f"{'from' if query.start else 'month'} takes a time that is past: this one has not begun"
            )
        if whole.end <= whole.start:
            raise BadParameterError("to takes a time after from")
        longest = self._settings().retention + 366 * 86400.0
        if whole.end - whole.start > longest or now - whole.start > longest + 366 * 86400.0:
            raise BadParameterError("from takes a time within the retention, or a year before at most")
        return whole

    async def _calendar(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        settings = self._settings()
        body = calendar(settings.maintenance, self._clock.wall(), settings.monitor_name)
        return await reply(request, Body(body, "text/calendar"))


def _wanted(accept: str) -> str:
    """The first form that the client names, JSON when it names none."""
    named = [(accept.find(kind), name) for name, kind in _FORMATS.items() if kind in accept]
    return min(named)[1] if named else "json"


def _moment(text: str, zone: ZoneInfo, further_days: int) -> float:
    """A time (of UTC if it names no zone), or when a day of `zone` begins (`further_days` 0) or ends (1)."""
    if len(text) == len("2026-10-25"):
        return midnight(date.fromisoformat(text) + timedelta(days=further_days), zone)
    return parse_rfc3339(text)


def _rendered(answer: ReportAnswer, kind: str, csv_link: str) -> bytes:
    if kind == "html":
        return report_html(answer, csv_link)
    make = {"csv": report_csv, "text": report_text, "json": report_json}
    return make[kind](answer)
