"""How a change becomes durable, then known: one step is one transaction, and nobody hears of it earlier."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from tsmon.base.clock import Clock
from tsmon.classify import Severity
from tsmon.monitor.alerts import Alert, AlertChanges
from tsmon.monitor.batch import Batch, LastRun, last_id_key
from tsmon.monitor.known import Known
from tsmon.monitor.state import Event, Node, View

log = structlog.get_logger(__name__)


class Published(NamedTuple):
    """What one step made known."""

    view: View
    events: tuple[Event, ...]
    alerts: tuple[Alert, ...]


class Journal(Protocol):
    """Where batches go; it never raises, and says in `error` why nothing can be written."""

    error: str

    async def commit(self, batch: Batch, whole: Callable[[], Batch]) -> None:
        """Write `batch`; `whole` makes the batch of everything that is known, for a new database."""

    async def find(self, ids: Collection[str]) -> dict[str, Node]:
        """The stored nodes of these stable IDs, removed ones too."""

    async def removed_of(self, families: Collection[str]) -> list[Node]:
        """The stored removed nodes of these families that may be followed."""


class Messages(Protocol):
    """The notification channels, as a step needs them."""

    def step(self, batch: Batch) -> None:
        """Add to `batch` the messages that this step makes due."""

    def rewrite(self, batch: Batch) -> None:
        """The database was begun again: add to `batch` what the messages need of the old one."""

    def release(self) -> None:
        """The batch was committed (or is kept in memory): its messages may be sent."""


Listener = Callable[[Published], None]
"""Called in the event loop after every step; it must not block."""


class Ledger:
    """Commits what a step changed and publishes it. Whoever changes anything holds `lock`."""

    def __init__(self, clock: Clock, known: Known, last: LastRun, journal: Journal) -> None:
        self.lock = asyncio.Lock()
        self._clock = clock
        self._known = known
        self._journal = journal
        self._messages: Messages | None = None
        self._listeners: list[Listener] = []
        self._next_event_id = last.next_event_id
        self._stored_meta = dict(last.meta)

    @property
    def error(self) -> str:
        """Why nothing can be written, "" when it can."""
        return self._journal.error

    async def find(self, ids: Collection[str]) -> dict[str, Node]:
        """The stored nodes of these stable IDs, removed ones too."""
        return await self._journal.find(ids)

    async def removed_of(self, families: Collection[str]) -> list[Node]:
        """The stored removed nodes of these families that may be followed (rule 4.7)."""
        return await self._journal.removed_of(families)

    def accompany(self, messages: Messages) -> None:
        """From now on `messages` takes part in every step."""
        self._messages = messages

    def subscribe(self, listener: Listener) -> None:
        """From now on `listener` hears of every step once it is committed."""
        self._listeners.append(listener)

    async def commit(self, batch: Batch, events: list[Event], changes: AlertChanges | None = None) -> None:
        """Number the events, let the channels add their messages, commit all of it at once, publish it.

        Messages are made before the commit, in its transaction, and sent after it: a crash between the two
        loses none and invents none."""
        self._complete(batch, events, changes)
        if self._messages is not None:
            self._messages.step(batch)
        self._remember(batch)
        await self._journal.commit(batch, self._whole)
        if self._messages is not None:
            self._messages.release()
        self._publish(Published(self._known.view, tuple(batch.events), tuple(batch.alerts)))

    def _complete(self, batch: Batch, events: list[Event], changes: AlertChanges | None) -> None:
        now = self._clock.wall()
        for event in events:
            batch.events.append(msgspec.structs.replace(event, id=self._next_event_id, recorded_at=now))
            self._next_event_id += 1
        if changes is not None:
            batch.alerts, batch.dropped_alerts = changes.alerts, changes.dropped
        for key, value in self._known.meta().items():
            if value and self._stored_meta.get(key) != value:
                batch.meta[key] = value

    def _remember(self, batch: Batch) -> None:
        """What a database that is begun again must hold beside what is known."""
        for key, value in batch.meta.items():
            if value is None:
                self._stored_meta.pop(key, None)
            else:
                self._stored_meta[key] = value

    def _publish(self, published: Published) -> None:
        for listener in self._listeners:
            try:
                listener(published)
            except Exception:
                # What one listener does wrong must not keep the monitor from its next step.
                log.exception("listener_failed", listener=repr(listener))

    def _whole(self) -> Batch:
        """Everything that is known now: for a database that was begun again."""
        batch = self._known.whole(self._clock.wall(), self._stored_meta)
        batch.meta[last_id_key("events")] = str(self._next_event_id - 1)
        batch.meta[last_id_key("alerts")] = str(self._known.rules.book.last_id)
        if self._messages is not None:
            self._messages.rewrite(batch)
        return batch


def own_event(wall: float, event_type: str, severity: Severity, message: str, **details: Any) -> Event:
    """An event of the monitor itself at `wall` (Unix seconds) that is not numbered yet."""
    return Event(
        id=0,
        timestamp=wall,
        recorded_at=0.0,
        event_type=event_type,
        severity=severity,
        message=message,
        details=details,
    )
