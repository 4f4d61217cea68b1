"""The Flux that tsmon asks, and how its answers are read; pure.

Values are bound by the client (`extern`), never pasted: Flux strings interpolate. Each number has a pipeline
of its own, written out: a variable used twice, or a `mean`, is not pushed down to the storage engine.
Sources: docs/influxdb.md.
"""

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tsmon.base.clock import parse_rfc3339

_FROM = """from(bucket: _bucket)
  |> range(start: _start, stop: _stop)
  |> filter(fn: (r) => r._measurement == "tailscale_health" and r._field == "online")"""

TALLIES = f"""{_FROM}
  |> group(columns: ["hostname"])
  |> sum()
  |> keep(columns: ["hostname", "_value"])
  |> yield(name: "online")
{_FROM}
  |> group(columns: ["hostname"])
  |> count()
  |> keep(columns: ["hostname", "_value"])
  |> yield(name: "count")
{_FROM}
  |> first()
  |> keep(columns: ["hostname", "_time"])
  |> yield(name: "first")
"""
"""Per hostname: samples that say online, samples, and the time of the first one of each series."""

WINDOWS = f"""{_FROM}
  |> aggregateWindow(every: _every, offset: _offset, fn: sum, createEmpty: false)
  |> keep(columns: ["hostname", "_time", "_value"])
  |> yield(name: "online")
{_FROM}
  |> aggregateWindow(every: _every, offset: _offset, fn: count, createEmpty: false)
  |> keep(columns: ["hostname", "_time", "_value"])
  |> yield(name: "count")
"""
"""The same per window; `_time` is the window's stop."""


class Tally(NamedTuple):
    """What the samples of one hostname say."""

    online: int
    samples: int
    first: float | None = None
    """Time of the first sample."""


class AnswerError(Exception):
    """The answer is none of InfluxDB's, or says that the query failed."""


def bound(bucket: str, start: float, stop: float) -> dict[str, Any]:
    """The values of `TALLIES`; the stop is exclusive."""
    return {"_bucket": bucket, "_start": _moment(start), "_stop": _moment(stop)}


def bound_windows(bucket: str, start: float, every: float, count: int) -> dict[str, Any]:
    """The values of `WINDOWS` for `count` windows of `every` seconds from `start` on, whole seconds."""
    step = max(1, round(every))
    offset = timedelta(seconds=int(start) % step)
    values = bound(bucket, start, int(start) + step * count)
    return values | {"_every": timedelta(seconds=step), "_offset": offset}


def _moment(wall: float) -> datetime:
    return datetime.fromtimestamp(int(wall), UTC)


def read_tallies(text: str) -> dict[str, Tally]:
    """Tallies by hostname tag. Raises AnswerError."""
    online: dict[str, int] = {}
    count: dict[str, int] = {}
    first: dict[str, float] = {}
    for row in _rows(text):
        name = row.get("hostname", "")
        if row["result"] == "online":
            online[name] = online.get(name, 0) + _number(row)
        elif row["result"] == "count":
            count[name] = count.get(name, 0) + _number(row)
        elif row["result"] == "first":
            first[name] = min(_time(row), first.get(name, float("inf")))
    return {
        name: Tally(min(online.get(name, 0), number), number, first.get(name))
        for name, number in count.items()
    }


def read_windows(text: str, start: float, every: float, count: int) -> dict[str, list[Tally]]:
    """One tally for each window, by hostname tag. Raises AnswerError."""
    step = max(1, round(every))
    found: dict[str, list[list[int]]] = {}
    for row in _rows(text):
        # The stop of the last window may be clipped to that of the range.
        at = -(-round(_time(row) - int(start)) // step) - 1
        if not 0 <= at < count:
            continue
        tallies = found.setdefault(row.get("hostname", ""), [[0, 0] for _ in range(count)])
        tallies[at][0 if row["result"] == "online" else 1] += _number(row)
    return {
        name: [Tally(min(online, number), number) for online, number in tallies]
        for name, tallies in found.items()
    }


def _rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of un-annotated CSV: tables with a header each, parted by empty lines."""
    header: Sequence[str] = ()
    for row in csv.reader(text.splitlines()):
        if not any(row):
            header = ()
        elif not header:
            header = row
            if "error" in row:
                raise AnswerError("InfluxDB could not run the query")
            if "result" not in row:
                raise AnswerError(
                    "the answer is none of InfluxDB's: check influx.url, and any proxy before it"
                )
        elif len(row) == len(header):
            yield dict(zip(header, row, strict=True))


def _number(row: dict[str, str]) -> int:
    try:
        return int(float(row["_value"]))
    except (KeyError, ValueError, OverflowError):
        raise AnswerError("the answer holds no number where one is due") from None


def _time(row: dict[str, str]) -> float:
    try:
        return parse_rfc3339(row["_time"])
    except (KeyError, ValueError):
        raise AnswerError("the answer holds no time where one is due") from None
