"""The words of a message: what, since when, how it is known, what else. Pure.

Written when a message is sent, not when it was made: an outage that ended meanwhile has both times.
Names in it are of letters, digits, `.`, `_` and `-` (status.py); in Markdown the rest is escaped.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from tsmon.base.text import length_words
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import OUTAGES, topic_of
from tsmon.monitor.state import View
from tsmon.notify.news import Present
from tsmon.notify.notice import Entry, Notice

MOST_LINES = 12
"""Alerts with a line of their own; of more only the names are given."""
MOST_NAMES = 12

_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&])")


class Message(NamedTuple):
    """A notice in words."""

    notice: Notice
    severity: str
    """ok, warning or critical: the worst of what lasts."""
    title: str
    lines: tuple[str, ...]
    link: str
    """Of the dashboard, "" when nobody knows where it is."""
    entries: tuple[tuple[Entry, Alert], ...]
    """What is reported, without what need not be any more."""
    down: frozenset[int]
    """Alerts of which it says that they last."""

    @property
    def text(self) -> str:
        """The body as plain text."""
        return "\n".join([*self.lines, *([self.link] if self.link else [])])

    @property
    def markdown(self) -> str:
        """The body as Markdown in which no name is markup."""
        lines = [_MARKUP.sub(r"\\\1", line) for line in self.lines]
        if len(lines) > 1:
            lines = [f"- {line}" for line in lines]
        return "\n".join([*lines, *([f"\n[Dashboard]({self.link})"] if self.link else [])])


class Facts(NamedTuple):
    """What a text is written from."""

    alerts: Mapping[int, Alert]
    notified: Collection[int]
    """Alerts of which it was delivered that they began."""
    ended: Collection[int]
    """Alerts whose end was delivered."""
    view: View
    now: float
    zone: tzinfo | None = None
    """Of the times in the text; None: the machine's."""
    link: str = ""
    signature: str = ""
    """Which tsmon says it, "" when there is only one."""


def write(notice: Notice, facts: Facts) -> Message | None:
    """The message, None when there is nothing left to report."""
    if notice.words:
        return plain_message(notice, facts)
    shown = tuple(sorted(_to_report(notice, facts), key=_worst_first))
    if not shown:
        return None
    lasting = [(entry, alert) for entry, alert in shown if alert.state != "resolved"]
    severities = {alert.severity for _, alert in lasting}
    severity = "critical" if "critical" in severities else "warning" if severities else "ok"
    return Message(
        notice,
        severity,
        f"{_label(severity, shown)}: {_title(notice, shown)}",
        tuple(_lines(notice, shown, facts)),
        facts.link,
        shown,
        frozenset(alert.id for _, alert in lasting),
    )


def plain_message(notice: Notice, facts: Facts) -> Message:
    """The message of a notice that is not about alerts."""
    severity = "warning" if notice.kind == "channel" else "ok"
    lines = tuple(filter(None, (notice.words, facts.signature)))
    return Message(notice, severity, notice.title, lines, facts.link, (), frozenset())


def withheld(notice: Notice, facts: Facts) -> frozenset[int]:
    """The alerts of which `write` says nothing, since they ended but their node is not well now: they are to
    be reported once it is (rule 9.16)."""
    present = Present(facts.alerts, facts.view)
    return frozenset(alert.id for _, alert in _wanted(notice, facts) if present.word(alert.id) == "unsure")


def _to_report(notice: Notice, facts: Facts) -> Iterator[tuple[Entry, Alert]]:
    """The entries that are reported now."""
    present = Present(facts.alerts, facts.view)
    return ((entry, alert) for entry, alert in _wanted(notice, facts) if present.word(alert.id) != "unsure")


def _wanted(notice: Notice, facts: Facts) -> Iterator[tuple[Entry, Alert]]:
    """The entries that are still to be reported: what another alert absorbed is not, nor is the recovery of
    what nobody was notified of."""
    heard = {topic_of(facts.alerts[id_]) for id_ in facts.notified if id_ in facts.alerts}
    for entry in notice.entries:
        alert = facts.alerts.get(entry.alert)
        if alert is None or alert.untold or entry.alert in facts.ended:
            continue
        if entry.phase == "back" and topic_of(alert) not in heard:
            continue
        yield entry, alert


