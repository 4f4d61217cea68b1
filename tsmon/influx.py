"""Samples to InfluxDB: points made off the loop, a durable outbox in the store, one write in flight."""

import asyncio
import gzip
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
import structlog

from tsmon.clock import Clock, rfc3339
from tsmon.collector import Sample
from tsmon.config import InfluxSettings, redact_url
from tsmon.store import Store, StoreError

log = structlog.get_logger(__name__)

MEASUREMENT = "tailscale_health"
MOST_LINES = 5000
LAG_LIMIT = 900.0
"""Seconds of lag after which `storage_failing` fires."""
_TIMEOUT_MS = 20_000  # the server's own limit is 10 s
_SLICE = 250
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_MOST_PATIENCE = 600.0


_importing = threading.Lock()


def _client() -> Any:
    """The client library, imported once and by one thread: two at a time would see it half made, and the
    event loop has no half second to spare."""
    with _importing:
        import influxdb_client
        import influxdb_client.client.influxdb_client_async
        import influxdb_client.rest
    return influxdb_client


def lines_of(grid: float, samples: Sequence[Sample], tags: dict[str, str]) -> list[str]:
    """Line protocol of the samples of one grid time, as influxdb-client's `Point` writes it (the schema is
    that of docs/influxdb.md). Run it in a thread."""
    library = _client()
    lines = []
    for sample in samples:
        point = library.Point(MEASUREMENT).time(int(grid), library.WritePrecision.S)
        for name, value in tags.items():
            point.tag(name, value)
        point.tag("hostname", sample.hostname).tag("node_type", sample.node_type).tag(
            "os", sample.os or "unknown"
        )
        point.field("online", int(sample.online))
        if sample.ip:
            point.field("ip", sample.ip)
        if sample.latency_ms is not None:
            point.field("latency_ms", float(sample.latency_ms))
        lines.append(point.to_line_protocol())
    return lines


