"""One channel at work: its desk makes notices, they are stored with the step that made them, and sent in
order, at least once."""

import asyncio
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec
import structlog

from tsmon.base.clock import Clock
from tsmon.base.waits import happens
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, Write
from tsmon.notify.desk import MOST_WAITING, Desk, Row
from tsmon.notify.details import Facts
from tsmon.notify.news import News
from tsmon.notify.notice import Notice
from tsmon.notify.outcome import ChannelHealth, Outcome
from tsmon.notify.texts import Message, withheld, write

log = structlog.get_logger(__name__)

KEPT_WHILE_PARKED = 86400.0
"""Seconds that the messages of a parked channel are kept (rule 9.11)."""
_DELIVERED_KEPT = 7 * 86400.0
_TRY_SECONDS = 60.0
"""However a channel bounds itself, a try ends within so many seconds."""


class Sender(Protocol):
    """A service that takes messages."""

    service: str
    """What it is, for people: never a secret."""

    async def send(self, message: Message) -> Outcome:
        """One try. Raises nothing but CancelledError."""

    async def close(self) -> None: ...


class Office(Protocol):
    """What a line asks of the rest."""

    clock: Clock

    def facts(self, notified: Collection[int], ended: Collection[int]) -> Facts: ...
    def next_id(self) -> int: ...
    async def notified(self, alerts: list[Alert], also: list[Write]) -> None:
        """Record, with `also` in the same transaction, that messages of these alerts were delivered."""

    async def fails(self, name: str, reason: str) -> None:
        """Tell everybody that the channel `name` does not deliver."""


async def note_failure(name: str, health: ChannelHealth, outcome: Outcome, office: Office) -> None:
    """A try of the channel `name` failed: log what is new, and tell the others once it is worth it."""
    if outcome.error != health.error:
        log.warning("message_not_delivered", channel=name, error=outcome.error)
    now = office.clock.now()
    health.note(outcome, now)
    if health.is_worth_telling(now.mono):
        health.reported = True
        await office.fails(name, outcome.error)


