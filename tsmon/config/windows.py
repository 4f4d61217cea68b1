"""When a maintenance window lasts, by the clock on the wall of its time zone. Pure; Unix seconds."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tsmon.config.model import MaintenanceSettings

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def window_end(window: MaintenanceSettings, now: float) -> float | None:
    """When the window that lasts at `now` ends, None when none does."""
    return next((end for begin, end in occurrences(window, now, now) if begin <= now < end), None)


def occurrences(window: MaintenanceSettings, start: float, end: float) -> list[tuple[float, float]]:
    """Begin and end of each time that the window lasts and that may touch the stretch from `start` to `end`,
    in order; some lie up to two days outside."""
    zone = ZoneInfo(window.time_zone)
    if not window.weekly:
        begin, until = (_moment(text, zone) for text in (window.start, window.end))
        return [(begin, until)]
    # The form was checked with the configuration: `sat 02:00-04:00`.
    day_name, _, times = window.weekly.casefold().partition(" ")
    weekday = _DAYS.index(day_name)
    first, last = (time.fromisoformat(text) for text in times.split("-"))
    # One of the day before may last into the stretch.
    day = _local_day(start, zone) - timedelta(days=1)
    day += timedelta(days=(weekday - day.weekday()) % 7)
    found = []
    while day <= _local_day(end, zone):
        found.append(_occurrence(day, first, last, zone))
        day += timedelta(days=7)
    return found


def _local_day(moment: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).date()


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
