"""`tsmon import`: samples that another monitor wrote, into the embedded history while tsmon is stopped."""

import asyncio
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import click

from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, os_words, plain
from tsmon.clock import rfc3339
from tsmon.config import ConfigError, Settings, duration, state_dir
from tsmon.influx.importing import NothingSeenError, Taken, put, read_line
from tsmon.store import Store, StoreError

_MOST_BAD = 1000
_NAMED = 10
Samples = dict[str, list[tuple[float, bool]]]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--interval", default="5m", show_default=True, help="At which the samples were taken.")
@settings_options(("state_dir",))
def import_(given: Given, *, file: Path, interval: str) -> None:
    """Take the samples of an older monitor into the history.

    FILE (- for standard input) is line protocol: what `influxd inspect export-lp` or `tsmon export
    --line-protocol` write. Points of the measurement tailscale_health count, by their tag hostname and their
    field online. Only what lies before the beginning of tsmon's own history is taken; twice is once.

    tsmon must have run once, so that it knows the tailnet's nodes, and must be stopped meanwhile.
    """
    settings = given.load_or_fail().settings
    try:
        seconds = duration(interval, "--interval")
    except ConfigError as error:
        raise CliError(str(error)) from None
    if not 1 <= seconds <= 86400:
        raise CliError("--interval: give a length from 1s to 1d")
    samples = _read(file)
    if not samples:
        raise CliError(f"{file}: holds no sample (measurement tailscale_health, tag hostname, field online)")
    try:
        taken = asyncio.run(_put(settings, samples, seconds))
    except StoreError as error:
        raise CliError(str(error)) from None
    except NothingSeenError:
        raise CliError(
            "tsmon has not seen the tailnet yet: let it run for a minute, stop it, begin again"
        ) from None
    _tell(taken)


def _read(file: Path) -> Samples:
    """All samples by name. Raises CliError."""
    samples: Samples = {}
    bad: list[str] = []
    try:
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    heard = read_line(line)
                except ValueError as error:
                    bad.append(f"line {number} {plain(error, 60)}")
                    if len(bad) > _MOST_BAD:
                        raise CliError(f"{file}: is no line protocol: {bad[0]}") from None
                    continue
                if heard is not None:
                    samples.setdefault(heard.name, []).append((heard.time, heard.online))
    except OSError as error:
        raise CliError(f"{file}: {os_words(error)}") from None
    if bad:
        click.echo(f"tsmon: {file}: lines left out: {len(bad)}, the first: {bad[0]}", err=True)
    return samples


def _opened(file: Path) -> "nullcontext[TextIO] | TextIO":
    if str(file) == "-":
        return nullcontext(sys.stdin)
    return file.open(encoding="utf-8", errors="replace")


async def _put(settings: Settings, samples: Samples, interval: float) -> Taken:
    folder = state_dir(settings, os.environ)
    if not (folder / "tsmon.db").exists():
        raise CliError(f"{folder}: no tsmon has run with this state directory (--state-dir)")
    store = await Store.open(folder)
    since = time.time() - settings.retention
    try:
        return await store.write(lambda db: put(db, samples, interval, since))
    finally:
        await store.close()


def _tell(taken: Taken) -> None:
    if taken.since is None:
        click.echo("nothing new: no sample lies before the history that tsmon has of its node")
    else:
        click.echo(
            f"{taken.samples} samples (nodes: {taken.nodes}) since {rfc3339(taken.since)} are history now"
        )
    if taken.strangers:
        names = ", ".join(plain(name, 60) for name in taken.strangers[:_NAMED])
        more = f" and {len(taken.strangers) - _NAMED} more" if len(taken.strangers) > _NAMED else ""
        click.echo(f"left out, as no one node of the tailnet has that name: {names}{more}", err=True)
