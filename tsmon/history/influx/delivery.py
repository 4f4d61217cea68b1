"""One request of the outbox to InfluxDB: sent as it is stored, cut where InfluxDB refuses a line."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
import structlog

from tsmon.history.influx.points import compress, library, unpack
from tsmon.history.influx.verdicts import Action, WriteVerdict, bad_lines, judge

log = structlog.get_logger(__name__)


class Delivery:
    """Delivers one request. Afterwards `refused` holds the lines to be set aside, each with its reason."""

    def __init__(
        self, client: Any, *, org: str, bucket: str, precision: str, now: Callable[[], float]
    ) -> None:
        """`client`: an InfluxDBClientAsync; `now` gives Unix seconds."""
        self.refused: dict[str, str] = {}
        self.partly = 0
        """How many writes InfluxDB stored a part of."""
        self._service = library().WriteService(client.api_client)
        self._where = {"org": org, "bucket": bucket, "precision": precision}
        self._now = now
        self._message = ""

    async def send(self, payload: bytes, pieces: int = 1) -> WriteVerdict:
        """Send until each line is stored or refused (DONE), or the request must wait. Sending lines again
        that are stored already overwrites them with themselves."""
        if pieces == 1:
            verdict = await self._write(payload)
            if verdict.action is not Action.CUT:
                return verdict
            parts = await self._cut(await asyncio.to_thread(unpack, payload), verdict)
        else:
            lines = await asyncio.to_thread(unpack, payload)
            size = max(1, len(lines) // pieces)
            parts = [lines[at : at + size] for at in range(0, len(lines), size)]
        return await self._send_all(deque(parts))

    async def _send_all(self, parts: deque[list[str]]) -> WriteVerdict:
        while parts:
            lines = parts.popleft()
            verdict = await self._write(await asyncio.to_thread(compress, lines))
            if verdict.action is Action.CUT:
                parts.extendleft(reversed(await self._cut(lines, verdict)))
            elif verdict.action is not Action.DONE:
                return verdict
        return WriteVerdict(Action.DONE)

    async def _cut(self, lines: list[str], verdict: WriteVerdict) -> list[list[str]]:
        """What is left to be sent. Lines that the answer names are refused; when it names none, the lines are
        halved until the bad one is alone."""
        named = await asyncio.to_thread(bad_lines, self._message, lines)
        if not named and len(lines) == 1:
            named = {lines[0]: verdict.words}
        if named:
            self.refused |= named
            good = [line for line in lines if line not in named]
            return [good] if good else []
        half = len(lines) // 2
        return [lines[:half], lines[half:]]

    async def _write(self, payload: bytes) -> WriteVerdict:
        """One HTTP request."""
        verdict = await self._asked(payload)
        if verdict.action is not Action.PARTLY:
            return verdict
        self.partly += 1
        log.error("influx_lines_dropped", error=verdict.words)
        return WriteVerdict(Action.DONE)

    async def _asked(self, payload: bytes) -> WriteVerdict:
        try:
            _, status, _ = await self._service.post_write_async(
                **self._where,
                body=payload,
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                _return_http_data_only=False,
            )
        except TimeoutError:
            return WriteVerdict(Action.RETRY, "no answer in time")
        except library().rest.ApiException as error:
            message = _message(error.body)
            self._message = message or ""
            return judge(error.status, error.reason or "", message, error.retry_after, self._now())
        except (aiohttp.ClientError, OSError) as error:
            return WriteVerdict(Action.RETRY, f"connecting failed: {type(error).__name__}")
        return judge(status, "", None, None, self._now())


def _message(body: bytes | None) -> str | None:
    """The message of InfluxDB's JSON (2.x `message`, 1.x `error`); None when it is none of InfluxDB's."""
    try:
        answer = json.loads(body or b"")
        message = answer["message"] if "message" in answer else answer["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return message if isinstance(message, str) else None
