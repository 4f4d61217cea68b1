"""Samples that another monitor wrote become spans and observed time of the embedded history; pure but for
`put`, which writes them.

Source of the format: docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol. An older monitor wrote
the hostname that the machine gives itself, another spelling of the OS, and times off the grid.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import msgspec

from tsmon.base.clock import rfc3339
from tsmon.history.uptime import ObservedTime, Span
from tsmon.monitor.state import Node

MEASUREMENT = "tailscale_health"
_SPACE = re.compile(r"(?<!\\) ")
_COMMA = re.compile(r"(?<!\\),")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ONLINE = re.compile(r"online=(.*)")
_YES = frozenset({"t", "T", "true", "True", "TRUE"})
_NO = frozenset({"f", "F", "false", "False", "FALSE"})
_PRECISIONS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (10**8, 1))
"""A time of at least the first number counts the second to a second: such times lie in 1973 or later, and
those of the next finer precision are not reached before the year 5138."""
_LONGEST_LINE = 100_000
_HELD = 1.5
"""Intervals for which a sample speaks when the next one is late: an older monitor's times drift."""


class Heard(NamedTuple):
    """One sample: a name, as it was written, was online or not at a time in Unix seconds."""

    name: str
    time: float
    online: bool


class Taken(NamedTuple):
    """What an import did."""

    samples: int
    """That became history."""
    nodes: int
    since: float | None
    """The oldest of them, in Unix seconds."""
    strangers: Sequence[str]
    """Names that fit no node of the tailnet, or several."""
    first_seen: Mapping[str, float]
    """By node ID, where samples are older than what tsmon itself saw."""

    def words(self) -> str:
        """For people, when there is anything."""
        return f"{self.samples} samples (nodes: {self.nodes}) since {rfc3339(self.since)} are history now"


class Request(msgspec.Struct, frozen=True):
    """What `tsmon import` sends to a running tsmon: samples by name."""

    interval: Annotated[float, msgspec.Meta(ge=1, le=86400)]
    samples: dict[str, list[tuple[Annotated[float, msgspec.Meta(gt=0, lt=1e11)], bool]]]


class NothingSeenError(ValueError):
    """The embedded history has not begun: it knows no node that the samples could belong to."""

    def __str__(self) -> str:
        return "tsmon has not seen the tailnet yet: let it run for a minute, begin again"


def read_request(raw: bytes) -> Request:
    """Raises ValueError."""
    return msgspec.json.decode(raw, type=Request)


