"""`tsmon status`: a table a person wants to look at."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tsmon.cli.client import Api, client_options, connect
from tsmon.cli.terminal import (
    SEVERITY_STYLES,
    CliError,
    console,
    length_words,
    local_time,
    plain,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

FIELDS = (
    "hostname,ip,online,node_type,os,last_seen,uptime_24h,state,reason,reachable,since,last_state,last_state_at,"
    "critical,latency_ms,path,alert,flapping,silenced_until"
)
SHOWN = 40
"""Rows of the table unless all are asked for; critical and troubled nodes come first."""
_REASONS = {
    "stopped": "Tailscale stopped",
    "key_expired": "key expired",
    "unreachable": "answers no ping",
}
_STATUS_STYLES = {"healthy": "bold green", "degraded": "bold yellow", "critical": "bold red"}
_STATE_STYLES = {"online": "green", "offline": "red", "unknown": "dim yellow"}
_MARKS = {"online": "●", "offline": "✖", "unknown": "○"}
_PLAIN_MARKS = {"online": "+", "offline": "x", "unknown": "?"}


class Report(NamedTuple):
    """What the API says, as it says it."""

    summary: dict[str, Any]
    nodes: list[dict[str, Any]]
    alerts: list[dict[str, Any]]


@click.command()
@client_options
@click.option("--all", "-a", "everything", is_flag=True, help=f"Every node, not the first {SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: summary, nodes, alerts.")
@click.option("--watch", "-w", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often with --watch.",
)
def status(*, url: str, timeout: float, everything: bool, as_json: bool, watch: bool, every: float) -> None:
    """How the tailnet is: critical nodes first, then what is in trouble, then the rest."""
    show: Show = _show_json if as_json else partial(_show_table, limit=0 if everything else SHOWN)
    if not watch:
        show(asyncio.run(_once(url, timeout)))
        return
    with ExitStack() as stack:
        if not as_json and console().is_terminal:
            show = stack.enter_context(_Screen(everything)).show
        stack.enter_context(suppress(KeyboardInterrupt))
        asyncio.run(_watch(url, timeout, every, show))


async def _once(url: str, timeout: float) -> Report:
    async with connect(url, timeout) as api:
        return await fetch(api)


async def _watch(url: str, timeout: float, every: float, show: "Show") -> None:
    """Show what is, at every step; once something was seen, a failure is shown and does not end it."""
    last: Report | None = None
    async with connect(url, timeout) as api:
        while True:
            try:
                last = await fetch(api)
                show(last)
            except CliError as error:
                if last is None:
                    raise
                show(last, str(error))
            await asyncio.sleep(every)


async def fetch(api: Api) -> Report:
    """Summary, nodes and alerts. Raises CliError, also when they are not of tsmon's shape."""
    summary = await api.get("summary")
    nodes = await api.get("nodes", project_only="false", fields=FIELDS)
    alerts = await api.get("alerts")
    shaped = isinstance(summary, dict) and isinstance(nodes, list) and isinstance(alerts, dict)
    if not shaped or not all(isinstance(node, dict) for node in nodes):
        raise CliError(f"{api.name}: the answer is not tsmon's: is that tsmon? (--url)")
    return Report(summary, nodes, [alert for alert in alerts.get("alerts", []) if isinstance(alert, dict)])


Show = Callable[..., None]
"""Shows a report; given why as well when it is not the present one."""


def _show_json(report: Report, problem: str = "") -> None:
    if problem:
        click.echo(f"tsmon: {problem}", err=True)
    else:
        click.echo(json.dumps(report._asdict()))  # ASCII: no character of it can act on a terminal


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
        room = max(3, self._console.height - 9 - min(len(report.alerts), 8))
        limit = 0 if self._everything else room
        picture = render(report, time.time(), limit, self._console, problem=problem)
        self._live.update(picture, refresh=True)


def render(report: Report, now: float, limit: int, out: "Console", *, problem: str = "") -> "RenderableType":
    """The whole picture; at most `limit` nodes, 0 for all. `problem`: why it is not the present one."""
    from rich.console import Group  # noqa: PLC0415 (start-up time)
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    utf8 = out.encoding.lower().startswith("utf")
    parts: list[Any] = [_head(report.summary, now)]
    if problem:
        parts.append(Text(f"no answer now: {plain(problem)}", style="bold red"))
    blind = report.summary.get("blind")
    if isinstance(blind, dict):
        since = when(blind.get("since"))
        for_ = f" for {length_words(now - since)}" if since is not None else ""
        words = f"tsmon cannot see the tailnet{for_}: {plain(blind.get('message'))}"
        parts.append(Text(words, style="bold black on yellow" if out.is_terminal else ""))
    parts.append(Text())
    parts += _table(report.nodes, now, limit, utf8=utf8)
    if report.alerts:
        parts += [Text(), *(_alert(alert, now) for alert in report.alerts[: limit or None])]
    return Group(*parts)


