"""POST of JSON to a channel's URL: the one place that maps HTTP to an Outcome."""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import aiohttp

from tsmon.base.clock import Clock
from tsmon.base.retry import seconds_to_wait
from tsmon.base.text import clean_text
from tsmon.notify.outcome import DELIVERED, Outcome

_TIMEOUT = 15.0
_LONGEST_ASKED = 3600.0
_TEMPORARY = (408, 425, 429)
_MOST_BYTES = 4096
"""Of an answer, for the words of an error."""


class Poster:
    """POSTs JSON to one URL; a session is made when it is first needed."""

    def __init__(self, url: str, clock: Clock) -> None:
        """`url` with http or https; user and password in it become basic auth."""
        parts = urlsplit(url)
        self._headers = {"Content-Type": "application/json", "User-Agent": "tsmon"}
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            self._headers["Authorization"] = aiohttp.encode_basic_auth(user, password)
            parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        self._url = parts.geturl()
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
        """Delivered with a 2xx answer. What will not change by itself (another 4xx, a redirect) is refused;
        the rest may be tried again."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers={**self._headers, **(headers or {})},
                allow_redirects=False,
            ) as response:
                if 200 <= response.status < 300:
                    return DELIVERED
                words = clean_text((await response.content.read(_MOST_BYTES)).decode("utf-8", "replace"), 120)
                error = f"answered {response.status}" + (f": {words}" if words else "")
                refused = 300 <= response.status < 500 and response.status not in _TEMPORARY
                asked = response.headers.get("Retry-After")
                wait = seconds_to_wait(asked, self._clock.wall(), _LONGEST_ASKED)
                return Outcome(False, error, refused, wait)
        except TimeoutError:
            return Outcome(False, f"no answer within {_TIMEOUT:g} s")
        except (aiohttp.InvalidURL, ValueError):
            return Outcome(False, "the URL is malformed", refused=True)
        except (aiohttp.ClientError, OSError) as error:
            return Outcome(False, f"connecting failed: {type(error).__name__}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
