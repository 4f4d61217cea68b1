"""Everything that is read about one node, and all of it at once for the dashboard."""

import msgspec

from tsmon.base.clock import Clock, rfc3339
from tsmon.history.embedded import EmbeddedHistory
from tsmon.history.log import EventFilter, page_of_events
from tsmon.history.store import Store, StoreError
from tsmon.history.uptime import Uptime
from tsmon.monitor.state import Node
from tsmon.server.answers import EventAnswer, HistoryNode, LatencyAnswer, NodeDetail, UptimeAnswer
from tsmon.server.figures import History
from tsmon.server.find_node import find_node
from tsmon.server.present import PresentAnswers
from tsmon.server.render import (
    DAY,
    NodeAlerts,
    event_answer,
    history_node,
    latency_answer,
    node_detail,
    uptime_answer,
)
from tsmon.server.replies import ApiError
from tsmon.server.versions import Versions
from tsmon.server.waiting import BusyError, WaitingLine

PAGE_WINDOWS = {
    "24h": (DAY, 48),
    "7d": (7 * DAY, 84),
    "30d": (30 * DAY, 90),
    "90d": (90 * DAY, 90),
    "365d": (365 * DAY, 365),
}
"""What a node's page may look back over: seconds, and how many bars."""
_EVENTS = 20
_NOT_RECORDED = Uptime(0.0, 0.0, 0.0, None, None)


class NodeHistory(msgspec.Struct):
    """A window of one node's history, all on one time axis."""

    uptime: UptimeAnswer
    bounds: list[str | None]
    bars: HistoryNode | None
    latency: LatencyAnswer
    events: list[EventAnswer]


class NodePage(msgspec.Struct):
    """A node's page; `detail` is null when nobody knows such a node."""

    detail: NodeDetail | None
    history: NodeHistory | None
    """Null unless it was asked for, and while it cannot be read."""


class OneNode:
    """Reads the history in a line of its own: those who ask about the present do not wait behind it."""

    def __init__(
        self,
        clock: Clock,
        present: PresentAnswers,
        store: Store,
        history: History,
        *,
        embedded: EmbeddedHistory,
        versions: Versions,
    ) -> None:
        """`embedded` has the latency, wherever `history` reads the states."""
        self._clock = clock
        self._present = present
        self._store = store
        self._history = history
        self._embedded = embedded
        self._versions = versions
        self._line = WaitingLine()

    async def find(self, name: str) -> Node:
        """Raises ApiError (404) and StoreError."""
        return await find_node(name, self._present.view, self._store)

    async def detail(self, node: Node) -> NodeDetail:
        """How it is now."""
        figures = await self._present.figures.get()
        view = self._present.view
        # A source that tsmon is blind through is not asked: the page must not wait for it.
        asked = node.removed_at is None and view.blind is None
        version = await self._versions.of(node) if asked else None
        return node_detail(node, view, NodeAlerts(self._present.alerts()), figures, version)

    async def uptime(self, node: Node, seconds: float, limit: int) -> UptimeAnswer:
        """Of the last `seconds`, with so many outages at most. Raises StoreError and BusyError."""
        now = self._clock.wall()
        start = now - seconds
        async with self._line.turn():
            found = await self._history.uptime(start, now, {node.id})
            outages = await self._history.outages(node.id, start, now)
        fell = EventFilter(node_id=node.id, event_type="node_offline", since=start)
        events, _, _ = await page_of_events(self._store, fell, limit, 0)
        return uptime_answer(
            node.hostname,
            round(seconds / 3600),
            found.get(node.id, _NOT_RECORDED),
            outages,
            now=now,
            kind=found.kind,
            limit=limit,
            reasons={round(event.timestamp): str(event.details.get("reason", "")) for event in events},
        )

    async def latency(self, node: Node, seconds: float) -> LatencyAnswer:
        """Of the last `seconds`. Raises StoreError and BusyError."""
        now = self._clock.wall()
        async with self._line.turn():
            rows = await self._embedded.latency(node.id, now - seconds, now)
        return latency_answer(node.hostname, rows)

    async def page(self, name: str, window: str, outages: int, *, with_history: bool) -> NodePage:
        """The page of the node of that name or ID, over one of `PAGE_WINDOWS`, or as much of it as is kept,
        with so many outages at most. Raises StoreError when the name is to be looked up and cannot be."""
        try:
            node = await self.find(name)
        except ApiError:
            return NodePage(None, None)
        detail = await self.detail(node)
        if not with_history:
            return NodePage(detail, None)
        try:
            return NodePage(detail, await self._of_window(node, window, outages))
        except (StoreError, BusyError):
            return NodePage(detail, None)  # the rest of the dashboard does not depend on it

    async def _of_window(self, node: Node, window: str, outages: int) -> NodeHistory:
        seconds, count = PAGE_WINDOWS[window]
        seconds = min(seconds, self._present.settings.retention)
        now = self._clock.wall()
        bounds = [now - seconds + seconds * n / count for n in range(count + 1)]
        bars = (await self._history.bars(bounds, {node.id})).get(node.id)
        of_it = EventFilter(node_id=node.id, checks=False)
        events, _, _ = await page_of_events(self._store, of_it, _EVENTS, 0)
        return NodeHistory(
            uptime=await self.uptime(node, seconds, outages),
            bounds=[rfc3339(bound) for bound in bounds],
            bars=None if bars is None else history_node(node, bars),
            latency=await self.latency(node, seconds),
            events=[event_answer(event) for event in events],
        )
