"""Samples to InfluxDB: points made off the loop, a durable outbox in the store, one write in flight."""

import asyncio
import gzip
import random
import sqlite3
from collections.abc import Sequence
from typing import Any

import structlog

from tsmon.clock import Clock
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
_REFUSED_WAIT = 60.0


def lines_of(grid: float, samples: Sequence[Sample], tags: dict[str, str]) -> list[str]:
    """Line protocol of the samples of one grid time, as influxdb-client's `Point` writes it (the schema is
    product-wide: see docs/influxdb.md)."""
    from influxdb_client.client.write.point import Point
    from influxdb_client.domain.write_precision import WritePrecision

    lines = []
    for sample in samples:
        point = Point(MEASUREMENT).time(int(grid), WritePrecision.S)  # type: ignore[no-untyped-call]
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
            "last_success": self.last_success,
            "lines_dropped": self.dropped,
        }

    async def run(self) -> None:
        """Send batches one by one for ever; what fails is kept and tried again with growing waits."""
        from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync

        token = self._settings.token.reveal() if self._settings.token is not None else ""
        async with InfluxDBClientAsync(
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
                outcome = await self._send_one(client.write_api())
                if outcome is None:
                    await self._news.wait()
                elif outcome:
                    wait = _FIRST_WAIT
                else:
                    await self._clock.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)
                    wait = min(2 * wait, _LONGEST_WAIT)

    async def _send_one(self, api: Any) -> bool | None:
        """True when the oldest batch was stored, False when it must wait, None when there is none."""
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
        error = await self._write(api, text)
        if error:
            if error != self.error:
                log.warning("influx_refuses", url=redact_url(self._settings.url), error=error)
            self.error = error
            return False
        if self.error:
            log.info("influx_accepts", url=redact_url(self._settings.url))
        self.error, self.last_success = "", self._clock.wall()
        await self._store.write(lambda db: db.execute("DELETE FROM influx_outbox WHERE id = ?", (id_,)))
        return True

    async def _write(self, api: Any, text: str) -> str:
        """Send lines; "" when InfluxDB stored them, else what it said."""
        import aiohttp
        from influxdb_client.rest import ApiException

        try:
            stored = await api.write(bucket=self._settings.bucket, record=text, write_precision="s")
        except TimeoutError:
            return "no answer in time"
        except ApiException as error:
            return f"answered {error.status} {error.reason}"
        except (aiohttp.ClientError, OSError) as error:
            return f"connecting failed: {type(error).__name__}"
        return "" if stored else "an answer that is not InfluxDB's (wrong URL, or a proxy?)"
