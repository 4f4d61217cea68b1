"""The picture that `tsmon status` draws of a tailnet, and its words for states. Pure: time is passed in."""

from typing import TYPE_CHECKING, Any, NamedTuple

from tsmon.base.text import counted, length_words
from tsmon.cli.picture_services import services_lines
from tsmon.cli.terminal import SEVERITY_STYLES, local_time, local_words, plain, when
from tsmon.monitor.wording import BRIEF_WORDS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_DAY = 86400.0
_GAP = 2  # cells between two columns
_STATUS_STYLES = {"healthy": "bold green", "degraded": "bold yellow", "critical": "bold red"}
_STATE_STYLES = {"online": "green", "offline": "red", "unknown": "dim yellow"}
_MARKS = {"online": "●", "offline": "✖", "unknown": "○"}
_PLAIN_MARKS = {"online": "+", "offline": "x", "unknown": "?"}


class Report(NamedTuple):
    """What the API says, as it says it."""

    summary: dict[str, Any]
    nodes: list[dict[str, Any]]
    alerts: list[dict[str, Any]]
    coverage: dict[str, Any] | None = None
    """What the control server knows; None when it is not asked, or was not to be shown."""
    services: dict[str, Any] | None = None
    """The checked ports, those that are down first; None when none is asked."""


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
    parts += _table(report.nodes, now, limit, out.width, utf8=utf8)
    if report.services is not None:
        parts += [Text(), *services_lines(report.services, now, everything=not limit, utf8=utf8)]
    if report.coverage is not None:
        parts += [Text(), *_coverage(report.coverage, now)]
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
    if summary.get("headline") and not summary.get("blind"):  # blindness has a line of its own
        style = _STATUS_STYLES.get(str(summary.get("level")), "bold yellow")
        head.append(f"{local_words(summary['headline'], now)}\n", style=style)
    numbers = f"{counted(_count(summary, 'total_nodes'), 'node')}: {_count(summary, 'online_nodes')} online"
    for key, word in (("offline_nodes", "offline"), ("unknown_nodes", "unknown")):
        numbers += f", {summary[key]} {word}" if _count(summary, key) else ""
    critical = summary.get("critical_nodes")
    if isinstance(critical, dict) and _count(critical, "total"):
        share = critical.get("health_percentage")
        known = f" ({share:g} %)" if isinstance(share, int | float) else ""
        numbers += f"; critical: {_count(critical, 'online')} of {_count(critical, 'total')} online{known}"
    alerts = _count(summary, "active_alerts")
    head.append(numbers + f"; {counted(alerts, 'alert') if alerts else 'no alerts'}")
    return head


def _count(values: dict[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) else 0


def _table(nodes: list[dict[str, Any]], now: float, limit: int, width: int, *, utf8: bool) -> list[Any]:
    from rich.table import Table  # noqa: PLC0415 (start-up time)
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    if not nodes:
        return [Text("No node has been seen yet.", style="dim")]
    ordered = sorted(nodes, key=_rank)
    rows = [_row(node, now, _MARKS if utf8 else _PLAIN_MARKS) for node in ordered[: limit or None]]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    widths = _fitting(rows, width)
    for name, cells in widths.items():
        right = name in ("LATENCY", "UP 24 H")
        justify: Any = "right" if right else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=cells)
    for row in rows:
        table.add_row(*(row[name] for name in widths))
    rest = ordered[limit:] if limit else []
    if not rest:
        return [table]
    online = sum(node.get("online") is True for node in rest)
    return [table, Text(f"and {len(rest)} more, {online} of them online (--all shows them)", style="dim")]


