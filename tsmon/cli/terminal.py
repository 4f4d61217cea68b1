"""What all commands share: words for people, colours, errors. Nothing from outside can move the cursor or
colour the terminal: it passes through `plain`, and no text is ever read as markup."""

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsmon.base.journal import for_stderr
from tsmon.base.text import clean_text

if TYPE_CHECKING:
    from rich.console import Console

SEVERITY_STYLES = {"critical": "bold red", "warning": "yellow", "ok": "green"}


_RFC3339 = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class CliError(click.ClickException):
    """The command cannot go on: one line that names the thing and the remedy."""

    def show(self, file: Any = None) -> None:
        click.echo(for_stderr(f"tsmon: {self.format_message()}", "error"), err=True)


def plain(value: object, limit: int = 300) -> str:
    """`value` as text that is only printed, whatever it holds."""
    return clean_text(str(value), limit)


def console() -> "Console":
    """Standard output. A pipe or a file has no width: nothing is cut there."""
    from rich.console import Console  # noqa: PLC0415 (start-up time)

    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(markup=False, emoji=False, highlight=False, width=1000 if wide else None)


def os_words(error: OSError) -> str:
    """The system's words for an error, without those that asyncio puts around them."""
    words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return plain(words[:1].lower() + words[1:], 120)


def when(text: object) -> float | None:
    """Unix seconds of a time in an answer, None when it has none."""
    from tsmon.base.clock import parse_rfc3339  # noqa: PLC0415 (start-up time)

    try:
        return parse_rfc3339(text) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def local_words(text: object, now: float, limit: int = 300) -> str:
    """A text of tsmon's as text that is only printed, the times in it in the reader's own time zone."""
    return _RFC3339.sub(lambda found: local_time(when(found[0]), now), plain(text, limit))


def local_time(wall: float | None, now: float) -> str:
    """A moment in the reader's own time zone; today's without the date."""
    if wall is None:
        return "?"
    moment = datetime.fromtimestamp(wall).astimezone()
    same_day = datetime.fromtimestamp(now).astimezone().date() == moment.date()
    return moment.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")


def read_moment(text: str, now: float) -> float:
    """Unix seconds of a time (`2026-11-23 14:00`, in the reader's time zone when it names none) or of a
    length back from now (`2h`). Raises CliError."""
    from tsmon.config import ConfigError, duration  # noqa: PLC0415 (start-up time)

    if re.fullmatch(r"[0-9.]+[a-z].*", text):
        try:
            return now - duration(text, "time")
        except ConfigError as error:
            raise CliError(str(error)) from None
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise CliError(
            f"{plain(text, 40)!r} is no time: give 2h, 7d, 2026-11-23T14:00 or 2026-11-23T14:00:00Z"
        ) from None


def utc_text(wall: float) -> str:
    """`wall` as the API takes times."""
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def secret_variable(name: str) -> str:
    """Text of a variable, or of the file that its `…_FILE` form names. Raises CliError."""
    path = os.environ.get(name + "_FILE")
    if not path:
        return os.environ.get(name, "")
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CliError(f"{name}_FILE: the file {path} cannot be read: {reason}") from None
