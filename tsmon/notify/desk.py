"""What one channel is sent, and when: every step of the monitor in, notices out. Pure, time passed in."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from uuid import uuid4

import msgspec

from tsmon.base.clock import Moment
from tsmon.config import ChannelSettings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.cause import common_cause
from tsmon.monitor.incidents import OUTAGES, stream_of, topic_of
from tsmon.monitor.selection import Selector
from tsmon.monitor.state import Node
from tsmon.notify.grouping import Draft, Group, load_groups
from tsmon.notify.news import News, Topic
from tsmon.notify.notice import Entry, Notice, NoticeKind, Phase

LONG_AWAY = 86400.0
"""Seconds after which a channel that was taken out and is put back is not sent the end of what it knew: that
is old news (rule 9.18)."""
MOST_WAITING = 1000
"""Notices that wait for a channel; beyond that the oldest are dropped."""
_BUNCH = 300.0
"""Reminders that fall due within so many seconds are one message."""
_EPSILON = 1e-6
_CLOCK_STEP = 1.0
"""Seconds by which both clocks must part for the clock to have been set; they always jitter."""


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
    returns: dict[int, float] = {}
    """Alerts of nodes that had fallen before, as the channel knows or was to know -> when they were back
    between."""
    left: float | None = None
    """When the channel was taken out of the settings."""


class Desk:
    """One channel's messages. `waiting` are those made and not delivered, oldest first."""

    def __init__(self, channel: ChannelSettings, kept: Kept | None, now: Moment, settle: float) -> None:
        """`kept` None: the channel is new, and is sent what fires already. `settle`: seconds after a start in
        which nothing is sent: by then the first answer of the source was looked at."""
        self.channel = channel
        self.waiting: deque[Row] = deque()
        self._shift = now.wall - now.mono  # from monotonic to wall time
        self.dropped = 0
        self._is_new = kept is None or kept.left is not None
        self._was_long_away = kept is not None and kept.left is not None and now.wall - kept.left >= LONG_AWAY
        kept = kept or Kept()
        self._groups = load_groups(msgspec.json.encode(kept.groups), now.mono, now.wall, settle)
        self.notified = dict(kept.notified)
        self._hushed = set(kept.hushed)
        self.ended = set(kept.ended)
        self._lost = set(kept.lost)
        self._returns = dict(kept.returns)
        self._selector = Selector(hosts=channel.hosts, tags=channel.tags, roles=channel.roles)

    def keep(self, now: Moment) -> bytes:
        """What is to be stored: the same while nothing but time passes."""
        shift = now.wall - now.mono
        if abs(shift - self._shift) > _CLOCK_STEP:
            self._shift = shift
        return msgspec.json.encode(
            Kept(
                groups=msgspec.json.decode(self._groups.store(self._shift), type=list[Group]),
                notified=self.notified,
                hushed=sorted(self._hushed),
                ended=sorted(self.ended),
                lost=sorted(self._lost),
                returns=self._returns,
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
        self._catch_up(news)
        self._hold_back(news)
        drafts = self._groups.take_due(news.now.mono, news.siblings_before, news.sayable.word)
        notices = [self._notice(draft, news) for draft in drafts]
        notices += self._quiet_over(news)
        notices += self._reminder(news, remind_every)
        self._forget(news, notices)
        return notices

    def next_due(self, news: News) -> float | None:
        """Monotonic time at which a step will have something to send, as far as is known now."""
        return self._groups.next_due(news.siblings_before, news.sayable.word)

    def delivered(
        self,
        row: Row,
        alerts: Mapping[int, Alert],
        now: Moment,
        *,
        said: Collection[int] = (),
        down: Collection[int] = (),
        withheld: Collection[int] = (),
    ) -> None:
        """The message of `row` is done with: it said of the alerts `down` that their condition lasts, of the
        rest of `said` that it ended. Of `withheld` nothing could be said yet: they wait on."""
        if row in self.waiting:
            self.waiting.remove(row)
        heard: dict[Topic, list[int]] = {}
        for id_ in self.notified.keys() & alerts.keys():
            heard.setdefault(topic_of(alerts[id_]), []).append(id_)
        for id_ in said:
            for earlier in heard.get(topic_of(alerts[id_]), ()):
                self.notified.pop(earlier, None)
            if id_ in down:
                self.notified[id_] = now.wall
            else:
                self.ended.add(id_)
        self.ended &= self._on_the_way()
        for id_ in withheld:
            stream = stream_of(alerts[id_])
            if topic_of(alerts[id_]) in heard:
                self._report_end([alerts[id_]], now)
            else:
                self._groups.fell(id_, stream, now.mono, 0.0)

    def drop(self, row: Row) -> None:
        """The message of `row` is given up: what still lasts is sent when the channel works again."""
        self.waiting.remove(row)
        self.dropped += 1
        for entry in row.notice.entries:
            if entry.phase == "fell" and entry.alert not in self.notified:
                self._groups.forget(entry.alert)
                self._lost.add(entry.alert)

    # -- parts of a step -------------------------------------------------------------------------------

    def _fired(self, news: News) -> Iterable[int]:
        """What is sent now: what fires, and what fires already when the channel is new."""
        fired = set(news.fired)
        if news.sighted and self._is_new:
            self._is_new = False
            firing = {alert.id for alert in news.alerts.values() if alert.state == "firing"}
            if self._was_long_away:
                self.notified = {id_: at for id_, at in self.notified.items() if id_ in firing}
            fired |= firing - self._groups.alerts - self.notified.keys()
        return sorted(fired)

    def _fall(self, alert: Alert, news: News) -> None:
        if not self.wants(alert, news.node(alert)) or alert.id in self._hushed:
            return
        if news.is_quiet(alert):
            self._groups.forget(alert.id)
            self._hushed.add(alert.id)
        else:
            self._replace_earlier(alert, news)
            self._groups.fell(alert.id, stream_of(alert), news.now.mono, news.group_wait)

    def _replace_earlier(self, alert: Alert, news: News) -> None:
        """Of what ended before on the same topic nothing more is said: the message about `alert` says it
        all."""
        topic, on_the_way = topic_of(alert), self._on_the_way()
        for id_ in self.alerts - {alert.id}:
            earlier = news.alerts.get(id_)
            if earlier is None or earlier.state != "resolved" or topic_of(earlier) != topic:
                continue
            self._groups.forget(id_)
            self._hushed.discard(id_)
            if id_ in on_the_way:
                self.ended.add(id_)
            if earlier.cause == "recovered" and earlier.resolved_at is not None:
                self._returns[alert.id] = max(earlier.resolved_at, self._returns.get(alert.id, 0.0))

    def _end(self, alert: Alert, news: News) -> None:
        topic = topic_of(alert)
        if alert.untold:
            self._groups.forget(alert.id)
            self._hushed.discard(alert.id)
            if not news.sayable.is_open(topic):
                for id_ in [id_ for id_ in self.notified if news.topics([id_]) == {topic}]:
                    del self.notified[id_]
        elif alert.cause == "settled" and news.sayable.is_open(topic):
            # It settled into an outage: one message says both.
            self._groups.forget(alert.id)
        elif (
            alert.id not in self._hushed
            and not self._groups.ended(alert.id, news.now.mono)
            and topic in self._heard(news) - news.topics(self._groups.alerts)
        ):
            self._report_end([alert], news.now)

    def _report_end(self, alerts: Iterable[Alert], now: Moment) -> None:
        """Of alerts that no group knows: the channel is to hear that they ended."""
        streams: dict[str, list[int]] = {}
        for alert in alerts:
            streams.setdefault(stream_of(alert), []).append(alert.id)
        for stream, ids in streams.items():
            self._groups.adopt(ids, stream, now.mono)
            for id_ in ids:
                self._groups.ended(id_, now.mono)

    def _catch_up(self, news: News) -> None:
        """Once nothing waits, the channel is sent what it does not know: what was dropped and lasts, and the
        end of what it was notified of (rule 9.11)."""
        if self.waiting or not news.sighted:
            return
        lost, self._lost = self._lost, set()
        for id_ in sorted(lost - self._groups.alerts - self.notified.keys()):
            if news.sayable.word(id_) == "lasts":
                self._fall(news.alerts[id_], news)
        busy = news.topics(self._groups.alerts | self._hushed)
        over = [
            alert
            for id_ in self.notified
            if (alert := news.alerts.get(id_)) is not None
            and alert.state == "resolved"
            and topic_of(alert) not in busy
            and not news.sayable.is_open(topic_of(alert))
        ]
        if over:
            self._report_end(over, news.now)

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
            if (news.sighted or news.alerts[alert_id].is_own)
            and not news.is_quiet(news.alerts[alert_id])
            and news.sayable.word(alert_id) != "unsure"
        ]
        self._hushed.difference_update(alert.id for alert in over)
        heard = self._heard(news)
        # Of each topic the last word.
        latest = {topic_of(alert): alert for alert in over}.values()
        lasting = [alert for alert in latest if alert.state == "firing"]
        for alert in lasting:
            self._replace_earlier(alert, news)
        entries = [self._entry(alert, "still") for alert in lasting]
        entries += [
            self._entry(alert, "back")
            for alert in latest
            if alert.state == "resolved" and topic_of(alert) in heard
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
        return [self._make("reminder", news, [self._entry(alert, "still") for alert in due])]

    def _may_remind(self, alert: Alert | None, news: News) -> bool:
        return (
            alert is not None
            and alert.state == "firing"
            and alert.kind not in ("key_expiring", "credential_expiring")  # they have their steps instead
            and alert.acknowledged_by is None
            and alert.id not in self._hushed
            and (news.sighted or alert.is_own)
        )

    def _heard(self, news: News) -> set[Topic]:
        """Of what it was delivered, or is on the way, that it began."""
        on_the_way = {e.alert for row in self.waiting for e in row.notice.entries if e.phase != "back"}
        return news.topics(self.notified.keys() | (on_the_way - self.ended))

    def _forget(self, news: News, made: Iterable[Notice]) -> None:
        """What is long over and of which nothing is on the way."""
        made_of = {entry.alert for notice in made for entry in notice.entries}
        self._hushed &= news.alerts.keys()
        self._lost = {id_ for id_ in self._lost if news.sayable.word(id_) == "lasts"}
        for alert_id in self.notified.keys() - news.alerts.keys() - made_of:
            del self.notified[alert_id]
        known = self.alerts | made_of
        self._returns = {id_: back for id_, back in self._returns.items() if id_ in known}

    # -- notices ---------------------------------------------------------------------------------------

    def _notice(self, draft: Draft, news: News) -> Notice:
        alerts = [news.alerts[alert_id] for alert_id in draft.alerts if alert_id in news.alerts]
        phase = "back" if draft.kind == "recovery" else "fell"
        entries = [self._entry(alert, "back" if phase == "back" else "fell") for alert in alerts]
        cause = _cause(alerts, news) if phase == "fell" else ""
        return self._make(draft.kind, news, entries, cause=cause, standing=draft.standing)

    def _entry(self, alert: Alert, phase: Phase) -> Entry:
        return Entry(alert.id, phase, was_back=self._returns.pop(alert.id, None) if phase != "back" else None)

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
