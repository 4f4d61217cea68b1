"""Samples and events as line protocol, made by influxdb-client's `Point`: the schema of docs/influxdb.md."""

import gzip
import io
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tsmon.monitor.samples import AnySample, Sample, ServiceSample
from tsmon.monitor.state import Event

MEASUREMENT = "tailscale_health"
EVENT_MEASUREMENT = "tailscale_event"
SERVICE_MEASUREMENT = "tailscale_service"
MOST_LINES = 5000
MOST_BYTES = 1_000_000
"""Of one request, before compression."""
_MOST_TEXT = 10_000  # InfluxDB takes 64 KB
_NOBODY = "none"
"""The tag of an event that is about no node: a tag left out would begin another series."""

_importing = threading.Lock()


class Packed(NamedTuple):
    """Lines of one request, gzipped."""

    lines: int
    payload: bytes


def library() -> Any:
    """The client library, imported once and by one thread: two at a time would see it half made, and the
    event loop has no half second to spare."""
    with _importing:
        import influxdb_client
        import influxdb_client.client.influxdb_client_async
        import influxdb_client.rest
    return influxdb_client


def lines_of(grid: float, samples: Iterable[AnySample], tags: Mapping[str, str]) -> list[str]:
    """One line per sample, at a grid time in Unix seconds, second precision. Run it in a thread."""
    client = library()
    lines = []
    for sample in samples:
        is_node = isinstance(sample, Sample)
        point = _begin(client, MEASUREMENT if is_node else SERVICE_MEASUREMENT, tags)
        point.time(int(grid), client.WritePrecision.S)
        point.tag("hostname", sample.hostname).tag("node_type", sample.node_type)
        _fill(point, sample)
        if sample.latency_ms is not None:
            point.field("latency_ms", float(sample.latency_ms))
        lines.append(point.to_line_protocol())
    return lines


def _fill(point: Any, sample: AnySample) -> None:
    if isinstance(sample, ServiceSample):
        point.tag("check", _tag_value(sample.check)).field("up", sample.up)
        return
    point.tag("os", _tag_value(sample.os) or "unknown").field("online", int(sample.online))
    if sample.ip:
        point.field("ip", sample.ip)


def event_lines_of(events: Iterable[Event], tags: Mapping[str, str]) -> list[str]:
    """One line per event, nanosecond precision. Run it in a thread.

    The nanoseconds within the second are the event's id: two events of one node in one second would overwrite
    each other otherwise.
    """
    client = library()
    lines = []
    for event in events:
        point = _begin(client, EVENT_MEASUREMENT, tags)
        point.time(int(event.timestamp) * 10**9 + event.id % 10**9, client.WritePrecision.NS)
        point.tag("type", event.event_type).tag("severity", event.severity)
        point.tag("hostname", event.hostname or _NOBODY).tag("node_type", event.node_type or _NOBODY)
        # A line feed may stand in a text, but lines are what a refused batch is cut into.
        point.field("message", " ".join(event.message.splitlines())[:_MOST_TEXT])
        if event.node_id:
            point.field("node_id", event.node_id)
        lines.append(point.to_line_protocol())
    return lines


def _begin(client: Any, measurement: str, tags: Mapping[str, str]) -> Any:
    point = client.Point(measurement)
    for name, value in tags.items():
        point.tag(name, _tag_value(value))
    return point


def _tag_value(text: str) -> str:
    # Servers do not agree on what a backslash before an escaped comma means: to some it ends the tag.
    return text.replace("\\", "/")


def pack(lines: Sequence[str]) -> Iterator[Packed]:
    """The lines in requests of at most `MOST_LINES` and `MOST_BYTES`. Run it in a thread."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        raw = line.encode()
        if part and (len(part) == MOST_LINES or size + len(raw) + 1 > MOST_BYTES):
            yield _packed(part)
            part, size = [], 0
        part.append(raw)
        size += len(raw) + 1
    if part:
        yield _packed(part)


def _packed(part: list[bytes]) -> Packed:
    return Packed(len(part), _compressed(b"\n".join(part)))


def _compressed(raw: bytes) -> bytes:
    # Without a time stamp in the header the same lines are the same bytes.
    return gzip.compress(raw, compresslevel=5, mtime=0)


def compress(lines: Sequence[str]) -> bytes:
    """The body of a request. Run it in a thread."""
    return _compressed("\n".join(lines).encode())


def unpack(payload: bytes) -> list[str]:
    """The lines of a request. Raises ValueError for what is none. Run it in a thread."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(payload)) as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise ValueError("that is not gzipped") from None
    if len(raw) > MOST_BYTES:
        raise ValueError(f"that is more than {MOST_BYTES} bytes")
    return raw.decode().split("\n")