def _worst_first(shown: tuple[Entry, Alert]) -> tuple[bool, bool, str]:
    alert = shown[1]
    return alert.state == "resolved", alert.severity != "critical", alert.hostname or ""


def _label(severity: str, shown: Collection[tuple[Entry, Alert]]) -> str:
    """OK is for what is well again, not for what is gone."""
    gone = severity == "ok" and all(alert.cause in ("removed", "acknowledged") for _, alert in shown)
    return "INFO" if gone else severity.upper()


def _title(notice: Notice, shown: Collection[tuple[Entry, Alert]]) -> str:
    lasting = [(entry, alert) for entry, alert in shown if alert.state != "resolved"]
    ended = [alert for _, alert in shown if alert.state == "resolved"]
    if len(shown) == 1:
        ((entry, alert),) = shown
        words = headline(alert, still=entry.phase == "still")
    elif not lasting:
        words = _ended_together(ended)
    elif notice.kind == "quiet_over":
        words = f"after maintenance or silence: {_count(len(lasting))} still down"
        words += f", {len(ended)} back" if ended else ""
    elif notice.kind == "reminder":
        words = f"{_of_what(lasting)} still down"
    else:
        more = " more" if notice.kind == "update" else ""
        words = f"{_of_what(lasting, more)} down" + (f", {len(ended)} back again" if ended else "")
    if notice.cause and len(shown) > 1:
        words += f" ({notice.cause})"
    return words + (f", {notice.standing} still down" if notice.standing else "")


def _of_what(lasting: Collection[tuple[Entry, Alert]], more: str = "") -> str:
    if all(alert.kind in OUTAGES for _, alert in lasting):
        return _count(len(lasting), more)
    return f"{len(lasting)}{more} conditions:" if len(lasting) > 1 else f"{len(lasting)}{more} condition:"


def _count(number: int, more: str = "") -> str:
    return f"{number}{more} node{'s' if number != 1 else ''} {'are' if number != 1 else 'is'}"


def _ended_together(ended: Collection[Alert]) -> str:
    removed = sum(alert.cause == "removed" for alert in ended)
    if removed == len(ended):
        return f"{removed} nodes were removed from the tailnet"
    if all(alert.kind in OUTAGES for alert in ended):
        return f"{len(ended) - removed} nodes are back" + (f", {removed} removed" if removed else "")
    return f"{len(ended)} conditions ended"


def headline(alert: Alert, *, still: bool = False) -> str:
    """The state of one alert in a few words."""
    name = alert.hostname or "tsmon"
    now = "still " if still else ""
    if alert.state == "resolved":
        return _ended(alert, name)
    return {
        "node_offline": f"{name} has settled: it is {now}offline"
        if alert.follows is not None
        else f"{name} is {now}offline",
        "node_detached": f"{name} is {now}off the control plane, but answers pings",
        "node_missing": f"{name} is {now}removed from the tailnet",
        "node_flapping": f"{name} is {now}flapping",
        "key_expiring": f"the key of {name} expires soon",
        "monitor_blind": f"tsmon {now}cannot see the tailnet"
        + (f", {name} is offline" if alert.hostname else ""),
        "monitor_isolated": f"no node {now}answers tsmon's pings",
        "storage_failing": "tsmon cannot store what it sees"
        if alert.subject == "embedded"
        else "InfluxDB takes no samples",
        "path_degraded": f"the path to {name} is {now}degraded",
    }[alert.kind]


def _ended(alert: Alert, name: str) -> str:
    if alert.cause == "removed":
        return f"{name} was removed from the tailnet"
    if alert.cause == "acknowledged":
        return f"{name} is gone for good: acknowledged by {alert.acknowledged_by}"
    return {
        "node_missing": f"{name} is back in the tailnet",
        "node_flapping": f"{name} has settled",
        "key_expiring": f"the key of {name} was renewed",
        "monitor_blind": "tsmon sees the tailnet again",
        "monitor_isolated": "nodes answer tsmon's pings again",
        "storage_failing": "tsmon stores again what it sees"
        if alert.subject == "embedded"
        else "InfluxDB takes samples again",
        "path_degraded": f"the path to {name} is well again",
    }.get(alert.kind, f"{name} is back online")


