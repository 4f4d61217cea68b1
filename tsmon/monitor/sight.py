"""May the view be trusted? Reasons, grace, collapse, blind stretches, observed time. Pure, time passed in.

Rules 1.1 to 1.11 of docs/rules.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tsmon.base.clock import Moment, rfc3339
from tsmon.base.text import clean_text
from tsmon.monitor.identity import Identity
from tsmon.monitor.state import Blind
from tsmon.source.status import BACKEND_STATES, Snapshot, Tailnet

AT_ONCE = frozenset(("tailscale_stopped", "logged_out", "peer_map_collapsed", "other_tailnet", "stale"))
"""Reasons that blind without a grace (rule 1.3)."""
SELF_STOPPED = frozenset(("tailscale_stopped", "logged_out"))
"""Reasons by which the monitor's own node is known to be off the tailnet (rule 1.9)."""
CONTROL_LOST_CODES = frozenset(("not-in-map-poll", "mapresponse-timeout"))
RETRIES = (2.0, 6.0, 14.0)
"""Seconds after the first untrusted answer at which it is read again (waits of 2, 4, 8 s; rule 1.3)."""
COLLAPSE_DOCUMENTS = 3
COLLAPSE_SECONDS = 30.0
_EPSILON = 1e-6  # a sleep that ends on time must not be early by a rounding


class Failure(NamedTuple):
    """No document: the reason (rule 1.2) and the source's own words."""

    reason: str
    message: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer of the source means for the view."""

    trusted: bool
    continuous: bool = False
    """The time since the last trusted document was observed, for every node."""
    elapsed: float = 0.0
    """Observed seconds since the last trusted document (monotonic), 0 when not continuous."""
    observed_from: float | None = None
    """Wall time at which the present observed stretch began; None when not trusted."""
    unobserved_since: float | None = None
    """Of a trusted document after an unobserved stretch: the time of the last trusted one before, if any."""
    self_elapsed: float = 0.0
    self_observed_from: float | None = None
    """The same for the monitor's own node, whose stopped time is observed too."""
    went_blind: bool = False
    restored: bool = False
    """A blind stretch ended by this document (event or not)."""
    tell: bool = False
    """With `went_blind` or `restored`, or later in a stretch begun at the start: it is an event now."""
    taken_away: frozenset[str] = frozenset()
    """A collapse that turned out to be a removal: these nodes are removed, dated at `taken_away_at`."""
    taken_away_at: float = 0.0
    clock_back: float = 0.0
    """Seconds by which the wall clock was set back since the last answer."""


class _Collapse(NamedTuple):
    gone: frozenset[str]
    first: Moment
    documents: int


