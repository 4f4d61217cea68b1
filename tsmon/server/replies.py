"""HTTP replies: JSON with ETag and gzip, errors in one shape. Large bodies are worked on off the loop."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import structlog
from aiohttp import hdrs, web

from tsmon.base.threads import off_loop
from tsmon.history.store import StoreError
from tsmon.server.answers import ErrorAnswer, ErrorBody
from tsmon.server.params import BadParameterError
from tsmon.server.waiting import BusyError, WaitingLine
from tsmon.source.errors import SourceError

log = structlog.get_logger(__name__)

_LARGE = 100_000
"""Bytes from which hashing and compressing leave the event loop."""
_WORTH_GZIP = 1000
_PIECE = 65_536
_SLICE = 200
_MOST_BODIES = 16
_MOST_BYTES = 32_000_000
_KEPT_HEADERS = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)
BEGUN = web.RequestKey("begun", web.StreamResponse)

encode = msgspec.json.Encoder().encode


class ApiError(Exception):
    """An answer that is an error: status, code (a word for programs) and message (for people)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Body:
    """The bytes of an answer with their ETag; compressed once, when first asked for."""

    def __init__(self, data: bytes, content_type: str = "application/json", total: int = 0) -> None:
        """`total`: of a list that is a page, how many there are in all."""
        self.data = data
        self.total = total
        self.content_type = content_type
        self._digest = ""
        self._packed: bytes | None = None

    async def digest(self) -> str:
        if not self._digest:
            self._digest = await off_loop(
                lambda: blake2b(self.data, digest_size=12).hexdigest(), len(self.data), _LARGE
            )
        return self._digest

    async def packed(self) -> bytes:
        if self._packed is None:
            self._packed = await off_loop(
                lambda: gzip.compress(self.data, compresslevel=5, mtime=0), len(self.data), _LARGE
            )
        return self._packed

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.data) + len(self._packed or b"")


class Bodies:
    """Bodies that many clients ask for: each is made once, and kept until what it is made of changes. One
    that nobody waits for any more is not made."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Body]] = {}
        self._made_of: Hashable = None
        self._queue = WaitingLine()
        self._clients: Counter[asyncio.Task[Body]] = Counter()

    async def get(
        self, question: Hashable, made_of: Hashable, make: Callable[[], Coroutine[Any, Any, Body]]
    ) -> Body:
        """The body that answers `question` as things stand (`made_of`); those who ask at once share the work.
        Raises what `make` raises."""
        if made_of != self._made_of or len(self._tasks) >= _MOST_BODIES or self._size() > _MOST_BYTES:
            self._tasks, self._made_of = {}, made_of
        task = self._tasks.get(question)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._tasks[question] = asyncio.ensure_future(self._make(make))
        self._clients[task] += 1
        try:
            # A client that goes away must not take the answer from the others.
            return await asyncio.shield(task)
        finally:
            self._clients[task] -= 1
            if not self._clients[task]:
                del self._clients[task]
                if not task.done():
                    task.cancel()
                    if self._tasks.get(question) is task:
                        del self._tasks[question]

    async def _make(self, make: Callable[[], Coroutine[Any, Any, Body]]) -> Body:
        async with self._queue.turn():
            return await make()

    def _size(self) -> int:
        return sum(
            t.result().size
            for t in self._tasks.values()
            if t.done() and not t.cancelled() and not t.exception()
        )


def encode_list(items: Iterable[Any]) -> bytes:
    """A JSON array, made and encoded in slices, so that no single call holds the interpreter for long and no
    more than a slice is in memory besides its text."""
    rest, parts = iter(items), []
    while part := list(islice(rest, _SLICE)):
        parts.append(encode(part)[1:-1])
    return b"[" + b",".join(parts) + b"]"


async def reply(request: web.Request, body: Body, headers: dict[str, str] | None = None) -> web.Response:
    """`body` as the answer to `request`: 304 when the client has it, compressed when it can take that."""
    digest = await body.digest()
    data, coding = body.data, ""
    if len(data) >= _WORTH_GZIP and takes_gzip(request):
        coding = "-gzip"
    common = {
        hdrs.ETAG: f'"{digest}{coding}"',
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.VARY: "Accept-Encoding",
        **(headers or {}),
    }
    if has_it(request, digest):
        return web.Response(status=304, headers=common)
    if coding:
        data = await body.packed()
        common[hdrs.CONTENT_ENCODING] = "gzip"
    charset = "utf-8" if body.content_type.startswith(("text/", "application/json")) else None
    common[hdrs.CONTENT_LENGTH] = str(len(data))
    content = data if len(data) <= _PIECE else _pieces(data)
    return web.Response(body=content, content_type=body.content_type, charset=charset, headers=common)


async def _pieces(data: bytes) -> AsyncIterator[memoryview]:
    """A client that does not read has a piece of its own waiting for it, and shares the rest with all others:
    given whole, 150 of them hold 200 MB."""
    view = memoryview(data)
    for begin in range(0, len(view), _PIECE):
        yield view[begin : begin + _PIECE]


def has_it(request: web.BaseRequest, digest: str) -> bool:
    """The client has this content already, in whichever coding (`If-None-Match`)."""
    header = request.headers.get(hdrs.IF_NONE_MATCH, "")
    tags = {tag.strip().removeprefix("W/").strip('"').removesuffix("-gzip") for tag in header.split(",")}
    return digest in tags or "*" in tags


def takes_gzip(request: web.BaseRequest) -> bool:
    for part in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        name, _, quality = part.strip().partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def error_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = encode(ErrorAnswer(ErrorBody(code, message)))
    common = {hdrs.CACHE_CONTROL: "no-store", **(headers or {})}
    return web.Response(
        status=status, body=body, content_type="application/json", charset="utf-8", headers=common
    )


_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 400: "bad_request"}


async def note_begun(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler: from here on an answer leaves, and no other may follow it."""
    request[BEGUN] = response


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure becomes an answer in the one shape; no traceback leaves the process."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 (the last one who can make an answer of it)
        begun: web.StreamResponse | None = request.get(BEGUN)
        if begun is None:
            return _error_answer(request, error)
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log.warning("answer_cut_off", path=request.path[:200], error=str(error))
        # Half an answer must not look whole, nor be followed by another one on the same connection.
        if request.transport is not None:
            request.transport.abort()
        return begun


def _error_answer(request: web.Request, error: Exception) -> web.StreamResponse:
    match error:
        case BusyError():
            return error_response(503, "busy", str(error), {hdrs.RETRY_AFTER: "2"})
        case ApiError():
            return error_response(error.status, error.code, str(error))
        case BadParameterError():
            return error_response(400, "bad_parameter", str(error))
        case StoreError():
            log.warning("store_read_failed", error=str(error))
            return error_response(503, "storage_unavailable", "the history cannot be read now; try again")
        case SourceError():
            status = 504 if error.reason == "source_timeout" else 502
            return error_response(status, error.reason, str(error))
        case web.HTTPException():
            if error.status < 400:
                raise error
            code = _HTTP_CODES.get(error.status, "http_error")
            kept = {str(name): error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
            return error_response(error.status, code, _words(request, error.status), kept)
    log.error("request_failed", path=request.path[:200], exc_info=error)
    return error_response(500, "internal", "tsmon failed to answer; its log says why")


def _words(request: web.Request, status: int) -> str:
    if status == 405:
        return "only GET and HEAD are answered here: the TCP side is read-only"
    if status == 404:
        return f"there is nothing at {request.path[:200]}"
    return "the request cannot be answered"
