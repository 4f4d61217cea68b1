"""The whole filtered log as a stream of CSV or NDJSON."""

import csv
import io
from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from aiohttp import hdrs, web

from tsmon.history.log import EventFilter, all_events, log_mark
from tsmon.history.store import Store
from tsmon.monitor.state import Event
from tsmon.server.csv_cells import cell
from tsmon.server.render import event_answer
from tsmon.server.replies import has_it, takes_gzip

CSV = "text/csv"
NDJSON = "application/x-ndjson"
_ENDINGS = {CSV: "csv", NDJSON: "ndjson"}
_COLUMNS = (
    "id",
    "timestamp",
    "recorded_at",
    "event_type",
    "severity",
    "node_id",
    "hostname",
    "node_type",
    "message",
)


def wanted_export(request: web.Request) -> str | None:
    """The type of export that the client asks for by `Accept`, None for the JSON page."""
    accept = request.headers.get(hdrs.ACCEPT, "")
    return next((kind for kind in _ENDINGS if kind in accept), None)


async def send_log(request: web.Request, store: Store, chosen: EventFilter, kind: str) -> web.StreamResponse:
    """Stream the log, newest first. Raises StoreError; after the first chunk that cuts the answer off."""
    mark = repr((kind, chosen, await log_mark(store)))
    digest = blake2b(mark.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    headers = {
        hdrs.ETAG: f'W/"{digest}"',
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.VARY: "Accept, Accept-Encoding",
    }
    if has_it(request, digest):
        return web.Response(status=304, headers=headers)
    response = web.StreamResponse(
        headers={
            **headers,
            hdrs.CONTENT_TYPE: f"{kind}; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="tsmon-log.{_ENDINGS[kind]}"',
        }
    )
    if takes_gzip(request) and request.method != hdrs.METH_HEAD:
        # aiohttp would send the compressor's last bytes behind a HEAD's headers.
        response.enable_compression(web.ContentCoding.gzip)
    chunks = all_events(store, chosen)
    # Read before the first byte leaves, so that a store that cannot be read is still a proper error.
    events: list[Event] = await anext(chunks, [])
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    if kind == CSV:
        await response.write(_csv_text((), header=True).encode())
    while events:
        await response.write(
            _csv_text(events, header=False).encode() if kind == CSV else _ndjson_lines(events)
        )
        events = await anext(chunks, [])
    await response.write_eof()
    return response


def _csv_text(events: Iterable[Event], *, header: bool) -> str:
    """Rows of CSV; a cell never begins a formula in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    if header:
        writer.writerow(_COLUMNS)
    for event in events:
        answer = event_answer(event)
        writer.writerow([cell(getattr(answer, column)) for column in _COLUMNS])
    return out.getvalue()


def _ndjson_lines(events: Iterable[Event]) -> bytes:
    return b"".join(msgspec.json.encode(event_answer(event)) + b"\n" for event in events)
