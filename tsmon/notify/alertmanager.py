"""Prometheus Alertmanager, API v2: it groups and notifies by itself, so it is sent states, not messages.

Source of the rules: Alertmanager's OpenAPI (`POST /api/v2/alerts`) and clients' practice: an alert lives
until its `endsAt`, the same labels are the same alert.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from tsmon.base.clock import rfc3339
from tsmon.base.waits import happens
from tsmon.config import ChannelSettings, redact_url
from tsmon.monitor.alert_words import headline
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch
from tsmon.monitor.selection import Selector
from tsmon.notify.desk import Row
from tsmon.notify.details import runbook_of
from tsmon.notify.line import Office, meta_key, note_failure
from tsmon.notify.news import News
from tsmon.notify.notice import Notice
from tsmon.notify.outcome import ChannelHealth, Outcome
from tsmon.notify.poster import Poster
from tsmon.notify.texts import Message

log = structlog.get_logger(__name__)

LIFETIME = 7 * 86400.0
"""Seconds that Alertmanager keeps an alert when tsmon says nothing more: a dead tsmon resolves nothing (rule
9.14)."""
REPEAT = 60.0

Labels = dict[str, str]


class Posted(msgspec.Struct):
    """What Alertmanager was sent: by alert, under which labels."""

    labels: dict[int, Labels] = {}
    """Those that it took."""
    since: dict[int, float] = {}
    offered: dict[int, list[Labels]] = {}
    """Those of posts that it did not confirm: it may have taken them, so they too must end."""

    @property
    def alerts(self) -> set[int]:
        return self.labels.keys() | self.offered.keys()

    def under(self, id_: int) -> list[Labels]:
        """Every set of labels under which Alertmanager may have the alert."""
        taken = [self.labels[id_]] if id_ in self.labels else []
        return taken + self.offered.get(id_, [])

    def offer(self, id_: int, labels: Labels, since: float) -> None:
        """It is about to be posted."""
        if labels not in self.under(id_):
            self.offered.setdefault(id_, []).append(labels)
            self.since.setdefault(id_, since)

    def confirm(self, lasting: Mapping[int, Labels], ended: Mapping[int, list[Labels]]) -> None:
        """A post with these was answered; what was offered meanwhile stays so."""
        for id_ in lasting.keys() | ended.keys():
            settled = ended.get(id_, []) + ([lasting[id_]] if id_ in lasting else [])
            self._keep(id_, [labels for labels in self.offered.get(id_, []) if labels not in settled])
            if id_ in lasting:
                self.labels[id_] = lasting[id_]
            elif self.labels.get(id_) in settled:
                del self.labels[id_]
        self.since = {id_: since for id_, since in self.since.items() if id_ in self.alerts}

    def forget(self, id_: int) -> None:
        for kept in (self.labels, self.since, self.offered):
            kept.pop(id_, None)

    def _keep(self, id_: int, offered: list[Labels]) -> None:
        if offered:
            self.offered[id_] = offered
        else:
            self.offered.pop(id_, None)


class AlertmanagerLine:
    """A channel that is Alertmanager."""

    def __init__(
        self, channel: ChannelSettings, kept: Posted | None, office: Office, *, monitor: str, link: str
    ) -> None:
        self.name = channel.name
        self.health = ChannelHealth()
        self._channel = channel
        self._selector = Selector(hosts=channel.hosts, tags=channel.tags, roles=channel.roles)
        self._office = office
        self._monitor = monitor
        self._link = link
        self._service = f"Alertmanager {redact_url(channel.url)}"
        url = channel.url.reveal().removeprefix("alertmanager+").rstrip("/")
        self._poster = Poster(url if url.endswith("/api/v2/alerts") else f"{url}/api/v2/alerts", office.clock)
        self._posted = kept or Posted()
        self._kept = ""
        self._firing: dict[int, Alert] = {}
        self._known: Mapping[int, Alert] = {}
        self._held: set[int] = set()
        self._sighted = False
        self._tailnet = ""
        self._last_post = -REPEAT
        self._seen = False
        self._wake = asyncio.Event()

    @property
    def alerts(self) -> set[int]:
        """Alerts whose records are needed."""
        return self._posted.alerts

    @property
    def notified_at(self) -> Mapping[int, float]:
        """Alertmanager tells people in its own time, which tsmon does not know."""
        return {}

    @property
    def takes_reports(self) -> bool:
        return False

    def post(self, notice: Notice) -> None:
        """Alertmanager takes alerts only; another channel's failure is in /readyz and /metrics."""

    def step(self, news: News, batch: Batch, remind_every: float) -> None:
        """Note what fires now; `run` posts the difference."""
        del remind_every  # repeating is Alertmanager's business
        posted = self._posted
        self._tailnet = news.view.tailnet.name if news.view.tailnet is not None else ""
        firing = {}
        for alert in news.alerts.values():
            node = news.node(alert)
            wanted = alert.state == "firing" and self._wants(alert) and self._selector.selects(node)
            if wanted and (alert.id in posted.labels or not news.is_quiet(alert)):
                firing[alert.id] = alert
                # Stored before it is posted: a post without an answer may have been taken.
                posted.offer(alert.id, self._labels(alert), _begin(alert))
        ended = [news.alerts[id_] for id_ in posted.alerts if id_ not in firing and id_ in news.alerts]
        for alert in ended:
            if alert.resolved_at is not None and alert.resolved_at < news.now.wall - LIFETIME:
                posted.forget(alert.id)  # by now Alertmanager has ended it by itself
        self._held = {alert.id for alert in ended if news.is_quiet(alert)}
        self._firing, self._known, self._sighted = firing, news.alerts, news.sighted
        self._seen = True
        kept = self.kept()
        if kept != self._kept:
            self._kept = kept
            batch.meta[meta_key(self.name)] = kept

    def rewrite(self, batch: Batch) -> None:
        """Nothing waits in rows."""

    def next_due(self, news: News) -> None:
        """Nothing is planned: what changes is posted at once."""
        del news

    def hand_over(self) -> tuple[str, list[Row]]:
        """What the line that takes this one's place goes on with; nothing waits in rows."""
        return self.kept(), []

    def release(self) -> None:
        """The last batch is stored (or cannot be)."""
        if self._changed():
            self._wake.set()

    def try_now(self) -> None:
        self.health.try_now()
        self._wake.set()

    async def test(self, message: Message) -> Outcome:
        """Post an alert of its own that ends in a minute."""
        now = self._office.clock.wall()
        labels = {"alertname": "TsmonTest", "severity": "none", "monitor": self._monitor}
        notes = {"summary": message.title, "description": message.text}
        outcome = await self._poster.post(
            msgspec.json.encode([_row(labels, notes, now, now + 60.0, self._link)])
        )
        if outcome.delivered:
            self.health.note(outcome, self._office.clock.now())
            self._wake.set()
        return outcome

    def kept(self) -> str:
        """What is to be stored."""
        return msgspec.json.encode(self._posted).decode()

    def readiness(self) -> dict[str, Any]:
        """For /readyz."""
        return {
            "name": self.name,
            "service": self._service,
            **self.health.readiness(),
            "waiting": len(self._new().keys() | self._stale().keys()),
            "dropped": 0,
        }

    async def run(self) -> None:
        """Post until cancelled: what changed at once, all of it every minute while the tailnet is seen."""
        while True:
            self._wake.clear()
            mono = self._office.clock.mono()
            pause = self.health.pause(mono)
            again = self._last_post + REPEAT - mono
            if pause > 0:
                await happens(self._wake, pause)
            elif self._changed() or (self._firing and self._sighted and again <= 0):
                await self._post()
            else:
                await happens(self._wake, again if self._firing and again > 0 else REPEAT)

    async def close(self) -> None:
        await self._poster.close()

    def _wants(self, alert: Alert) -> bool:
        return self._channel.min_severity == "warning" or alert.severity == "critical"

    def _labels(self, alert: Alert) -> Labels:
        return labels_of(alert, self._monitor, self._tailnet)

    def _new(self) -> dict[int, Alert]:
        """What fires and is not posted, or under other labels."""
        return {
            id_: alert
            for id_, alert in self._firing.items()
            if self._posted.labels.get(id_) != self._labels(alert)
        }

    def _stale(self) -> dict[int, list[Labels]]:
        """What Alertmanager may have and that does not hold; nothing is known before the first step."""
        found = {}
        for id_ in self._posted.alerts - self._held if self._seen else ():
            wanted = self._labels(self._firing[id_]) if id_ in self._firing else None
            if stale := [labels for labels in self._posted.under(id_) if labels != wanted]:
                found[id_] = stale
        return found

    def _changed(self) -> bool:
        return bool(self._new() or self._stale())

    async def _post(self) -> None:
        """While tsmon is blind only news is posted: the rest lives on by itself."""
        now = self._office.clock.now()
        new, stale = self._new(), self._stale()
        firing = dict(self._firing) if self._sighted else new
        lasting = {id_: self._labels(alert) for id_, alert in firing.items()}
        rows = [self._ended(id_, labels, now.wall) for id_, some in stale.items() for labels in some]
        rows += [self._lasting(alert, now.wall) for alert in firing.values()]
        gone = [id_ for id_ in stale if id_ in self._posted.labels and id_ not in self._firing]
        news = [self._known[id_] for id_ in gone if id_ in self._known] + list(new.values())
        outcome = await self._poster.post(msgspec.json.encode(rows))
        if not outcome.delivered:
            await note_failure(self.name, self.health, outcome, self._office)
            return
        if self.health.error:
            log.info("channel_delivers", channel=self.name)
        self.health.note(outcome, self._office.clock.now())
        self._last_post = now.mono
        self._posted.confirm(lasting, stale)
        if new or stale:
            await self._office.notified(news, [])

    def _lasting(self, alert: Alert, now: float) -> dict[str, Any]:
        notes = _notes(alert)
        return _row(self._labels(alert), notes, _begin(alert), now + LIFETIME, self._link)

    def _ended(self, alert_id: int, labels: Labels, now: float) -> dict[str, Any]:
        alert = self._known.get(alert_id)
        notes = _notes(alert) if alert is not None else {}
        since = self._posted.since.get(alert_id, now)
        return _row(labels, notes, since, now, self._link)


def labels_of(alert: Alert, monitor: str, tailnet: str) -> Labels:
    """What names the alert in Alertmanager. A node's alert does not say which tsmon saw it: of two that watch
    one tailnet it is one alert."""
    words = "".join(part.capitalize() for part in alert.kind.split("_"))
    labels = {"alertname": f"Tsmon{words}", "severity": alert.severity, "tailnet": tailnet}
    if alert.is_own:
        labels |= {"monitor": monitor, "subject": alert.subject}
    else:
        labels |= {
            "node_id": alert.node_id or "",
            "hostname": alert.hostname or "",
            "node_type": alert.node_type or "",
        }
    return {name: value for name, value in labels.items() if value}


def _notes(alert: Alert) -> Labels:
    return {"summary": headline(alert), "description": alert.message, "runbook": runbook_of(alert.kind)}


def _begin(alert: Alert) -> float:
    return alert.since if alert.since is not None else alert.pending_at


def _row(
    labels: Mapping[str, str], annotations: Mapping[str, str], start: float, end: float, link: str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(min(start, end)),
        "endsAt": rfc3339(end),
    }
    return row | ({"generatorURL": link} if link else {})
