"""`tsmon status`: a table a person wants to look at."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

import click

from tsmon.cli.client import ApiClient, client_options, connect
from tsmon.cli.picture import Report, render
from tsmon.cli.terminal import CliError, console

FIELDS = (
    "hostname,ip,online,node_type,os,last_seen,uptime_24h,state,reason,reachable,since,last_state,last_state_at,"
    "critical,latency_ms,path,alert,flapping,silenced_until,watched_since,successor_of"
)
SHOWN = 40
"""Rows of the table unless all are asked for; critical and troubled nodes come first."""


@click.command()
@client_options
@click.option(
    "--all",
    "-a",
    "everything",
    is_flag=True,
    help=f"Every node, not the first {SHOWN}, and what is not seen from there.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="As JSON: summary, nodes, alerts, services; with --all also coverage.",
)
@click.option("--watch", "-w", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often with --watch.",
)
def status(
    *, url: str | None, timeout: float, everything: bool, as_json: bool, watch: bool, every: float
) -> None:
    """How the tailnet is: critical nodes first, then what is in trouble, then the rest."""
    show: Show = _show_json if as_json else partial(_show_table, limit=0 if everything else SHOWN)
    if not watch:
        show(asyncio.run(_once(url, timeout, everything)))
        return
    with ExitStack() as stack:
        if not as_json and console().is_terminal:
            show = stack.enter_context(_Screen(everything)).show
        stack.enter_context(suppress(KeyboardInterrupt))
        asyncio.run(_watch(url, timeout, every, show, everything))


async def _once(url: str | None, timeout: float, everything: bool) -> Report:
    async with connect(url, timeout) as api:
        return await fetch(api, everything=everything)


async def _watch(url: str | None, timeout: float, every: float, show: "Show", everything: bool) -> None:
    """Show what is, at every step; once something was seen, a failure is shown and does not end it."""
    last: Report | None = None
    async with connect(url, timeout) as api:
        while True:
            try:
                last = await fetch(api, everything=everything)
                show(last)
            except CliError as error:
                if last is None:
                    raise
                show(last, str(error))
            await asyncio.sleep(every)


async def fetch(api: ApiClient, *, everything: bool = False) -> Report:
    """Summary, nodes and alerts; with `everything` also what is not seen from there. Raises CliError, also
    when they are not of tsmon's shape."""
    summary = await api.get("summary")
    nodes = await api.get("nodes", project_only="false", fields=FIELDS)
    alerts = await api.get("alerts")
    shaped = isinstance(summary, dict) and isinstance(nodes, list) and isinstance(alerts, dict)
    if not shaped or not all(isinstance(node, dict) for node in nodes):
        raise CliError(f"{api.name}: the answer is not tsmon's: is that tsmon? (--url)")
    firing = [alert for alert in alerts.get("alerts", []) if isinstance(alert, dict)]
    coverage = await api.get("coverage", limit=10_000) if everything else None
    services = None
    with suppress(CliError):  # an older tsmon has none to show
        services = await api.get("services", limit=10_000)
    return Report(
        summary,
        nodes,
        firing,
        coverage if isinstance(coverage, dict) else None,
        services if isinstance(services, dict) and services.get("services") else None,
    )


Show = Callable[..., None]
"""Shows a report; given why as well when it is not the present one."""


def _show_json(report: Report, problem: str = "") -> None:
    if problem:
        click.echo(f"tsmon: {problem}", err=True)
    else:
        shown = {name: part for name, part in report._asdict().items() if part is not None}
        click.echo(json.dumps(shown))  # ASCII: no character of it can act on a terminal


def _show_table(report: Report, problem: str = "", *, limit: int) -> None:
    out = console()
    out.print(render(report, time.time(), limit, out, problem=problem))


class _Screen:
    """The whole terminal, redrawn in place and given back at the end."""

    def __init__(self, everything: bool) -> None:
        from rich.live import Live  # noqa: PLC0415 (start-up time)

        self._everything = everything
        self._console = console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> "_Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, report: Report, problem: str = "") -> None:
        lines = max(3, self._console.height - 9 - min(len(report.alerts), 8))
        limit = 0 if self._everything else lines
        picture = render(report, time.time(), limit, self._console, problem=problem)
        self._live.update(picture, refresh=True)
