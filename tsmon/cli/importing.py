"""`tsmon import`: samples that another monitor wrote, into the history of a tsmon that runs or does not."""

import asyncio
import os
import socket
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import click

from tsmon.base.clock import Clock, grid_floor
from tsmon.cli.admin import exchange, socket_of
from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, os_words, plain
from tsmon.config import ConfigError, Settings, duration, redact_url, state_dir
from tsmon.history.influx import InfluxReader, ReadError
from tsmon.history.influx.importing import NothingSeenError, Taken, put, read_line
from tsmon.history.store import Store, StoreError

_MOST_BAD = 1000
_NAMED = 10
_DAY = 86400.0
Samples = dict[str, list[tuple[float, bool]]]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--from-influxdb", is_flag=True, help="Ask the InfluxDB of the configuration instead.")
@click.option("--interval", default="5m", show_default=True, help="At which the samples were taken.")
@settings_options(("state_dir",))
def import_(given: Given, *, file: Path | None, from_influxdb: bool, interval: str) -> None:
    """Take the samples of an older monitor into the history.

    With --from-influxdb they come from the bucket that tsmon is configured for. FILE (- for standard input)
    is line protocol: what `influxd inspect export-lp` or `tsmon export --line-protocol` write. Points of the
    measurement tailscale_health count, by their tag hostname and their field online. Only what lies before
    the beginning of tsmon's own history is taken; twice is once.

    tsmon must have run once, so that it knows the tailnet's nodes. One that runs takes the samples itself.
    """
    settings = given.load_or_fail().settings
    try:
        seconds = duration(interval, "--interval")
    except ConfigError as error:
        raise CliError(str(error)) from None
    if not 1 <= seconds <= 86400:
        raise CliError("--interval: give a length from 1s to 1d")
    if (file is None) != from_influxdb:
        raise CliError("say where from: a FILE, or --from-influxdb")
    samples = asyncio.run(_ask(settings, seconds)) if file is None else _read(file)
    if not samples:
        where = file or f"bucket {settings.influx.bucket!r}"
        raise CliError(f"{where}: holds no sample (measurement tailscale_health, tag hostname, field online)")
    try:
        taken = asyncio.run(_put(settings, samples, seconds))
    except StoreError as error:
        raise CliError(str(error)) from None
    except NothingSeenError as error:
        raise CliError(str(error)) from None
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


async def _ask(settings: Settings, interval: float) -> Samples:
    """One sample for each interval, at its beginning; several of one are what most say. Raises CliError."""
    if not settings.influx.url:
        raise CliError("InfluxDB is not configured: set influx.url")
    now = time.time()
    step = round(interval)
    count = max(1, round(_DAY / step))
    reader = InfluxReader(settings.influx, Clock(), step)
    samples: Samples = {}
    try:
        tallies = await reader.tallies(now - settings.retention, now)
        begin = grid_floor(min((t.first for t in tallies.values() if t.first is not None), default=now), step)
        while begin < now:
            for name, windows in (await reader.windows(begin, step, count)).items():
                samples.setdefault(name, []).extend(
                    (begin + at * step, 2 * tally.online >= tally.samples)
                    for at, tally in enumerate(windows)
                    if tally.samples
                )
            begin += count * step
    except ReadError as error:
        raise CliError(f"{redact_url(settings.influx.url)}: {error} (see tsmon doctor)") from None
    return samples


async def _put(settings: Settings, samples: Samples, interval: float) -> Taken:
    admin = socket_of(settings)
    if _is_there(admin):
        return Taken(**await exchange(admin, "/import", {"interval": interval, "samples": samples}))
    folder = state_dir(settings, os.environ)
    if not (folder / "tsmon.db").exists():
        raise CliError(f"{folder}: no tsmon has run with this state directory (--state-dir)")
    store = await Store.open(folder)
    since = time.time() - settings.retention
    try:
        return await store.write(lambda db: put(db, samples, interval, since))
    finally:
        await store.close()


def _is_there(path: Path) -> bool:
    """A tsmon listens there. Who may not ask it gets an error when asking."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except PermissionError:
            return True
        except OSError:
            return False
    return True


def _tell(taken: Taken) -> None:
    if taken.since is None:
        click.echo("nothing new: no sample lies before the history that tsmon has of its node")
    else:
        click.echo(taken.words())
    if taken.strangers:
        names = ", ".join(plain(name, 60) for name in taken.strangers[:_NAMED])
        more = f" and {len(taken.strangers) - _NAMED} more" if len(taken.strangers) > _NAMED else ""
        click.echo(f"left out, as no one node of the tailnet has that name: {names}{more}", err=True)
