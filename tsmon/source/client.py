"""One HTTP server with bounds on all it does: the only place with time-outs, limits, error translation."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tsmon.base.text import clean_text
from tsmon.source.errors import SourceError

# Nothing is compressed: the size limit is one of what is read.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Client:
    """One HTTP server with bounds on everything. `name` stands for it in messages."""

    def __init__(self, name: str, base: str, socket: str | None, *, max_bytes: int) -> None:
        self.name = name
        self._base = base
        self._socket = socket
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(
        self, method: str, path: str, timeout: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open answer; every failure is a SourceError. `timeout` None: only connecting is bounded."""
        if self._session is None:
            # No limit (default 100): whois and pings that hang would hold back the status read until its
            # time-out, and tsmon would be blind by its own doing.
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self._socket, force_close=True, limit=0)
                if self._socket
                else aiohttp.TCPConnector(force_close=True, limit=0)
            )
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=timeout or 10.0)
        try:
            async with self._session.request(
                method,
                self._base + path,
                timeout=limits,
                allow_redirects=False,
                headers=_HEADERS,
            ) as response:
                yield response
        except TimeoutError:
            raise SourceError(
                "source_timeout", f"{self.name}: no answer within {timeout or 10.0:g} s"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise SourceError("source_unreachable", f"{self.name}: {os_words(error.os_error)}") from None
        except aiohttp.ClientResponseError as error:
            words = clean_text(error.message, 120)
            raise SourceError("bad_document", f"{self.name}: is no HTTP server: {words}") from None
        except aiohttp.ServerDisconnectedError:
            words = "the connection was closed without an answer"
            raise SourceError("source_unreachable", f"{self.name}: {words}") from None
        except (aiohttp.ClientError, OSError) as error:
            words = os_words(error) if isinstance(error, OSError) else "the connection broke in mid-answer"
            raise SourceError("source_unreachable", f"{self.name}: {words}") from None

    async def read(self, method: str, path: str, timeout: float) -> tuple[int, bytes, str]:
        """Status code, body and daemon version of one answer. Raises SourceError."""
        async with self.open(method, path, timeout) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 18):
                body += chunk
                if len(body) > self._max_bytes:
                    raise SourceError(
                        "bad_document",
                        f"{self.name}: the answer is larger than source_max_bytes ({self._max_bytes} bytes)",
                    )
            return response.status, bytes(body), response.headers.get("Tailscale-Version", "")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def os_words(error: OSError) -> str:
    """Why connecting failed, for people."""
    words = {
        errno.ENOENT: "there is no such socket (is tailscaled running here?)",
        errno.ECONNREFUSED: "connection refused (nobody listens there)",
        errno.EACCES: "permission denied (may this user open the socket?)",
        errno.EPERM: "permission denied (may this user open the socket?)",
        errno.ECONNRESET: "the connection was reset",
        errno.EPIPE: "the connection was closed",
        errno.EHOSTUNREACH: "no route to the host",
        errno.ENETUNREACH: "no route to the network",
        errno.EMFILE: "too many open files in this process",
    }
    number = error.errno or 0
    if number in words:
        return words[number]
    return clean_text(error.strerror or str(error) or "connecting failed", 120)
