"""When messages are held back: maintenance windows (configured) and silences (given by command). Pure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tsmon.config import MaintenanceSettings
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.state import Node
from tsmon.notify.selection import Selector

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Quiet:
    """Everything that holds messages back (rule 9.7)."""

    def __init__(self, windows: Iterable[MaintenanceSettings] = (), silences: Iterable[Silence] = ()) -> None:
        self.silences: dict[int, Silence] = {silence.id: silence for silence in silences}
        self._selectors = {silence.id: _selector(silence) for silence in self.silences.values()}
        self._windows: list[tuple[MaintenanceSettings, Selector]] = []
        self.configure(windows)

    def configure(self, windows: Iterable[MaintenanceSettings]) -> None:
        """The maintenance windows of the (changed) settings."""
        self._windows = [(window, _selector(window)) for window in windows]

    def add(self, silence: Silence) -> None:
        self.silences[silence.id] = silence
        self._selectors[silence.id] = _selector(silence)

    def remove(self, silence_id: int) -> Silence | None:
        """None when there is none of that id."""
        self._selectors.pop(silence_id, None)
        return self.silences.pop(silence_id, None)

    def take_expired(self, now: float) -> list[Silence]:
        """The silences that ended before `now` (Unix seconds); they are forgotten."""
        expired = [silence for silence in self.silences.values() if silence.ends <= now]
        for silence in expired:
            self.remove(silence.id)
        return expired

    def until(self, alert: Alert, node: Node | None, now: float) -> float | None:
        """Unix seconds until which the messages of `alert` are held back, None when they are not. `node` is
        the alert's node, None for an alert about tsmon itself."""
        ends: list[float] = []
        for silence in self.silences.values():
            hit = silence.alert == alert.id if silence.alert is not None else self._selects(silence, node)
            if hit and silence.created <= now < silence.ends:
                ends.append(silence.ends)
        for window, selector in self._windows:
            end = window_end(window, now) if selector.selects(node) else None
            if end is not None:
                ends.append(end)
        return max(ends, default=None)

    def _selects(self, silence: Silence, node: Node | None) -> bool:
        return self._selectors[silence.id].selects(node)


def _selector(given: MaintenanceSettings | Silence) -> Selector:
    return Selector(hosts=given.hosts, tags=given.tags, os=given.os, users=given.users, roles=given.roles)


def window_end(window: MaintenanceSettings, now: float) -> float | None:
    """When the window that lasts at `now` ends (Unix seconds), None when none does."""
    for begin, end in _occurrences(window, now):
        if begin <= now < end:
            return end
    return None


def _occurrences(window: MaintenanceSettings, now: float) -> Sequence[tuple[float, float]]:
    zone = ZoneInfo(window.time_zone)
    if not window.weekly:
        begin, end = (_moment(text, zone) for text in (window.start, window.end))
        return [(begin, end)]
    # The form was checked with the configuration: `sat 02:00-04:00`.
    day_name, _, times = window.weekly.casefold().partition(" ")
    weekday = _DAYS.index(day_name)
    first, last = (time.fromisoformat(text) for text in times.split("-"))
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    days = (today - timedelta(days=1), today)  # one of yesterday may last until today
    return [_occurrence(day, first, last, zone) for day in days if day.weekday() == weekday]


def _occurrence(day: date, first: time, last: time, zone: ZoneInfo) -> tuple[float, float]:
    """From one local time to the other, as the clock on the wall there goes: the night in which the clock is
    set back has more of it. One that the clock skips wholly lasts its length right after."""
    last_day = day if last > first else day + timedelta(days=1)
    begin = datetime.combine(day, first, zone).timestamp()
    end = datetime.combine(last_day, last, zone).timestamp()
    if end <= begin:
        end = begin + (datetime.combine(last_day, last) - datetime.combine(day, first)).total_seconds()
    return begin, end


def _moment(text: str, zone: ZoneInfo) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