class Sight:
    """The trust rules over a run of answers. `judge` takes each answer of the source with its time."""

    def __init__(
        self,
        *,
        started: Moment,
        reconnect_grace: float,
        poll_interval: float,
        source_timeout: float,
        tailnet: Tailnet | None = None,
        peers: frozenset[str] = frozenset(),
        keys: Mapping[str, str] | None = None,
        last_trusted: float | None = None,
        blind_since: float | None = None,
    ) -> None:
        """What the store knows: `tailnet`, `peers` (stable IDs), `keys` (by ID, Self's too), `last_trusted`
        and `blind_since` (of a blind stretch that has its event and did not end), times in Unix seconds."""
        self._reconnect_grace = reconnect_grace
        self._poll_interval = poll_interval
        self._source_timeout = source_timeout
        self.tailnet = tailnet
        self.self_stopped = False
        self.blind: Blind | None = Blind(
            reason="starting",
            since=started.wall if blind_since is None else min(blind_since, started.wall),
            message="tsmon has just started and has not seen the tailnet yet",
        )
        self._blind_mono = started.mono
        self._has_event = blind_since is not None
        self._why = ""
        self._started = started
        self._peers = peers
        self._identity = Identity(keys or {})
        self._last_wall = last_trusted  # of the last trusted document, also before this start
        self._last: Moment | None = None  # the same in this observed stretch, None after a break
        self._stretch: float | None = None  # wall time at which this observed stretch began
        self._self_last: Moment | None = None
        self._self_stretch: float | None = None
        self._answer = started  # when the last answer came
        self._judged = started.mono  # the same without what staleness itself says
        self._untrusted: Moment | None = None  # the first untrusted answer after the last trusted one
        self._collapse: _Collapse | None = None

    def apply(self, reconnect_grace: float, poll_interval: float, source_timeout: float) -> None:
        """New settings, in seconds."""
        self._reconnect_grace, self._poll_interval = reconnect_grace, poll_interval
        self._source_timeout = source_timeout

    @property
    def has_event(self) -> bool:
        """The present blind stretch has its event."""
        return self.blind is not None and self._has_event

    def blind_for(self, now: Moment) -> float:
        """Running seconds of the present blind stretch, 0 with sight."""
        return now.mono - self._blind_mono if self.blind is not None else 0.0

    def next_read(self, now: Moment) -> float | None:
        """Monotonic time of the next read that an untrusted answer asks for, None when none is due."""
        if self._untrusted is None:
            return None
        first = self._untrusted.mono
        for offset in (*RETRIES, self._reconnect_grace):
            if first + offset > now.mono + _EPSILON:
                return first + offset
        return None

    @property
    def stale_after(self) -> float:
        """Seconds without a judged answer after which nothing is known any more (rule 1.12); the grace is in
        them."""
        return 3 * self._poll_interval + self._source_timeout + self._reconnect_grace

    def grow_stale(self, mono: float) -> bool:
        """Whether at `mono` (monotonic) nothing was judged for too long, whatever the cause; True when that
        blinds just now. Whoever reads asks this, so that no part that hangs or fails can leave an old view
        standing; the event waits for the next `judge`."""
        if self.blind is not None or mono - self._judged <= self.stale_after:
            return False
        since = self._last_wall if self._last_wall is not None else self._started.wall
        self.blind = Blind(reason="stale", since=since, message=self.stale_message(mono))
        self._blind_mono = self._last.mono if self._last is not None else self._judged
        self._last = self._self_last = None
        return True

    def explain(self, why: str) -> None:
        """Why control is lost, as far as it was found out ("" when it was not): from the next answer on it is
        said, until the view is trusted again."""
        self._why = why

    def stale_message(self, mono: float) -> str:
        """The words for it."""
        seconds = round(mono - self._judged)
        words = "a part of tsmon hangs or fails (see its log)"
        return f"no answer of the source was looked at for {seconds} s: {words}"

    def judge(
        self, answer: Snapshot | Failure, now: Moment, health_codes: frozenset[str] = frozenset()
    ) -> Verdict:
        """What `answer`, that came at `now`, means; `health_codes` are those that an open bus reported."""
        back = self._clock_back(now)
        if not (isinstance(answer, Failure) and answer.reason == "stale"):
            self._judged = now.mono
        if isinstance(answer, Failure):
            reason, message = answer.reason, answer.message
        else:
            reason, message = self._snapshot_reason(answer, now, health_codes)
            if not reason:
                return self._trust(answer, now, back)
        if reason != "peer_map_collapsed":
            self._collapse = None
        return self._distrust(reason, message, now, back)

    def _snapshot_reason(
        self, snapshot: Snapshot, now: Moment, health_codes: frozenset[str]
    ) -> tuple[str, str]:
        reason, message = document_reason(snapshot, health_codes)
        if not reason and self._is_other(snapshot.tailnet) and not self._identity.is_same(snapshot):
            # Rule 1.7, before the collapse: the peers of two tailnets cannot be compared.
            return "other_tailnet", self._other_message(snapshot.tailnet)
        if not reason and self._collapsed(snapshot, now):
            return "peer_map_collapsed", self._collapse_message(snapshot)
        return reason, message

    def _clock_back(self, now: Moment) -> float:
        """Seconds by which the wall clock went back since the last answer; observation begins again
        (rule 1.11)."""
        before, self._answer = self._answer, now
        if now.wall >= before.wall:
            return 0.0
        self._last = self._self_last = None
        if self._last_wall is not None:
            self._last_wall = min(self._last_wall, now.wall)
        if self.blind is not None and self.blind.since > now.wall:
            self.blind = msgspec.structs.replace(self.blind, since=now.wall)
        return before.wall + (now.mono - before.mono) - now.wall

    def _trust(self, snapshot: Snapshot, now: Moment, back: float) -> Verdict:
        taken_away = self._collapse if self._is_removal(snapshot) else None
        restored = self.blind is not None
        tell = restored and self._has_event
        continuous = self._last is not None and not restored and self._is_steady(self._last, now)
        self_continuous = self._self_last is not None and self._is_steady(self._self_last, now)
        verdict = Verdict(
            trusted=True,
            continuous=continuous,
            elapsed=now.mono - self._last.mono if self._last is not None and continuous else 0.0,
            observed_from=self._stretch if continuous else now.wall,
            unobserved_since=None if continuous else self._last_wall,
            self_elapsed=now.mono - self._self_last.mono if self._self_last and self_continuous else 0.0,
            self_observed_from=self._self_stretch if self_continuous else now.wall,
            restored=restored,
            tell=tell,
            taken_away=taken_away.gone if taken_away else frozenset(),
            taken_away_at=taken_away.first.wall if taken_away else 0.0,
            clock_back=back,
        )
        self.blind = None
        self.self_stopped = False
        self._has_event = False
        self._why = ""
        self._untrusted = None
        self._collapse = None
        self._last = self._self_last = now
        self._last_wall = now.wall
        self._stretch = verdict.observed_from
        self._self_stretch = verdict.self_observed_from
        self._peers = frozenset(snapshot.nodes) - {snapshot.self_id}
        self._identity.note(snapshot)
        self.tailnet = snapshot.tailnet
        return verdict

    def _distrust(self, reason: str, message: str, now: Moment, back: float) -> Verdict:
        if self._untrusted is None:
            self._untrusted = now
        graced = now.mono - self._untrusted.mono >= self._reconnect_grace - _EPSILON
        went_blind = tell = False
        if reason == "control_lost" and self._why:
            message += f"; {self._why}"
        if self.blind is not None:
            self.blind = Blind(reason=reason, since=self.blind.since, message=message)
        elif reason in AT_ONCE or graced:
            went_blind = tell = True
            # Rule 1.4: a blind stretch begins at the last trusted document; after a step of the clock, now.
            last = self._last if self._last is not None else now
            self.blind = Blind(reason=reason, since=min(last.wall, now.wall), message=message)
            self._blind_mono = last.mono
            self._last = None
        if self.blind is not None and not self._has_event:
            tell = tell or now.mono - self._started.mono >= self._reconnect_grace - _EPSILON
            self._has_event = tell
        self.self_stopped = self.blind is not None and reason in SELF_STOPPED
        if not self.self_stopped:
            if self.blind is not None:
                self._self_last = None
            return Verdict(trusted=False, went_blind=went_blind, tell=tell, clock_back=back)
        steady = self._self_last is not None and self._is_steady(self._self_last, now)
        verdict = Verdict(
            trusted=False,
            went_blind=went_blind,
            tell=tell,
            clock_back=back,
            self_elapsed=now.mono - self._self_last.mono if self._self_last and steady else 0.0,
            self_observed_from=self._self_stretch if steady else now.wall,
        )
        self._self_last, self._self_stretch = now, verdict.self_observed_from
        return verdict

    def _is_steady(self, last: Moment, now: Moment) -> bool:
        """Neither clock moved so far that the time between cannot count as observed (rule 1.10)."""
        limit = max(60.0, 3 * self._poll_interval)
        return 0 <= now.wall - last.wall <= limit and now.mono - last.mono <= limit

    def _is_other(self, tailnet: Tailnet | None) -> bool:
        known = self.tailnet
        if known is None or tailnet is None:
            return False
        return known.name != tailnet.name and known.suffix != tailnet.suffix

    def _other_message(self, tailnet: Tailnet | None) -> str:
        names = [known.name if known else "" for known in (tailnet, self.tailnet)]
        return (
            f"this is the tailnet {names[0]}, but the history in state_dir is that of {names[1]}: "
            "give the other tailnet a state_dir of its own"
        )

    def _gone(self, snapshot: Snapshot) -> frozenset[str]:
        return self._peers.difference(snapshot.nodes, snapshot.excluded_ids)

    def _is_removal(self, snapshot: Snapshot) -> bool:
        """The last answer was a collapse and this one still lacks the same nodes."""
        return self._collapse is not None and self._gone(snapshot) == self._collapse.gone

    def _collapsed(self, snapshot: Snapshot, now: Moment) -> bool:
        """Rule 1.6: more than half of the known peers (at least 2) are gone, and not yet in three documents
        in a row over 30 s. Rows that could not be decoded may be some of them."""
        gone = self._gone(snapshot)
        missing = len(gone) - snapshot.malformed
        if missing < 2 or missing * 2 <= len(self._peers):
            self._collapse = None
            return False
        if self._collapse is None or self._collapse.gone != gone:
            self._collapse = _Collapse(gone, now, 1)
            return True
        self._collapse = self._collapse._replace(documents=self._collapse.documents + 1)
        long_enough = now.mono - self._collapse.first.mono >= COLLAPSE_SECONDS - _EPSILON
        return not (self._collapse.documents >= COLLAPSE_DOCUMENTS and long_enough and not snapshot.malformed)

    def _collapse_message(self, snapshot: Snapshot) -> str:
        return (
            f"{len(self._gone(snapshot))} of {len(self._peers)} known peers are suddenly gone: "
            "a lost network map or a changed policy, not that many removals at once"
        )


