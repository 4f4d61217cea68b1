"""Settings: TOML file, environment, flags and `_FILE` secrets; validated and frozen.

A flag beats the environment, the environment the file, the file the default. Durations are seconds here and
written `15s`, `2m`, `1h`, `14d`, `500ms` outside.
"""

import difflib
import ipaddress
import os
import re
import socket
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog

log = structlog.get_logger(__name__)

DEFAULT_FILE = Path("/etc/tsmon/tsmon.toml")
MIB = 1024 * 1024
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": MIB, "gib": 1024**3}
_FOREIGN = ("TSMON_SIDECAR_", "TSMON_TEST_", "TSMON_E2E_")
_CLIENT = ("TSMON_URL", "TSMON_TOKEN", "TSMON_CONFIG", "TSMON_NOTIFY_URL", "TSMON_NOTIFY_URL_FILE")


class ConfigError(Exception):
    """A setting is wrong; the text is one line that names it and the remedy."""


class Secret(str):
    """A text that never shows itself: in logs and messages it is `***`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        return str.__str__(self)


def redact_url(url: str) -> str:
    """Scheme and host of `url`, never its path, user or password."""
    text = url.reveal() if isinstance(url, Secret) else url
    parts = urlsplit(text)
    if parts.scheme == "unix":
        return text
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class _Kind(NamedTuple):
    """How a text becomes the value of a field, and what is allowed."""

    name: str
    least: float = 0.0
    most: float = float("inf")


Duration = Annotated[float, _Kind("duration")]
Interval = Annotated[float, _Kind("duration", least=1.0)]
Limit = Annotated[float | None, _Kind("duration")]
Steps = Annotated[tuple[float, ...], _Kind("durations")]
Size = Annotated[int, _Kind("size", least=1024)]


class RoleRule(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[roles]]` table; all conditions given must match."""

    name: str
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    node_type: Literal["production", "development", "git", "other"] = "other"
    key: str = ""
    critical: bool = False
    alert: Literal["none", "warning", "critical"] = "warning"
    offline_after: Limit = None
    ping: bool | None = None
    key_expiry_steps: Annotated[tuple[float, ...] | None, _Kind("durations")] = None


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[notify]]` table."""

    name: str
    url: Secret
    min_severity: Literal["warning", "critical"] = "warning"
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    remind_every: Limit = None
    hmac_secret: Secret | None = None


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[maintenance]]` table: `start` and `end` (RFC 3339), or `weekly` (`"sat 02:00-04:00"`)."""

    start: str = ""
    end: str = ""
    weekly: str = ""
    time_zone: str = "UTC"
    hosts: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class Flapping(msgspec.Struct, frozen=True, kw_only=True):
    changes: Annotated[int, _Kind("count", least=2, most=1000)] = 6
    window: Interval = 1800.0
    settle: Interval = 600.0


class PathDegraded(msgspec.Struct, frozen=True, kw_only=True):
    latency: Limit = None
    relay: bool = False


class History(msgspec.Struct, frozen=True, kw_only=True):
    uptime_source: Literal["auto", "embedded", "influxdb"] = "auto"


class InfluxSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""
    token: Secret | None = None
    org: str = ""
    bucket: str = "analytics"
    tags: dict[str, str] = {}
    outbox_age: Interval = 7 * 86400.0
    outbox_bytes: Size = 256 * MIB


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    url: Secret | None = None
    interval: Interval = 60.0


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["", "none", "token", "tailnet"] = ""
    """"" means `none`, which only a loopback `listen` allows unsaid."""
    token: Secret | None = None
    users: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    trusted_networks: tuple[str, ...] = ()


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    per_node: bool = True


class Log(msgspec.Struct, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings; durations in seconds, sizes in bytes. docs/configuration.md says what each is for."""

    source: Secret = Secret("auto")
    source_timeout: Interval = 10.0
    source_max_bytes: Size = 128 * MIB
    ping_timeout: Interval = 5.0
    listen: str = "127.0.0.1:8000"
    state_dir: str = ""
    """"" means the service manager's, /var/lib/tsmon when writable, else the XDG state directory."""
    poll_interval: Interval = 15.0
    ping_interval: Interval = 60.0
    collect_interval: Interval = 300.0
    check_interval: Interval = 120.0
    report_interval: Interval = 3600.0
    offline_after: Duration = 120.0
    blind_after: Interval = 120.0
    reconnect_grace: Duration = 30.0
    flapping: Flapping = Flapping()
    key_expiry_steps: Steps = (14 * 86400.0, 3 * 86400.0, 86400.0)
    path_degraded: PathDegraded = PathDegraded()
    project_name: str = "chocolate-factory"
    default_roles: bool = True
    roles: tuple[RoleRule, ...] = ()
    exclude: tuple[Literal["sharee", "funnel", "mullvad"], ...] = ("sharee", "funnel", "mullvad")
    retention: Annotated[float, _Kind("duration", least=86400.0)] = 400 * 86400.0
    latency_retention: Annotated[float, _Kind("duration", least=86400.0)] = 90 * 86400.0
    history: History = History()
    influx: InfluxSettings = InfluxSettings()
    notify: tuple[Channel, ...] = ()
    group_wait: Duration = 10.0
    remind_every: Interval = 86400.0
    maintenance: tuple[Maintenance, ...] = ()
    heartbeat: Heartbeat = Heartbeat()
    auth: Auth = Auth()
    allowed_hosts: tuple[str, ...] = ()
    public_url: str = ""
    monitor: str = ""
    """"" means the host's name."""
    metrics: Metrics = Metrics()
    log: Log = Log()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`; port 0 picks a free one."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def monitor_name(self) -> str:
        return self.monitor or socket.gethostname()

    @property
    def path_prefix(self) -> str:
        """Path of `public_url`, "" when there is none: a reverse proxy may hand it through."""
        return urlsplit(self.public_url).path.rstrip("/")


FLAGS = (
    "source",
    "listen",
    "state_dir",
    "poll_interval",
    "ping_interval",
    "collect_interval",
    "check_interval",
    "report_interval",
    "log.level",
    "log.format",
)
"""Settings that have a flag of their own on the command line."""


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """The settings of file, environment and flags. `path` None takes `TSMON_CONFIG`, else the default file if
    it is there. Raises ConfigError."""
    data = _read_file(path, environ)
    sources: dict[str, str] = {}
    values = _take_table(data, Settings, "")
    for key, value in _environment(environ).items():
        _put(values, key, value, f"TSMON_{key.upper().replace('.', '_')}", sources)
    if environ.get("TSMON_NOTIFY_URL") or environ.get("TSMON_NOTIFY_URL_FILE"):
        url = _secret_of(environ, "TSMON_NOTIFY_URL")
        values["notify"] = [*values.get("notify", []), {"name": "default", "url": url}]
    for key, text in flags.items():
        if text is not None:
            _put(values, key, text, "--" + key.replace("_", "-").replace(".", "-"), sources)
    settings: Settings = _build(Settings, values, "", sources)
    _check(settings)
    return settings


def _read_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    if path is None and environ.get("TSMON_CONFIG"):
        path = Path(environ["TSMON_CONFIG"])
    if path is None:
        if not DEFAULT_FILE.exists():
            return {}
        path = DEFAULT_FILE
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file (tsmon config init makes one)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _fields(struct: type) -> dict[str, Any]:
    hints = typing.get_type_hints(struct, include_extras=True)
    return {name: hints[name] for name in struct.__struct_fields__}  # type: ignore[attr-defined]


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _is_secret(hint: Any) -> bool:
    return hint is Secret or Secret in get_args(hint)


def _struct_of(hint: Any) -> Any:
    """The struct that an array of tables holds, else None."""
    inner = next(iter(get_args(hint)), None) if get_origin(hint) is tuple else None
    return inner if _is_struct(inner) else None


def _take_table(table: Mapping[str, Any], struct: type, path: str) -> dict[str, Any]:
    """The table with only known keys, `…_file` secrets read. Raises ConfigError naming the nearest key."""
    fields = _fields(struct)
    taken: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}{key}"
        secret = key.removesuffix("_file")
        if key.endswith("_file") and secret in fields and _is_secret(fields[secret]):
            taken[secret] = _read_secret(str(value), where)
        elif key not in fields:
            raise ConfigError(f"{where}: there is no such setting{_nearest(key, fields)}")
        elif _is_struct(fields[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: takes a table, as [{where}]")
            taken[key] = _take_table(value, fields[key], f"{where}.")
        elif (inner := _struct_of(fields[key])) is not None:
            if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
                raise ConfigError(f"{where}: takes tables, as [[{where}]]")
            taken[key] = [_take_table(row, inner, f"{where}[{n}].") for n, row in enumerate(value)]
        else:
            taken[key] = value
    return taken


def _nearest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), 1, 0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _read_secret(path: str, where: str) -> Secret:
    try:
        return Secret(Path(path).read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(f"{where}: the file {path} cannot be read: {reason}") from None


def _secret_of(environ: Mapping[str, str], name: str) -> Secret:
    if environ.get(name + "_FILE"):
        return _read_secret(environ[name + "_FILE"], name + "_FILE")
    return Secret(environ[name])


def setting_keys(struct: type = Settings, path: str = "") -> dict[str, Any]:
    """Every key (nested ones with dots) with its type, arrays of tables as one key."""
    keys: dict[str, Any] = {}
    for name, hint in _fields(struct).items():
        if _is_struct(hint):
            keys |= setting_keys(hint, f"{path}{name}.")
        else:
            keys[path + name] = hint
    return keys


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Key -> text of every `TSMON_…` name that is a setting; unknown names are warned about."""
    names = {f"TSMON_{key.upper().replace('.', '_')}": key for key in setting_keys()}
    found: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith("TSMON_") or name.startswith(_FOREIGN) or name in _CLIENT:
            continue
        plain = name.removesuffix("_FILE")
        if name in names:
            found[names[name]] = text
        elif name.endswith("_FILE") and plain in names and _is_secret(setting_keys()[names[plain]]):
            found[names[plain]] = _read_secret(text, name)
        else:
            log.warning("unknown_environment", name=name, hint=_nearest(name, names).lstrip("; "))
    return found


def _put(values: dict[str, Any], key: str, value: Any, said_by: str, sources: dict[str, str]) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value
    sources[key] = said_by


def _build(struct: type, values: Mapping[str, Any], path: str, sources: Mapping[str, str]) -> Any:
    built: dict[str, Any] = {}
    for name, hint in _fields(struct).items():
        if name not in values:
            continue
        key = f"{path}{name}"
        said_by = sources.get(key, key)
        if _is_struct(hint):
            built[name] = _build(hint, values[name], f"{key}.", sources)
        elif (inner := _struct_of(hint)) is not None:
            rows = values[name]
            if not isinstance(rows, list):
                raise ConfigError(f"{said_by}: is set in the file, as [[{key}]]")
            built[name] = tuple(_build(inner, row, f"{key}[{n}].", {}) for n, row in enumerate(rows))
        else:
            built[name] = _convert(values[name], hint, said_by)
    try:
        return struct(**built)
    except TypeError:
        missing = [f.name for f in msgspec.structs.fields(struct) if f.required and f.name not in built]
        raise ConfigError(f"{path}{missing[0]}: is missing") from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    kind = None
    if get_origin(hint) is Annotated:
        hint, kind = get_args(hint)
    if kind is not None:
        return _convert_kind(value, kind, where)
    if get_origin(hint) is types.UnionType:
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if hint is bool:
        return _boolean(value, where)
    if hint is Secret:
        return Secret(_text(value, where)) if not isinstance(value, Secret) else value
    if hint is str:
        return _text(value, where)
    if get_origin(hint) is Literal:
        return _one_of(value, get_args(hint), where)
    if get_origin(hint) is dict:
        return _pairs(value, where)
    inner = get_args(hint)[0]
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: takes a list of texts")
    return tuple(_convert(item, inner, where) for item in value)


def _convert_kind(value: Any, kind: _Kind, where: str) -> Any:
    if kind.name == "durations":
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f'{where}: takes a list of durations, as ["14d", "3d"]')
        steps = (duration(item.strip() if isinstance(item, str) else item, where) for item in items if item)
        return tuple(sorted(steps, reverse=True))
    if kind.name == "duration":
        found = duration(value, where)
        if found < kind.least:
            raise ConfigError(f"{where}: must be at least {kind.least:g}s")
        return found
    if kind.name == "size":
        return _size(value, kind, where)
    number = value
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or not kind.least <= number <= kind.most:
        raise ConfigError(f"{where}: takes a whole number from {kind.least:g} to {kind.most:g}")
    return number


def duration(value: Any, where: str) -> float:
    """Seconds of `15s`, `2m`, `1h30m`, `14d`. Raises ConfigError naming `where`."""
    text = value if isinstance(value, str) else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f'{where}: takes a duration in quotes, as "15s", "2m", "1h" or "14d"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > 100 * 366 * 86400:
        raise ConfigError(f"{where}: is longer than a hundred years")
    return seconds


def _size(value: Any, kind: _Kind, where: str) -> int:
    text = str(value).strip().lower() if not isinstance(value, bool) else ""
    match = re.fullmatch(r"(\d{1,15})\s*([kmg]?i?b?)", text)
    if match is None or match[2] not in _SIZES:
        raise ConfigError(f'{where}: takes a number of bytes, as 1000000, "256 MB" or "128 MiB"')
    size = int(match[1]) * _SIZES[match[2]]
    if size < kind.least:
        raise ConfigError(f"{where}: must be at least {kind.least:g} bytes")
    return size


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
    if "\0" in value or "\n" in value:
        raise ConfigError(f"{where}: must be one line")
    return value


def _one_of(value: Any, words: tuple[str, ...], where: str) -> str:
    if isinstance(value, str) and value in words:
        return value
    raise ConfigError(f"{where}: takes one of {', '.join(word for word in words if word)}")


def _pairs(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, str):
        value = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ConfigError(f'{where}: takes pairs of texts, as {{site = "home"}}')
    return value


def _check(settings: Settings) -> None:
    """What no single value shows: whether they fit together."""
    _check_source(settings.source.reveal())
    _check_listen(settings)
    for name in ("public_url",):
        url = getattr(settings, name)
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(f"{name}: takes a URL that begins with https:// or http://")
    if settings.influx.url:
        if urlsplit(settings.influx.url).scheme not in ("http", "https"):
            raise ConfigError("influx.url: takes a URL that begins with https:// or http://")
        if not settings.influx.org:
            raise ConfigError("influx.org: is needed with influx.url (the organisation that owns the bucket)")
    for network in settings.auth.trusted_networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ConfigError(
                f"auth.trusted_networks: {network!r} is no network (as 172.16.0.0/12 or 127.0.0.1)"
            ) from None
    _check_names("roles", [rule.name for rule in settings.roles])
    _check_names("notify", [channel.name for channel in settings.notify])
    for n, window in enumerate(settings.maintenance):
        _check_window(window, f"maintenance[{n}]")


def _check_names(kind: str, names: Sequence[str]) -> None:
    for n, name in enumerate(names):
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise ConfigError(f"{kind}[{n}].name: takes letters, digits, '.', '_' and '-'")
        if name in names[:n]:
            raise ConfigError(f"{kind}[{n}].name: {name!r} is taken by another one")


def _check_source(source: str) -> None:
    parts = urlsplit(source)
    if source == "auto" or (parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc):
        return
    try:
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(
            "source: takes auto, http://HOST:PORT (sidecar) or unix:///PATH (tailscaled's socket)"
        )


def is_loopback(host: str) -> bool:
    """`host` is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_listen(settings: Settings) -> None:
    host, _, port = settings.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError("listen: takes HOST:PORT, as 127.0.0.1:8000 or [::1]:8000")
    mode = settings.auth.mode
    if not mode and not is_loopback(host.strip("[]")):
        raise ConfigError(
            f"listen: {host} is not loopback: say who may read with auth.mode (token, tailnet or none)"
        )
    if mode == "token" and not settings.auth.token:
        raise ConfigError("auth.token: is needed with auth.mode token (better: auth.token_file)")
    if mode == "token" and settings.auth.token and len(settings.auth.token.reveal()) < 16:
        raise ConfigError("auth.token: is shorter than 16 characters")
    if mode == "tailnet" and not (settings.auth.users or settings.auth.tags):
        raise ConfigError(
            'auth.users: is needed with auth.mode tailnet (who may read, as ["alice@example.com"])'
        )


def _check_window(window: Maintenance, where: str) -> None:
    try:
        ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"{where}.time_zone: {window.time_zone!r} is no time zone (as Europe/Berlin)"
        ) from None
    if bool(window.weekly) == bool(window.start or window.end):
        raise ConfigError(f"{where}: takes either start and end, or weekly")
    if window.weekly:
        if not re.fullmatch(r"(mon|tue|wed|thu|fri|sat|sun) \d\d:\d\d-\d\d:\d\d", window.weekly):
            raise ConfigError(f'{where}.weekly: takes a day and two times, as "sat 02:00-04:00"')
        times = re.findall(r"(\d\d):(\d\d)", window.weekly)
        if any(int(hour) > 23 or int(minute) > 59 for hour, minute in times):
            raise ConfigError(f"{where}.weekly: has a time of day beyond 23:59")
        return
    try:
        begin, end = datetime.fromisoformat(window.start), datetime.fromisoformat(window.end)
    except ValueError:
        raise ConfigError(f"{where}: start and end take times, as 2026-12-24T20:00:00+01:00") from None
    if (begin.tzinfo is None) != (end.tzinfo is None) or end <= begin:
        raise ConfigError(f"{where}: end must come after start")


def state_dir(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where database and admin socket live: the setting, the service manager's directory,
    /var/lib/tsmon when writable, else the XDG state directory."""
    if settings.state_dir:
        return Path(settings.state_dir)
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    system = Path("/var/lib/tsmon")
    if os.access(system, os.W_OK | os.X_OK):
        return system
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(base) / "tsmon"
