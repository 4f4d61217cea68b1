"""The heartbeat: a URL is called while tsmon sees and stores, so that a dead-man's switch can watch it."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiohttp
import structlog

from tsmon.base.clock import Clock, rfc3339
from tsmon.config import HeartbeatSettings, redact_url

log = structlog.get_logger(__name__)

_TIMEOUT = 10.0
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Heartbeat:
    """Calls the URL; `run` until cancelled, `stopped` at the end."""

    def __init__(self, settings: HeartbeatSettings, clock: Clock, problem: Callable[[], str]) -> None:
        """`problem` says why tsmon is not well, "" when it is: then the URL is called."""
        self.error = ""
        self.last_success: float | None = None
        self._interval = settings.interval
        self._url = settings.url.reveal() if settings.url is not None else ""
        self._name = redact_url(self._url)
        self._clock = clock
        self._problem = problem
        self._method = "GET"

    def readiness(self) -> dict[str, Any]:
        """For /readyz: the URL is a secret."""
        return {
            "service": self._name,
            "last_success": rfc3339(self.last_success),
            "error": self.error or None,
            "held_back": self._problem() or None,
        }

    async def run(self) -> None:
        """One call per interval; a service that wants POST says so with 405."""
        async for _ in self._clock.ticks(self._interval):
            if not self._problem():
                await self._beat(self._url)

    async def stopped(self) -> None:
        """Tell a service that takes it that tsmon was stopped in order. Nothing is raised."""
        url = stopped_url(self._url)
        if url:
            await self._beat(url)

    async def _beat(self, url: str) -> None:
        error = await self._call(url)
        if error == "answered 405":
            self._method = "POST" if self._method == "GET" else "GET"
            error = await self._call(url)
        if error and not self.error:
            log.warning("heartbeat_failing", service=self._name, error=error)
        elif self.error and not error:
            log.info("heartbeat_works", service=self._name)
        self.error = error
        if not error:
            self.last_success = self._clock.wall()

    async def _call(self, url: str) -> str:
        """Why it failed, "" when it did not."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(
                    self._method, url, headers={"User-Agent": "tsmon"}, allow_redirects=False
                ) as response,
            ):
                if 300 <= response.status < 400:
                    # Where it leads (a login page, another host) may answer 200 to anything.
                    return f"answered {response.status}, a redirect, which is not followed: give its target"
                return "" if response.status < 300 else f"answered {response.status}"
        except TimeoutError:
            return f"no answer within {_TIMEOUT:g} s"
        except (aiohttp.InvalidURL, ValueError):
            return "the URL is malformed"
        except (aiohttp.ClientError, OSError) as error:
            return f"connecting failed: {type(error).__name__}"


def stopped_url(url: str) -> str:
    """Where the service of `url` takes a note that changes no state, "" when it is none that is known.

    A stop in order must wake nobody; when tsmon stays away the missing calls do. Sources: healthchecks.io's
    pinging API (`/log`), Uptime Kuma's push monitor (`msg`).
    """
    parts = urlsplit(url)
    if re.fullmatch(rf"(/[^/]+)*/{_UUID}/?", parts.path) or parts.hostname == "hc-ping.com":
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/log"))
    if re.search(r"/api/push/[^/]+/?$", parts.path):
        query = dict(parse_qsl(parts.query)) | {"status": "up", "msg": "tsmon was stopped"}
        return urlunsplit(parts._replace(query=urlencode(query)))
    return ""
