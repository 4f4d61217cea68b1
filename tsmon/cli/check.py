"""`tsmon check`: the monitoring-plugin convention: one line with performance data, an exit code."""

import asyncio
import time
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote

import click

from tsmon.cli.client import ApiClient, client_options, connect
from tsmon.cli.picture import state_words
from tsmon.cli.terminal import plain

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_WORST_FIRST = (CRITICAL, WARNING, UNKNOWN, OK)
_FIELDS = (
    "hostname,node_type,critical,state,reason,reachable,since,last_state,last_state_at,"
    "flapping,silenced_until"
)
_NAMED = 10  # problems named one by one; all are counted


class Problem(NamedTuple):
    code: int
    text: str


class CheckOutcome(NamedTuple):
    """The outcome: what is said when all is well, problems, performance data."""

    fine: str
    problems: list[Problem]
    perfdata: list[str]

    @property
    def code(self) -> int:
        """2 before 1 before 3: what is known to be down tells more than what cannot be seen."""
        found = {problem.code for problem in self.problems}
        return next((code for code in _WORST_FIRST if code in found), OK)


class _CheckCommand(click.Command):
    """Everything that is no outcome is UNKNOWN, also a wrong option: exit code 2 would mean an outage."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            _end(UNKNOWN, error.format_message())

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _end(UNKNOWN, error.format_message())
        except (click.exceptions.Exit, click.Abort):
            raise
        except (KeyError, TypeError, ValueError):
            _end(UNKNOWN, "the answer is not tsmon's: is that tsmon, and of this version? (--url)")
        except Exception as error:  # noqa: BLE001 (a traceback would exit 1, which means a warning)
            _end(UNKNOWN, f"tsmon check failed itself: {type(error).__name__}: {error}")


def _end(code: int, text: str) -> NoReturn:
    click.echo(f"TSMON {_WORDS[code]} - {_clean(text)}")
    raise click.exceptions.Exit(code)


@click.command(cls=_CheckCommand)
@client_options
@click.option("--host", metavar="NODE", help="This node alone, by name or ID.")
@click.option("--critical-only", is_flag=True, help="Look at the critical nodes alone.")
@click.option("--services", is_flag=True, help="Look at the checked ports, too.")
def check(*, url: str | None, timeout: float, host: str | None, critical_only: bool, services: bool) -> None:
    """How the tailnet is, for Nagios, Icinga, Checkmk and the like.

    Exit code 2: a production node is offline; 1: another critical node is, or any node is off the control
    server but answers pings; 3: tsmon cannot see, or does not answer; 0: all is well. With --services a
    checked port that is down counts as its node would: 2 on a production node, else 1.
    """
    if host and critical_only:
        raise click.UsageError("--host and --critical-only exclude each other")
    result = asyncio.run(_look(url, timeout, host, critical_only=critical_only, services=services))
    problems = sorted(result.problems, key=lambda problem: _WORST_FIRST.index(problem.code))
    texts = [problem.text for problem in problems]
    head = "; ".join(texts[:_NAMED]) + (f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")
    click.echo(f"TSMON {_WORDS[result.code]} - {_clean(head or result.fine)} | {' '.join(result.perfdata)}")
    for text in texts[:200] if len(texts) > 1 else ():
        click.echo(_clean(text))
    raise click.exceptions.Exit(result.code)


def _clean(text: str) -> str:
    """A pipe would begin the performance data."""
    return plain(text, 2000).replace("|", "/")


async def _look(
    url: str | None, timeout: float, host: str | None, *, critical_only: bool, services: bool
) -> CheckOutcome:
    begun = time.monotonic()
    async with connect(url, timeout) as api:
        summary = await api.get("summary")
        if host:
            node = await api.get(f"nodes/{quote(host, safe='')}")
            nodes = [node]
            result = judge_node(node, summary, time.time())
        else:
            nodes = await api.get("nodes", project_only=str(critical_only).lower(), fields=_FIELDS)
            missing = await _missing(api, summary, nodes)
            result = judge(summary, nodes, missing, time.time(), critical_only=critical_only)
        if services:
            answer = await api.get("services", limit=100_000, **({"node": host} if host else {}))
            result = with_services(result, answer, nodes)
    return result._replace(perfdata=[*result.perfdata, f"time={time.monotonic() - begun:.3f}s;;;0"])


async def _missing(
    api: ApiClient, summary: dict[str, Any], nodes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One entry for each critical role that lost its node: the alert that tells it, or nothing but that."""
    listed = sum(bool(node["critical"]) and node["state"] == "offline" for node in nodes)
    lost = int(summary["critical_nodes"]["offline"]) - listed
    if summary["blind"] or lost <= 0:
        return []
    answers = [await api.get("alerts", kind="node_missing", state=state) for state in ("pending", "firing")]
    alerts = [alert for answer in answers for alert in answer["alerts"]]
    return [*alerts, *([{}] * lost)][:lost]


