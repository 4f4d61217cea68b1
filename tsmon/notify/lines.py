"""The channels of the settings, made into lines: one for messages, one for Alertmanager."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tsmon.base.clock import Clock
from tsmon.config import ChannelSettings, Settings
from tsmon.monitor.batch import Batch
from tsmon.notify.alertmanager import AlertmanagerLine, Posted
from tsmon.notify.desk import Desk, Kept, Row
from tsmon.notify.line import MessageLine, Office, Sender
from tsmon.notify.news import News
from tsmon.notify.notice import Notice
from tsmon.notify.outcome import Outcome
from tsmon.notify.services import AppriseService
from tsmon.notify.stored import decoded
from tsmon.notify.texts import Message
from tsmon.notify.webhook import Webhook

SETTLE = 5.0
"""Seconds after a start (or a poll interval, if that is shorter) in which nothing is notified: by then the
first answer of the source was looked at."""


class Line(Protocol):
    """A channel at work."""

    name: str

    @property
    def alerts(self) -> set[int]:
        """Alerts whose records are needed, though they ended."""

    @property
    def notified_at(self) -> Mapping[int, float]:
        """Alerts that people were notified of through it -> when last (Unix seconds)."""

    @property
    def takes_reports(self) -> bool:
        """It is for the summary of a month, too."""

    def post(self, notice: Notice) -> None:
        """A notice that no alert made."""

    def step(self, news: News, batch: Batch, remind_every: float) -> None:
        """Make what is due, and store it in the transaction of `batch`."""

    def release(self) -> None:
        """The last batch is stored (or cannot be): what it made may be sent."""

    def rewrite(self, batch: Batch) -> None:
        """The database was begun again: add to `batch` what was stored but is no value of its own."""

    def next_due(self, news: News) -> float | None:
        """Monotonic time at which a step will have something to send, None when nothing is planned."""

    def hand_over(self) -> tuple[str, list[Row]]:
        """What the line of the same name after a reload goes on with: what it knows, and what waits."""

    def try_now(self) -> None:
        """Try at once, though it is parked."""

    async def test(self, message: Message) -> Outcome: ...
    def readiness(self) -> dict[str, Any]: ...
    async def run(self) -> None: ...
    async def close(self) -> None: ...


MakeSender = Callable[[ChannelSettings, Settings, Clock], Sender]


def service(channel: ChannelSettings, settings: Settings, clock: Clock) -> Sender:
    """The service that takes a channel's messages."""
    if channel.url.reveal().lower().startswith("webhook+"):
        return Webhook(channel.url, channel.hmac_secret, settings.monitor_name, clock)
    return AppriseService(channel.url)


def link_of(settings: Settings) -> str:
    """Where people find the dashboard, "" when that is not known."""
    base = settings.public_url.rstrip("/")
    return f"{base}/vpn" if base else ""


def make_lines(
    settings: Settings,
    kept: Mapping[str, str],
    waiting: Mapping[str, list[Row]],
    office: Office,
    make_sender: MakeSender = service,
) -> dict[str, Line]:
    """A line per channel, by name; `kept` and `waiting` are what lines of these names left."""
    settle = min(SETTLE, settings.poll_interval)
    lines: dict[str, Line] = {}
    for channel in settings.notify:
        text = kept.get(channel.name)
        if channel.url.reveal().lower().startswith("alertmanager+"):
            posted = decoded(text, Posted)
            lines[channel.name] = AlertmanagerLine(
                channel, posted, office, monitor=settings.monitor_name, link=link_of(settings)
            )
        else:
            desk = Desk(channel, decoded(text, Kept), office.clock.now(), settle)
            desk.waiting.extend(waiting.get(channel.name, ()))
            sender = make_sender(channel, settings, office.clock)
            lines[channel.name] = MessageLine(channel.name, desk, sender, office)
    return lines
