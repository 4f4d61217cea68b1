"""Maintenance windows as an iCalendar file (RFC 5545). Pure; times in Unix seconds.

Each time that a window lasts is an event of its own in UTC: so a calendar shows exactly the times that tsmon
goes by, also in the nights in which a clock is set.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

from tsmon.config import MaintenanceSettings
from tsmon.config.windows import occurrences

_DAY = 86400.0
_BACK, _AHEAD = 31 * _DAY, 366 * _DAY
"""How far windows are listed."""


def calendar(windows: Iterable[MaintenanceSettings], now: float, monitor: str) -> bytes:
    """The windows from a month ago until a year ahead."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//tsmon//maintenance//EN",
        "CALSCALE:GREGORIAN",
        f"NAME:{_text(f'Maintenance ({monitor})')}",
    ]
    first = now - _BACK
    for window in windows:
        for start, end in occurrences(window, first, now + _AHEAD):
            if end > first and start < now + _AHEAD:
                lines += _event(window, start, end)
    lines.append("END:VCALENDAR")
    return "".join(_folded(line) for line in lines).encode()


def _event(window: MaintenanceSettings, start: float, end: float) -> Sequence[str]:
    given = {
        "host": window.hosts,
        "tag": window.tags,
        "os": window.os,
        "user": window.users,
        "role": window.roles,
    }
    of = "; ".join(f"{kind} {', '.join(globs)}" for kind, globs in given.items() if globs) or "everything"
    key = blake2b(repr((window, start)).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return (
        "BEGIN:VEVENT",
        f"UID:{key}@tsmon",
        f"DTSTAMP:{_utc(start)}",
        f"DTSTART:{_utc(start)}",
        f"DTEND:{_utc(end)}",
        f"SUMMARY:{_text(f'Maintenance: {of}')}",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
    )


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y%m%dT%H%M%SZ")


def _text(text: str) -> str:
    """A TEXT value: what has a meaning there is escaped."""
    return "".join("\\" + c if c in "\\;," else c for c in text if c.isprintable())


def _folded(line: str) -> str:
    """A content line of at most 75 bytes of UTF-8 in a row; those that follow begin with a blank."""
    parts, part, size = [], "", 0
    for char in line:
        width = len(char.encode("utf-8", "replace"))
        if size + width > 75:
            parts.append(part)
            part, size = " ", 1
        part += char
        size += width
    return "".join(text + "\r\n" for text in (*parts, part))
