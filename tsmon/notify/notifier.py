"""All channels: hands them every step of the monitor, keeps the silences, runs what is due."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import structlog

from tsmon.base.clock import Clock
from tsmon.config import ChannelSettings, Settings
from tsmon.history.rows import read_alerts
from tsmon.history.store import Store
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.batch import Batch, Write
from tsmon.monitor.monitor import Monitor, Published
from tsmon.notify.alertmanager import AlertmanagerLine, Posted
from tsmon.notify.desk import Desk, Kept, News, Row
from tsmon.notify.line import MessageLine, Sender, load_rows, meta_key
from tsmon.notify.notice import Notice
from tsmon.notify.outcome import Outcome
from tsmon.notify.quiet import Quiet
from tsmon.notify.services import AppriseService
from tsmon.notify.texts import Facts, Message, plain_message
from tsmon.notify.webhook import Webhook

log = structlog.get_logger(__name__)

SETTLE = 5.0
"""Seconds after a start (or a poll interval, if that is shorter) in which nothing is told: by then the first
answer of the source was looked at."""
_BREATH = 0.5
"""Seconds at least between two steps that are made for messages only."""

_MOST_ENDED = 5000
"""Alerts that ended which are looked at after a start: the recoveries of more than these are not told."""


class Line(Protocol):
    """A channel at work."""

    name: str

    @property
    def alerts(self) -> set[int]: ...
    @property
    def told_at(self) -> Mapping[int, float]: ...
    def post(self, notice: Notice) -> None: ...
    def step(self, news: News, batch: Batch, remind_every: float) -> None: ...
    def release(self) -> None: ...
    def try_now(self) -> None: ...
    async def test(self, message: Message) -> Outcome: ...
    def readiness(self) -> dict[str, Any]: ...
    async def run(self) -> None: ...
    async def close(self) -> None: ...


class Loaded(msgspec.Struct):
    """What the last run left."""

    next_id: int
    waiting: dict[str, list[Row]]
    kept: dict[str, str]
    silences: list[Silence]
    ended: dict[int, Alert]
    """Alerts that ended."""


MakeSender = Callable[[ChannelSettings], Sender]


class Notifier:
    """Made by `open`; the daemon runs `run` and one `run` of each line."""

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        monitor: Monitor,
        loaded: Loaded,
        *,
        has_bus: Callable[[], bool],
        make_sender: MakeSender | None = None,
    ) -> None:
        """`has_bus` tells whether the source says at once that something changed. `make_sender` takes the
        place of the services (tests)."""
        self.clock = clock
        self.quiet = Quiet(settings.maintenance, loaded.silences)
        self.lines: dict[str, Line] = {}
        self._settings = settings
        self._monitor = monitor
        self._has_bus = has_bus
        self._make_sender = make_sender or self._service
        self._next_id = loaded.next_id
        self._next_silence = max((silence.id for silence in loaded.silences), default=0) + 1
        self._ended: dict[int, Alert] = loaded.ended
        """Alerts that ended and of which something is still to be told."""
        self._next_due: float | None = None
        self._due = asyncio.Event()
        self._build(loaded.kept, loaded.waiting)
        monitor.hold_back(self.quiet.until)
        monitor.accompany(self._step)
        monitor.subscribe(self._stored)

    @classmethod
    async def open(
        cls, clock: Clock, settings: Settings, monitor: Monitor, store: Store, **options: Any
    ) -> "Notifier":
        """With what the last run left. Raises StoreError."""
        return cls(clock, settings, monitor, await store.read(_load), **options)

    def apply(self, settings: Settings) -> list[Line]:
        """The settings changed: returns the lines of before if others take their place, which the caller
        ends; what they had to say goes on in the new ones."""
        self.quiet.configure(settings.maintenance)
        keys = ("notify", "public_url", "monitor")
        changed = any(getattr(settings, key) != getattr(self._settings, key) for key in keys)
        self._settings = settings
        if not changed:
            return []
        before = list(self.lines.values())
        now = self.clock.now()
        kept, waiting = {}, {}
        for line in before:
            if isinstance(line, MessageLine):
                kept[line.name] = line.desk.keep(now).decode()
                waiting[line.name] = list(line.desk.waiting)
            elif isinstance(line, AlertmanagerLine):
                kept[line.name] = line.kept()
        self.lines = {}
        self._build(kept, waiting)
        return before

    def _build(self, kept: Mapping[str, str], waiting: Mapping[str, list[Row]]) -> None:
        settle = min(SETTLE, self._settings.poll_interval)
        for channel in self._settings.notify:
            text = kept.get(channel.name)
            if channel.url.reveal().lower().startswith("alertmanager+"):
                self.lines[channel.name] = AlertmanagerLine(
                    channel,
                    _decoded(text, Posted),
                    self,
                    monitor=self._settings.monitor_name,
                    link=self._link,
                )
            else:
                desk = Desk(channel, _decoded(text, Kept), self.clock.now(), settle)
                desk.waiting.extend(waiting.get(channel.name, ()))
                self.lines[channel.name] = MessageLine(channel.name, desk, self._make_sender(channel), self)

    def _service(self, channel: ChannelSettings) -> Sender:
        if channel.url.reveal().lower().startswith("webhook+"):
            return Webhook(channel.url, channel.hmac_secret, self._settings.monitor_name, self.clock)
        return AppriseService(channel.url)

    @property
    def _link(self) -> str:
        base = self._settings.public_url.rstrip("/")
        return f"{base}/vpn" if base else ""

    # -- every step of the monitor ---------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        """Before the batch of a step is committed: what the channels make of it goes into it."""
        resolved = [alert for alert in batch.alerts if alert.state == "resolved"]
        self._ended |= {alert.id: alert for alert in resolved}
        fired = {
            int(event.details["alert_id"]) for event in batch.events if event.event_type == "alert"
        } & self._monitor.alerts.keys()
        for silence in self.quiet.take_expired(self.clock.wall()):
            batch.also.append(_forget_silence(silence.id))
        news = self._news(fired, resolved)
        for line in self.lines.values():
            line.step(news, batch, self._settings.remind_every)
        needed: set[int] = set().union(*(line.alerts for line in self.lines.values()))
        self._ended = {id_: alert for id_, alert in self._ended.items() if id_ in needed}
        dues = [
            due
            for line in self.lines.values()
            if isinstance(line, MessageLine) and (due := line.desk.next_due(news)) is not None
        ]
        self._next_due = min(dues, default=None)
        self._due.set()

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
            quiet=self.quiet.until,
        )

    def _stored(self, _: Published) -> None:
        """After it was committed, or kept in memory because it cannot be."""
        for line in self.lines.values():
            line.release()

    async def run(self) -> None:
        """Let a step happen when messages fall due between two polls."""
        while True:
            self._due.clear()
            wait = None if self._next_due is None else self._next_due - self.clock.mono()
            if wait is None or wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
                continue
            await self._monitor.note()
            await self.clock.sleep(_BREATH)

    # -- what the lines ask for (Office) ---------------------------------------------------------------

    def facts(self, told: Collection[int], ended: Collection[int]) -> Facts:
        """What a text is written from now; `told` are the alerts whose begin was delivered, `ended` those
        whose end was."""
        name = self._settings.monitor
        return Facts(
            alerts={**self._ended, **self._monitor.alerts},
            told=told,
            ended=ended,
            view=self._monitor.view,
            now=self.clock.wall(),
            link=self._link,
            signature=f"tsmon on {name}" if name else "",
        )

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    async def told(self, alerts: list[Alert], also: list[Write]) -> None:
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

    # -- what operators ask for ------------------------------------------------------------------------

    async def silence(self, silence: Silence) -> Silence:
        """Hold back what `silence` selects from now on; its id is given here."""
        silence = msgspec.structs.replace(silence, id=self._next_silence)
        self._next_silence += 1
        self.quiet.add(silence)
        words = f"{silence.author} silenced {silence.words()}: {silence.reason}"
        event = self._operated(words, "silence", silence)
        await self._monitor.note(event, also=[_keep_silence(silence)])
        return silence

    async def unsilence(self, silence_id: int, author: str) -> Silence | None:
        """End a silence; None when there is none of that id."""
        silence = self.quiet.remove(silence_id)
        if silence is not None:
            words = f"{author} ended the silence of {silence.words()}"
            event = self._operated(words, "unsilence", silence)
            await self._monitor.note(event, also=[_forget_silence(silence_id)])
        return silence

    def _operated(self, words: str, action: str, silence: Silence) -> Any:
        return self._monitor.event(
            "operator",
            "ok",
            words,
            action=action,
            silence_id=str(silence.id),
            author=silence.author,
            reason=silence.reason,
            ends=silence.ends,
        )

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

    def told_at(self) -> dict[str, Mapping[int, float]]:
        """By channel: alerts that it was told of -> when last (Unix seconds)."""
        return {line.name: line.told_at for line in self.lines.values()}

    @property
    def silences(self) -> list[Silence]:
        """Those that last, oldest first."""
        return sorted(self.quiet.silences.values(), key=lambda silence: silence.id)

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
        if channels and all(channel.hosts or channel.tags or channel.roles for channel in channels):
            found.append("every channel has a filter: nobody is told when tsmon itself is blind or fails")
        return found

    def loops(self) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """What is to run, by name."""
        return [(f"channel {line.name}", line.run) for line in self.lines.values()]


def _notice(kind: Any, title: str, words: str, clock: Clock) -> Notice:
    return Notice(key=uuid4().hex, kind=kind, made_at=clock.wall(), title=title, words=words)


def _load(db: sqlite3.Connection) -> Loaded:
    next_id, waiting = load_rows(db)
    prefix = meta_key("")
    kept = {
        key[len(prefix) :]: value
        for key, value in db.execute(
            "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
        )
    }
    silences = [
        msgspec.json.decode(body, type=Silence) for (body,) in db.execute("SELECT body FROM silences")
    ]
    ended = read_alerts(
        db.execute("SELECT body FROM alerts WHERE state = 'resolved' ORDER BY id DESC LIMIT 5000")
    )
    return Loaded(next_id, waiting, kept, silences, {alert.id: alert for alert in ended})


def _decoded(text: str | None, kind: Any) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        log.warning("stored_channel_unreadable")
        return None


def _keep_silence(silence: Silence) -> Write:
    row = (silence.id, silence.created, silence.ends, msgspec.json.encode(silence).decode())

    def apply(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR REPLACE INTO silences (id, created, ends, body) VALUES (?, ?, ?, ?)", row)

    return apply


def _forget_silence(silence_id: int) -> Write:
    def apply(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM silences WHERE id = ?", (silence_id,))

    return apply
