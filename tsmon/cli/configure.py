"""`tsmon config check`, `show` and `init`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
import msgspec

from tsmon.cli import template
from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, plain
from tsmon.config import LoadedSettings, Secret, Settings, duration_text, redact_url, setting_keys
from tsmon.source.status import Snapshot

_URLS = ("source", "url")


@click.group()
def config() -> None:
    """Check, show or begin a configuration."""


@config.command()
@settings_options()
def check(given: Given) -> None:
    """Say whether file, environment and flags are sound, without running anything."""
    loaded = given.load_or_fail()
    where = str(loaded.file) if loaded.file else "no file (environment and defaults)"
    settings = loaded.settings
    parts = [f"{len(loaded.origins)} settings"]
    for name in ("roles", "notify", "maintenance"):
        rows = getattr(settings, name)
        parts += [f"{len(rows)} [[{name}]]"] if rows else []
    click.echo(f"{plain(where)}: fine ({', '.join(parts)})")


@config.command()
@settings_options()
def show(given: Given) -> None:
    """Print the settings that hold, as TOML, and where each came from. Secrets are not shown."""
    click.echo("\n".join(show_lines(given.load_or_fail())))


@config.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("tsmon.toml"))
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@settings_options(("source",))
def init(given: Given, *, file: Path, force: bool) -> None:
    """Look at the tailnet and write a commented FILE to begin with (tsmon.toml; - is stdout), with roles
    suggested from tags and names."""
    settings = given.load_or_fail().settings
    if str(file) != "-" and not force and file.exists():
        raise CliError(f"{file}: is there already (--force overwrites it, - writes to the terminal)")
    snapshot, problem = asyncio.run(_look(settings))
    if problem:
        click.echo(f"tsmon: the tailnet could not be read: {plain(problem)}", err=True)
    text = template.render(settings.source.reveal(), snapshot)
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise CliError(f"{file}: cannot be written: {error.strerror}") from None
    seen = f", after a look at {len(snapshot.nodes)} machines" if snapshot else ""
    click.echo(f"{file}: written{seen}. Edit it, then: tsmon config check --config {file}")


async def _look(settings: Settings) -> tuple[Snapshot | None, str]:
    """The tailnet as it is, or why it cannot be read."""
    from tsmon.source import make_source  # noqa: PLC0415 (start-up time)
    from tsmon.source.errors import SourceError  # noqa: PLC0415 (start-up time)
    from tsmon.source.status import BadDocument, Decoder  # noqa: PLC0415 (start-up time)

    source = make_source(settings)
    try:
        return Decoder(settings.exclude).decode(await source.status()), ""
    except (SourceError, BadDocument) as error:
        return None, str(error)
    finally:
        await source.close()


def show_lines(loaded: LoadedSettings) -> list[str]:
    """The settings as TOML, plain keys before tables, each with its origin."""
    flat: list[str] = []
    tables: dict[str, list[str]] = {}
    arrays: list[str] = []
    for key, hint in setting_keys().items():
        value: Any = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        origin = loaded.origins.get(key, "default")
        table, _, name = key.rpartition(".")
        if value and isinstance(value, tuple) and isinstance(value[0], msgspec.Struct):
            for row in value:
                arrays += ["", f"[[{key}]]  # {origin}", *_row_lines(row)]
            continue
        line = (
            f"{name} = {toml_value(value, hint, is_url=name in _URLS)}"
            if value is not None
            else f"# {name} is off"
        )
        (tables.setdefault(table, []) if table else flat).append(f"{line:48}  # {origin}")
    for table, lines in tables.items():
        flat += ["", f"[{table}]", *lines]
    return flat + arrays


def _row_lines(row: msgspec.Struct) -> list[str]:
    hints = {field.name: field for field in msgspec.structs.fields(row)}
    lines = []
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if value is not None and value != hints[name].default:
            text = toml_value(value, setting_keys(type(row))[name], is_url=name in _URLS)
            lines.append(f"{name} = {text}")
    return lines


def toml_value(value: Any, hint: Any, *, is_url: bool = False) -> str:
    """`value` as TOML: what a file would say. Of a secret nothing, of one that is a URL scheme and host."""
    kind = get_args(hint)[1].name if get_origin(hint) is Annotated else ""
    if kind == "duration":
        return f'"{duration_text(value)}"'
    if kind == "durations":
        return json.dumps([duration_text(step) for step in value])
    if isinstance(value, Secret):
        return _json(redact_url(value) if is_url else "***")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_json(key)} = {_json(text)}" for key, text in value.items()) + " }"
    return _json(value)


def _json(value: Any) -> str:
    """Texts, numbers, booleans and lists of them are written in TOML as in JSON."""
    return json.dumps(value, ensure_ascii=False)
