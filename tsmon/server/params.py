"""Query parameters: declared once, parsed and refused in one place."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from multidict import MultiMapping

from tsmon.base.clock import parse_rfc3339, rfc3339
from tsmon.config import ConfigError, duration
from tsmon.history.report import month_period


class BadParameterError(ValueError):
    """A query parameter that is unknown or has a bad value; the text names it and what it takes."""


class Takes(NamedTuple):
    """What a query parameter takes, and what it is for."""

    kind: str
    """`bool`, `int`, `text`, `time`, `duration`, `month`, `moment`, `zone`, `choice` or `names`."""
    doc: str
    least: int = 0
    most: int = 0
    choices: Sequence[str] = ()

    @property
    def words(self) -> str:
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


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The query parameters of a route: each field is one, annotated with what it `Takes`. Equal queries ask
    for the same."""


class NoQuery(Query, frozen=True):
    """A route without parameters."""


class AnyQuery(Query, frozen=True):
    """Any parameter is let through, unread: the dashboard keeps its own in its URL."""


class Param(NamedTuple):
    """One query parameter of a route."""

    name: str
    """As it stands in a URL."""
    field: str
    """As the query's struct calls it."""
    takes: Takes
    default: Any


Q = TypeVar("Q", bound=Query)


@cache
def params_of(kind: type[Query]) -> tuple[Param, ...]:
    """The parameters that a query has, in the order of its fields."""
    return tuple(
        Param(field.encode_name, field.name, field.type.__metadata__[0], field.default)
        for field in msgspec.structs.fields(kind)
    )


def parse_query(query: MultiMapping[str], kind: type[Q]) -> Q:
    """The query of a request, defaults filled in. Raises BadParameterError."""
    if kind is AnyQuery:
        return kind()
    known = {param.name: param for param in params_of(kind)}
    values = {}
    for name in query:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise BadParameterError(f"there is no query parameter {name[:64]!r} here; there are: {takes}")
        if len(query.getall(name)) > 1:
            raise BadParameterError(f"{name} is given more than once")
        values[known[name].field] = _read(query[name], known[name])
    return kind(**values)


def _read(text: str, param: Param) -> Any:
    try:
        return _READERS[param.takes.kind](text, param.takes)
    except (ValueError, OverflowError, ConfigError):
        raise BadParameterError(f"{param.name} takes {param.takes.words}") from None


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _bool(text: str, _: Takes) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _int(text: str, takes: Takes) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 18:
        raise ValueError(text)
    number = int(text)
    if not takes.least <= number <= takes.most:
        raise ValueError(text)
    return number


def _text(text: str, _: Takes) -> str:
    if len(text) > 253 or "\0" in text:
        raise ValueError(text)
    return text


def _time(text: str, _: Takes) -> float:
    time = parse_rfc3339(text)
    # In UTC it may lie beyond the years that have four digits, and is shown in the answer.
    rfc3339(time)
    return time


def _month(text: str, _: Takes) -> str:
    month_period(text, "UTC")
    return text


def _moment(text: str, _: Takes) -> str:
    """A day or a time; which moment a day is depends on its time zone."""
    if len(text) == len("2026-10-25"):
        if not 1970 <= date.fromisoformat(text).year <= 9998:
            raise ValueError(text)
    else:
        rfc3339(parse_rfc3339(text))
    return text


def _zone(text: str, _: Takes) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(text) from None
    return text


def _choice(text: str, takes: Takes) -> str:
    if text not in takes.choices:
        raise ValueError(text)
    return text


def _names(text: str, takes: Takes) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(takes.choices):
        raise ValueError(text)
    return names


_READERS: Mapping[str, Callable[[str, Takes], Any]] = {
    "bool": _bool,
    "int": _int,
    "text": _text,
    "time": _time,
    "duration": lambda text, _: duration(text, ""),
    "month": _month,
    "moment": _moment,
    "zone": _zone,
    "choice": _choice,
    "names": _names,
}