def _lines(notice: Notice, shown: Collection[tuple[Entry, Alert]], facts: Facts) -> Iterator[str]:
    if len(shown) == 1:
        ((entry, alert),) = shown
        yield from _details(entry, alert, facts)
    elif len(shown) <= MOST_LINES:
        for entry, alert in shown:
            details = "; ".join(_details(entry, alert, facts))
            yield f"{headline(alert, still=entry.phase == 'still')}: {details}"
    else:
        yield from _crowd(shown, facts)
    if notice.cause:
        yield f"in common: {notice.cause}"
    yield from _others(shown, facts)
    blind = facts.view.blind
    if blind is not None and any(not alert.is_own for _, alert in shown):
        seen = facts.view.as_of
        yield (
            f"tsmon itself is blind since {_clock(blind.since, facts)}: this is what it saw"
            + (f" at {_clock(seen, facts)}" if seen is not None else "")
        )
    if facts.signature:
        yield facts.signature


def _details(entry: Entry, alert: Alert, facts: Facts) -> Iterator[str]:
    begin, end = alert.since, alert.resolved_at
    length = length_words(alert.duration(facts.now))
    if alert.kind == "key_expiring":
        if alert.state != "resolved" and alert.key_expiry is not None:
            left = length_words(alert.key_expiry - facts.now)
            yield f"in {left}, at {_clock(alert.key_expiry, facts)}: then the node is cut off"
        return
    if end is not None:
        yield f"from {_clock(begin, facts)} to {_clock(end, facts)} ({length})"
        return
    yield f"since {_clock(begin, facts)} ({length})" if begin is not None else "since before tsmon knew it"
    if entry.was_back is not None:
        yield f"was back {_clock(entry.was_back, facts)} to {_clock(begin, facts)}"
    if entry.how:
        yield f"how tsmon knows: {entry.how}"
    elif alert.kind == "monitor_blind":
        yield facts.view.blind.message if facts.view.blind is not None else alert.message
    elif alert.kind not in ("node_missing", "node_offline", "node_detached"):
        yield alert.message.removeprefix(headline(alert)).lstrip(": ") or alert.message
    if alert.acknowledged_by:
        yield f"acknowledged by {alert.acknowledged_by}"


def _crowd(shown: Collection[tuple[Entry, Alert]], facts: Facts) -> Iterator[str]:
    for words, alerts in (
        ("down", [alert for _, alert in shown if alert.state != "resolved"]),
        ("back", [alert for _, alert in shown if alert.state == "resolved"]),
    ):
        if alerts:
            yield f"{len(alerts)} {words}: {_names(alerts)}"
            begins = [alert.since for alert in alerts if alert.since is not None]
            lengths = [alert.duration(facts.now) for alert in alerts]
            if words == "down" and begins:
                yield f"since {_clock(min(begins), facts)} ({length_words(max(lengths))})"
            elif words == "back":
                shortest, longest = length_words(min(lengths)), length_words(max(lengths))
                yield f"after {longest}" if shortest == longest else f"after {shortest} to {longest}"


def _others(shown: Collection[tuple[Entry, Alert]], facts: Facts) -> Iterator[str]:
    """What else is down, for whoever is woken by this."""
    here = {alert.id for _, alert in shown}
    others = [
        alert
        for alert in facts.alerts.values()
        if alert.state == "firing" and alert.kind in OUTAGES and alert.id not in here
    ]
    if others:
        yield f"also down: {_names(others)}"


def _names(alerts: Iterable[Alert]) -> str:
    names = sorted({alert.hostname or alert.kind for alert in alerts})
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _clock(wall: float | None, facts: Facts) -> str:
    """The time of day, with the date when it is not today's."""
    if wall is None:
        return "an unknown time"
    moment = datetime.fromtimestamp(wall, UTC).astimezone(facts.zone)
    today = datetime.fromtimestamp(facts.now, UTC).astimezone(facts.zone).date()
    return moment.strftime("%H:%M %Z" if moment.date() == today else "%d %b %H:%M %Z")