class MessageLine:
    """A channel of messages: a chat, mail, a webhook."""

    def __init__(self, name: str, desk: Desk, sender: Sender, office: Office) -> None:
        self.name = name
        self.desk = desk
        self.health = ChannelHealth()
        self._sender = sender
        self._office = office
        self._wake = asyncio.Event()
        self._extra: list[Notice] = []
        self._kept = b""

    @property
    def alerts(self) -> set[int]:
        """Alerts whose records are needed."""
        return self.desk.alerts

    @property
    def notified_at(self) -> Mapping[int, float]:
        """Alerts that the channel was notified of -> when last (Unix seconds)."""
        return self.desk.notified

    @property
    def takes_reports(self) -> bool:
        """A channel for some nodes, or for what is critical, is not for figures of the whole."""
        channel = self.desk.channel
        return not channel.is_filtered and channel.min_severity != "critical"

    def post(self, notice: Notice) -> None:
        """A notice that no alert made; it is stored with the next step."""
        self._extra.append(notice)

    def step(self, news: News, batch: Batch, remind_every: float) -> None:
        """Make what is due, and store it in the transaction of `batch`."""
        rows = [
            Row(self._office.next_id(), notice, news.now.wall)
            for notice in [*self._extra, *self.desk.step(news, remind_every)]
        ]
        self._extra = []
        self.desk.waiting.extend(rows)
        batch.also += [_insert(self.name, row) for row in rows]
        for row in self._too_many(news.now.wall):
            log.error("message_dropped", channel=self.name, kind=row.notice.kind, error=self.health.error)
            self.desk.drop(row)
            batch.also.append(_update(row, failed="waited too long"))
        kept = self.desk.keep(news.now)
        if kept != self._kept:
            self._kept = kept
            batch.meta[meta_key(self.name)] = kept.decode()

    def rewrite(self, batch: Batch) -> None:
        """The database was begun again: what waits is stored there, too."""
        batch.also += [_insert(self.name, row) for row in self.desk.waiting]

    def next_due(self, news: News) -> float | None:
        """Monotonic time at which a step will have something to send."""
        return self.desk.next_due(news)

    def hand_over(self) -> tuple[str, list[Row]]:
        """What the line that takes this one's place goes on with: what the desk knows, and what waits."""
        return self.desk.keep(self._office.clock.now()).decode(), list(self.desk.waiting)

    def release(self) -> None:
        """The last batch is stored (or cannot be): what it made may be sent."""
        for row in self.desk.waiting:
            if not row.committed:
                row.committed = True
                self._wake.set()

    def try_now(self) -> None:
        self.health.try_now()
        self._wake.set()

    async def test(self, message: Message) -> Outcome:
        """Send this message now, whatever waits."""
        outcome = await self._try(message)
        if outcome.delivered:
            self.health.note(outcome, self._office.clock.now())
            self._wake.set()
        return outcome

    def readiness(self) -> dict[str, Any]:
        """For /readyz."""
        return {
            "name": self.name,
            "service": self._sender.service,
            **self.health.readiness(),
            "waiting": len(self.desk.waiting),
            "dropped": self.desk.dropped,
        }

    async def run(self) -> None:
        """Deliver until cancelled, one message at a time."""
        while True:
            self._wake.clear()
            row = self.desk.waiting[0] if self.desk.waiting else None
            pause = self.health.pause(self._office.clock.mono())
            # A message leaves only once it is stored: sent before, a crash would send it twice with other
            # words, or forget that it was sent. What is stored and sent twice has the same key.
            if row is None or not row.committed:
                await self._wake.wait()
            elif pause > 0:
                await happens(self._wake, pause)
            else:
                await self._deliver(row)

    async def close(self) -> None:
        await self._sender.close()

    async def _deliver(self, row: Row) -> None:
        facts = self._office.facts(self.desk.notified, self.desk.ended)
        message = write(row.notice, facts)
        outcome = await self._try(message) if message is not None else Outcome(True)
        now = self._office.clock.now()
        if not outcome.delivered:
            await self._failed(row, outcome)
            return
        if message is not None:
            if self.health.error:
                log.info("channel_delivers", channel=self.name)
            self.health.note(outcome, now)
        alerts = [alert for _, alert in message.entries] if message is not None else []
        self.desk.delivered(
            row,
            facts.alerts,
            now,
            said=[alert.id for alert in alerts],
            down=message.down if message is not None else (),
            withheld=withheld(row.notice, facts),
        )
        old = now.wall - _DELIVERED_KEPT
        await self._office.notified(alerts, [_update(row, delivered_at=now.wall), _prune(old)])

    async def _failed(self, row: Row, outcome: Outcome) -> None:
        row.attempts += 1
        await note_failure(self.name, self.health, outcome, self._office)

    async def _try(self, message: Message) -> Outcome:
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                return await self._sender.send(message)
        except TimeoutError:
            return Outcome(False, "no answer in time")

    def _too_many(self, now: float) -> list[Row]:
        rows = list(self.desk.waiting)
        old = [row for row in rows if self.health.parked and now - row.created > KEPT_WHILE_PARKED]
        # The first may be in flight.
        return old or rows[1 : len(rows) - MOST_WAITING + 1]


def meta_key(name: str) -> str:
    """Where the desk of a channel is kept."""
    return f"notify.{name}"


def _insert(channel: str, row: Row) -> Write:
    body = msgspec.json.encode(row.notice).decode()

    def apply(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT OR REPLACE INTO notifications (id, channel, created, body) VALUES (?, ?, ?, ?)",
            (row.id, channel, row.created, body),
        )

    return apply


def _update(row: Row, *, delivered_at: float | None = None, failed: str | None = None) -> Write:
    values = (delivered_at, failed, row.attempts, row.id)

    def apply(db: sqlite3.Connection) -> None:
        db.execute("UPDATE notifications SET delivered_at = ?, failed = ?, attempts = ? WHERE id = ?", values)

    return apply


def give_up(row: Row, why: str) -> Write:
    """The message of `row` will not be sent."""
    return _update(row, failed=why)


def _prune(before: float) -> Write:
    def apply(db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM notifications WHERE created < ? AND coalesce(delivered_at, failed) IS NOT NULL",
            (before,),
        )

    return apply


def load_rows(db: sqlite3.Connection) -> tuple[int, dict[str, list[Row]]]:
    """The next free id, and what waits, by channel."""
    next_id = db.execute("SELECT coalesce(max(id), 0) + 1 FROM notifications").fetchone()[0]
    waiting: dict[str, list[Row]] = {}
    rows = db.execute(
        "SELECT id, channel, created, body FROM notifications"
        " WHERE delivered_at IS NULL AND failed IS NULL ORDER BY id"
    )
    for id_, channel, created, body in rows:
        try:
            notice = msgspec.json.decode(body, type=Notice)
        except msgspec.DecodeError:
            log.warning("stored_message_unreadable", id=id_, channel=channel)
            continue
        waiting.setdefault(channel, []).append(Row(id_, notice, created, committed=True))
    return next_id, waiting