def read_line(line: str) -> Heard | None:
    """The sample of a line of line protocol; None for a line that holds none (another measurement, a
    comment, a point without `online`). Raises ValueError, with words that name no content."""
    if len(line) > _LONGEST_LINE:
        raise ValueError("is too long")
    line = line.strip()
    if not line.startswith(MEASUREMENT) or line[len(MEASUREMENT) : len(MEASUREMENT) + 1] not in (",", " "):
        return None
    head, *rest = _SPACE.split(line, 1)
    # A quoted text may hold anything, also what looks like a field.
    parts = _QUOTED.sub('""', "".join(rest)).split(" ")
    if len(parts) != 2:
        raise ValueError("is not line protocol with a time")
    found = [match for field in parts[0].split(",") if (match := _ONLINE.fullmatch(field))]
    if not found:
        return None
    tags = dict(tag.partition("=")[::2] for tag in _COMMA.split(head)[1:])
    if "hostname" not in tags:
        raise ValueError("has no tag hostname")
    return Heard(_unescaped(tags["hostname"]), _time(parts[1]), _truth(found[0][1]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _time(text: str) -> float:
    if not re.fullmatch(r"[0-9]{9,19}", text):
        raise ValueError("has no time after 1973")
    number = int(text)
    for least, per_second in _PRECISIONS:
        if number >= least:
            return number / per_second
    raise ValueError("has no time after 1973")


def _truth(text: str) -> bool:
    if text in _YES or text in _NO:
        return text in _YES
    if not re.fullmatch(r"[01](\.0*)?[iu]?", text):
        raise ValueError("says neither 0 nor 1")
    return text[0] == "1"


def spans_of(samples: Iterable[tuple[float, bool]], interval: float, end: float) -> list[Span]:
    """Spans without a hole from the first sample to `end`: each sample speaks until the next one, or for
    `interval` seconds when that is late; what lies between is unknown."""
    points = sorted({time: online for time, online in samples if time < end}.items())
    spans: list[Span] = []
    for (time, online), (following, _) in pairwise([*points, (end, False)]):
        until = following if following - time <= _HELD * interval else time + interval
        _add(spans, "online" if online else "offline", time, until)
        if until < following:
            _add(spans, "unknown", until, following)
    return spans


def _add(spans: list[Span], state: str, start: float, end: float) -> None:
    if spans and spans[-1].state == state:
        spans[-1] = spans[-1]._replace(end=end)
    else:
        spans.append(Span(state, start, end))


def put(
    db: sqlite3.Connection, samples: Mapping[str, Sequence[tuple[float, bool]]], interval: float, since: float
) -> Taken:
    """Write what lies before the beginning of each node's own history and after `since` (Unix seconds), in
    the transaction that is open. Once more the same changes nothing. Raises NothingSeenError."""
    begin = db.execute("SELECT min(start) FROM observed WHERE scope = ''").fetchone()[0]
    nodes = dict(_nodes(db))
    if begin is None or not nodes:
        raise NothingSeenError
    owners, strangers = _owners(samples, nodes.values())
    seen: list[tuple[float, float]] = []
    taken, count, oldest = 0, 0, begin
    first_seen: dict[str, float] = {}
    for num, node in nodes.items():
        own = [point for name in owners.get(node.id, ()) for point in samples[name] if point[0] >= since]
        first = db.execute("SELECT min(start) FROM spans WHERE node = ?", (num,)).fetchone()[0]
        spans = spans_of(own, interval, min(begin, first if first is not None else begin))
        if not spans:
            continue
        db.executemany(
            "INSERT INTO spans (node, state, start, end) VALUES (?, ?, ?, ?)",
            [(num, *span) for span in spans],
        )
        start = spans[0].start
        if start < node.first_seen:
            first_seen[node.id] = start
            body = msgspec.msgpack.encode(msgspec.structs.replace(node, first_seen=start))
            db.execute("UPDATE nodes SET first_seen = ?, body = ? WHERE num = ?", (start, body, num))
        seen += [(span.start, span.end) for span in spans if span.state != "unknown"]
        taken += sum(time < spans[-1].end for time, _ in own)
        count, oldest = count + 1, min(oldest, start)
    observed = ObservedTime(seen)
    db.executemany(
        "INSERT INTO observed (scope, start, end) VALUES ('', ?, ?)"
        " ON CONFLICT (scope, start) DO UPDATE SET end = max(end, excluded.end)",
        zip(observed.starts, observed.ends, strict=True),
    )
    return Taken(taken, count, oldest if count else None, strangers, first_seen)


def _nodes(db: sqlite3.Connection) -> Iterator[tuple[int, Node]]:
    """The nodes of the tailnet; removed ones are none of them."""
    for num, body in db.execute("SELECT num, body FROM nodes WHERE removed_at IS NULL"):
        try:
            yield num, msgspec.msgpack.decode(body, type=Node)
        except msgspec.DecodeError:
            continue  # the daemon says so at its start


def _owners(names: Iterable[str], nodes: Iterable[Node]) -> tuple[dict[str, list[str]], list[str]]:
    """The names of each node, by ID, and those of nobody: a name is that of the machine, or where nobody has
    it as that, of the only one whose OS calls itself so."""
    by_name: dict[str, set[str]] = {}
    by_os_name: dict[str, set[str]] = {}
    for node in nodes:
        by_name.setdefault(node.hostname.casefold(), set()).add(node.id)
        by_os_name.setdefault(node.facts.os_hostname.casefold(), set()).add(node.id)
    owners: dict[str, list[str]] = {}
    strangers = []
    for name in names:
        found = by_name.get(name.casefold()) or by_os_name.get(name.casefold(), set())
        if len(found) == 1 and name:
            owners.setdefault(next(iter(found)), []).append(name)
        else:
            strangers.append(name)
    return owners, sorted(strangers)
