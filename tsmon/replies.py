"""HTTP replies: JSON with ETag and gzip, errors in one shape. Large bodies are worked on off the loop."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import structlog
from aiohttp import hdrs, web

from tsmon.answers import ErrorAnswer, ErrorBody
from tsmon.params import BadParameterError
from tsmon.source import SourceError
from tsmon.store import StoreError

log = structlog.get_logger(__name__)

_LARGE = 100_000
"""Bytes from which hashing and compressing leave the event loop."""
_WORTH_GZIP = 1000
_SLICE = 200

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
        self._etag = ""
        self._packed: bytes | None = None

    async def etag(self) -> str:
        if not self._etag:
            digest = await _off_loop(len(self.data), lambda: blake2b(self.data, digest_size=12).hexdigest())
            self._etag = f'"{digest}"'
        return self._etag

    async def packed(self) -> bytes:
        if self._packed is None:
            self._packed = await _off_loop(
                len(self.data), lambda: gzip.compress(self.data, compresslevel=5, mtime=0)
            )
        return self._packed


async def _off_loop(size: int, work: Callable[[], Any]) -> Any:
    return work() if size < _LARGE else await asyncio.to_thread(work)


def encode_list(items: Sequence[Any]) -> bytes:
    """A JSON array, encoded in slices so that no single call holds the interpreter for long."""
    parts = [encode(items[at : at + _SLICE])[1:-1] for at in range(0, len(items), _SLICE)]
    return b"[" + b",".join(parts) + b"]"


async def reply(request: web.Request, body: Body, headers: dict[str, str] | None = None) -> web.Response:
    """`body` as the answer to `request`: 304 when the client has it, compressed when it can take that."""
    etag = await body.etag()
    common = {
        hdrs.ETAG: etag,
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.VARY: "Accept-Encoding",
        **(headers or {}),
    }
    if _has_it(request.headers.get(hdrs.IF_NONE_MATCH, ""), etag):
        return web.Response(status=304, headers=common)
    data = body.data
    if len(data) >= _WORTH_GZIP and _takes_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        data = await body.packed()
        common[hdrs.CONTENT_ENCODING] = "gzip"
    charset = "utf-8" if body.content_type.startswith(("text/", "application/json")) else None
    return web.Response(body=data, content_type=body.content_type, charset=charset, headers=common)


def _has_it(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def _takes_gzip(accept: str) -> bool:
    for part in accept.lower().split(","):
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


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure becomes an answer in the one shape; no traceback leaves the process."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(error.status, error.code, str(error))
    except BadParameterError as error:
        return error_response(400, "bad_parameter", str(error))
    except StoreError as error:
        log.warning("store_read_failed", error=str(error))
        return error_response(503, "storage_unavailable", "the history cannot be read now; try again")
    except SourceError as error:
        status = 504 if error.reason == "source_timeout" else 502
        return error_response(status, error.reason, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _HTTP_CODES.get(error.status, "http_error")
        kept = {name: error.headers[name] for name in ("Allow", "WWW-Authenticate") if name in error.headers}
        return error_response(error.status, code, _words(request, error.status), kept)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        log.exception("request_failed", path=request.path[:200])
        return error_response(500, "internal", "tsmon failed to answer; its log says why")


def _words(request: web.Request, status: int) -> str:
    if status == 405:
        return "only GET and HEAD are answered here: the TCP side is read-only"
    if status == 404:
        return f"there is nothing at {request.path[:200]}"
    return "the request cannot be answered"
