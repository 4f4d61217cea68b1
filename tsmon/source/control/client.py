"""HTTP to a control server, with a credential and with bounds on everything: the only place that sends it."""

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

from tsmon.base.clock import Clock
from tsmon.base.retry import seconds_to_wait
from tsmon.base.text import clean_text
from tsmon.config import redact_url
from tsmon.source.client import os_words
from tsmon.source.control.fault import ControlError, ControlFault
from tsmon.source.errors import NOT_JSON

T = TypeVar("T")

TIMEOUT = 30.0
_CONNECT = 10.0
_MOST_BYTES = 128 * 1024 * 1024
_LONGEST_WAIT = 3600.0
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tsmon"}


class Answer(NamedTuple):
    status: int
    body: bytes
    retry_after: str


class ControlClient:
    """One control server. `base` is its URL with the path of the API."""

    def __init__(self, base: str, clock: Clock) -> None:
        self.name = redact_url(base)
        self.requests = 0
        self._base = base.rstrip("/")
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, path: str, *, bearer: str = "", form: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. Raises ControlError when there is no answer, and for a redirect: whoever it leads to
        must not get the credential."""
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=_CONNECT)
            self._session = aiohttp.ClientSession(timeout=limits, auto_decompress=False)
        self.requests += 1
        headers = _HEADERS | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        try:
            async with self._session.request(
                method, self._base + path, headers=headers, data=form, allow_redirects=False
            ) as response:
                body = await self._read(response)
                answer = Answer(response.status, body, response.headers.get("Retry-After", ""))
        except TimeoutError:
            raise ControlError("timeout", f"{self.name}: no answer within {TIMEOUT:g} s") from None
        except aiohttp.ClientSSLError as error:
            raise ControlError("unreachable", f"{self.name}: {_tls_words(error)}") from None
        except aiohttp.ClientConnectorError as error:
            raise ControlError("unreachable", f"{self.name}: {os_words(error.os_error)}") from None
        except aiohttp.ClientResponseError as error:
            words = clean_text(error.message, 120)
            raise ControlError("bad_answer", f"{self.name}: is no HTTP server: {words}") from None
        except (aiohttp.ClientError, OSError) as error:
            words = os_words(error) if isinstance(error, OSError) else "the connection broke in mid-answer"
            raise ControlError("unreachable", f"{self.name}: {words}") from None
        if 300 <= answer.status < 400:
            words = "a redirect, which is not followed with a credential: give the right control.url"
            raise ControlError("bad_answer", f"{self.name}: answered {answer.status}, {words}")
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(1 << 18):
            body += chunk
            if len(body) > _MOST_BYTES:
                words = f"{self.name}: the answer is larger than {_MOST_BYTES} bytes"
                raise ControlError("bad_answer", words)
        return bytes(body)

    def refuse(self, answer: Answer, what: str, remedies: Mapping[int, str]) -> None:
        """Raise the ControlError that a status code other than 200 means; `what` was asked for, `remedies`
        are those of this kind of server."""
        code = answer.status
        if code == 200:
            return
        faults: dict[int, ControlFault] = {
            401: "unauthorized",
            403: "forbidden",
            404: "not_found",
            429: "throttled",
        }
        remedy = remedies.get(code, "")
        wait = seconds_to_wait(answer.retry_after, self._clock.wall(), _LONGEST_WAIT)
        if code == 429:
            remedy = (
                f"too many requests; tsmon waits {max(wait, 60):.0f} s (a longer control.interval asks less)"
            )
        said = _said(answer.body)
        words = f"{self.name}: answered {code} to {what}" + "".join(
            f": {text}" for text in (said, remedy) if text
        )
        raise ControlError(faults.get(code, "unreachable" if code >= 500 else "bad_answer"), words, wait)

    def decode(self, body: bytes, kind: type[T]) -> T:
        """An answer as JSON of that form. Raises ControlError."""
        try:
            return msgspec.json.decode(body, type=kind)
        except NOT_JSON as error:
            words = f"the answer is not this API's ({clean_text(str(error), 100)}): is control.url right?"
            raise ControlError("bad_answer", f"{self.name}: {words}") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _said(body: bytes) -> str:
    """What a refusal says: `message` of its JSON, else its text."""
    text = body[:2000].decode("utf-8", "replace").strip()
    try:
        found: Any = msgspec.json.decode(text)
        text = str(found["message"])
    except (*NOT_JSON, KeyError, TypeError, IndexError):
        text = "" if text.startswith("<") else text
    return clean_text(text, 160)


def _tls_words(error: aiohttp.ClientSSLError) -> str:
    cause = error.__cause__ or error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        words = clean_text(cause.verify_message, 100)
        return f"its certificate is not believed ({words}): SSL_CERT_FILE may name the authority that made it"
    return f"TLS failed: {clean_text(str(cause), 100)}"
