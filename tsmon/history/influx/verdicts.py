"""What the answer to a write means (the table of docs/influxdb.md); pure."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from tsmon.base.retry import seconds_to_wait
from tsmon.base.text import clean_text

MOST_PATIENCE = 600.0
"""Seconds that a server may ask to wait."""
_UNPARSABLE = "unable to parse '"
_PARTIAL = "partial write:"
"""So InfluxDB 1.x says with 400 what 2.x says with 422."""
_STORED = (201, 204)

_REMEDIES = {
    401: "give a valid influx.token",
    403: "influx.token must be allowed to write this bucket",
    404: "check influx.org, influx.bucket and influx.url",
}


class Action(Enum):
    """What becomes of the lines that were sent."""

    DONE = auto()
    """They are stored."""
    PARTLY = auto()
    """Stored but for those that conflict with a type or lie outside the retention; not to be sent again."""
    CUT = auto()
    """The named lines are bad, or some are that are not named, or there are too many: send fewer."""
    RETRY = auto()
    """The same bytes again, soon."""
    FIX = auto()
    """The same bytes again, seldom: somebody has to change a setting first."""


class WriteVerdict(NamedTuple):
    """The meaning of one answer."""

    action: Action
    words: str = ""
    """One clean line for people."""
    wait: float = 0.0
    """Seconds that the server asks to wait, 0 when it asks for none."""
    token: bool = False
    """The token was refused: it may have been rotated."""
    unsure: bool = False
    """The server failed in a way that may come from what was sent: fewer lines may be taken."""


def judge(status: int, reason: str, message: str | None, retry_after: str | None, now: float) -> WriteVerdict:
    """The verdict on a status code; `message` is that of InfluxDB's JSON, None when the body is none of
    InfluxDB's; `now` in Unix seconds."""
    if status in _STORED:
        return WriteVerdict(Action.DONE)
    words = clean_text(f"answered {status} {reason}" + (f": {message[:400]}" if message else ""), 240)
    if status == 400 and (message or "").startswith(_UNPARSABLE):
        return WriteVerdict(Action.CUT, words)
    if status == 413:
        return WriteVerdict(Action.CUT, words)
    if status == 422 or (status == 400 and (message or "").startswith(_PARTIAL)):
        return WriteVerdict(Action.PARTLY, words)
    if status == 429 or status >= 500:
        wait = seconds_to_wait(retry_after, now, MOST_PATIENCE)
        return WriteVerdict(Action.RETRY, words, wait=wait, unsure=status == 500)
    remedy = _REMEDIES.get(status, "")
    if status < 400 or (status == 404 and message is None):
        remedy = "that is not InfluxDB's answer: check influx.url, and any proxy before it"
    return WriteVerdict(Action.FIX, f"{words} ({remedy})" if remedy else words, token=status in (401, 403))


def bad_lines(message: str, lines: Sequence[str]) -> dict[str, str]:
    """The lines of a request that a parse error names, each with its reason.

    The message holds `unable to parse 'LINE': REASON` once per bad line (InfluxDB 2.9 names all of them), and
    both LINE and REASON may hold quotes: a LINE counts only when it was sent.
    """
    sent = set(lines)
    longest = max(map(len, lines), default=0)
    found: dict[str, str] = {}
    for piece in message.split(_UNPARSABLE)[1:]:
        at = piece.find("': ")
        while 0 <= at <= longest:
            if piece[:at] in sent:
                found[piece[:at]] = clean_text(piece[at + 3 :], 200)
                break
            at = piece.find("': ", at + 1)
    return found