def judge(
    summary: dict[str, Any],
    nodes: list[dict[str, Any]],
    missing: list[dict[str, Any]],
    now: float,
    *,
    critical_only: bool,
) -> CheckOutcome:
    """The outcome for the tailnet as a whole."""
    problems = [problem for node in nodes if (problem := _problem(node, now))]
    for alert in missing:
        code = CRITICAL if alert.get("node_type") == "production" else WARNING
        problems.append(
            Problem(code, f"{alert.get('hostname') or 'a critical node'} is gone from the tailnet")
        )
    blind = summary["blind"]
    if blind:
        problems.append(Problem(UNKNOWN, f"tsmon cannot see the tailnet: {blind['message']}"))
    critical = summary["critical_nodes"]
    fine = f"{critical['online']} of {critical['total']} critical nodes online"
    if not critical_only:
        fine += f", {summary['online_nodes']} of {summary['total_nodes']} nodes online"
    return CheckOutcome(fine, problems, _perfdata(summary, critical_only=critical_only))


def _problem(node: dict[str, Any], now: float) -> Problem | None:
    """What is wrong with one node, None when nothing that the check is about. Unknown critical ones count
    only where tsmon sees: blindness is reported once."""
    words = f"{node['hostname']} ({node['node_type']}) {state_words(node, now)}"
    if is_detached(node):
        return Problem(WARNING, words)
    if not node["critical"]:
        return None
    if node["state"] == "offline":
        return Problem(CRITICAL if node["node_type"] == "production" else WARNING, words)
    return Problem(UNKNOWN, words) if node["state"] == "unknown" else None


def with_services(result: CheckOutcome, answer: dict[str, Any], nodes: list[dict[str, Any]]) -> CheckOutcome:
    """The outcome with that of the checked ports; of nodes that are looked at, and of Tailscale Services."""
    types = {node["hostname"]: node["node_type"] for node in nodes}
    rows = [row for row in answer["services"] if row["service"] or row["hostname"] in types]
    down = [row for row in rows if row["state"] not in ("ok", "unknown")]
    problems = [
        Problem(
            CRITICAL if types.get(row["hostname"]) == "production" else WARNING,
            f"{row['hostname']}: {row['check']} {row['state'].replace('_', ' ')}",
        )
        for row in down
    ]
    if rows and not answer["can_check"]:
        problems.append(Problem(UNKNOWN, f"no port can be asked: {answer['why_not']}"))
    well = sum(row["state"] == "ok" for row in rows)
    return CheckOutcome(
        f"{result.fine}, {well} of {len(rows)} services well",
        [*result.problems, *problems],
        [
            *result.perfdata,
            f"services_ok={well};;;0;{len(rows)}",
            f"services_down={len(down)};;;0;{len(rows)}",
        ],
    )


def is_detached(node: dict[str, Any]) -> bool:
    """Control calls it offline, but it answers pings."""
    return node["state"] == "offline" and node["reason"] == "control" and node["reachable"] is True


def judge_node(node: dict[str, Any], summary: dict[str, Any], now: float) -> CheckOutcome:
    """The outcome for one node, as critical as it is asked for."""
    problem = _problem(node | {"critical": True}, now)
    if problem and problem.code == UNKNOWN and summary["blind"]:
        problem = problem._replace(text=f"{problem.text}; {summary['blind']['message']}")
    online = {"online": 1, "offline": 0}.get(node["state"], "U")
    perfdata = [f"online={online};;;0;1"]
    for label, key, unit in (("latency", "latency_ms", "ms"), ("uptime_24h", "uptime_24h", "%")):
        perfdata.append(f"{label}={_number(node[key], unit)}")
    fine = f"{node['hostname']} ({node['node_type']}) {state_words(node, now)}"
    return CheckOutcome(fine, [problem] if problem else [], perfdata)


def _number(value: object, unit: str) -> str:
    return f"{value:g}{unit}" if isinstance(value, int | float) else "U"


def _perfdata(summary: dict[str, Any], *, critical_only: bool) -> list[str]:
    critical = summary["critical_nodes"]
    total = critical["total"]
    data = [f"critical_{key}={critical[key]};;;0;{total}" for key in ("online", "offline", "unknown")]
    data.append(f"critical_health={_number(critical['health_percentage'], '%')}")
    if not critical_only:
        total = summary["total_nodes"]
        data += [
            f"{key}={summary[key]};;;0;{total}" for key in ("online_nodes", "offline_nodes", "unknown_nodes")
        ]
        data.append(f"active_alerts={summary['active_alerts']};;;0")
    return data
