"""Priorities for the system's journal: a line on its stream may begin with `<4>`, which it takes away."""

import os
import sys
from collections.abc import Mapping

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of syslog (RFC 5424), by the names of Python's levels."""


def is_journal(descriptor: int, environ: Mapping[str, str] | None = None) -> bool:
    """The file is the stream to the journal that the service manager made, as systemd.exec(5) says."""
    named = (environ if environ is not None else os.environ).get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def with_priority(text: str, level: str) -> str:
    """`text` with the priority of `level` before each line; unknown levels count as info."""
    mark = f"<{_PRIORITIES.get(level, 6)}>"
    return "\n".join(mark + line for line in text.split("\n"))


def for_stderr(text: str, level: str) -> str:
    """The same where standard error is the journal, elsewhere `text` as it is."""
    try:
        return with_priority(text, level) if is_journal(sys.stderr.fileno()) else text
    except (OSError, ValueError):  # a stream without a descriptor
        return text
