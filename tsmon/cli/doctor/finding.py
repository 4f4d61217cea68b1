"""What the doctor finds."""

from typing import Literal, NamedTuple

TIMEOUT = 10.0
"""Seconds that one look may take."""


class Finding(NamedTuple):
    """One thing looked at: how it is, in one line, and what to do about it."""

    what: str
    level: Literal["ok", "warning", "failed", "skipped"]
    says: str
    remedy: str = ""
