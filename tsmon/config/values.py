"""Texts and TOML values -> typed values: durations, sizes, secrets, choices. Pure."""

import re
import types
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

MIB = 1024 * 1024
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": MIB, "gib": 1024**3}
_WEB = ("http", "https", "webhook+http", "webhook+https", "alertmanager+http", "alertmanager+https")
_CENTURY = 100 * 366 * 86400.0


BAD_CONFIGURATION = 78
"""Exit code of `tsmon run` with a configuration that is wrong (EX_CONFIG of sysexits.h): a service manager
need not try it again."""


class ConfigError(Exception):
    """A setting is wrong; the text is one line that names it and the remedy."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


class Secret:
    """A text that never shows itself: printed, logged or formatted it is `***`, and it is no `str` that an
    encoder would write out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def reveal(self) -> str:
        """The text itself: for the one place that uses it."""
        return self._text


def redact_url(url: str | Secret) -> str:
    """Scheme and host of a web address, a socket's path, and of any other URL the scheme alone: services
    that Apprise knows put their token where the host stands."""
    text = url.reveal() if isinstance(url, Secret) else url
    if text == "auto" or text.startswith("unix:///"):
        return text
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "***"
    if parts.scheme not in _WEB:
        return f"{parts.scheme}://***" if parts.scheme else "***"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class Kind(NamedTuple):
    """How a text becomes the value of a field, and what is allowed."""

    name: Literal["duration", "durations", "size", "count", "share", "moment"]
    least: float = 0.0
    most: float = float("inf")


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value`, from TOML or as text, as the type that `hint` says. Raises ConfigError naming `where`."""
    if get_origin(hint) is Annotated:
        _, kind = get_args(hint)
        return _CONVERTERS[kind.name](value, kind, where)
    if get_origin(hint) is types.UnionType:
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if hint is bool:
        return _boolean(value, where)
    if hint is Secret:
        return value if isinstance(value, Secret) else Secret(_text(value, where))
    if hint is str:
        return _text(value, where)
    if get_origin(hint) is Literal:
        return _one_of(value, get_args(hint), where)
    if get_origin(hint) is dict:
        return _pairs(value, where)
    items = _items(value)
    if items is None:
        raise ConfigError(f'{where}: takes a list of texts, as ["a", "b"]')
    return tuple(convert(item, get_args(hint)[0], where) for item in items)


def _items(value: Any) -> list[Any] | None:
    """The items of a list; a text (of an environment variable) holds them with commas, `[]` none."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()] if value != "[]" else []
    return value if isinstance(value, list) else None


def duration(value: Any, where: str) -> float:
    """Seconds of `500ms`, `15s`, `2m`, `1h30m`, `14d`, `2w`. Raises ConfigError naming `where`."""
    text = value if isinstance(value, str) else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f'{where}: takes a duration in quotes, as "15s", "2m", "1h" or "14d"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _CENTURY:
        raise ConfigError(f"{where}: is longer than a hundred years")
    return seconds


def duration_text(seconds: float) -> str:
    """The shortest text that `duration` reads as `seconds`: `90s`, `2m`, `14d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def _duration(value: Any, kind: Kind, where: str) -> float:
    seconds = duration(value, where)
    if seconds < kind.least:
        raise ConfigError(f"{where}: must be at least {duration_text(kind.least)}")
    return seconds


def _durations(value: Any, _: Kind, where: str) -> tuple[float, ...]:
    items = _items(value)
    if items is None:
        raise ConfigError(f'{where}: takes a list of durations, as ["14d", "3d"]')
    return tuple(sorted({duration(item, where) for item in items}, reverse=True))


def _size(value: Any, kind: Kind, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        value = str(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    match = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?i?b?)", text)
    if match is None or match[2] not in _SIZES:
        raise ConfigError(f'{where}: takes a number of bytes, as 1000000, "256 MB" or "128 MiB"')
    size = int(match[1]) * _SIZES[match[2]]
    if size < kind.least:
        raise ConfigError(f"{where}: must be at least {kind.least:g} bytes")
    return size


def _count(value: Any, kind: Kind, where: str) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not kind.least <= number <= kind.most:
        raise ConfigError(f"{where}: takes a whole number from {kind.least:g} to {kind.most:g}")
    return number


def _share(value: Any, _: Kind, where: str) -> float:
    """A percentage of which something is left to miss."""
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) or not 0 < float(text) < 100:
        raise ConfigError(f"{where}: takes a percentage between 0 and 100, as 99.9")
    return float(text)


def _moment(value: Any, _: Kind, where: str) -> str:
    """A time in quotes or as TOML's own; whether it is one is looked at with its time zone."""
    return value.isoformat() if isinstance(value, datetime) else _text(value, where)


_CONVERTERS: dict[str, Callable[[Any, Kind, str], Any]] = {
    "duration": _duration,
    "durations": _durations,
    "size": _size,
    "count": _count,
    "share": _share,
    "moment": _moment,
}


def _boolean(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ConfigError(f"{where}: takes true or false")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: takes a text in quotes")
    if not value.isprintable():
        raise ConfigError(f"{where}: must be one line without control characters")
    return value


def _one_of(value: Any, words: tuple[str, ...], where: str) -> str:
    if isinstance(value, str) and value in words:
        return value
    raise ConfigError(f"{where}: takes one of {', '.join(word for word in words if word)}")


def _pairs(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, str):
        parts = [part.partition("=") for part in _items(value) or ()]
        value = {key.strip(): text.strip() if sign else None for key, sign, text in parts}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ConfigError(f'{where}: takes pairs of texts, as {{ site = "home" }} (environment: site=home,…)')
    return {key: _text(text, f"{where}.{key}") for key, text in value.items()}
