"""Where samples go on to: the InfluxDB of the present settings, or nowhere."""

from collections.abc import Callable, Sequence

from tsmon.base.clock import Clock
from tsmon.collector import SampleSink
from tsmon.config import InfluxSettings, Settings
from tsmon.history.influx import Influx
from tsmon.history.store import Store
from tsmon.monitor.batch import Batch
from tsmon.monitor.samples import AnySample

Reread = Callable[[], Settings]


class SampleOutlet:
    """Stays the same over reloads; the `Influx` behind it changes with the settings."""

    def __init__(
        self,
        settings: InfluxSettings,
        store: Store,
        clock: Clock,
        *,
        reread: Reread | None = None,
        witness: SampleSink | None = None,
    ) -> None:
        """`reread` reads the configuration again, for a token that was rotated; `witness` gets every sample
        too."""
        self._store = store
        self._clock = clock
        self._reread = reread
        self._witness = witness
        self.influx = self._made(settings)
        """None: InfluxDB is not configured."""

    async def look(self) -> None:
        """Count what waits: else a start or a reload would call a full outbox empty."""
        if self.influx is not None:
            await self.influx.look()

    async def apply(self, settings: InfluxSettings) -> None:
        """Another InfluxDB, a first one, or none any more; what the outbox holds goes to the new one."""
        influx = self._made(settings)
        if influx is not None:
            await influx.look()
        self.influx = influx

    def _made(self, settings: InfluxSettings) -> Influx | None:
        reread = self._reread
        fresh = (lambda: reread().influx) if reread is not None else None
        return Influx(settings, self._store, self._clock, fresh) if settings.url else None

    def rewrite(self, batch: Batch) -> None:
        """The database was begun again: how far InfluxDB has the events goes there, too."""
        if self.influx is not None:
            batch.meta |= self.influx.marks

    @property
    def lag_error(self) -> str | None:
        """Why InfluxDB lags longer than its limit, "" when it does not; None: it is not configured."""
        return self.influx.lag_error if self.influx is not None else None

    async def put_samples(self, grid: float, samples: Sequence[AnySample]) -> None:
        """Commit the samples of one grid time (Unix seconds) to the outbox."""
        if self.influx is not None:
            await self.influx.put_samples(grid, samples)
        if self._witness is not None:
            await self._witness.put_samples(grid, samples)

    async def put_lines(self, payload: bytes) -> bool:
        """Gzipped lines into the outbox, False while enough waits there. Raises ValueError."""
        if self.influx is None:
            raise ValueError("InfluxDB is not configured: set influx.url, then reload")
        return await self.influx.put_lines(payload)