def _head(summary: dict[str, Any], now: float) -> "Text":
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    state = plain(summary.get("status"), 20)
    head = Text()
    if summary.get("demo"):
        head.append("DEMO, a simulated tailnet  ", style="bold magenta")
    head.append(state.upper(), style=_STATUS_STYLES.get(state, "bold yellow"))
    head.append(f"  {plain(summary.get('tailnet') or 'no tailnet seen yet', 80)}", style="bold")
    as_of = when(summary.get("as_of"))
    seen = f"seen {length_words(now - as_of)} ago" if as_of is not None else "never seen"
    head.append(f"  {seen} through {plain(summary.get('source'), 80)}\n", style="dim")
    numbers = f"{_count(summary, 'total_nodes')} nodes: {_count(summary, 'online_nodes')} online"
    for key, word in (("offline_nodes", "offline"), ("unknown_nodes", "unknown")):
        numbers += f", {summary[key]} {word}" if _count(summary, key) else ""
    critical = summary.get("critical_nodes")
    if isinstance(critical, dict) and _count(critical, "total"):
        share = critical.get("health_percentage")
        known = f" ({share:g} %)" if isinstance(share, int | float) else ""
        numbers += f"; critical: {_count(critical, 'online')} of {_count(critical, 'total')} online{known}"
    alerts = _count(summary, "active_alerts")
    head.append(numbers + f"; {alerts or 'no'} alert{'s' if alerts != 1 else ''}")
    return head


def _count(values: dict[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) else 0


def _table(nodes: list[dict[str, Any]], now: float, limit: int, *, utf8: bool) -> list[Any]:
    from rich.table import Table  # noqa: PLC0415 (start-up time)
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    if not nodes:
        return [Text("No node has been seen yet.", style="dim")]
    ordered = sorted(nodes, key=_rank)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("NODE", no_wrap=True, overflow="ellipsis", min_width=12)
    table.add_column("STATE", no_wrap=True, overflow="ellipsis", min_width=14)
    table.add_column("LATENCY", justify="right", no_wrap=True)
    table.add_column("UP 24 H", justify="right", no_wrap=True)
    for name in ("TYPE", "OS", "ADDRESS"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", style="dim")
    for node in ordered[: limit or None]:
        table.add_row(*_row(node, now, _MARKS if utf8 else _PLAIN_MARKS))
    rest = ordered[limit:] if limit else []
    if not rest:
        return [table]
    online = sum(node.get("online") is True for node in rest)
    return [table, Text(f"and {len(rest)} more, {online} of them online (--all shows them)", style="dim")]


def _rank(node: dict[str, Any]) -> tuple[bool, bool, str]:
    troubled = node.get("state") != "online" or bool(node.get("alert"))
    return not node.get("critical"), not troubled, str(node.get("hostname"))


def _row(node: dict[str, Any], now: float, marks: dict[str, str]) -> list["Text"]:
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    state = plain(node.get("state"), 10)
    style = _STATE_STYLES.get(state, "")
    if state == "offline" and not node.get("alert") and not node.get("critical"):
        style = "dim"  # a laptop that sleeps is no trouble
    name = Text(f"{marks.get(state, '?')} ", style=style)
    name.append(plain(node.get("hostname"), 80), style="bold" if node.get("critical") else "")
    latency = node.get("latency_ms")
    uptime = node.get("uptime_24h")
    return [
        name,
        Text(state_words(node, now), style=style),
        Text(_latency(latency, node.get("path")) if isinstance(latency, int | float) else "-"),
        Text(f"{uptime:.2f} %" if isinstance(uptime, int | float) else "-", style=_uptime_style(uptime)),
        Text(plain(node.get("node_type"), 20)),
        Text(plain(node.get("os"), 20)),
        Text(plain(node.get("ip") or "-", 50)),
    ]


def state_words(node: dict[str, Any], now: float) -> str:
    """State, how long, and why: `offline 12 min, answers no ping`."""
    words = plain(node.get("state"), 10)
    since = when(node.get("since"))
    if since is not None:
        words += f" {length_words(now - since)}"
    if words.startswith("unknown") and node.get("last_state"):
        last_at = when(node.get("last_state_at"))
        words += f", {plain(node['last_state'], 10)} before {local_time(last_at, now)}" if last_at else ""
    if node.get("reason") == "control" and node.get("reachable") is True:
        words += ", but answers pings"
    elif node.get("reason") in _REASONS:
        words += f", {_REASONS[node['reason']]}"
    words += ", flapping" if node.get("flapping") else ""
    return words + (", silenced" if node.get("silenced_until") else "")


def _latency(milliseconds: float, path: object) -> str:
    via = {"relay": " relayed", "peer_relay": " peer relay"}.get(str(path), "")
    return f"{milliseconds:.3g} ms{via}" if milliseconds < 1000 else f"{milliseconds:.0f} ms{via}"


def _uptime_style(uptime: object) -> str:
    if not isinstance(uptime, int | float):
        return "dim"
    return "green" if uptime >= 99.9 else "yellow" if uptime >= 95 else "red"


def _alert(alert: dict[str, Any], now: float) -> "Text":
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    severity = plain(alert.get("severity"), 10)
    since = when(alert.get("since")) or when(alert.get("fired_at"))
    line = Text(f"{severity:8} ", style=SEVERITY_STYLES.get(severity, ""))
    line.append(plain(alert.get("message") or alert.get("kind"), 200))
    line.append(f"  {length_words(now - since)}" if since is not None else "", style="dim")
    if alert.get("acknowledged_by"):
        line.append(f"  acknowledged by {plain(alert['acknowledged_by'], 40)}", style="dim")
    return line
