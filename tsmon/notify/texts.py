"""The words of a message: its title here, its lines in details.py. Pure.

Written when a message is sent, not when it was made: an outage that ended meanwhile has both times.
Names in it are of letters, digits, `.`, `_` and `-` (status.py); in Markdown the rest is escaped.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from tsmon.monitor.alert_words import headline, is_gone, together
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import stream_of, topic_of
from tsmon.notify.details import Facts, confirmation, lines_of
from tsmon.notify.news import Sayable
from tsmon.notify.notice import Entry, Notice

_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&])")
_STANDING = {"outage": "still down", "key_expiring": "not renewed"}
"""What is said of those of a group that have not recovered, by stream."""


class Message(NamedTuple):
    """A notice in words."""

    notice: Notice
    severity: str
    """ok, warning or critical: the worst of what lasts."""
    title: str
    lines: tuple[str, ...]
    link: str
    """Of the page that shows it, "" when nobody knows where that is."""
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
        f"{_label(severity, shown, facts)}: {_title(notice, shown, facts)}",
        tuple(lines_of(notice, shown, facts)),
        _link(shown, lasting, facts),
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
    sayable = Sayable(facts.alerts, facts.view)
    return frozenset(alert.id for _, alert in _wanted(notice, facts) if sayable.word(alert.id) == "unsure")


def _to_report(notice: Notice, facts: Facts) -> Iterator[tuple[Entry, Alert]]:
    """The entries that are reported now."""
    sayable = Sayable(facts.alerts, facts.view)
    for entry, alert in _wanted(notice, facts):
        if sayable.word(alert.id) != "unsure":
            how = confirmation(alert, facts.view) if entry.phase != "back" else ""
            yield msgspec.structs.replace(entry, how=how), alert


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


def _label(severity: str, shown: Collection[tuple[Entry, Alert]], facts: Facts) -> str:
    """OK is for what is well again, not for what is gone."""
    gone = severity == "ok" and all(is_gone(alert, facts.view.nodes) for _, alert in shown)
    return "INFO" if gone else severity.upper()


def _title(notice: Notice, shown: Collection[tuple[Entry, Alert]], facts: Facts) -> str:
    """Counts each kind in its own words: keys expire, nodes are down."""
    nodes = facts.view.nodes
    if len(shown) == 1:
        ((entry, alert),) = shown
        words = headline(alert, nodes, still=entry.phase == "still")
    else:
        still = notice.kind in ("reminder", "quiet_over")
        parts = together((alert for _, alert in shown), nodes, still=still, more=notice.kind == "update")
        words = ", ".join(text for text, _ in parts)
        if notice.kind == "quiet_over" and any(alert.state != "resolved" for _, alert in shown):
            words = f"after maintenance or silence: {words}"
        words += f" ({notice.cause})" if notice.cause else ""
    if notice.standing:
        stream = stream_of(next(iter(shown))[1])
        words += f", {notice.standing} {_STANDING.get(stream, 'not yet')}"
    return words


def _link(
    shown: Collection[tuple[Entry, Alert]], lasting: Collection[tuple[Entry, Alert]], facts: Facts
) -> str:
    """The page of the one node that the message is about, else of the incident that it reports."""
    names = {alert.hostname for _, alert in shown}
    [name, *more] = names
    if not facts.link:
        return ""
    if name is not None and not more:
        return f"{facts.link}?node={quote(name)}"
    return f"{facts.link}?incident={min(alert.id for _, alert in lasting)}" if lasting else facts.link
