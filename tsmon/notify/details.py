"""The lines of a message: since when, how it is known, what else is down, what to do. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from tsmon.base.text import length_words
from tsmon.monitor.alert_words import headline, together
from tsmon.monitor.alerts import Alert
from tsmon.monitor.state import View
from tsmon.monitor.wording import how_known
from tsmon.notify.notice import Entry, Notice

MOST_LINES = 12
"""Alerts with a line of their own; of more only the names are given."""
MOST_NAMES = 12
RUNBOOK = "docs/alerting.md"
"""Has a section for each kind of alert: what it means, and what to do."""

_CUT_OFF = {
    "key_expiring": "then the node is cut off",
    "credential_expiring": "then it opens nothing any more",
}
"""What happens at the end of what expires, by kind."""
Shown = Collection[tuple[Entry, Alert]]


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


def confirmation(alert: Alert, view: View) -> str:
    """How tsmon knows now, for people; "" where that goes without saying."""
    node = view.nodes.get(alert.node_id or "")
    if alert.state == "resolved" or node is None:
        return ""
    if alert.kind == "node_detached":
        words = "the control plane calls it offline, pings are answered"
        others = any(other.detached and other.id != node.id for other in view.nodes.values())
        return words + ("; others too: the monitor's own map may be stale" if others else "")
    return how_known(node) if alert.kind == "node_offline" and node.state == "offline" else ""


def runbook_of(kind: str) -> str:
    """Where it stands what to do about an alert of that kind."""
    return f"{RUNBOOK}#{kind}"


def lines_of(notice: Notice, shown: Shown, facts: Facts) -> Iterator[str]:
    """The text below the title."""
    if len(shown) == 1:
        ((entry, alert),) = shown
        yield from _details(entry, alert, facts)
    elif len(shown) <= MOST_LINES:
        for entry, alert in shown:
            words = headline(alert, facts.view.nodes, still=entry.phase == "still")
            details = "; ".join(_details(entry, alert, facts))
            number = f" (alert {alert.id})" if alert.state != "resolved" else ""
            yield f"{words}{number}" + (f": {details}" if details else "")
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
    yield from _to_do(shown)
    if facts.signature:
        yield facts.signature


def _details(entry: Entry, alert: Alert, facts: Facts) -> Iterator[str]:
    begin, end = alert.since, alert.resolved_at
    length = length_words(alert.duration(facts.now))
    if alert.kind in _CUT_OFF:
        if alert.state != "resolved" and alert.key_expiry is not None:
            left = length_words(alert.key_expiry - facts.now)
            yield f"in {left}, at {_clock(alert.key_expiry, facts)}: {_CUT_OFF[alert.kind]}"
        if alert.kind == "credential_expiring":
            yield alert.message
        return
    if alert.kind == "node_missing" and alert.cause == "removed":
        yield alert.message
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


def _crowd(shown: Shown, facts: Facts) -> Iterator[str]:
    for words, alerts in together((alert for _, alert in shown), facts.view.nodes):
        yield f"{words}: {_names(alerts)}" if len(alerts) > 1 else words
        begins = [alert.since for alert in alerts if alert.since is not None]
        lengths = [alert.duration(facts.now) for alert in alerts]
        expiries = [alert.key_expiry for alert in alerts if alert.key_expiry is not None]
        if alerts[0].kind in _CUT_OFF:
            if alerts[0].state != "resolved" and expiries:
                left = length_words(min(expiries) - facts.now)
                cut_off = _CUT_OFF[alerts[0].kind]
                yield f"the first in {left}, at {_clock(min(expiries), facts)}: {cut_off}"
        elif alerts[0].state != "resolved":
            if begins:
                yield f"since {_clock(min(begins), facts)} ({length_words(max(lengths))})"
        else:
            shortest, longest = length_words(min(lengths)), length_words(max(lengths))
            yield f"after {longest}" if shortest == longest else f"after {shortest} to {longest}"


def _others(shown: Shown, facts: Facts) -> Iterator[str]:
    """What else is down now, for whoever is woken by this."""
    here = {alert.id for _, alert in shown}
    others = [
        alert
        for alert in facts.alerts.values()
        if alert.state == "firing" and alert.id not in here and _is_down(alert, facts.view)
    ]
    if others:
        yield f"also down: {_names(others)}"


def _is_down(alert: Alert, view: View) -> bool:
    """Not one that answers pings, is gone, or flaps and is up just now."""
    node = view.nodes.get(alert.node_id or "")
    down = node is not None and node.state == "offline"
    return alert.kind == "node_offline" or (alert.kind == "node_flapping" and down)


def _to_do(shown: Shown) -> Iterator[str]:
    """How to take care of what lasts: the command, with the alert's id, and where to read on."""
    lasting = [alert for _, alert in shown if alert.state != "resolved" and not alert.acknowledged_by]
    if not lasting:
        return
    ids = " ".join(str(alert.id) for alert in lasting)
    crowd = len(lasting) > MOST_LINES
    yield "take care of it: " + ("tsmon ack ID (the ids: tsmon status)" if crowd else f"tsmon ack {ids}")
    yield f"what to do: {runbook_of(lasting[0].kind)}"


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
