"""The report as an answer, as JSON and as CSV. Pure: made in a thread."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.history.report import Period, Sums, add_up
from tsmon.history.reported import ReportedNode, ReportedOutage
from tsmon.history.reported_services import ReportedService
from tsmon.history.uptime import Outage
from tsmon.monitor.services.service import ServiceKey
from tsmon.server.csv_cells import cell
from tsmon.server.replies import encode, encode_list
from tsmon.server.report_answers import (
    ReportAnswer,
    ReportNode,
    ReportNote,
    ReportOutage,
    ReportRole,
    ReportService,
    ReportServiceOutage,
)


class Question(NamedTuple):
    """What is reported, and as of when; Unix seconds."""

    whole: Period
    """The period asked for; it may reach beyond now."""
    now: float

    @property
    def period(self) -> Period:
        """What of it is past."""
        return self.whole._replace(end=min(self.whole.end, self.now))


def report_answer(
    found: Iterable[ReportedNode],
    question: Question,
    targets: Mapping[str, float],
    services: Iterable[ReportedService] = (),
    *,
    as_of: float | None,
    blind: str | None,
) -> ReportAnswer:
    """Nodes with most offline time first; `targets` are percentages by role name."""
    found = sorted(found, key=lambda row: (-row.sums.offline, row.node.hostname, row.node.id))
    whole = {row.node.id: row.sums.whole() for row in found}
    nodes = [_node(row, whole[row.node.id], question, targets.get(row.node.role.name)) for row in found]
    by_role: dict[str, list[ReportedNode]] = {}
    for row in found:
        by_role.setdefault(row.node.role.name, []).append(row)
    roles = [
        _role(name, rows, [whole[row.node.id] for row in rows], question, targets.get(name))
        for name, rows in sorted(by_role.items())
    ]
    period = question.period
    return ReportAnswer(
        start=rfc3339(period.start),
        end=rfc3339(period.end),
        time_zone=period.time_zone,
        window_s=round(period.end - period.start),
        period_s=round(question.whole.end - period.start),
        as_of=rfc3339(as_of),
        blind=blind,
        day_bounds=[rfc3339(bound) for bound in period.days],
        roles=roles,
        services=[_service(row, question) for row in sorted(services, key=_service_order)],
        nodes=nodes,
    )


def _service_order(row: ReportedService) -> tuple[float, str, ServiceKey]:
    return -row.sums.offline, row.name, row.key


def _service(row: ReportedService, question: Question) -> ReportService:
    whole = row.sums.whole()
    return ReportService(
        node_id=None if row.key.owner.startswith("svc:") else row.key.owner,
        hostname=row.name,
        check=row.key.check,
        uptime_percentage=row.sums.uptime_percentage,
        coverage=row.sums.coverage,
        online_s=int(whole.online),
        offline_s=int(whole.offline),
        unknown_s=int(whole.unknown),
        planned_s=int(whole.planned),
        outages=len(row.outages),
        longest_outage_s=_longest(row.outages, question.period),
        outage_list=[
            ReportServiceOutage(
                rfc3339(one.start),
                rfc3339(one.end),
                round((question.now if one.end is None else one.end) - one.start),
            )
            for one in row.outages
        ],
    )


def _node(row: ReportedNode, whole: Sums, question: Question, target: float | None) -> ReportNode:
    node = row.node
    unplanned = [outage for outage in row.outages if not outage.planned]
    return ReportNode(
        id=node.id,
        hostname=node.hostname,
        node_type=node.role.node_type,
        role=node.role.name,
        uptime_percentage=row.sums.uptime_percentage,
        coverage=row.sums.coverage,
        online_s=int(whole.online),
        offline_s=int(whole.offline),
        unknown_s=int(whole.unknown),
        planned_s=int(whole.planned),
        absent_s=int(whole.absent),
        outages=len(unplanned),
        longest_outage_s=_longest(unplanned, question.period),
        target=target,
        budget_left_s=_budget([row.sums], question, target),
        removed=node.removed_at is not None,
        days=row.days,
        outage_list=[_outage(outage, question.now) for outage in row.outages],
    )


def _role(
    name: str, rows: Sequence[ReportedNode], whole: Sequence[Sums], question: Question, target: float | None
) -> ReportRole:
    sums, seconds = add_up(row.sums for row in rows), add_up(whole)
    unplanned = [outage for row in rows for outage in row.outages if not outage.planned]
    return ReportRole(
        role=name,
        node_type=rows[0].node.role.node_type,
        nodes=len(rows),
        uptime_percentage=sums.uptime_percentage,
        coverage=sums.coverage,
        online_s=int(seconds.online),
        offline_s=int(seconds.offline),
        unknown_s=int(seconds.unknown),
        planned_s=int(seconds.planned),
        absent_s=int(seconds.absent),
        outages=len(unplanned),
        longest_outage_s=_longest(unplanned, question.period),
        target=target,
        budget_left_s=_budget([row.sums for row in rows], question, target),
    )


def _budget(sums: Sequence[Sums], question: Question, target: float | None) -> int | None:
    """Seconds left of what all of them together may be offline."""
    if target is None:
        return None
    period = question.whole.end - question.whole.start
    left = add_up(sums).budget_left(target, period * len(sums))
    return None if left is None else round(left)


def _longest(outages: Iterable[ReportedOutage | Outage], period: Period) -> int:
    """Seconds of the longest one that lie in the period."""
    lengths = (
        (period.end if o.end is None else min(o.end, period.end)) - max(o.start, period.start)
        for o in outages
    )
    return round(max(lengths, default=0))


def _outage(outage: ReportedOutage, now: float) -> ReportOutage:
    return ReportOutage(
        start=rfc3339(outage.start),
        end=rfc3339(outage.end),
        duration_s=round((now if outage.end is None else outage.end) - outage.start),
        reason=outage.reason,
        planned=outage.planned,
        notes=tuple(
            ReportNote(
                id=str(note.id),
                author=note.author,
                text=note.text,
                planned=note.planned,
                start=rfc3339(note.start),
                end=rfc3339(note.end),
            )
            for note in outage.notes
        ),
    )


def report_json(answer: ReportAnswer) -> bytes:
    """JSON, encoded in slices: ten thousand nodes in one call would hold the interpreter."""
    head = encode(msgspec.structs.replace(answer, nodes=[]))
    return head.removesuffix(b"[]}") + encode_list(answer.nodes) + b"}"


_COLUMNS = (
    "hostname",
    "id",
    "node_type",
    "role",
    "uptime_percentage",
    "coverage",
    "online_s",
    "offline_s",
    "planned_s",
    "unknown_s",
    "absent_s",
    "outages",
    "longest_outage_s",
    "target",
)


def report_csv(answer: ReportAnswer) -> bytes:
    """One row a node; a cell never begins a formula, so what is over the budget has a column of its own."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["start", "end", "time_zone", *_COLUMNS, "budget_left_s", "over_budget_s"])
    period = [cell(answer.start), cell(answer.end), cell(answer.time_zone)]
    for node in answer.nodes:
        left = node.budget_left_s
        budget = ["", ""] if left is None else [str(max(0, left)), str(max(0, -left))]
        writer.writerow([*period, *(cell(getattr(node, column)) for column in _COLUMNS), *budget])
    return out.getvalue().encode()
