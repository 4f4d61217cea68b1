"""Another monitor's samples become history."""

import asyncio
from collections.abc import Callable

from tsmon.base.clock import Clock
from tsmon.history.influx.importing import Taken, put, read_request
from tsmon.history.store import Store
from tsmon.monitor.operators import Operators


class Importing:
    """`tsmon import`, in the running tsmon."""

    def __init__(
        self, clock: Clock, store: Store, operators: Operators, retention: Callable[[], float]
    ) -> None:
        """`retention`: seconds for which history is kept now."""
        self._clock = clock
        self._store = store
        self._operators = operators
        self._retention = retention

    async def samples(self, raw: bytes) -> Taken:
        """Store what `raw` holds and say what came of it. Raises ValueError and StoreError."""
        request = await asyncio.to_thread(read_request, raw)
        since = self._clock.wall() - self._retention()
        taken = await self._store.write(lambda db: put(db, request.samples, request.interval, since))
        if taken.since is not None:
            await self._operators.imported(taken.first_seen, taken.words())
        return taken
