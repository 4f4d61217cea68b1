"""Settings out of TOML file, environment and flags: a flag beats the environment, the environment the file,
the file the default."""

import difflib
import os
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from tsmon.config.checks import check
from tsmon.config.model import Settings
from tsmon.config.values import ConfigError, Secret, convert

DEFAULT_FILE = Path("/etc/tsmon/tsmon.toml")
_FOREIGN = ("TSMON_SIDECAR_", "TSMON_TEST_", "TSMON_E2E_")
_OTHERS = ("TSMON_URL", "TSMON_TOKEN", "TSMON_TOKEN_FILE", "TSMON_CONFIG")  # read by the command line
_CHANNEL = "TSMON_NOTIFY_URL"
_LARGEST_FILE = 1_000_000
_LARGEST_SECRET = 10_000
"""Bytes."""


class LoadedSettings(NamedTuple):
    """Settings and where they came from."""

    settings: Settings
    file: Path | None
    origins: dict[str, str]
    """Of each key that is not left at its default: the file, the variable or the flag that said it."""
    warnings: tuple[str, ...]
    """One line for each `TSMON_…` variable that is no setting (a cluster may put such there)."""


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """The settings of file, environment and flags (key -> text). `path` None takes `TSMON_CONFIG`, else the
    default file if it is there. Raises ConfigError."""
    return load_all(find_file(path, environ), environ, flags).settings


def load_all(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str | None]
) -> LoadedSettings:
    """As `load`, of this very file (None: of none), and with the origins. Raises ConfigError."""
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    if file is not None:
        values = _take_table(_read_toml(file), Settings, "", f"{file}: ")
        origins = {key: str(file) for key in setting_keys() if _has(values, key)}
    said = {key: f"{file}: {key}" for key in origins}
    found, warnings = _environment(environ)
    for key, (name, value) in found.items():
        _put(values, key, value)
        said[key] = origins[key] = name
    channel = _variable(environ, _CHANNEL, secret=True)
    if channel is not None:
        values["notify"] = [*values.get("notify", []), {"name": "default", "url": channel}]
        origins["notify"] = f"{origins['notify']}, {_CHANNEL}" if "notify" in origins else _CHANNEL
    for key, text in flags.items():
        if text is not None:
            _put(values, key, text)
            said[key] = origins[key] = flag_name(key)
    settings: Settings = _build(Settings, values, "", said)
    check(settings)
    return LoadedSettings(settings, file, origins, warnings)


def flag_name(key: str) -> str:
    return "--" + key.replace("_", "-").replace(".", "-")


def variable_name(key: str) -> str:
    return "TSMON_" + key.upper().replace(".", "_")


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that is read: `path`, else `TSMON_CONFIG`, else the default one if it is there."""
    if path is None and environ.get("TSMON_CONFIG"):
        path = Path(environ["TSMON_CONFIG"])
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    return path


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as source:
            content = source.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ConfigError(f"{file}: is larger than {_LARGEST_FILE} bytes: it is no configuration")
        return tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file (tsmon config init makes one)") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply") from None
    except ValueError:  # Python's own limit
        raise ConfigError(f"{file}: holds a number of thousands of digits") from None


def fields_of(struct: type) -> dict[str, Any]:
    """Name -> annotated type of a settings record's fields."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return {name: hints[name] for name in struct.__struct_fields__}  # type: ignore[attr-defined]


def is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def is_secret(hint: Any) -> bool:
    return hint is Secret or Secret in get_args(hint)


def table_of(hint: Any) -> Any:
    """The record that an array of tables holds, else None."""
    inner = next(iter(get_args(hint)), None) if get_origin(hint) is tuple else None
    return inner if is_table(inner) else None


def setting_keys(struct: type = Settings, path: str = "") -> dict[str, Any]:
    """Every key (nested ones with dots) with its type, an array of tables as one key."""
    keys: dict[str, Any] = {}
    for name, hint in fields_of(struct).items():
        if is_table(hint):
            keys |= setting_keys(hint, f"{path}{name}.")
        else:
            keys[path + name] = hint
    return keys


