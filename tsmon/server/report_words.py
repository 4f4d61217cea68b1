"""The words that text and HTML of a report share. Pure."""

from datetime import datetime
from heapq import nsmallest
from zoneinfo import ZoneInfo

from tsmon.base.clock import parse_rfc3339
from tsmon.base.text import clean_text, length_words
from tsmon.server.report_answers import ReportAnswer, ReportNode, ReportOutage, ReportRole, ReportService

NOT_SEEN = "not enough seen"
FIGURES = ("uptime", "seen", "offline", "planned", "outages", "longest", "target", "budget")
"""What `figures` are, in order."""
REASONS = {
    "control": "offline",
    "unreachable": "does not answer pings",
    "stopped": "stopped",
    "key_expired": "key expired",
}


def moment(text: str | None, answer: ReportAnswer) -> str:
    """A time of the answer on the wall there: `2026-10-25 02:30 CEST`."""
    if text is None:
        return "?"
    return datetime.fromtimestamp(parse_rfc3339(text), ZoneInfo(answer.time_zone)).strftime(
        "%Y-%m-%d %H:%M %Z"
    )


def heading(answer: ReportAnswer) -> str:
    begin, end = moment(answer.start, answer), moment(answer.end, answer)
    return f"{begin} to {end} ({answer.time_zone})"


def remarks(answer: ReportAnswer) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if answer.window_s < answer.period_s:
        found.append("The period is not over: these are its figures until now.")
    if answer.blind is not None:
        found.append(f"tsmon cannot see the tailnet now ({answer.blind}).")
    if any(row.uptime_percentage is None and row.coverage is not None for row in answer.nodes):
        found.append(f'"{NOT_SEEN}": less than half of the time was observed, so no uptime is given.')
    return found


def uptime(row: ReportNode | ReportRole | ReportService) -> str:
    if row.uptime_percentage is not None:
        return f"{row.uptime_percentage:.2f} %"
    return "not there" if row.coverage is None else NOT_SEEN


def budget(row: ReportNode | ReportRole) -> str:
    """What is left of the time that the target allows."""
    if row.target is None:
        return ""
    if row.budget_left_s is None:
        return NOT_SEEN
    minutes = abs(row.budget_left_s) / 60
    words = f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min"
    return f"{words} left" if row.budget_left_s >= 0 else f"{words} over"


def figures(row: ReportNode | ReportRole) -> tuple[str, ...]:
    """The cells of one row; "" where there is nothing to say."""
    return (
        uptime(row),
        "" if row.coverage is None else f"{row.coverage:.2f} %",
        _length(row.offline_s),
        _length(row.planned_s),
        str(row.outages) if row.outages else "",
        _length(row.longest_outage_s),
        "" if row.target is None else f"{row.target:g} %",
        budget(row),
    )


def service_figures(row: ReportService) -> tuple[str, ...]:
    """The cells of a checked port: its name, uptime, coverage, offline, outages."""
    return (
        name(f"{row.hostname} {row.check}"),
        uptime(row),
        "" if row.coverage is None else f"{row.coverage:.2f} %",
        _length(row.offline_s),
        str(row.outages) if row.outages else "",
    )


def _length(seconds: int) -> str:
    return length_words(seconds) if seconds else ""


def name(text: str) -> str:
    return clean_text(text, 80)


def why(outage: ReportOutage) -> str:
    """Reason and notes of an outage."""
    words = [REASONS.get(outage.reason or "", "")] if outage.reason else []
    if outage.planned:
        words.append("planned")
    words += [f"{clean_text(note.author, 60)}: {clean_text(note.text, 300)}" for note in outage.notes]
    return "; ".join(words)


def worst_outages(answer: ReportAnswer, most: int) -> tuple[list[tuple[ReportNode, ReportOutage]], int]:
    """The longest ones, unplanned ones first, and how many there are in all."""
    every = ((node, outage) for node in answer.nodes for outage in node.outage_list)
    # Not sorted as a whole: for a month's of a large tailnet that is one long call, and nothing else runs.
    worst = nsmallest(most, every, lambda pair: (pair[1].planned, -pair[1].duration_s, pair[0].hostname))
    return worst, sum(len(node.outage_list) for node in answer.nodes)
