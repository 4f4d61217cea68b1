"""The monitor: joins sight, reach, changes and rules. One answer of the source is one step: one batch for the
store, one new view for everybody who reads."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from tsmon.base.clock import Clock, Moment, rfc3339
from tsmon.classify import Classifier, Severity
from tsmon.config import Settings
from tsmon.monitor.alerts import Alert, AlertBook, AlertChanges
from tsmon.monitor.batch import Batch, LatencyRow, Loaded, Observed, SpanChange, Write
from tsmon.monitor.changes import Changes, Look, compare, counts, stop_self
from tsmon.monitor.reach import PingFigures, Pings
from tsmon.monitor.rules import Limits, Rules, Step
from tsmon.monitor.sight import Failure, Sight, Verdict, describe
from tsmon.monitor.state import Event, Node, View
from tsmon.source.pings import Ping
from tsmon.source.status import Snapshot, Tailnet

log = structlog.get_logger(__name__)

_REMEMBERED = 3600.0
"""Seconds for which a removed node stays in memory: messages about it may still be under way."""
_MANY = 500
"""From this many nodes on a comparison leaves the event loop for a thread."""
T = TypeVar("T")


class Journal(Protocol):
    """Where batches go; it never raises, and says in `error` why nothing can be written."""

    whole: Callable[[], Batch]
    error: str

    async def commit(self, batch: Batch) -> None: ...
    async def find(self, ids: Collection[str]) -> dict[str, Node]: ...


class Published(NamedTuple):
    """What one step made known."""

    view: View
    events: tuple[Event, ...]
    alerts: tuple[Alert, ...]


class PingOutcome(NamedTuple):
    node_id: str
    sent: Moment
    ping: Ping


class Monitor:
    """Everything that is known, and the one place where it changes."""

    def __init__(self, clock: Clock, settings: Settings, loaded: Loaded, backlog: Journal) -> None:
        self._clock = clock
        self._settings = settings
        self._classifier = Classifier(settings)
        self._backlog = backlog
        backlog.whole = self.whole
        self._lock = asyncio.Lock()
        self._listeners: list[Callable[[Published], None]] = []
        self._companions: list[Callable[[Batch], None]] = []
        self._next_event_id = loaded.next_event_id
        self._announced = False  # monitor_started was written
        self._empty = not loaded.nodes and loaded.last_observed is None
        self.influx_error = ""
        self.can_ping = True
        self.started = clock.now()

        meta = loaded.meta
        present = {node.id: self._with_role(node) for node in loaded.nodes if node.removed_at is None}
        removed = {node.id: node for node in loaded.nodes if node.removed_at is not None}
        self_id = meta.get("self_id", "")
        blind_since = meta.get("blind_since")
        self._sight = Sight(
            started=self.started,
            reconnect_grace=settings.reconnect_grace,
            poll_interval=settings.poll_interval,
            tailnet=_read_tailnet(meta.get("tailnet")),
            peers=frozenset(id_ for id_ in present if id_ != self_id),
            last_trusted=loaded.last_observed,
            blind_since=float(blind_since) if blind_since else None,
        )
        self._pings = Pings(present.values())
        book = AlertBook(loaded.alerts, loaded.next_alert_id)
        self._rules = Rules(book, loaded.flips, self.started)
        self._limits = _limits(settings)
        self._roles_fitted: dict[str, str] = msgspec.json.decode(
            meta.get("roles_fitted") or "{}", type=dict[str, str]
        )
        self._stored_meta = dict(meta)
        self._carried = Batch()  # what the start changed, committed with the first answer
        self._trusted = False
        self.view = View(
            version=1,
            now=self.started.wall,
            as_of=loaded.last_observed,
            nodes=present,
            removed=removed,
            blind=self._sight.blind,
            self_id=self_id,
            self_stopped=False,
            tailnet=self._sight.tailnet,
            tun=None,
            excluded=0,
            missing_roles=self._missing_roles(present),
        )
        if loaded.last_observed is not None and loaded.last_observed > self.started.wall:
            self._cut(self.started, loaded.last_observed - self.started.wall, self._carried)

    def whole(self) -> Batch:
        """Everything that is known now: for a database that had to be begun anew."""
        nodes = [*self.view.nodes.values(), *self.view.removed.values()]
        now = self._clock.wall()
        return Batch(
            nodes=nodes,
            spans=[SpanChange(node.id, now, node.state) for node in self.view.nodes.values()],
            alerts=list(self.alerts.values()),
            meta=dict(self._stored_meta),
        )

    @property
    def alerts(self) -> Mapping[int, Alert]:
        """The open alerts, pending and firing, by id."""
        return self._rules.book.open

    @property
    def sees(self) -> bool:
        """The last answer was trusted: pings may be sent."""
        return self._trusted

    def hold_back(self, quiet: Callable[[Alert, Node | None, float], float | None]) -> None:
        """`quiet` tells until when the messages of an alert are held back (see `Rules.quiet`)."""
        self._rules.quiet = quiet

    def subscribe(self, listener: Callable[[Published], None]) -> None:
        """`listener` is called in the event loop after every step; it must not block."""
        self._listeners.append(listener)

    def accompany(self, companion: Callable[[Batch], None]) -> None:
        """`companion` sees every batch before it is committed and may add writes of its own (`Batch.also`)
        to the same transaction."""
        self._companions.append(companion)

    def next_read(self, now: Moment) -> float | None:
        """Monotonic time at which something falls due that asks for a read, None when nothing does."""
        waits = [self._sight.next_read(now)]
        due = self._rules.due_in(self._step_of(now, None, ()))
        if due is not None:
            waits.append(now.mono + due)
        return min((wait for wait in waits if wait is not None), default=None)

    # -- steps -----------------------------------------------------------------------------------------

    async def answer(
        self, answer: Snapshot | Failure, health_codes: frozenset[str] = frozenset()
    ) -> list[str]:
        """One answer of the source. Returns the nodes that are to be pinged before their outage is told."""
        async with self._lock:
            now = self._clock.now()
            batch, self._carried = self._carried, Batch()
            verdict = self._sight.judge(answer, now, health_codes)
            self._trusted = verdict.trusted
            if verdict.clock_back:
                self._cut(now, verdict.clock_back, batch)
            events: list[Event] = []
            self._note_sight(verdict, now, batch, events)
            changes = await self._changes(answer, verdict, now)
            if verdict.trusted and not self._announced:
                self._announced = True
                events.insert(0, self._started_event(changes, now))
            events += changes.events
            self._note_nodes(changes, verdict, now, batch)
            self._look_at(answer, changes, verdict, now)
            told = self._rules.step(self._step_of(now, verdict, changes.events))
            await self._finish(batch, [*events, *told.events], told)
            return told.asks

    async def pinged(self, outcomes: Iterable[PingOutcome]) -> None:
        """Record pings; those that come back while the view is not trusted say nothing."""
        async with self._lock:
            now = self._clock.now()
            for outcome in outcomes if self._trusted else ():
                node = self.view.nodes.get(outcome.node_id)
                if node is not None:
                    self._pings.record(node, outcome.sent, outcome.ping, now)

    async def witnesses(self) -> list[str]:
        """Whom to ask about nodes that missed their third ping."""
        async with self._lock:
            return self._pings.witnesses(self.view.nodes, self.view.self_id) if self._trusted else []

    async def conclude(self) -> None:
        """The witnesses were asked."""
        async with self._lock:
            if self._trusted:
                self._pings.conclude(self.view.nodes, self._clock.now())

    def pings_tell(self) -> bool:
        """The pings say something of a node's state that its record does not say yet."""
        for id_, node in self.view.nodes.items():
            if node.role.ping:
                reach = self._pings.reach_of(id_)
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
        targets = self._pings.targets(self.view.nodes, self.view.self_id, self._rules.due_outages())
        if everyone:
            return targets
        retries = self._pings.retries(targets)
        return retries if self._pings.isolated_since is None else targets

    async def note(
        self,
        *events: Event,
        latency: Iterable[LatencyRow] = (),
        meta: dict[str, str] | None = None,
        also: Iterable[Write] = (),
    ) -> None:
        """Record events (not numbered yet), latency rows, meta values and other writes that no answer made,
        and look anew which alerts are silenced."""
        async with self._lock:
            batch = Batch(latency=list(latency), meta=dict(meta or {}), also=list(also))
            told = self._rules.hush(self.view.nodes, self.view.removed, self._clock.now())
            await self._finish(batch, list(events), told)

    async def notified(
        self, alert_ids: Iterable[int], ended: Callable[[], Mapping[int, Alert]], also: Iterable[Write] = ()
    ) -> None:
        """Messages of these alerts were delivered; `also` records that too. `ended` gives the
        present records of those that are no longer open."""
        async with self._lock:
            book, closed = self._rules.book, []
            for alert_id in alert_ids:
                alert = book.open.get(alert_id)
                if alert is not None:
                    book.update(alert, notified=True)
                    continue
                alert = ended().get(alert_id)
                if alert is not None and not alert.notified:
                    closed.append(msgspec.structs.replace(alert, notified=True))
            told = book.take()
            told.alerts += closed
            await self._finish(Batch(also=list(also)), [], told)

    async def imported(self, first_seen: Mapping[str, float], words: str) -> None:
        """Another monitor's samples became history; by node ID, where they are older than what tsmon saw."""
        async with self._lock:
            nodes = dict(self.view.nodes)
            older = [
                node for id_, node in nodes.items() if first_seen.get(id_, node.first_seen) < node.first_seen
            ]
            changed = [msgspec.structs.replace(node, first_seen=first_seen[node.id]) for node in older]
            self._republish(nodes=nodes | {node.id: node for node in changed})
            event = self.event("operator", "ok", words, action="import")
            await self._finish(Batch(nodes=changed), [event], None)

    def drain_pings(self) -> list[PingFigures]:
        return self._pings.drain()

    async def acknowledge(self, alert_id: int, author: str, reason: str = "") -> Alert | None:
        """An operator takes care of an alert until it ends; None when none of that id is open."""
        async with self._lock:
            now = self._clock.now()
            alert = self._rules.book.acknowledge(alert_id, author, now)
            if alert is None:
                return None
            if alert.kind == "node_missing":
                node = self.view.removed.get(alert.node_id or "")
                self._roles_fitted.pop(node.role.key if node else "", None)
                self._republish(missing_roles=self._missing_roles(self.view.nodes))
            words = f"{author} acknowledged {alert.kind} of {alert.hostname or 'the monitor'}"
            words += f": {reason}" if reason else ""
            told = self._rules.book.take()
            event = self.event(
                "operator", "ok", words, action="ack", alert_id=str(alert_id), author=author, reason=reason
            )
            await self._finish(Batch(), [event, *told.events], told)
            return alert

    async def reload(self, settings: Settings) -> None:
        """Apply new settings: roles act at once."""
        async with self._lock:
            self._settings = settings
            self._classifier = Classifier(settings)
            self._sight.reconnect_grace = settings.reconnect_grace
            self._sight.poll_interval = settings.poll_interval
            self._limits = _limits(settings)
            batch = Batch()
            nodes = {id_: self._with_role(node) for id_, node in self.view.nodes.items()}
            batch.nodes = [node for id_, node in nodes.items() if node is not self.view.nodes[id_]]
            self._republish(nodes=nodes, missing_roles=self._missing_roles(nodes))
            told = self._rules.roles_changed(nodes, self._clock.now())
            event = self.event("operator", "ok", "the configuration was reloaded", action="reload")
            await self._finish(batch, [event, *told.events], told)

    async def stop(self) -> None:
        """tsmon stops: the last event, and what could not be written so far."""
        async with self._lock:
            await self._finish(Batch(), [self.event("monitor_stopped", "ok", "tsmon stopped")], None)

    def event(
        self, event_type: str, severity: Severity, message: str, at: float | None = None, **details: Any
    ) -> Event:
        """An event of the monitor itself that is not numbered yet."""
        return Event(
            id=0,
            timestamp=self._clock.wall() if at is None else at,
            recorded_at=0.0,
            event_type=event_type,
            severity=severity,
            message=message,
            details=details,
        )

    # -- parts of a step -------------------------------------------------------------------------------

    def _note_sight(self, verdict: Verdict, now: Moment, batch: Batch, events: list[Event]) -> None:
        blind = self._sight.blind
        if verdict.went_blind:
            self._pings.blind()
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
            if not self.can_ping:
                self._pings.keep(())
            else:
                self._pings.keep({id_ for id_, node in view.nodes.items() if node.role.ping})
            look = Look(
                snapshot=answer,
                now=now,
                role_of=self._classifier.role,
                pings=self._pings,
                unobserved_since=verdict.unobserved_since,
                taken_away=verdict.taken_away,
                taken_away_at=verdict.taken_away_at,
                first=self._empty,
            )
            removed = await self._removed(answer, now)
            return await _off_loop(len(answer.nodes), lambda: compare(view.nodes, removed, look))
        changes = Changes(nodes=view.nodes, removed=view.removed)
        own = view.nodes.get(view.self_id)
        if self._sight.self_stopped and own is not None and own.reason != "stopped":
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
        strangers = snapshot.nodes.keys() - self.view.nodes.keys() - kept.keys()
        return kept | await self._backlog.find(strangers) if strangers and not self._empty else kept

    def _note_nodes(self, changes: Changes, verdict: Verdict, now: Moment, batch: Batch) -> None:
        batch.nodes += changes.stored
        batch.spans += [SpanChange(*span) for span in changes.spans]
        if verdict.trusted and verdict.observed_from is not None:
            batch.observed.append(Observed(verdict.observed_from, now.wall))
        own_time = self._sight.self_stopped or (
            verdict.trusted and not verdict.continuous and verdict.self_elapsed
        )
        if own_time and verdict.self_observed_from is not None and self.view.self_id:
            batch.observed.append(Observed(verdict.self_observed_from, now.wall, self.view.self_id))

    def _look_at(self, answer: Snapshot | Failure, changes: Changes, verdict: Verdict, now: Moment) -> None:
        """Make the new view."""
        fields: dict[str, Any] = {
            "now": now.wall,
            "nodes": changes.nodes,
            "removed": changes.removed,
            "blind": self._sight.blind,
            "self_stopped": self._sight.self_stopped,
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
            self._empty = False
            own = answer.nodes[answer.self_id]
            for node in changes.nodes.values():
                if node.role.key:
                    self._roles_fitted[node.role.key] = node.role.node_type
            fields |= {
                "as_of": now.wall,
                "self_id": answer.self_id,
                "self_names": (own.dns_name, *own.ips),
                "tailnet": answer.tailnet,
                "missing_roles": self._missing_roles(changes.nodes),
            }
        self._republish(**fields)

    def _republish(self, **fields: Any) -> None:
        self.view = msgspec.structs.replace(self.view, version=self.view.version + 1, **fields)

    def _step_of(self, now: Moment, verdict: Verdict | None, events: Iterable[Event]) -> Step:
        view = self.view
        return Step(
            now=now,
            limits=self._limits,
            trusted=verdict.trusted if verdict is not None else self._trusted,
            elapsed=verdict.elapsed if verdict is not None else 0.0,
            observed_from=verdict.observed_from if verdict is not None else None,
            nodes=view.nodes,
            removed=view.removed,
            events=events,
            blind=view.blind,
            blind_for=self._sight.blind_for(now),
            self_node=view.nodes.get(view.self_id),
            self_stopped=view.self_stopped,
            isolated_since=self._pings.isolated_since,
            pings_answered=self._pings.answered,
            can_ping=self.can_ping,
            storage_error=self._backlog.error,
            influx_error=self.influx_error,
        )

    def _started_event(self, changes: Changes, now: Moment) -> Event:
        found = counts(changes.nodes.values())
        words = f"tsmon started: {found['nodes']} nodes, {found['online']} online, {found['offline']} offline"
        return self.event("monitor_started", "ok", words, now.wall, **found)

    def _cut(self, now: Moment, lost: float, batch: Batch) -> None:
        """The wall clock was set back: nothing may lie beyond now."""
        batch.cut_at = now.wall
        before = self.view
        nodes = {id_: _cut_node(node, now.wall) for id_, node in before.nodes.items()}
        removed = {id_: _cut_node(node, now.wall) for id_, node in before.removed.items()}
        batch.nodes += [node for id_, node in nodes.items() if node is not before.nodes[id_]]
        batch.nodes += [node for id_, node in removed.items() if node is not before.removed[id_]]
        self.view = msgspec.structs.replace(before, nodes=nodes, removed=removed)
        self._rules.book.clock_back(now, lost)
        log.warning("clock_set_back", seconds=round(lost))

    def _missing_roles(self, nodes: Mapping[str, Node]) -> dict[str, str]:
        """Critical roles that one node has fitted and none does now."""
        filled = {node.role.key for node in nodes.values()}
        keys = self._classifier.critical_keys
        return {key: kind for key, kind in self._roles_fitted.items() if key in keys and key not in filled}

    def _with_role(self, node: Node) -> Node:
        role = self._classifier.role(node.facts)
        return node if role == node.role else msgspec.structs.replace(node, role=role)

    def _meta(self) -> dict[str, str]:
        tailnet = self.view.tailnet
        return {
            "self_id": self.view.self_id,
            "tailnet": msgspec.json.encode(tailnet).decode() if tailnet is not None else "",
            "roles_fitted": msgspec.json.encode(self._roles_fitted, order="sorted").decode(),
        }

    async def _finish(self, batch: Batch, events: list[Event], told: AlertChanges | None) -> None:
        """Number the events, commit the batch, publish."""
        now = self._clock.wall()
        stamped = []
        for event in events:
            stamped.append(msgspec.structs.replace(event, id=self._next_event_id, recorded_at=now))
            self._next_event_id += 1
        batch.events = stamped
        if told is not None:
            batch.alerts, batch.dropped_alerts = told.alerts, told.dropped
        for key, value in self._meta().items():
            if value and self._stored_meta.get(key) != value:
                batch.meta[key] = self._stored_meta[key] = value
        for companion in self._companions:
            companion(batch)
        await self._backlog.commit(batch)
        published = Published(self.view, tuple(stamped), tuple(batch.alerts))
        for listener in self._listeners:
            try:
                listener(published)
            except Exception:
                log.exception("listener_failed", listener=repr(listener))


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    return work() if size < _MANY else await asyncio.to_thread(work)


def _limits(settings: Settings) -> Limits:
    return Limits(
        blind_after=settings.blind_after,
        flapping_changes=settings.flapping.changes,
        flapping_window=settings.flapping.window,
        flapping_settle=settings.flapping.settle,
        path_latency=settings.path_degraded.latency,
        path_relay=settings.path_degraded.relay,
    )


def _read_tailnet(text: str | None) -> Tailnet | None:
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return msgspec.json.decode(text or "", type=Tailnet)
    return None


def _cut_node(node: Node, now: float) -> Node:
    times = ("since", "last_online", "last_state_at", "last_since", "missing_since", "removed_at")
    beyond = {name: now for name in times if (value := getattr(node, name)) is not None and value > now}
    return msgspec.structs.replace(node, **beyond) if beyond else node
