"""What was done to a tailnet, and what a monitor must therefore say: kept while the scenes are played,
compared at the end with what each monitor published and answers."""

import time
from collections import defaultdict
from datetime import datetime
from typing import Any, NamedTuple

from tests.e2e.watching import Watching
from tsmon.monitor.state import Event

TSMON = "tsmon"
"""The subject of what is about the monitor and not about a node."""


class Window(NamedTuple):
    """Earliest and latest time (Unix seconds) at which something may be told to have happened."""

    earliest: float
    latest: float

    def holds(self, at: float) -> bool:
        return self.earliest <= at <= self.latest


class Stretch(NamedTuple):
    """An outage or a blind stretch; `end` is None while it lasts."""

    begin: Window
    end: Window | None
    reason: str
    own_known: bool = False
    """Of a blind stretch: the monitor's own state is known all the same."""

    def seconds(self) -> Window:
        """How long it may have been."""
        end = self.end or Window(time.time(), time.time())
        return Window(max(0.0, end.earliest - self.begin.latest), end.latest - self.begin.earliest)


class Script:
    """Expectations, in the order of the deeds."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        """Events by the hostname they name."""
        self.alerts: list[tuple[str, str | None, str, str | None]] = []
        """Kind, hostname, severity, cause of the end."""
        self.outages: dict[str, list[Stretch]] = defaultdict(list)
        self.blind: list[Stretch] = []

    def tells(self, subject: str, *words: str) -> None:
        self.told[subject].append(words)

    def was_down(self, name: str, reason: str, begin: Window, end: Window | None) -> None:
        """An outage with its events."""
        self.tells(name, "node_offline", reason)
        if end is not None:
            self.tells(name, "node_online")
        self.outages[name].append(Stretch(begin, end, reason))

    def alerted(self, kind: str, hostname: str | None, severity: str, cause: str | None) -> None:
        """An alert with its events; `cause` None while it fires."""
        self.alerts.append((kind, hostname, severity, cause))
        subject = TSMON if kind.startswith("monitor_") else hostname or TSMON
        self.tells(subject, "alert", kind)
        if cause is not None:
            self.tells(subject, "alert_resolved", kind, cause)

    def was_blind(self, reason: str, begin: Window, end: Window, own: str | None = None) -> None:
        """A blind stretch with its events and its alert; `own` is the monitor's node when it is stopped."""
        self.blind.append(Stretch(begin, end, reason, own is not None))
        self.tells(TSMON, "monitor_blind", reason)
        self.alerts.append(("monitor_blind", own, "warning", "recovered"))
        self.tells(TSMON, "alert", "monitor_blind")
        self.tells(TSMON, "monitor_restored")
        self.tells(TSMON, "alert_resolved", "monitor_blind", "recovered")

    # -- comparing -------------------------------------------------------------------------------------

    async def compare_events(self, tsmon: Watching) -> None:
        """Every event of every node, none more, in order; and the log holds what was published."""
        answer = await tsmon.api("logs?per_page=200&checks=false")
        published = [str(event.id) for event in tsmon.events if event.event_type != "health_check"]
        assert [row["id"] for row in reversed(answer["logs"])] == published, tsmon.source
        found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for event in tsmon.events:
            if event.event_type != "health_check":
                found[_subject(event)].append(_words(event))
        for subject in {*found, *self.told}:
            # An outage and its alert may be told in either order; among themselves there is one order.
            for of_alerts in (True, False):
                assert _only(found[subject], of_alerts) == _only(self.told[subject], of_alerts), (
                    f"{tsmon.source}: {subject}: told {found[subject]}, played {self.told[subject]}; "
                    f"times {[round(e.timestamp % 3600) for e in tsmon.events if _subject(e) == subject]}"
                )

    def compare_blindness(self, tsmon: Watching) -> None:
        """When tsmon says that it saw nothing."""
        begun = [event.timestamp for event in tsmon.events if event.event_type == "monitor_blind"]
        ended = [event.timestamp for event in tsmon.events if event.event_type == "monitor_restored"]
        assert len(begun) == len(ended) == len(self.blind), tsmon.source
        for stretch, begin, end in zip(self.blind, begun, ended, strict=True):
            assert stretch.begin.holds(begin), (tsmon.source, stretch, begin)
            assert stretch.end is not None
            assert stretch.end.holds(end), (tsmon.source, stretch, end)

    async def compare_alerts(self, tsmon: Watching) -> None:
        answer = await tsmon.api("alerts?state=all&limit=100")
        found = [
            (row["kind"], row["hostname"], row["severity"], row["cause"])
            for row in answer["alerts"]
            if row["state"] != "pending"
        ]
        assert sorted(found, key=repr) == sorted(self.alerts, key=repr), tsmon.source

    async def compare_uptime(self, tsmon: Watching, own: str) -> None:
        """Outages, and the seconds online, offline and unknown, of every node that is there."""
        for node in list(tsmon.daemon.monitor.view.nodes.values()):
            name = node.hostname
            answer = await tsmon.api(f"uptime/{node.id}?hours=1")
            asked = time.time()
            where = (tsmon.source, name, answer)
            told = [*reversed(answer["outage_list"])]
            assert len(told) == len(self.outages[name]), where
            for stretch, outage in zip(self.outages[name], told, strict=True):
                # The API gives whole seconds.
                assert stretch.begin.earliest - 1 <= _unix(outage["start"]) <= stretch.begin.latest, where
                assert (outage["end"] is None) == (stretch.end is None), where
                if stretch.end is not None:
                    assert stretch.end.earliest - 1 <= _unix(outage["end"]) <= stretch.end.latest, where
            blind = [stretch for stretch in self.blind if not (stretch.own_known and name == own)]
            _holds(answer["offline_s"], [stretch.seconds() for stretch in self.outages[name]], where)
            # The time since the last poll is not observed yet.
            _holds(answer["unknown_s"], [stretch.seconds() for stretch in blind] + [Window(0, 7)], where)
            seconds = [answer[key] for key in ("online_s", "offline_s", "unknown_s")]
            assert abs(sum(seconds) - (asked - node.first_seen)) <= 3, where
            known = seconds[0] + seconds[1]
            assert abs(answer["uptime_percentage"] - 100 * seconds[0] / known) <= 100 / known, where


def _holds(seconds: float, windows: list[Window], where: Any) -> None:
    least = sum(window.earliest for window in windows) - 1
    most = sum(window.latest for window in windows) + 1
    assert least <= seconds <= most, (where, least, most)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _subject(event: Event) -> str:
    own = event.details.get("kind", "").startswith("monitor_")
    return TSMON if own else event.hostname or TSMON


def _words(event: Event) -> tuple[str, ...]:
    """What an event says, as a script says it."""
    details = event.details
    if event.event_type in ("node_offline", "monitor_blind"):
        return event.event_type, details["reason"]
    if event.event_type == "node_changed":
        return event.event_type, *sorted(details["changes"])
    if event.event_type == "alert":
        return event.event_type, details["kind"]
    if event.event_type == "alert_resolved":
        return event.event_type, details["kind"], details["cause"]
    return (event.event_type,)


def _only(told: list[tuple[str, ...]], of_alerts: bool) -> list[tuple[str, ...]]:
    return [words for words in told if words[0].startswith("alert") == of_alerts]