def _take_table(table: Mapping[str, Any], struct: type, path: str, file: str) -> dict[str, Any]:
    """The table with only known keys, `…_file` secrets read. Raises ConfigError naming the nearest key."""
    fields = fields_of(struct)
    taken: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{file}{path}{key}"
        secret = key.removesuffix("_file")
        if key.endswith("_file") and secret in fields and is_secret(fields[secret]):
            if secret in table:
                raise ConfigError(f"{where}: is given beside {path}{secret}: keep one of them")
            taken[secret] = _read_secret(convert(value, str, where), where)
        elif key not in fields:
            raise ConfigError(f"{where}: there is no such setting{_nearest(key, fields)}")
        elif is_table(fields[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: takes a table, as [{path}{key}]")
            taken[key] = _take_table(value, fields[key], f"{path}{key}.", file)
        elif (inner := table_of(fields[key])) is not None:
            if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
                raise ConfigError(f"{where}: takes tables, as [[{path}{key}]]")
            rows = enumerate(value)
            taken[key] = [_take_table(row, inner, f"{path}{key}[{n}].", file) for n, row in rows]
        else:
            taken[key] = value
    return taken


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _read_secret(path: str, where: str) -> Secret:
    try:
        with Path(path).open("rb") as source:
            content = source.read(_LARGEST_SECRET + 1)
        if len(content) > _LARGEST_SECRET:
            raise ConfigError(
                f"{where}: the file {path} is larger than {_LARGEST_SECRET} bytes: it is no secret"
            )
        text = content.decode("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{where}: the file {path} cannot be read: {reason}") from None
    if not text.isprintable():
        raise ConfigError(f"{where}: the file {path} must hold one line and nothing else")
    return Secret(text)


def _variable(environ: Mapping[str, str], name: str, *, secret: bool) -> Any:
    """Text of a variable, or the Secret of its `…_FILE` form; None when not set. An empty one counts as not
    set, as compose files write it."""
    text = environ.get(name) or None
    if secret and environ.get(name + "_FILE"):
        if text is not None:
            raise ConfigError(f"{name}_FILE: is set beside {name}: keep one of them")
        return _read_secret(environ[name + "_FILE"], name + "_FILE")
    return text


def _environment(environ: Mapping[str, str]) -> tuple[dict[str, tuple[str, Any]], tuple[str, ...]]:
    """Key -> (variable, value) of the settings in the environment, and the warnings of unknown names."""
    known = {variable_name(key): (key, is_secret(hint)) for key, hint in setting_keys().items()}
    found: dict[str, tuple[str, Any]] = {}
    for name, (key, secret) in known.items():
        value = _variable(environ, name, secret=secret)
        if value is not None:
            found[key] = (name if environ.get(name) else f"{name}_FILE", value)
    names = set(known) | {f"{name}_FILE" for name, (_, secret) in known.items() if secret}
    ours = {*names, *_OTHERS, _CHANNEL, f"{_CHANNEL}_FILE"}
    strangers = sorted(
        name
        for name in environ
        if name.startswith("TSMON_") and not name.startswith(_FOREIGN) and name not in ours
    )
    return found, tuple(
        f"{name}: there is no such setting{_nearest(name, sorted(ours))} (ignored)" for name in strangers
    )


def _has(values: Mapping[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    return head in values and (not rest or _has(values[head], rest))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _build(struct: type, values: Mapping[str, Any], path: str, said: Mapping[str, str]) -> Any:
    """The record of `values`; `said` names each key as its origin does."""
    built: dict[str, Any] = {}
    for name, hint in fields_of(struct).items():
        if name not in values:
            continue
        key = path + name
        where = said.get(key, key)
        if is_table(hint):
            built[name] = _build(hint, values[name], f"{key}.", said)
        elif (inner := table_of(hint)) is not None:
            if not isinstance(values[name], list):
                raise ConfigError(f"{where}: is set in the file, as [[{key}]]")
            rows = enumerate(values[name])
            built[name] = tuple(_build(inner, row, f"{where}[{n}].", {}) for n, row in rows)
        else:
            built[name] = convert(values[name], hint, where)
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in built:
            raise ConfigError(f"{path}{field.name}: is missing")
    return struct(**built)


_SYSTEM_STATE = Path("/var/lib/tsmon")
_SYSTEM_RUNTIME = Path("/run/tsmon")
SOCKET = "admin.sock"
"""The unix socket of the commands that change something."""


def state_dir(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where database and admin socket live: the setting, the service manager's directory, /var/lib/tsmon
    when writable, else the XDG state directory."""
    if settings.state_dir:
        return Path(settings.state_dir).expanduser()
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if os.access(_SYSTEM_STATE, os.W_OK | os.X_OK):
        return _SYSTEM_STATE
    return _user_state(environ)


def _user_state(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(base) / "tsmon"


def admin_sockets(state: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a daemon with this state directory takes commands: there, and in the service manager's runtime
    directory, since nobody but root gets into the state directory of a service with a user of its own."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (state / SOCKET, *((Path(runtime) / SOCKET,) if runtime else ()))


def admin_socket_places(settings: Settings, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a command looks for a running daemon's socket, the likeliest first."""
    own = state_dir(settings, environ)
    if settings.state_dir:
        return (own / SOCKET,)
    places = (own, _SYSTEM_RUNTIME, _SYSTEM_STATE, _user_state(environ))
    return tuple(dict.fromkeys(place / SOCKET for place in places))
