"""`tsmon report`: a month in one page."""

import asyncio
import sys
from pathlib import Path

import click

from tsmon.cli.client import client_options, connect
from tsmon.cli.terminal import CliError, plain


@click.command()
@client_options
@click.option("--month", metavar="MONTH", help="As 2026-10; the one under way when nothing is given.")
@click.option("--from", "begin", metavar="TIME", help="A day as 2026-10-01, or a time.")
@click.option("--to", "end", metavar="TIME", help="The same; a day is in it. Now when left out.")
@click.option("--time-zone", metavar="ZONE", help="Whose calendar, as Europe/Berlin (report.time_zone).")
@click.option("--role", metavar="NAME", help="Only nodes of this role.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "html", "csv", "json"]),
    default="text",
    show_default=True,
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Instead of the screen."
)
def report(
    *,
    url: str | None,
    timeout: float,
    month: str | None,
    begin: str | None,
    end: str | None,
    time_zone: str | None,
    role: str | None,
    kind: str,
    output: Path | None,
) -> None:
    """Uptime, outages and what a target leaves, for each role and node, in a month or another time."""
    given = {"month": month, "from": begin, "to": end, "time_zone": time_zone, "role": role, "format": kind}
    query = {name: text for name, text in given.items() if text}
    body = asyncio.run(_read(url, timeout, query))
    if output is not None:
        try:
            output.write_bytes(body)
        except OSError as error:
            raise CliError(f"{output}: cannot be written: {error.strerror}") from None
        return
    text = body.decode("utf-8", "replace")
    if sys.stdout.isatty():
        # Whatever answers at the address: nothing of it moves the cursor.
        text = "".join(plain(line, len(line)) + "\n" for line in text.splitlines())
    click.echo(text, nl=False)


async def _read(url: str | None, timeout: float, query: dict[str, str]) -> bytes:
    async with connect(url, timeout) as api:
        return await api.read("report", **query)
