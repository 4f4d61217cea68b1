"""`tsmon export`: the history as NDJSON, over the admin socket, or as samples for InfluxDB."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from tsmon.cli.admin import admin_socket, unreachable
from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, plain, read_moment, utc_text

TABLES = ("events", "spans", "service_spans", "observed", "latency")


@click.command()
@click.argument("table", type=click.Choice(TABLES), required=False)
@click.option("--since", metavar="TIME", help="As 30d, 2026-11-23T14:00 (your time zone); all of it without.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Instead of stdout.")
@click.option("--line-protocol", "samples", flag_value="write", help="Samples as InfluxDB's line protocol.")
@click.option("--to-influxdb", "samples", flag_value="send", help="The same, through tsmon's outbox.")
@settings_options(("state_dir",))
def export(
    given: Given, *, table: str | None, since: str | None, output: Path | None, samples: str | None
) -> None:
    """Write a table of the history, one JSON object a line.

    events: what happened. spans: how long each node kept each state; service_spans: each checked port.
    observed: when tsmon could see. latency: of the pinged nodes. Asks the running tsmon over the socket in
    its state directory: run it as the same user.

    With --line-protocol or --to-influxdb instead of a table: one sample per node and grid time, second
    precision, for an InfluxDB that came later. --to-influxdb sends what lies before its first sample.
    """
    if (table is None) == (samples is None):
        raise CliError(f"say what: one of {', '.join(TABLES)}, or --line-protocol, or --to-influxdb")
    begin = read_moment(since, time.time()) if since else None
    try:
        if samples is not None:
            _export_samples(given, samples, begin, output)
        elif table is not None:
            query = {"table": table} | ({"since": utc_text(begin)} if begin is not None else {})
            asyncio.run(_export(admin_socket(given), query, output))
    except KeyboardInterrupt:
        raise CliError("interrupted: the export is not complete") from None


def _export_samples(given: Given, how: str, since: float | None, output: Path | None) -> None:
    from tsmon.cli.export_samples import send_lines, write_lines  # noqa: PLC0415 (start-up time)

    settings = given.load_or_fail().settings
    if how == "send":
        send_lines(settings, since)
    elif output is None:
        write_lines(settings, since, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
    else:
        with _whole_file(output) as file:
            write_lines(settings, since, file.write)


async def _export(socket: Path, query: dict[str, str], output: Path | None) -> None:
    if output is None:
        await _copy(socket, query, sys.stdout.buffer, tame=sys.stdout.isatty())
        return
    with _whole_file(output) as file:
        await _copy(socket, query, file, tame=False)


async def _copy(socket: Path, query: dict[str, str], target: BinaryIO, *, tame: bool) -> None:
    async for line in _lines(socket, query):
        # JSON escapes most of what acts on a terminal, but not all of it.
        target.write(json.dumps(json.loads(line)).encode() + b"\n" if tame else line)
    target.flush()


@contextmanager
def _whole_file(output: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is complete. Raises CliError."""
    try:
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
            try:
                yield file  # type: ignore[misc]
                file.flush()
                os.replace(file.name, output)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise CliError(f"{output}: cannot be written: {error.strerror}") from None


async def _lines(socket: Path, query: dict[str, str]) -> AsyncIterator[bytes]:
    """The lines of the export, each complete. Raises CliError, also when they end too early."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    limits = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)
    connector = aiohttp.UnixConnector(str(socket))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limits) as session,
            session.get("http://tsmon/export", params=query) as response,
        ):
            if response.status != 200:
                words = plain((await response.read())[:2000].decode("utf-8", "replace"), 300)
                raise CliError(f"{socket}: answered {response.status}: {words}")
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line + b"\n"
    except aiohttp.ClientConnectorError as error:
        raise unreachable(socket, error.os_error) from None
    except (aiohttp.ClientError, TimeoutError):
        raise CliError(f"{socket}: the answer broke off: the export is not complete; try again") from None