class Influx:
    """The sink of samples, and the loop that sends what the outbox holds, in order."""

    def __init__(self, settings: InfluxSettings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._news = asyncio.Event()
        self._oldest: float | None = None
        self.error = ""
        self.last_success: float | None = None
        self.dropped = 0
        self.quarantined = 0

    async def put_samples(self, grid: float, samples: list[Sample]) -> None:
        """Store the samples of one grid time in the outbox; sending is another's job."""
        for start in range(0, len(samples), MOST_LINES):
            part = samples[start : start + MOST_LINES]
            payload, count = await asyncio.to_thread(self._pack, grid, part)
            now = self._clock.wall()

            def add(
                db: sqlite3.Connection, payload: bytes = payload, count: int = count, now: float = now
            ) -> int:
                db.execute(
                    "INSERT INTO influx_outbox (created, grid, lines, bytes, payload) VALUES (?, ?, ?, ?, ?)",
                    (now, grid, count, len(payload), payload),
                )
                return self._trim(db, now)

            try:
                self.dropped += await self._store.write(add)
            except StoreError as error:
                log.warning("samples_lost", grid=grid, samples=count, error=str(error))
        self._news.set()

    def _pack(self, grid: float, samples: Sequence[Sample]) -> tuple[bytes, int]:
        lines: list[str] = []
        for start in range(0, len(samples), _SLICE):
            lines += lines_of(grid, samples[start : start + _SLICE], self._settings.tags)
        return gzip.compress("\n".join(lines).encode(), compresslevel=5), len(lines)

    def _trim(self, db: sqlite3.Connection, now: float) -> int:
        """Drop what is too old or too much, oldest first; returns how many lines."""
        lost = db.execute(
            "SELECT coalesce(sum(lines), 0) FROM influx_outbox WHERE created < ?",
            (now - self._settings.outbox_age,),
        ).fetchone()[0]
        db.execute("DELETE FROM influx_outbox WHERE created < ?", (now - self._settings.outbox_age,))
        size = db.execute("SELECT coalesce(sum(bytes), 0) FROM influx_outbox").fetchone()[0]
        while size > self._settings.outbox_bytes:
            id_, lines, freed = db.execute(
                "SELECT id, lines, bytes FROM influx_outbox ORDER BY id LIMIT 1"
            ).fetchone()
            db.execute("DELETE FROM influx_outbox WHERE id = ?", (id_,))
            lost, size = lost + lines, size - freed
        if lost:
            log.error("influx_outbox_overflow", lines_dropped=lost)
        return int(lost)

    @property
    def lag_error(self) -> str:
        """Why InfluxDB lags longer than its limit, "" when it does not."""
        if self._oldest is None or self._clock.wall() - self._oldest < LAG_LIMIT:
            return ""
        minutes = round((self._clock.wall() - self._oldest) / 60)
        return (
            f"InfluxDB at {redact_url(self._settings.url)} lags {minutes} min behind: {self.error or 'slow'}"
        )

    def readiness(self) -> dict[str, Any]:
        """For /readyz."""
        return {
            "url": redact_url(self._settings.url),
            "error": self.error or None,
            "last_success": rfc3339(self.last_success),
            "lines_dropped": self.dropped,
            "lines_quarantined": self.quarantined,
        }

    async def run(self) -> None:
        """Send batches one by one for ever; what fails is kept and tried again with growing waits."""
        library = await asyncio.to_thread(_client)
        token = self._settings.token.reveal() if self._settings.token is not None else ""
        async with library.client.influxdb_client_async.InfluxDBClientAsync(
            url=self._settings.url,
            token=token,
            org=self._settings.org,
            timeout=_TIMEOUT_MS,
            enable_gzip=True,
            allow_redirects=False,
        ) as client:
            wait = _FIRST_WAIT
            while True:
                self._news.clear()
                pause = await self._send_oldest(client.write_api(), library)
                if pause is None:
                    await self._news.wait()
                elif pause < 0:
                    wait = _FIRST_WAIT
                else:
                    await self._clock.sleep(max(pause, wait) * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)
                    wait = min(2 * wait, _LONGEST_WAIT)

    async def _send_oldest(self, api: Any, library: Any) -> float | None:
        """Send the oldest batch: -1 when it is done, else the seconds that the server asks to wait (0 when it
        asks for none); None when there is no batch."""
        row = await self._store.read(
            lambda db: db.execute(
                "SELECT id, created, payload FROM influx_outbox ORDER BY id LIMIT 1"
            ).fetchone()
        )
        if row is None:
            self._oldest = None
            return None
        id_, self._oldest, payload = row
        text = await asyncio.to_thread(lambda: gzip.decompress(payload).decode())
        refusal = await self._deliver(api, library, text.splitlines())
        if refusal is not None:
            if refusal.words != self.error:
                log.warning("influx_refuses", url=redact_url(self._settings.url), error=refusal.words)
            self.error = refusal.words
            return refusal.wait
        if self.error:
            log.info("influx_accepts", url=redact_url(self._settings.url))
        self.error, self.last_success = "", self._clock.wall()
        await self._store.write(lambda db: db.execute("DELETE FROM influx_outbox WHERE id = ?", (id_,)))
        return -1.0

    async def _deliver(self, api: Any, library: Any, lines: list[str]) -> "_Refusal | None":
        """Send lines until each is stored or set aside; None then, else why the batch must wait. A batch that
        is too large or has a line that cannot be parsed is halved until that line is alone: it goes into the
        quarantine. Sending the good ones again overwrites them with themselves."""
        refusal = await self._write(api, library, "\n".join(lines))
        if refusal is None or not refusal.of_a_line:
            return refusal
        if len(lines) == 1:
            await self._quarantine(lines[0], refusal.words)
            return None
        half = len(lines) // 2
        return await self._deliver(api, library, lines[:half]) or await self._deliver(
            api, library, lines[half:]
        )

    async def _quarantine(self, line: str, error: str) -> None:
        now = self._clock.wall()
        log.error("influx_line_refused", line=line[:200], error=error[:200])
        await self._store.write(
            lambda db: db.execute(
                "INSERT INTO influx_quarantine (created, line, error) VALUES (?, ?, ?)", (now, line, error)
            )
        )
        self.quarantined += 1

    async def _write(self, api: Any, library: Any, text: str) -> "_Refusal | None":
        """One request; None when InfluxDB stored it."""
        try:
            stored = await api.write(bucket=self._settings.bucket, record=text, write_precision="s")
        except TimeoutError:
            return _Refusal("no answer in time")
        except library.rest.ApiException as error:
            return self._refused(error, text)
        except (aiohttp.ClientError, OSError) as error:
            return _Refusal(f"connecting failed: {type(error).__name__}")
        return None if stored else _Refusal("an answer that is not InfluxDB's (wrong URL, or a proxy?)")

    def _refused(self, error: Any, text: str) -> "_Refusal | None":
        """What a status code other than 204 means (docs/influxdb.md)."""
        message = error.message if isinstance(error.message, str) else ""
        words = f"answered {error.status} {error.reason}" + (f": {message[:160]}" if message else "")
        if error.status == 422:
            # Partial: a type conflict or a time outside the retention; the others are stored.
            self.dropped += 1
            log.error("influx_lines_dropped", error=words, lines=text.count("\n") + 1)
            return None
        unparsable = error.status == 400 and message.startswith("unable to parse '")
        return _Refusal(
            words, of_a_line=unparsable or error.status == 413, wait=_retry_after(error.retry_after)
        )


class _Refusal(NamedTuple):
    words: str
    of_a_line: bool = False
    """It is about a line of the batch, or its size: smaller parts may be taken."""
    wait: float = 0.0
    """Seconds that the server asks to wait."""


def _retry_after(text: str | None) -> float:
    """Seconds of a Retry-After header (a number or a date), at most ten minutes; 0 without one."""
    if not text:
        return 0.0
    if text.strip().isdigit():
        return min(float(text), _MOST_PATIENCE)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
    return min(max(0.0, until - time.time()), _MOST_PATIENCE)
