"""When a server says to try again. Pure."""

from email.utils import parsedate_to_datetime


def seconds_to_wait(retry_after: str | None, now: float, most: float) -> float:
    """Seconds of a Retry-After header (a number, or a date against `now`), 0 to `most`; 0 without one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), most)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
    return min(max(0.0, until - now), most)
