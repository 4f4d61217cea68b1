"""The report as plain text, for terminals and mail. Pure."""

from collections.abc import Sequence

from tsmon.base.text import length_words
from tsmon.server.report_answers import ReportAnswer
from tsmon.server.report_words import (
    FIGURES,
    budget,
    figures,
    heading,
    moment,
    name,
    remarks,
    service_figures,
    uptime,
    why,
    worst_outages,
)

_MOST_NODES = 2000
_MOST_OUTAGES = 100


def report_text(answer: ReportAnswer) -> bytes:
    """Lines of UTF-8: remarks, roles, nodes, outages."""
    lines = [f"Report of the tailnet, {heading(answer)}", *remarks(answer), ""]
    roles = [(name(role.role), f"{role.nodes} nodes", *figures(role)) for role in answer.roles]
    lines += [*_table(("role", "", *FIGURES), roles), ""]
    if answer.services:
        services = [service_figures(service) for service in answer.services[:_MOST_NODES]]
        lines += _table(("service", "uptime", "seen", "offline", "outages"), services)
        lines += [*_more(len(answer.services), _MOST_NODES, "services"), ""]
    nodes = [(name(node.hostname), name(node.role), *figures(node)) for node in answer.nodes[:_MOST_NODES]]
    lines += _table(("node", "role", *FIGURES), nodes)
    lines += _more(len(answer.nodes), _MOST_NODES, "nodes")
    worst, total = worst_outages(answer, _MOST_OUTAGES)
    if worst:
        rows = [
            (
                name(node.hostname),
                moment(outage.start, answer),
                moment(outage.end, answer) if outage.end else "lasts",
                length_words(outage.duration_s),
                why(outage),
            )
            for node, outage in worst
        ]
        lines += ["", *_table(("outage of", "begin", "end", "length", "why"), rows)]
        lines += _more(total, _MOST_OUTAGES, "outages")
    return "".join(line + "\n" for line in lines).encode()


def summary_text(answer: ReportAnswer, most: int = 5, most_roles: int = 12) -> str:
    """The few lines that a message holds."""
    lines = [heading(answer), *remarks(answer)]
    worst_roles = sorted(answer.roles, key=lambda role: -role.offline_s)
    for role in worst_roles[:most_roles]:
        outages = f"{role.outages or 'no'} {'outage' if role.outages == 1 else 'outages'}"
        words = [f"{name(role.role)} ({role.nodes}): {uptime(role)}", outages]
        words += [budget(role)] if role.target is not None else []
        lines.append(", ".join(words))
    if len(worst_roles) > most_roles:
        lines.append(f"and {len(worst_roles) - most_roles} more roles")
    worst = [node for node in answer.nodes if node.offline_s][:most]
    if worst:
        named = (f"{name(node.hostname)} {length_words(node.offline_s)}" for node in worst)
        lines.append("Longest offline: " + ", ".join(named))
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    every = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    return [
        "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]


def _more(total: int, shown: int, what: str) -> list[str]:
    return [f"and {total - shown:,} more {what} (all of them as CSV or JSON)"] if total > shown else []
