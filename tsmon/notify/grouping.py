"""Which alerts share a message, and when it is due. Pure, monotonic time passed in.

A group is born with its first alert, waits for siblings, and is sent as one message. Siblings of the next
five minutes make one update; who recovers waits for the others, five minutes at most (rules 9.1 to 9.3).
What may not be said now, since it ended and is not well, waits in its group (rule 9.16).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from tsmon.monitor.incidents import WINDOW
from tsmon.notify.news import Word
from tsmon.notify.notice import NoticeKind

_EPSILON = 1e-6

Say = Callable[[int], Word]
"""What may be said of an alert now."""


class Draft(NamedTuple):
    """A message that is due: of which alerts, and how many of their group are still down."""

    kind: NoticeKind
    alerts: tuple[int, ...]
    standing: int = 0


class Group(msgspec.Struct):
    """Alerts that share a message. Times are monotonic seconds in memory, wall time when stored."""

    stream: str
    due: float
    """When the first message goes out."""
    notified_at: float | None = msgspec.field(default=None, name="told_at")
    updated: bool = False
    first_back: float | None = None
    waiting: list[int] = []
    """Fallen, not notified yet."""
    standing: list[int] = []
    """Notified, and still down as far as is known."""
    back: list[int] = []
    """Notified and ended; the recovery is not notified yet."""

    def collects(self, now: float) -> bool:
        """A further alert joins this group."""
        return self.notified_at is None or (not self.updated and now < self.notified_at + WINDOW)

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.standing or self.back)


class Groups:
    """All groups of one tsmon."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        self._groups = list(groups)
        self._of: dict[int, Group] = {}
        for group in self._groups:
            for alert in (*group.waiting, *group.standing, *group.back):
                self._of[alert] = group

    @property
    def alerts(self) -> set[int]:
        """Every alert of which something is to be sent, now or at its end."""
        return set(self._of)

    def fell(self, alert: int, stream: str, now: float, wait: float) -> None:
        """`alert` fires, or is to be sent again; a new group is sent after `wait` seconds."""
        before = self._of.get(alert)
        if before is not None and alert in before.waiting:
            return
        # It may stand in an older group, notified and down: a reminder is a new message, and that group must
        # not report its end as well.
        self.forget(alert)
        found = [group for group in self._groups if group.stream == stream and group.collects(now)]
        # A group that is not sent yet comes first: its message comes sooner.
        group = min(found, key=lambda group: group.notified_at is not None, default=None)
        if group is None:
            group = Group(stream, now + wait)
            self._groups.append(group)
        group.waiting.append(alert)
        self._of[alert] = group

    def ended(self, alert: int, now: float) -> bool:
        """`alert` was resolved. One that is not notified yet stays, to be sent with both its times. False
        when no group knows it."""
        group = self._of.get(alert)
        if group is None:
            return False
        if alert in group.standing:
            group.standing.remove(alert)
            group.back.append(alert)
            if group.first_back is None:
                group.first_back = now
        return True

    def forget(self, alert: int) -> bool:
        """Nothing is to be sent of `alert`; False when nothing was."""
        group = self._of.pop(alert, None)
        if group is None:
            return False
        for part in (group.waiting, group.standing, group.back):
            if alert in part:
                part.remove(alert)
        if not group.back:
            group.first_back = None
        if group.is_empty:
            self._groups.remove(group)
        return True

    def adopt(self, alerts: Iterable[int], stream: str, now: float) -> None:
        """These were notified otherwise (at the end of a quiet): their recovery is to be sent."""
        group = Group(stream, now, notified_at=now, updated=True)
        for alert in alerts:
            self.forget(alert)
            group.standing.append(alert)
            self._of[alert] = group
        if group.standing:
            self._groups.append(group)

    def take_due(self, now: float, siblings_before: Callable[[float], bool], say: Say) -> list[Draft]:
        """The messages that are due. `siblings_before` tells whether another outage may still fall due until
        a monotonic time."""
        drafts: list[Draft] = []
        for group in list(self._groups):
            fallen = _sayable(group.waiting, say)
            if fallen and self._tells_now(group, now, siblings_before):
                drafts.append(self._tell(group, fallen, now, say))
            back = _sayable(group.back, say)
            if back and self._recovers_now(group, back, now):
                drafts.append(self._recover(group, back, now))
            if group.is_empty:
                self._groups.remove(group)
        return drafts

    def next_due(self, siblings_before: Callable[[float], bool], say: Say) -> float | None:
        """Monotonic time of the next message, as far as is known now; None when none waits."""
        times = []
        for group in self._groups:
            fallen, back = _sayable(group.waiting, say), _sayable(group.back, say)
            if fallen and group.notified_at is None:
                times.append(group.due)
            elif fallen and group.notified_at is not None:
                end = group.notified_at + WINDOW
                times.append(end if siblings_before(end) else 0.0)
            if back and group.first_back is not None:
                times.append(0.0 if self._is_whole(group, back) else group.first_back + WINDOW)
        return min(times, default=None)

    @staticmethod
    def _tells_now(group: Group, now: float, siblings_before: Callable[[float], bool]) -> bool:
        if group.notified_at is None:
            return now >= group.due - _EPSILON
        # One update is all that follows a message: while another outage may still fall due in the window, it
        # waits, since what came after it would have to begin a message of its own.
        end = group.notified_at + WINDOW
        return now >= end - _EPSILON or not siblings_before(end)

    def _tell(self, group: Group, alerts: list[int], now: float, say: Say) -> Draft:
        kind: NoticeKind = "alert" if group.notified_at is None else "update"
        for alert in alerts:
            group.waiting.remove(alert)
            if say(alert) == "over":
                del self._of[alert]
            else:
                group.standing.append(alert)
        if group.notified_at is None:
            group.notified_at = now
        else:
            group.updated = True
        return Draft(kind, tuple(alerts))

    @staticmethod
    def _is_whole(group: Group, back: list[int]) -> bool:
        """All of it is back, and may be said to be."""
        return not group.standing and not group.waiting and len(back) == len(group.back)

    def _recovers_now(self, group: Group, back: list[int], now: float) -> bool:
        if self._is_whole(group, back):
            return True
        return group.first_back is not None and now >= group.first_back + WINDOW - _EPSILON

    def _recover(self, group: Group, alerts: list[int], now: float) -> Draft:
        for alert in alerts:
            group.back.remove(alert)
            del self._of[alert]
        group.first_back = now if group.back else None
        return Draft("recovery", tuple(alerts), len(group.standing) + len(group.waiting) + len(group.back))

    # -- kept over a restart ---------------------------------------------------------------------------

    def store(self, wall_of: float) -> bytes:
        """All groups as JSON; `wall_of` is what turns monotonic into wall time."""
        return msgspec.json.encode([_moved(group, wall_of) for group in self._groups])


def load_groups(text: bytes | str, now: float, wall: float, settle: float) -> Groups:
    """Groups of the last run. A message that fell due meanwhile is due `settle` seconds from `now`: by then
    the first answer of the source was looked at. A clock that was set cannot make anything wait longer than
    it would have. Raises msgspec.DecodeError."""
    groups = msgspec.json.decode(text, type=list[Group])
    loaded = []
    for stored in groups:
        group = _moved(stored, now - wall)
        group.due = min(max(group.due, now + settle), now + WINDOW)
        if group.notified_at is not None:
            group.notified_at = min(group.notified_at, now)
        if group.first_back is not None:
            group.first_back = min(group.first_back, now)
        if not group.is_empty:
            loaded.append(group)
    return Groups(loaded)


def _sayable(alerts: Iterable[int], say: Say) -> list[int]:
    return [alert for alert in alerts if say(alert) != "unsure"]


def _moved(group: Group, seconds: float) -> Group:
    return msgspec.structs.replace(
        group,
        due=group.due + seconds,
        notified_at=None if group.notified_at is None else group.notified_at + seconds,
        first_back=None if group.first_back is None else group.first_back + seconds,
    )
