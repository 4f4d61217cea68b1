"""All channels: takes part in every step of the monitor, and lets one happen when messages fall due."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any
from uuid import uuid4

import structlog

from tsmon.base.clock import Clock
from tsmon.base.waits import happens
from tsmon.config import Settings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, Write
from tsmon.monitor.monitor import Monitor
from tsmon.notify.away import start_without
from tsmon.notify.details import Facts
from tsmon.notify.lines import Line, MakeSender, link_of, make_lines, service
from tsmon.notify.news import News
from tsmon.notify.notice import Notice, NoticeKind
from tsmon.notify.outcome import Outcome
from tsmon.notify.quiet import Quiet
from tsmon.notify.stored import StoredChannels, forget_silence, keep_silence
from tsmon.notify.texts import plain_message

log = structlog.get_logger(__name__)

_BREATH = 0.5
"""Seconds at least between two steps that are made for messages only."""


class Notifier:
    """Of the lines, the daemon runs each one's `run`; of the notifier, its own.

    `step` and `release` are what the ledger calls with each commit (its Protocol `Messages`); `facts`,
    `notified` and `fails` are what the lines ask for (their Protocol `Office`).
    """

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        monitor: Monitor,
        stored: StoredChannels,
        quiet: Quiet,
        *,
        has_bus: Callable[[], bool],
        make_sender: MakeSender = service,
    ) -> None:
        """`has_bus`: whether the source reports changes at once. `make_sender` makes of a channel what
        takes its messages."""
        self.clock = clock
        self._quiet = quiet
        self._settings = settings
        self._monitor = monitor
        self._has_bus = has_bus
        self._make_sender = make_sender
        self._next_id = stored.next_id
        self._ended: dict[int, Alert] = stored.ended
        """Alerts that ended and of which something is still to be notified."""
        self._next_due: float | None = None
        self._due = asyncio.Event()
        self._away = start_without(
            stored.kept, stored.waiting, (channel.name for channel in settings.notify), clock.wall()
        )
        self._reports: list[tuple[Notice, Mapping[str, str]]] = []
        self.lines: dict[str, Line] = make_lines(settings, stored.kept, stored.waiting, self, make_sender)

    def apply(self, settings: Settings) -> list[Line]:
        """The settings changed: returns the lines of before if others take their place, which the caller
        ends; what they had to say goes on in the new ones."""
        self._quiet.configure(settings.maintenance)
        keys = ("notify", "public_url", "monitor")
        changed = any(getattr(settings, key) != getattr(self._settings, key) for key in keys)
        self._settings = settings
        if not changed:
            return []
        before = list(self.lines.values())
        names = [channel.name for channel in settings.notify]
        left = {line.name: line.hand_over() for line in before}
        for name in left.keys() - names:
            self._away.leave(name, *left.pop(name), self.clock.wall())
        kept = {name: text for name, (text, _) in left.items()} | self._away.come_back(names)
        waiting = {name: rows for name, (_, rows) in left.items()}
        self.lines = make_lines(settings, kept, waiting, self, self._make_sender)
        return before

    # -- every step of the monitor ---------------------------------------------------------------------

    def step(self, batch: Batch) -> None:
        """Before the batch of a step is committed: what the channels make of it goes into it."""
        resolved = [alert for alert in batch.alerts if alert.state == "resolved"]
        self._ended |= {alert.id: alert for alert in resolved}
        fired = {int(event.details["alert_id"]) for event in batch.events if event.event_type == "alert"} & (
            self._monitor.alerts.keys() | self._ended.keys()
        )
        for silence in self._quiet.take_expired(self.clock.wall()):
            batch.also.append(forget_silence(silence.id))
        self._hand_out_reports(batch)
        news = self._news(fired, resolved)
        for line in self.lines.values():
            line.step(news, batch, self._settings.remind_every)
        self._away.store(batch)
        needed: set[int] = self._away.alerts.union(*(line.alerts for line in self.lines.values()))
        self._ended = {id_: alert for id_, alert in self._ended.items() if id_ in needed}
        dues = [due for line in self.lines.values() if (due := line.next_due(news)) is not None]
        self._next_due = min(dues, default=None)
        self._due.set()

    def _hand_out_reports(self, batch: Batch) -> None:
        """To the lines of this step, which may be others than those of when they were announced."""
        for notice, meta in self._reports:
            batch.meta |= meta
            for line in self.lines.values():
                if line.takes_reports:
                    line.post(notice)
        self._reports = []

    def _news(self, fired: set[int], resolved: list[Alert]) -> News:
        settings = self._settings
        wait = settings.group_wait
        if not self._has_bus():
            # Without it nodes that fall together are seen by two polls.
            wait = max(wait, settings.poll_interval + 2.0)
        return News(
            now=self.clock.now(),
            view=self._monitor.view,
            alerts={**self._ended, **self._monitor.alerts},
            fired=fired,
            resolved=resolved,
            sighted=self._monitor.sees and self._monitor.view.blind is None,
            group_wait=wait,
            quiet=self._quiet.until,
        )

    def rewrite(self, batch: Batch) -> None:
        """The database was begun again: silences, messages that wait, and alerts that ended but are still to
        be reported go there, too."""
        batch.alerts += [alert for id_, alert in self._ended.items() if id_ not in self._monitor.alerts]
        batch.also += [keep_silence(silence) for silence in self._quiet.silences.values()]
        for line in self.lines.values():
            line.rewrite(batch)

    def release(self) -> None:
        """After it was committed, or kept in memory because it cannot be."""
        for line in self.lines.values():
            line.release()

    async def run(self) -> None:
        """Let a step happen when messages fall due between two polls."""
        while True:
            self._due.clear()
            wait = None if self._next_due is None else self._next_due - self.clock.mono()
            if wait is None or wait > 0:
                await happens(self._due, wait)
                continue
            await self._monitor.advance()
            await self.clock.sleep(_BREATH)

    # -- what the lines ask for (Office) ---------------------------------------------------------------

    def facts(self, notified: Collection[int], ended: Collection[int]) -> Facts:
        """What a text is written from now; `notified` are the alerts whose begin was delivered, `ended` those
        whose end was."""
        name = self._settings.monitor
        return Facts(
            alerts={**self._ended, **self._monitor.alerts},
            notified=notified,
            ended=ended,
            view=self._monitor.view,
            now=self.clock.wall(),
            link=link_of(self._settings),
            signature=f"tsmon on {name}" if name else "",
        )

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    async def notified(self, alerts: list[Alert], also: list[Write]) -> None:
        """Record that messages of these alerts were delivered."""
        # A record may be old: meanwhile the alert may have ended.
        await self._monitor.notified([alert.id for alert in alerts], lambda: self._ended, also)

    async def fails(self, name: str, reason: str) -> None:
        """The channel `name` does not deliver: the event, and a message to the others."""
        words = f"the channel {name} does not deliver: {reason}"
        log.error("channel_failed", channel=name, error=reason)
        for line in self.lines.values():
            if line.name != name:
                line.post(
                    _notice("channel", f"WARNING: the channel {name} does not deliver", reason, self.clock)
                )
        event = self._monitor.event("channel_failed", "warning", words, channel=name, error=reason)
        await self._monitor.note(event)

    async def announce(self, key: str, title: str, words: str, meta: Mapping[str, str]) -> None:
        """Send a summary to the channels that take one; `meta` is stored in the same transaction. The `key`
        is the same however often the same is announced."""
        self._reports.append((_notice("report", title, words, self.clock, key), meta))
        await self._monitor.advance()

    # -- what operators ask for ------------------------------------------------------------------------

    async def test(self, name: str) -> Outcome:
        """Send one message through the channel `name` now. Raises KeyError."""
        notice = _notice(
            "test", f"tsmon test message to {name}", "If you can read this, the channel works.", self.clock
        )
        return await self.lines[name].test(plain_message(notice, self.facts((), ())))

    @property
    def names(self) -> list[str]:
        """The channels."""
        return list(self.lines)

    def notified_at(self) -> dict[str, Mapping[int, float]]:
        """By channel: alerts that it was notified of -> when last (Unix seconds)."""
        return {line.name: line.notified_at for line in self.lines.values()}

    def enable(self, name: str) -> None:
        """Try the channel `name` at once, though it is parked. Raises KeyError."""
        self.lines[name].try_now()

    def readiness(self) -> list[dict[str, Any]]:
        """For /readyz, without secrets."""
        return [line.readiness() for line in self.lines.values()]

    def warnings(self) -> list[str]:
        """What a person should know about the channels."""
        found = [
            f"the channel {row['name']} does not deliver: {row['error']}"
            for row in self.readiness()
            if row["error"]
        ]
        channels = self._settings.notify
        if channels and all(channel.is_filtered for channel in channels):
            found.append("every channel has a filter: nobody is notified when tsmon itself is blind or fails")
        if self._settings.report.monthly and not any(line.takes_reports for line in self.lines.values()):
            found.append(
                "report.monthly reaches nobody: it goes to channels of messages without a filter and without"
                ' min_severity = "critical"'
            )
        return found

    def loops(self) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """What is to run, by name."""
        return [(f"channel {line.name}", line.run) for line in self.lines.values()]


def _notice(kind: NoticeKind, title: str, words: str, clock: Clock, key: str = "") -> Notice:
    return Notice(key=key or uuid4().hex, kind=kind, made_at=clock.wall(), title=title, words=words)
