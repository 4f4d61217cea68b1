"""`tsmon export`: the history as NDJSON, over the admin socket."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from tsmon.cli.admin import admin_socket, unreachable
from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import CliError, plain, read_moment, utc_text

TABLES = ("events", "spans", "observed", "latency")


@click.command()
@click.argument("table", type=click.Choice(TABLES))
@click.option("--since", metavar="TIME", help="As 30d, 2026-11-23T14:00 (your time zone); all of it without.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Instead of stdout.")
@settings_options(("state_dir",))
def export(given: Given, *, table: str, since: str | None, output: Path | None) -> None:
    """Write a table of the history, one JSON object a line.

    events: what happened. spans: how long each node kept each state. observed: when tsmon could see.
    latency: of the pinged nodes. Asks the running tsmon over the socket in its state directory: run it as
    the same user.
    """
    socket = admin_socket(given)
    query = {"table": table} | ({"since": utc_text(read_moment(since, time.time()))} if since else {})
    with suppress(KeyboardInterrupt):
        asyncio.run(_export(socket, query, output))
        return
    raise CliError("interrupted: the export is not complete")


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
