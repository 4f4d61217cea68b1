"""Query parameters: declared once, parsed and refused in one place."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from multidict import MultiMapping

from tsmon.base.clock import parse_rfc3339, rfc3339
from tsmon.config import ConfigError, duration
from tsmon.history.report import month_period


class BadParameterError(ValueError):
    """A query parameter that is unknown or has a bad value; the text names it and what it takes."""


class Param(NamedTuple):
    """One query parameter: how it is read, and what it is for."""

    name: str
    kind: str
    """`bool`, `int`, `text`, `time`, `duration`, `month`, `moment`, `zone`, `choice` or `names`."""
    doc: str
    default: Any = None
    least: int = 0
    most: int = 0
    choices: Sequence[str] = ()

    @property
    def takes(self) -> str:
        """What it takes, for people."""
        return {
            "bool": "true or false",
            "int": f"a whole number from {self.least} to {self.most}",
            "text": "a text of at most 253 characters",
            "time": "a time as 2026-11-23T14:02:00Z",
            "month": "a month as 2026-10",
            "moment": "a day as 2026-10-25, or a time as 2026-11-23T14:02:00Z",
            "zone": "a time zone as Europe/Berlin",
            "duration": "a duration as 24h or 30d",
            "choice": "one of " + ", ".join(choice for choice in self.choices if choice),
            "names": "names parted by commas, of " + ", ".join(self.choices),
        }[self.kind]


def parse_query(query: MultiMapping[str], params: Sequence[Param]) -> dict[str, Any]:
    """The value of every parameter, defaults filled in. Raises BadParameterError."""
    known = {param.name: param for param in params}
    for name in query:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise BadParameterError(f"there is no query parameter {name[:64]!r} here; there are: {takes}")
        if len(query.getall(name)) > 1:
            raise BadParameterError(f"{name} is given more than once")
    return {
        name: _read(query[name], param) if name in query else param.default for name, param in known.items()
    }


def _read(text: str, param: Param) -> Any:
    try:
        return _READERS[param.kind](text, param)
    except (ValueError, OverflowError, ConfigError):
        raise BadParameterError(f"{param.name} takes {param.takes}") from None


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _bool(text: str, _: Param) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _int(text: str, param: Param) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 18:
        raise ValueError(text)
    number = int(text)
    if not param.least <= number <= param.most:
        raise ValueError(text)
    return number


def _text(text: str, _: Param) -> str:
    if len(text) > 253 or "\0" in text:
        raise ValueError(text)
    return text


def _time(text: str, _: Param) -> float:
    time = parse_rfc3339(text)
    # In UTC it may lie beyond the years that have four digits, and is shown in the answer.
    rfc3339(time)
    return time


def _month(text: str, _: Param) -> str:
    month_period(text, "UTC")
    return text


def _moment(text: str, _: Param) -> str:
    """A day or a time; which moment a day is depends on its time zone."""
    if len(text) == len("2026-10-25"):
        if not 1970 <= date.fromisoformat(text).year <= 9998:
            raise ValueError(text)
    else:
        rfc3339(parse_rfc3339(text))
    return text


def _zone(text: str, _: Param) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(text) from None
    return text


def _choice(text: str, param: Param) -> str:
    if text not in param.choices:
        raise ValueError(text)
    return text


def _names(text: str, param: Param) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(param.choices):
        raise ValueError(text)
    return names


_READERS: Mapping[str, Any] = {
    "bool": _bool,
    "int": _int,
    "text": _text,
    "time": _time,
    "duration": lambda text, param: duration(text, param.name),
    "month": _month,
    "moment": _moment,
    "zone": _zone,
    "choice": _choice,
    "names": _names,
}
