"""What could not be written yet: batches are committed in order, and kept in memory while the store fails."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection

import structlog

from tsmon.history.store import StoreError, StoreRenewedError
from tsmon.monitor.batch import Batch
from tsmon.monitor.state import Node

log = structlog.get_logger(__name__)

MOST_ROWS = 200_000
"""Rows kept in memory; beyond that the oldest batches are lost, and that is said."""


class Backlog:
    """Commits batches; while the store cannot be written it holds them and says why (`error`)."""

    def __init__(
        self,
        commit: Callable[[Batch], Awaitable[None]],
        find_nodes: Callable[[Collection[str]], Awaitable[list[Node]]],
        rewrite: Callable[[Batch], None] = lambda _: None,
        find_removed: Callable[[Collection[str]], Awaitable[list[Node]]] | None = None,
    ) -> None:
        """`commit`, `find_nodes` and `find_removed` (by family) are the store's; they raise StoreError.
        `rewrite` adds to a batch what a database that was begun again needs and no batch brought."""
        self._commit = commit
        self._rewrite = rewrite
        self._find_nodes = find_nodes
        self._find_removed = find_removed
        self._waiting: deque[Batch] = deque()
        self._lost = 0
        self.error = ""

    @property
    def waiting(self) -> int:
        """How many batches wait in memory."""
        return len(self._waiting)

    async def commit(self, batch: Batch, whole: Callable[[], Batch] = Batch) -> None:
        """Write `batch`, and before it what waits. Never raises for a store that cannot be written.
        `whole` makes the batch of everything that is known now, for a database that was begun again."""
        self._waiting.append(batch)
        while self._waiting:
            try:
                await self._commit(self._waiting[0])
            except StoreRenewedError as error:
                log.error("store_renewed", error=str(error))
                everything = whole()
                self._rewrite(everything)
                self._waiting.appendleft(everything)
                continue
            except StoreError as error:
                if not self.error:
                    log.error("store_failing", error=str(error))
                self.error = f"the embedded store cannot be written: {error}"
                self._shrink()
                return
            self._waiting.popleft()
        if self.error:
            log.info("store_recovered", batches_lost=self._lost)
            self.error, self._lost = "", 0

    async def find(self, ids: Collection[str]) -> dict[str, Node]:
        """The stored nodes of these IDs, removed ones too; what waits is newer than what is stored. While the
        store cannot be read nothing but what waits is known."""
        found: dict[str, Node] = {}
        try:
            found = {node.id: node for node in await self._find_nodes(ids)}
        except StoreError as error:
            log.error("stored_nodes_unreadable", error=str(error))
        waiting = [node for batch in self._waiting for node in batch.nodes if node.id in ids]
        return found | {node.id: node for node in waiting}

    async def removed_of(self, families: Collection[str]) -> list[Node]:
        """The stored removed nodes of these families that may be followed; none while the store cannot be
        read: who follows whom is no reason to wait."""
        try:
            return await self._find_removed(families) if self._find_removed is not None else []
        except StoreError as error:
            log.error("stored_nodes_unreadable", error=str(error))
            return []

    def _shrink(self) -> None:
        """A quiet poll only moves the end of the observed time: it takes the place of the one before.
        Nothing else is dropped before the limit."""
        if len(self._waiting) > 1 and _is_quiet(self._waiting[-1]) and _is_quiet(self._waiting[-2]):
            self._waiting[-1].observed = [*self._waiting[-2].observed, *self._waiting[-1].observed]
            ends = {(row.start, row.node_id): row for row in self._waiting[-1].observed}
            self._waiting[-1].observed = list(ends.values())
            del self._waiting[-2]
        while len(self._waiting) > 1 and sum(map(_rows, self._waiting)) > MOST_ROWS:
            self._waiting.popleft()
            self._lost += 1


def _is_quiet(batch: Batch) -> bool:
    return batch.cut_at is None and not batch.also and _rows(batch) == len(batch.observed)


def _rows(batch: Batch) -> int:
    kinds = (
        batch.observed,
        batch.nodes,
        batch.spans,
        batch.events,
        batch.alerts,
        batch.dropped_alerts,
        batch.latency,
        batch.services,
        batch.dropped_services,
        batch.service_spans,
        batch.meta,
    )
    return sum(len(rows) for rows in kinds)
