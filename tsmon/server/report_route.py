"""The routes of the report and of the maintenance calendar."""

import asyncio
import math
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import hdrs, web

from tsmon.base.clock import Clock, parse_rfc3339
from tsmon.config import Settings
from tsmon.history.report import Period, midnight, month_of, month_period
from tsmon.history.reported import read_report
from tsmon.history.store import Store
from tsmon.monitor.state import Node, View
from tsmon.server.calendar import calendar
from tsmon.server.params import BadParameterError, Param
from tsmon.server.replies import Bodies, Body, reply
from tsmon.server.report import Question, report_answer, report_csv, report_json
from tsmon.server.report_answers import ReportAnswer
from tsmon.server.report_html import POLICY, report_html
from tsmon.server.report_text import report_text
from tsmon.server.routing import Route
from tsmon.server.waiting import WaitingLine

_FRESH = 30.0
"""Seconds for which the figures of a period that is under way serve."""
_FORMATS = {"html": "text/html", "csv": "text/csv", "text": "text/plain", "json": "application/json"}
PARAMS = (
    Param("month", "month", "the calendar month; the one under way when nothing is given", ""),
    Param("from", "moment", "where it begins; a day begins at midnight", ""),
    Param("to", "moment", "where it ends; a day is in it; now when left out", ""),
    Param("time_zone", "zone", "whose calendar; `report.time_zone` when left out", ""),
    Param("role", "text", "only nodes of this role", ""),
    Param("format", "choice", "instead of the header `Accept`", "", choices=("", *_FORMATS)),
)


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

    def routes(self) -> list[Route]:
        """For the route table."""
        words = "The report of a period"
        return [
            Route("/health-monitoring/report", self._report, words, ReportAnswer, PARAMS),
            Route("/maintenance.ics", self._calendar, "The maintenance windows as a calendar", str),
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
        targets = {rule.name: rule.target for rule in settings.roles if rule.target is not None}
        blind = view.blind.message if view.blind is not None else None
        return await asyncio.to_thread(report_answer, found, question, targets, as_of=view.as_of, blind=blind)

    async def _report(self, request: web.Request, values: dict[str, Any]) -> web.StreamResponse:
        kind = values["format"] or _wanted(request.headers.get(hdrs.ACCEPT, ""))
        zone = values["time_zone"] or self._settings().report.time_zone
        whole = self._period(values, zone)
        link = "?" + urlencode({**{name: text for name, text in values.items() if text}, "format": "csv"})

        async def make() -> Body:
            answer = await self.answer(whole, values["role"])
            return Body(await asyncio.to_thread(_rendered, answer, kind, link), _FORMATS[kind])

        made_of = int(self._clock.wall() // _FRESH), self._changes(), id(self._settings())
        body = await self._bodies.get((kind, *values.values()), made_of, make)
        headers: dict[str, str] = {hdrs.VARY: "Accept, Accept-Encoding"}
        if kind == "html":
            headers["Content-Security-Policy"] = POLICY
        if kind == "csv":
            headers[hdrs.CONTENT_DISPOSITION] = 'attachment; filename="tsmon-report.csv"'
        return await reply(request, body, headers)

    def _period(self, values: dict[str, Any], time_zone: str) -> Period:
        """What is asked for. Raises BadParameterError."""
        now = self._clock.wall()
        if values["month"] and (values["from"] or values["to"]):
            raise BadParameterError("month is given beside from or to: keep one of them")
        if values["to"] and not values["from"]:
            raise BadParameterError("from is missing: to needs it")
        if values["from"]:
            zone = ZoneInfo(time_zone)
            start = math.floor(_moment(values["from"], zone, 0))
            end = math.floor(_moment(values["to"], zone, 1) if values["to"] else now)
            whole = Period(start, end, time_zone)
        else:
            whole = month_period(values["month"] or month_of(now, time_zone), time_zone)
        if whole.start >= math.floor(now):
            raise BadParameterError(
                f"{'from' if values['from'] else 'month'} takes a time that is past: this one has not begun"
            )
        if whole.end <= whole.start:
            raise BadParameterError("to takes a time after from")
        longest = self._settings().retention + 366 * 86400.0
        if whole.end - whole.start > longest or now - whole.start > longest + 366 * 86400.0:
            raise BadParameterError("from takes a time within the retention, or a year before at most")
        return whole

    async def _calendar(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
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