_BACKEND_REASONS = {
    "InUseOtherUser": ("source_unreachable", "tailscaled is in use by another user of its machine"),
    "Stopped": ("tailscale_stopped", "Tailscale is stopped on the monitor (tailscale up starts it)"),
    "NeedsLogin": ("logged_out", "the monitor is logged out, or its key expired (tailscale up)"),
    "NeedsMachineAuth": ("logged_out", "the monitor waits to be approved by an admin of the tailnet"),
}


def document_reason(snapshot: Snapshot, health_codes: frozenset[str]) -> tuple[str, str]:
    """Why the document alone may not be trusted, and the words for it; ("", "") when it may."""
    backend = snapshot.backend_state
    if backend not in BACKEND_STATES:
        return "bad_document", f"the status says an unknown BackendState {clean_text(backend, 32)!r}"
    if backend in _BACKEND_REASONS:
        return _BACKEND_REASONS[backend]
    if backend != "Running" or snapshot.tailnet is None or not snapshot.self_id:
        return "starting", f"tailscaled is starting ({backend}, no network map yet)"
    if not snapshot.self_online:
        return "control_lost", "the monitor has no connection to the control server; peers are frozen"
    codes = health_codes & CONTROL_LOST_CODES
    if codes:
        return "control_lost", f"tailscaled reports {', '.join(sorted(codes))}: peers may be frozen"
    return "", ""


def describe(blind: Blind) -> str:
    """One sentence for people: since when, why."""
    return f"tsmon cannot see the tailnet since {rfc3339(blind.since)}: {blind.message}"
