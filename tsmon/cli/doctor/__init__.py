"""`tsmon doctor`: looks at each thing tsmon needs, and says what is wrong and what to do."""

import asyncio
import json
from typing import TYPE_CHECKING

import click

from tsmon.cli.options import Given, settings_options
from tsmon.cli.terminal import console, plain

if TYPE_CHECKING:
    from rich.text import Text

    from tsmon.cli.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command()
@settings_options(("source", "listen", "state_dir"))
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def doctor(given: Given, *, as_json: bool) -> None:
    """Look at configuration, source, state directory, database, port, InfluxDB and clock; say what is wrong
    and what to do. Changes nothing; exit code 1 when something would keep tsmon from doing its work."""
    from tsmon.cli.doctor.everything import examine  # noqa: PLC0415 (start-up time)

    findings = asyncio.run(examine(given))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        out = console()
        for finding in findings:
            out.print(_line(finding), soft_wrap=True)
    raise click.exceptions.Exit(any(finding.level == "failed" for finding in findings))


def _line(finding: "Finding") -> "Text":
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    line = Text(f"{finding.level:8}", style=_STYLES[finding.level])
    line.append(f"{finding.what:14}", style="bold")
    line.append(plain(finding.says, 500))
    if finding.remedy:
        line.append(f"\n{'':22}→ {plain(finding.remedy, 300)}", style="dim")
    return line