def _coverage(coverage: dict[str, Any], now: float) -> list["Text"]:
    """What the control server knows and is not seen from there."""
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    as_of = when(coverage.get("as_of"))
    if as_of is None:
        return [Text(f"The control server has not answered yet: {plain(coverage.get('error') or 'asked')}")]
    head = Text(f"seeing {_count(coverage, 'seen')} of {_count(coverage, 'known')}", style="bold")
    head.append(f" that the control server knows ({length_words(now - as_of)} ago)", style="dim")
    lines = [head]
    if coverage.get("error"):
        lines.append(Text(f"it gives no answer now: {plain(coverage['error'], 300)}", style="yellow"))
    unseen = coverage.get("unseen")
    for row in unseen if isinstance(unseen, list) else ():
        if isinstance(row, dict):
            line = Text(f"  {plain(row.get('hostname'), 80)}")
            line.append(f"  {plain(row.get('why'), 100)}", style="dim")
            lines.append(line)
    return lines


def _fitting(rows: list[dict[str, "Text"]], width: int) -> dict[str, int]:
    """The columns that fit, with their cells. Only names are ever cut, since half a figure would be a
    wrong one: to 24 cells before a column is left out, further when none is left to leave out."""
    cells = {name: max(len(name), *(row[name].cell_len for row in rows)) for name in rows[0]}
    others = sum(cells.values()) - cells["NODE"]
    for name in ("OS", "TYPE", "ADDRESS", "LATENCY", "UP 24 H"):
        if width - others - _GAP * (len(cells) - 1) >= min(24, cells["NODE"]):
            break
        others -= cells.pop(name)
    free = width - others - _GAP * (len(cells) - 1)
    return cells | {"NODE": max(8, min(cells["NODE"], free))}


def _rank(node: dict[str, Any]) -> tuple[bool, bool, str]:
    troubled = node.get("state") != "online" or bool(node.get("alert"))
    return not node.get("critical"), not troubled, str(node.get("hostname"))


def _row(node: dict[str, Any], now: float, marks: dict[str, str]) -> dict[str, "Text"]:
    from rich.text import Text  # noqa: PLC0415 (start-up time)

    state = plain(node.get("state"), 10)
    style = _STATE_STYLES.get(state, "")
    if state == "offline" and not node.get("alert") and not node.get("critical"):
        style = "dim"  # a laptop that sleeps is no trouble
    name = Text(f"{marks.get(state, '?')} ", style=style)
    name.append(plain(node.get("hostname"), 80), style="bold" if node.get("critical") else "")
    latency = node.get("latency_ms")
    uptime = node.get("uptime_24h")
    return {
        "NODE": name,
        "STATE": Text(state_words(node, now), style=style),
        "LATENCY": Text(_latency(latency, node.get("path")) if isinstance(latency, int | float) else "-"),
        "UP 24 H": Text(_uptime(node, now), style=_uptime_style(uptime)),
        "TYPE": Text(plain(node.get("node_type"), 20), style="dim"),
        "OS": Text(plain(node.get("os"), 20), style="dim"),
        "ADDRESS": Text(plain(node.get("ip") or "-", 50), style="dim"),
    }


def _uptime(node: dict[str, Any], now: float) -> str:
    """Uptime of the last day; of a node that was watched for less, of how long."""
    uptime, watched = node.get("uptime_24h"), when(node.get("watched_since"))
    if not isinstance(uptime, int | float):
        return "-"
    short = watched is not None and now - watched < _DAY
    return f"{uptime:.2f} %" + (f" of {length_words(now - watched)}" if watched is not None and short else "")


def _successor(node: dict[str, Any], now: float) -> str:
    """A machine that was re-installed within the last day."""
    before = node.get("successor_of")
    joined = when(before.get("until")) if isinstance(before, dict) else None
    recent = joined is not None and now - joined < _DAY
    return f", successor of {plain(before.get('hostname'), 80)}" if recent and before else ""


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
    elif node.get("reason") in BRIEF_WORDS:
        words += f", {BRIEF_WORDS[node['reason']]}"
    words += _successor(node, now)
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
    line.append(f"#{plain(alert.get('id'), 12)} ", style="dim")  # for tsmon ack and silence
    line.append(local_words(alert.get("message") or alert.get("kind"), now, 200))
    line.append(f"  {length_words(now - since)}" if since is not None else "", style="dim")
    if alert.get("acknowledged_by"):
        line.append(f"  acknowledged by {plain(alert['acknowledged_by'], 40)}", style="dim")
    return line
