"""The monitor's steps: an answer of the source is judged, compared with what is known, and ruled on. One
answer is one step: one batch for the store, one new view for everybody who reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from tsmon.base.clock import Clock, Moment, rfc3339
from tsmon.base.text import counted
from tsmon.base.threads import off_loop
from tsmon.classify import Severity
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, LatencyRow, Observed, SpanChange, Write
from tsmon.monitor.changes import Changes, Look, compare, counts, stop_self
from tsmon.monitor.hidden import hidden_by
from tsmon.monitor.identity import renaming
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger, own_event
from tsmon.monitor.reach import PingFigures
from tsmon.monitor.rules import Step
from tsmon.monitor.sight import Failure, Verdict, describe
from tsmon.monitor.state import Event, Node, View
from tsmon.monitor.succession import look_for_successors, strangers
from tsmon.source.pings import Ping
from tsmon.source.status import Snapshot

log = structlog.get_logger(__name__)


_REMEMBERED = 3600.0
"""Seconds for which a removed node stays in memory: messages about it may still be under way."""


class Outlet(Protocol):
    """Where samples go on to."""

    @property
    def lag_error(self) -> str | None:
        """Why they lag longer than their limit, "" when they do not; None: they go nowhere."""


class Asks(NamedTuple):
    """Nodes that are to be pinged at once."""

    due: list[str]
    """Before their outage is notified."""
    suspects: list[str]
    """Since they lost a route to another."""


class PingOutcome(NamedTuple):
    node_id: str
    sent: Moment
    ping: Ping


class Monitor:
    """The one place where the tailnet's state changes; what operators change is in `Operators`."""

    def __init__(self, clock: Clock, known: Known, ledger: Ledger, outlet: Outlet) -> None:
        self._clock = clock
        self._known = known
        self._ledger = ledger
        self._outlet = outlet
        self._announced = False  # monitor_started was written

    @property
    def view(self) -> View:
        """What is known now: the last step's, and blind once it is too old."""
        return self._known.view_at(self._clock.mono())

    @property
    def alerts(self) -> Mapping[int, Alert]:
        """The open alerts, pending and firing, by id."""
        return self._known.alerts

    @property
    def sees(self) -> bool:
        """The last answer was trusted and is not too old: pings may be sent."""
        return self.view.blind is None and self._known.trusted

    @property
    def started(self) -> Moment:
        return self._known.started

    def next_read(self, now: Moment) -> float | None:
        """Monotonic time at which something falls due that asks for a read, None when nothing does."""
        waits = [self._known.sight.next_read(now)]
        due = self._known.rules.due_in(self._step(now, None, ()))
        if due is not None:
            waits.append(now.mono + due)
        return min((wait for wait in waits if wait is not None), default=None)

    # -- answers of the source -------------------------------------------------------------------------

    async def answer(
        self,
        answer: Snapshot | Failure,
        health_codes: frozenset[str] = frozenset(),
        *,
        can_ping: bool = True,
    ) -> Asks:
        """One answer of the source. Returns the nodes that are to be pinged at once: before their outage is
        notified, or since they lost a route to another.

        `health_codes` are those that an open bus reports; without `can_ping` the source sends no pings."""
        known = self._known
        async with self._ledger.lock:
            known.can_ping = can_ping
            now = self._clock.now()
            batch, known.carried = known.carried, Batch()
            verdict = known.sight.judge(answer, now, health_codes)
            known.trusted = verdict.trusted
            if verdict.clock_back:
                known.cut(now, verdict.clock_back, batch)
            events: list[Event] = []
            self._note_sight(verdict, now, batch, events)
            changes = await self._changes(answer, verdict, now)
            renamed = renaming(self.view.tailnet, known.sight.tailnet)
            if renamed:
                events.append(self.event("tailnet_renamed", "ok", renamed))
            if verdict.trusted and not self._announced:
                self._announced = True
                events.insert(0, self._started_event(changes, now))
            events += changes.events
            self._note_nodes(changes, verdict, now, batch)
            events += self._look_beyond(answer, changes, verdict, now, batch)
            self._look_at(answer, changes, verdict, now)
            ruled = known.rules.step(self._step(now, verdict, changes.events))
            await self._ledger.commit(batch, [*events, *ruled.events], ruled)
            return Asks(ruled.asks, known.beyond.suspects)

    async def look_at_age(self) -> None:
        """While nothing is judged nobody steps: this makes the event and the alert of a stale view."""
        blind = self.view.blind
        if blind is not None and blind.reason == "stale":
            message = self._known.sight.stale_message(self._clock.mono())
            await self.answer(Failure("stale", message), can_ping=self._known.can_ping)

    # -- pings -----------------------------------------------------------------------------------------

    async def pinged(self, outcomes: Iterable[PingOutcome]) -> None:
        """Record pings; those that come back while the view is not trusted say nothing."""
        async with self._ledger.lock:
            now = self._clock.now()
            for outcome in outcomes if self.sees else ():
                node = self.view.nodes.get(outcome.node_id)
                if node is not None:
                    self._known.pings.record(node, outcome.sent, outcome.ping, now)

    async def lives(self, node_id: str, age: float) -> None:
        """The node answered something that was sent `age` seconds ago: as good as an answered ping."""
        async with self._ledger.lock:
            now = self._clock.now()
            node = self.view.nodes.get(node_id)
            if self.sees and node is not None:
                self._known.pings.lives(node, Moment(now.wall - age, now.mono - age))

    async def witnesses(self) -> list[str]:
        """Whom to ask about nodes that missed their third ping."""
        async with self._ledger.lock:
            return self._known.pings.witnesses(self.view.nodes, self.view.self_id) if self.sees else []

    async def conclude(self) -> None:
        """The witnesses were asked."""
        async with self._ledger.lock:
            if self.sees:
                self._known.pings.conclude(self.view.nodes, self._clock.now())

    def pings_tell(self) -> bool:
        """The pings say something of a node's state that its record does not say yet."""
        for id_, node in self.view.nodes.items():
            if self._known.pings.wants(node):
                reach = self._known.pings.reach_of(id_)
                before = node.reach
                if (reach.unreachable_since, reach.detached, reach.asked, reach.reachable) != (
                    before.unreachable_since,
                    before.detached,
                    before.asked,
                    before.reachable,
                ):
                    return True
        return False

    def ping_targets(self, *, everyone: bool) -> list[str]:
        """Whom to ping: everyone whose role wants it, or only those who missed a ping."""
        pings = self._known.pings
        targets = pings.targets(self.view.nodes, self.view.self_id, self._known.rules.due_outages())
        if everyone:
            return targets
        retries = pings.retries(targets)
        return retries if pings.isolated_since is None else targets

    def drain_pings(self) -> list[PingFigures]:
        """The figures of the pings since the last call."""
        return self._known.pings.drain()

    # -- what no answer made ---------------------------------------------------------------------------

    async def note(
        self,
        *events: Event,
        latency: Iterable[LatencyRow] = (),
        meta: dict[str, str] | None = None,
        also: Iterable[Write] = (),
    ) -> None:
        """Record events (not numbered yet), latency rows, meta values and other writes that no answer made,
        and look again which alerts are silenced."""
        async with self._ledger.lock:
            batch = Batch(latency=list(latency), meta=dict(meta or {}), also=list(also))
            changes = self._known.rules.hush(self.view, self._clock.now())
            await self._ledger.commit(batch, list(events), changes)

    async def advance(self) -> None:
        """Nothing happened but that time passed: silences end, messages fall due."""
        await self.note()

    async def notified(
        self, alert_ids: Iterable[int], ended: Callable[[], Mapping[int, Alert]], also: Iterable[Write] = ()
    ) -> None:
        """Messages of these alerts were delivered; `also` records that too. `ended` gives the
        present records of those that are no longer open."""
        async with self._ledger.lock:
            book, closed = self._known.rules.book, []
            for alert_id in alert_ids:
                alert = book.open.get(alert_id)
                if alert is not None:
                    book.update(alert, notified=True)
                    continue
                alert = ended().get(alert_id)
                if alert is not None and not alert.notified:
                    closed.append(msgspec.structs.replace(alert, notified=True))
            changes = book.take()
            changes.alerts += closed
            await self._ledger.commit(Batch(also=list(also)), [], changes)

    async def stop(self) -> None:
        """tsmon stops: the last event, and what could not be written so far."""
        async with self._ledger.lock:
            await self._ledger.commit(Batch(), [self.event("monitor_stopped", "ok", "tsmon stopped")])

    def event(
        self, event_type: str, severity: Severity, message: str, at: float | None = None, **details: Any
    ) -> Event:
        """An event of the monitor itself, `at` Unix seconds or now, that is not numbered yet."""
        return own_event(self._clock.wall() if at is None else at, event_type, severity, message, **details)

    # -- parts of a step -------------------------------------------------------------------------------

    def _step(self, now: Moment, verdict: Verdict | None, events: Iterable[Event]) -> Step:
        return self._known.step(
            now,
            verdict,
            events,
            storage_error=self._ledger.error,
            influx_error=self._outlet.lag_error,
        )

    def _note_sight(self, verdict: Verdict, now: Moment, batch: Batch, events: list[Event]) -> None:
        blind = self._known.sight.blind
        if verdict.went_blind:
            self._known.pings.blind()
        if verdict.tell and blind is not None:
            events.append(
                self.event("monitor_blind", "warning", describe(blind), blind.since, reason=blind.reason)
            )
            batch.meta["blind_since"] = repr(blind.since)
            log.warning(
                "monitor_blind", reason=blind.reason, since=rfc3339(blind.since), message=blind.message
            )
        elif verdict.trusted and verdict.restored:
            batch.meta["blind_since"] = None
            if verdict.tell:
                before = self.view.blind
                seconds = now.wall - before.since if before is not None else 0.0
                words = f"tsmon sees the tailnet again, after {round(seconds)} s"
                events.append(self.event("monitor_restored", "ok", words, duration_s=round(seconds)))
                log.info("monitor_restored", blind_s=round(seconds))

    async def _changes(self, answer: Snapshot | Failure, verdict: Verdict, now: Moment) -> Changes:
        view = self.view
        if isinstance(answer, Snapshot) and verdict.trusted:
            if not self._known.can_ping:
                self._known.pings.keep(())
            else:
                pings = self._known.pings
                pings.keep({id_ for id_, node in view.nodes.items() if pings.wants(node)})
            hidden = hidden_by(answer, view.nodes, self._known.suspects)
            self._known.suspects = hidden.suspects
            look = Look(
                snapshot=answer,
                now=now,
                role_of=self._known.classifier.role,
                pings=self._known.pings,
                unobserved_since=verdict.unobserved_since,
                taken_away=verdict.taken_away,
                taken_away_at=verdict.taken_away_at,
                hidden=hidden.nodes,
                left_out_before=self._known.left_out,
                first=self._known.empty,
            )
            removed = await self._removed(answer, now)
            new = answer.nodes.keys() - view.nodes.keys() - removed.keys()
            families = strangers(answer.nodes[id_] for id_ in new) if not look.first else set()
            gone = await self._ledger.removed_of(families) if families else []

            def changes_of() -> Changes:
                changes = compare(view.nodes, removed, look)
                if not look.first:
                    look_for_successors(changes, gone, now.wall)
                return changes

            return await off_loop(changes_of, len(answer.nodes))
        changes = Changes(nodes=view.nodes, removed=view.removed)
        own = view.nodes.get(view.self_id)
        if self._known.sight.self_stopped and own is not None and own.reason != "stopped":
            stopped = stop_self(own, now.wall)
            stopped.nodes = view.nodes | stopped.nodes
            stopped.removed = view.removed
            return stopped
        return changes

    async def _removed(self, snapshot: Snapshot, now: Moment) -> dict[str, Node]:
        """The removed nodes that this snapshot may speak of: those kept in memory, and those of its unknown
        IDs that the store knows. All others live in the store only: a tailnet may lose a thousand a day."""
        alerted = {alert.node_id for alert in self.alerts.values()}
        kept = {
            id_: node
            for id_, node in self.view.removed.items()
            if id_ in alerted or (node.removed_at or 0.0) > now.wall - _REMEMBERED
        }
        unknown = snapshot.nodes.keys() - self.view.nodes.keys() - kept.keys()
        if unknown and not self._known.empty:
            kept |= await self._ledger.find(unknown)
        followed = [node for node in (*self.view.nodes.values(), *kept.values()) if node.successor]
        successors = {node.successor for node in followed if node.id in snapshot.nodes}
        successors -= self.view.nodes.keys() | kept.keys()
        return kept | await self._ledger.find(successors) if successors else kept

    def _note_nodes(self, changes: Changes, verdict: Verdict, now: Moment, batch: Batch) -> None:
        batch.nodes += changes.stored
        batch.spans += [SpanChange(*span) for span in changes.spans]
        if verdict.trusted and verdict.observed_from is not None:
            batch.observed.append(Observed(verdict.observed_from, now.wall))
        own_time = self._known.sight.self_stopped or (
            verdict.trusted and not verdict.continuous and verdict.self_elapsed
        )
        if own_time and verdict.self_observed_from is not None and self.view.self_id:
            batch.observed.append(Observed(verdict.self_observed_from, now.wall, self.view.self_id))

    def _look_beyond(
        self, answer: Snapshot | Failure, changes: Changes, verdict: Verdict, now: Moment, batch: Batch
    ) -> list[Event]:
        known = self._known
        if not isinstance(answer, Snapshot) or not verdict.trusted:
            known.beyond.suspects = []
            return []
        events = known.beyond.step(
            answer,
            changes.nodes,
            now,
            batch,
            returned=verdict.restored or not verdict.continuous,
            path_suspect=known.pings.isolated_since is not None,
        )
        known.pings.routers = known.beyond.routers
        return events

    def _look_at(self, answer: Snapshot | Failure, changes: Changes, verdict: Verdict, now: Moment) -> None:
        """Make the new view."""
        fields: dict[str, Any] = {
            "now": now.wall,
            "nodes": changes.nodes,
            "removed": changes.removed,
            "blind": self._known.sight.blind,
            "self_stopped": self._known.sight.self_stopped,
        }
        if isinstance(answer, Snapshot):
            fields |= {
                "tun": answer.tun,
                "excluded": answer.excluded,
                "malformed": answer.malformed,
                "malformed_named": answer.malformed_named,
                "duplicates": answer.duplicates,
            }
        if isinstance(answer, Snapshot) and verdict.trusted:
            fields["as_of"] = now.wall
            fields |= self._known.look_at(answer, changes) | self._known.beyond.fields()
        self._known.renew(**fields)

    def _started_event(self, changes: Changes, now: Moment) -> Event:
        found = counts(changes.nodes.values())
        nodes, online, offline = counted(found["nodes"], "node"), found["online"], found["offline"]
        words = f"tsmon started: {nodes}, {online} online, {offline} offline"
        return self.event("monitor_started", "ok", words, now.wall, **found)
