"""The summary of each month that is over, for the channels (`report.monthly`)."""

import calendar
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog

from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.history.report import Period, month_of, month_period
from tsmon.history.store import StoreError
from tsmon.server.report_answers import ReportAnswer
from tsmon.server.report_text import summary_text
from tsmon.server.waiting import BusyError

log = structlog.get_logger(__name__)

MONTH = "report.month"
"""Meta value: the last month of which nothing is owed, as `2026-10`; "" or absent while switched off."""
_LOOK = 300.0
"""Seconds between two looks at the calendar, and before the first: by then the tailnet was seen."""
_CONCLUDED = 900.0
"""Seconds after a month's end by which it is known what began at its end: outages are concluded late."""


class Announce(Protocol):
    """Sends a text to the channels and stores `meta` with it."""

    async def __call__(self, key: str, title: str, words: str, meta: Mapping[str, str]) -> None: ...


class MonthlySummary:
    """Sends each month's summary once, a quarter of an hour after the month, or when tsmon runs again."""

    def __init__(
        self,
        clock: Clock,
        settings: Callable[[], Settings],
        *,
        answer: Callable[[Period], Awaitable[ReportAnswer]],
        announce: Announce,
        remember: Callable[[dict[str, str]], Awaitable[Any]],
        done: str,
    ) -> None:
        """`done` is what `MONTH` holds; `remember` stores it where there is nothing to send."""
        self._clock = clock
        self._settings = settings
        self._answer = answer
        self._announce = announce
        self._remember = remember
        self._done = done
        self._unseen = ""
        """A month of which nothing was seen: not asked for again and again."""
        self._error = ""

    async def run(self) -> None:
        """Look at the calendar until cancelled."""
        while True:
            await self._clock.sleep(_LOOK)
            try:
                await self._look()
                self._error = ""
            except (StoreError, BusyError) as error:
                if str(error) != self._error:
                    log.warning("monthly_report_failed", error=str(error))
                self._error = str(error)

    async def _look(self) -> None:
        settings = self._settings()
        zone = settings.report.time_zone
        under_way = month_period(month_of(self._clock.wall() - _CONCLUDED, zone), zone)
        due = month_of(under_way.start - 1, zone)
        if not settings.report.monthly:
            await self._forget("")
        elif not self._done:
            # Just switched on: the month under way is the first.
            await self._forget(due)
        # Not "another month": a clock that was set back sends nothing twice.
        elif due > self._done and due != self._unseen:
            await self._send(due, settings)

    async def _forget(self, done: str) -> None:
        if self._done != done:
            await self._remember({MONTH: done})
            self._done = done

    async def _send(self, month: str, settings: Settings) -> None:
        answer = await self._answer(month_period(month, settings.report.time_zone))
        if not any(node.online_s or node.offline_s or node.planned_s for node in answer.nodes):
            # Not marked as done: the clock may be wrong, and be set right.
            self._unseen = month
            log.info("monthly_report_left_out", month=month, reason="nothing was seen in it")
            return
        year, number = month.split("-")
        words = summary_text(answer)
        if settings.public_url:
            words += f"\nAll of it: {settings.public_url.rstrip('/')}/health-monitoring/report?month={month}"
        title = f"Report of {calendar.month_name[int(number)]} {year}"
        await self._announce(f"report-{month}-{settings.monitor_name}", title, words, {MONTH: month})
        self._done = month
        log.info("monthly_report", month=month)
