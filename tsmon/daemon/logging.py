"""Logging: structlog, readable on a terminal, JSON elsewhere, with priorities in the system's journal.
Nothing in a line can move a cursor."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from tsmon.base.journal import for_stderr
from tsmon.base.text import clean_text
from tsmon.config import LogSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LONGEST = 2000


def _clean(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Control characters leave every text: the network chose some of them."""
    for key, value in line.items():
        if isinstance(value, str) and key != "exception":
            line[key] = clean_text(value, _LONGEST)
    return line


class _Prioritised:
    """A renderer whose lines carry their priority where the journal reads them."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    def __call__(self, logger: Any, name: str, line: MutableMapping[str, Any]) -> str:
        level = str(line.get("level", name))
        return for_stderr(str(self._renderer(logger, name, line)), level)


class _LibraryLines(logging.Formatter):
    """The same for lines of Python's own logging."""

    def format(self, record: logging.LogRecord) -> str:
        return for_stderr(super().format(record), record.levelname.lower())


def configure(settings: LogSettings) -> None:
    """Set up the program's log on stderr."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        # The plain formatter: others print local variables, and secrets with them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _no_change,
            _clean,
            _Prioritised(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries speak only when something is wrong.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # It tells of every malformed request with a traceback: anybody who connects could fill the log.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _no_change(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return line
