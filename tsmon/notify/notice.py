"""The content of a message as the outbox stores it: a notice and its entries. Pure; texts.py words it."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Phase = Literal["fell", "back", "still"]
"""fell: it is news that the condition holds. back: that it ended. still: said before, and it lasts."""
NoticeKind = Literal["alert", "update", "recovery", "reminder", "quiet_over", "channel", "report", "test"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One alert in a notice. The alert itself is looked up when the message is written: by then it may have
    ended."""

    alert: int
    phase: Phase
    how: str = ""
    """How the condition is confirmed (control plane, pings): filled in when the message is written."""
    was_back: float | None = None
    """It had ended and began again, and nobody was notified of that end: when it had (Unix seconds)."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to one channel."""

    key: str
    """Names the message over all tries: receivers drop a second one with the same key."""
    kind: NoticeKind
    made_at: float
    entries: tuple[Entry, ...] = ()
    cause: str = ""
    """What the fallen have in common: `tag:rack-a`; "" when nothing."""
    standing: int = 0
    """Recovery: how many of the same group are still down."""
    title: str = ""
    words: str = ""
    """Title and text of a notice that is not about alerts."""


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError for a row of the table `notifications` whose message cannot be read."""
    msgspec.json.decode(row["body"], type=Notice)
