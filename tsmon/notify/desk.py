"""What one channel is sent, and when: every step of the monitor in, notices out. Pure, time passed in."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple
from uuid import uuid4

import msgspec

from tsmon.base.clock import Moment
from tsmon.config import ChannelSettings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.cause import common_cause
from tsmon.monitor.incidents import OUTAGES, stream_of
from tsmon.monitor.rules.step import until_due
from tsmon.monitor.selection import Selector
from tsmon.monitor.state import Node, View
from tsmon.monitor.wording import how_known
from tsmon.notify.grouping import Draft, Group, load_groups
from tsmon.notify.notice import Entry, Notice, NoticeKind, Phase

MOST_WAITING = 1000
"""Notices that wait for a channel; beyond that the oldest are dropped."""
_BUNCH = 300.0
"""Reminders that fall due within so many seconds are one message."""
_EPSILON = 1e-6


class News(NamedTuple):
    """One step of the monitor, as the desks need it."""

    now: Moment
    view: View
    alerts: Mapping[int, Alert]
    """All that is known: the open ones, and those that ended but are still to be reported."""
    fired: Collection[int]
    """To be sent now, for the first time or again."""
    resolved: Collection[Alert]
    sighted: bool
    """The last answer of the source is trusted."""
    group_wait: float
    """Seconds that the first alert waits for its siblings."""
    quiet: Callable[[Alert, Node | None, float], float | None]

    def node(self, alert: Alert) -> Node | None:
        """The node that `alert` is about; None when it is about tsmon itself or the node is long gone."""
        id_ = alert.node_id or ""
        return None if alert.is_own else self.view.nodes.get(id_) or self.view.removed.get(id_)

    def is_quiet(self, alert: Alert) -> bool:
        return self.quiet(alert, self.node(alert), self.now.wall) is not None

    def siblings_before(self, mono: float) -> bool:
        """An outage that is not due yet may fall due until `mono`."""
        for alert in self.alerts.values():
            if alert.state == "pending" and alert.kind in OUTAGES:
                node = self.node(alert)
                left = until_due(alert, node) if node is not None else 0.0
                if self.now.mono + max(0.0, left) <= mono + _EPSILON:
                    return True
        return False

    def is_over(self, alert_id: int) -> bool:
        alert = self.alerts.get(alert_id)
        return alert is None or alert.state == "resolved"


class Row(msgspec.Struct, eq=False):
    """A notice on its way: a row of `notifications`."""

    id: int
    notice: Notice
    created: float
    attempts: int = 0
    committed: bool = False
    """It was stored, or could not be: only then it may be sent."""


class Kept(msgspec.Struct):
    """What a desk knows beyond the notices, kept over a restart. Times are Unix seconds."""

    groups: list[Group] = []
    notified: dict[int, float] = msgspec.field(default_factory=dict, name="told")
    """Alerts whose outage was delivered -> when they were last sent."""
    hushed: list[int] = []
    """Alerts that a quiet holds back."""
    ended: list[int] = []
    """Alerts whose end was sent, though notices that are on their way name them."""
    lost: list[int] = []
    """Alerts whose message waited too long and was dropped."""


class Desk:
    """One channel's messages. `waiting` are those made and not delivered, oldest first."""

    def __init__(self, channel: ChannelSettings, kept: Kept | None, now: Moment, settle: float) -> None:
        """`kept` None: the channel is new, and is sent what fires already. `settle`: seconds after a start in
        which nothing is sent: by then the first answer of the source was looked at."""
        self.channel = channel
        self.waiting: deque[Row] = deque()
        self.dropped = 0
        self._is_new = kept is None
        kept = kept or Kept()
        self._groups = load_groups(msgspec.json.encode(kept.groups), now.mono, now.wall, settle)
        self.notified = dict(kept.notified)
        self._hushed = set(kept.hushed)
        self.ended = set(kept.ended)
        self._lost = set(kept.lost)
        self._again: set[int] = set()
        self._selector = Selector(hosts=channel.hosts, tags=channel.tags, roles=channel.roles)

    def keep(self, now: Moment) -> bytes:
        """What is to be stored."""
        return msgspec.json.encode(
            Kept(
                groups=msgspec.json.decode(self._groups.store(now.wall - now.mono), type=list[Group]),
                notified=self.notified,
                hushed=sorted(self._hushed),
                ended=sorted(self.ended),
                lost=sorted(self._lost),
            )
        )

    @property
    def alerts(self) -> set[int]:
        """Alerts of which something may still be sent: their records are needed."""
        return self._groups.alerts | self.notified.keys() | self._hushed | self._on_the_way()

    def _on_the_way(self) -> set[int]:
        return {entry.alert for row in self.waiting for entry in row.notice.entries}

    def wants(self, alert: Alert, node: Node | None) -> bool:
        """The channel is for alerts like this one."""
        if self.channel.min_severity == "critical" and alert.severity != "critical":
            return False
        return self._selector.selects(node)

    def step(self, news: News, remind_every: float) -> list[Notice]:
        """What is to be sent now."""
        for alert_id in self._fired(news):
            self._fall(news.alerts[alert_id], news)
        for alert in news.resolved:
            self._end(alert, news)
        self._hold_back(news)
        drafts = self._groups.take_due(news.now.mono, news.siblings_before, news.is_over)
        notices = [self._notice(draft, news) for draft in drafts]
        notices += self._quiet_over(news)
        notices += self._reminder(news, remind_every)
        self._forget(news, notices)
        return notices

    def next_due(self, news: News) -> float | None:
        """Monotonic time at which a step will have something to send, as far as is known now."""
        return self._groups.next_due(news.siblings_before)

    def delivered(self, row: Row, alerts: Mapping[int, Alert], down: Collection[int], wall: float) -> None:
        """The message of `row` arrived; it said of the alerts `down` that their condition lasts."""
        if row in self.waiting:
            self.waiting.remove(row)
        for entry in row.notice.entries:
            alert = alerts.get(entry.alert)
            if entry.alert in down and alert is not None:
                self.notified[entry.alert] = wall
            elif entry.phase == "back" or alert is None or alert.state == "resolved":
                self.notified.pop(entry.alert, None)
                self.ended.add(entry.alert)
        self.ended &= self._on_the_way()

    def drop(self, row: Row) -> None:
        """The message of `row` is given up: what still lasts is sent when the channel works again."""
        self.waiting.remove(row)
        self.dropped += 1
        for entry in row.notice.entries:
            if entry.phase == "fell" and entry.alert not in self.notified:
                self._groups.forget(entry.alert)
                self._lost.add(entry.alert)

    def works_again(self) -> None:
        """The channel delivers: what was dropped before and still lasts is sent with the next step."""
        self._again, self._lost = self._lost, set()

    # -- parts of a step -------------------------------------------------------------------------------

    def _fired(self, news: News) -> Iterable[int]:
        """What is sent now: what fires; what fires already when the channel is new; what was dropped."""
        fired = set(news.fired)
        if news.sighted:
            late = set(self._again)
            if self._is_new:
                late.update(alert.id for alert in news.alerts.values() if alert.state == "firing")
            fired |= {
                id_ for id_ in late - self._groups.alerts - self.notified.keys() if not news.is_over(id_)
            }
            self._is_new, self._again = False, set()
        return sorted(fired)

    def _fall(self, alert: Alert, news: News) -> None:
        if not self.wants(alert, news.node(alert)):
            return
        if alert.follows is not None:
            # It settled into this outage: one message says both.
            self._groups.forget(alert.follows)
            self.notified.pop(alert.follows, None)
        self._groups.fell(alert.id, stream_of(alert), news.now.mono, news.group_wait)

    def _end(self, alert: Alert, news: News) -> None:
        if alert.untold:
            self._groups.forget(alert.id)
            self._hushed.discard(alert.id)
            self.notified.pop(alert.id, None)
        elif alert.cause == "settled" and any(a.follows == alert.id for a in news.alerts.values()):
            self._groups.forget(alert.id)
        elif alert.id not in self._hushed:
            known = self._groups.ended(alert.id, news.now.mono)
            if not known and self._was_told(alert.id):
                self._groups.adopt([alert.id], stream_of(alert), news.now.mono)
                self._groups.ended(alert.id, news.now.mono)

    def _hold_back(self, news: News) -> None:
        """Whatever a quiet selects leaves its group until the quiet is over."""
        interesting = self._groups.alerts | {a.id for a in news.alerts.values() if a.state == "firing"}
        for alert_id in interesting - self._hushed:
            alert = news.alerts.get(alert_id)
            if alert is not None and self.wants(alert, news.node(alert)) and news.is_quiet(alert):
                self._groups.forget(alert_id)
                self._hushed.add(alert_id)

    def _quiet_over(self, news: News) -> list[Notice]:
        over = [
            news.alerts[alert_id]
            for alert_id in sorted(self._hushed & news.alerts.keys())
            if (news.sighted or news.alerts[alert_id].is_own) and not news.is_quiet(news.alerts[alert_id])
        ]
        self._hushed.difference_update(alert.id for alert in over)
        lasting = [alert for alert in over if alert.state == "firing"]
        entries = [self._entry(alert, "still", news) for alert in lasting]
        entries += [
            self._entry(alert, "back", news)
            for alert in over
            if alert.state == "resolved" and self._was_told(alert.id)
        ]
        for stream in {stream_of(alert) for alert in lasting}:
            ids = [alert.id for alert in lasting if stream_of(alert) == stream]
            self._groups.adopt(ids, stream, news.now.mono)
        return [self._make("quiet_over", news, entries)] if entries else []

    def _reminder(self, news: News, remind_every: float) -> list[Notice]:
        every = self.channel.remind_every or remind_every
        on_the_way = self._on_the_way()
        last = {
            alert_id: last
            for alert_id, last in self.notified.items()
            if alert_id not in on_the_way and self._may_remind(news.alerts.get(alert_id), news)
        }
        if not any(news.now.wall - at >= every - _EPSILON for at in last.values()):
            return []
        due = [news.alerts[id_] for id_, at in last.items() if news.now.wall - at >= every - _BUNCH]
        return [self._make("reminder", news, [self._entry(alert, "still", news) for alert in due])]

    def _may_remind(self, alert: Alert | None, news: News) -> bool:
        return (
            alert is not None
            and alert.state == "firing"
            and alert.kind != "key_expiring"  # it has its steps instead
            and alert.acknowledged_by is None
            and alert.id not in self._hushed
            and (news.sighted or alert.is_own)
        )

    def _was_told(self, alert_id: int) -> bool:
        """It was delivered that the condition began, or that is on its way."""
        on_the_way = (entry for row in self.waiting for entry in row.notice.entries if entry.phase != "back")
        return alert_id in self.notified or any(entry.alert == alert_id for entry in on_the_way)

    def _forget(self, news: News, made: Iterable[Notice]) -> None:
        """What is over and in no group or notice was reported to its end."""
        busy = self._groups.alerts | self._on_the_way()
        busy |= {entry.alert for notice in made for entry in notice.entries}
        self._hushed &= news.alerts.keys()
        self._lost = {id_ for id_ in self._lost if not news.is_over(id_)}
        for alert_id in list(self.notified):
            if alert_id not in busy and alert_id not in self._hushed and news.is_over(alert_id):
                del self.notified[alert_id]

    # -- notices ---------------------------------------------------------------------------------------

    def _notice(self, draft: Draft, news: News) -> Notice:
        alerts = [news.alerts[alert_id] for alert_id in draft.alerts if alert_id in news.alerts]
        phase = "back" if draft.kind == "recovery" else "fell"
        entries = [self._entry(alert, "back" if phase == "back" else "fell", news) for alert in alerts]
        cause = _cause(alerts, news) if phase == "fell" else ""
        return self._make(draft.kind, news, entries, cause=cause, standing=draft.standing)

    @staticmethod
    def _entry(alert: Alert, phase: Phase, news: News) -> Entry:
        node = news.node(alert)
        how = confirmation(alert, node) if node is not None and phase != "back" else ""
        return Entry(alert.id, phase, how)

    @staticmethod
    def _make(
        kind: NoticeKind, news: News, entries: Iterable[Entry], *, cause: str = "", standing: int = 0
    ) -> Notice:
        return Notice(
            key=uuid4().hex,
            kind=kind,
            made_at=news.now.wall,
            entries=tuple(entries),
            cause=cause,
            standing=standing,
        )


def _cause(alerts: Iterable[Alert], news: News) -> str:
    nodes = [node for alert in alerts if alert.kind in OUTAGES and (node := news.node(alert)) is not None]
    fallen = {node.id for node in nodes}
    standing = (n for n in news.view.nodes.values() if n.id not in fallen and n.state != "offline")
    return common_cause(nodes, standing)


def confirmation(alert: Alert, node: Node) -> str:
    """How tsmon knows, for people."""
    if alert.kind == "node_detached":
        return "the control plane calls it offline, pings are answered"
    if alert.kind != "node_offline":
        return ""
    return how_known(node)
