"""The figures of the lists: made seldom, together, and new after a change; none while the history is away."""

import asyncio
from typing import Any

import structlog

from tests.support.virtual import VirtualClock, virtual
from tsmon.history.store import StoreError
from tsmon.history.uptime import ByNode, Uptime
from tsmon.server.figures import FRESH, FigureCache


class SlowHistory:
    """A history whose figures tell how often they were made."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked = 0
        self.error: StoreError | None = None

    async def uptime(self, start: float, end: float, node_ids: Any = None) -> ByNode[Uptime]:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return ByNode({"n1": Uptime(1.0, 0.0, 0.0, float(self.asked), 50.0)})

    async def bars(self, *_: Any) -> Any:
        raise NotImplementedError

    async def outages(self, *_: Any) -> Any:
        raise NotImplementedError


@virtual
async def test_many_who_ask_at_once_share_one_computation() -> None:
    history = SlowHistory(0.5)
    cache = FigureCache(history, VirtualClock())
    found = await asyncio.gather(*[cache.get() for _ in range(20)])
    assert history.asked == 3, "24 h, 7 d and 30 d"
    assert found == [{"n1": (1.0, 2.0, 3.0, 50.0)}] * 20


@virtual
async def test_they_serve_until_they_are_old() -> None:
    history = SlowHistory()
    cache = FigureCache(history, VirtualClock())
    await cache.get()
    await asyncio.sleep(FRESH - 1)
    await cache.get()
    assert (history.asked, cache.version) == (3, 1)
    await asyncio.sleep(2)
    await cache.get()
    assert (history.asked, cache.version) == (6, 2)


@virtual
async def test_a_change_makes_them_new_but_not_all_the_time() -> None:
    history = SlowHistory(0.1)
    cache = FigureCache(history, VirtualClock())
    await cache.get()
    for _ in range(60):
        await asyncio.sleep(1)
        cache.expire()
        await cache.get()
    # 0.3 s of work are followed by 2.7 s without.
    assert 15 <= history.asked / 3 <= 22


@virtual
async def test_a_change_while_they_are_made_is_not_forgotten() -> None:
    history = SlowHistory(0.1)
    cache = FigureCache(history, VirtualClock())
    making = asyncio.create_task(cache.get())
    await asyncio.sleep(0.15)
    cache.expire()
    await making
    await asyncio.sleep(3)
    await cache.get()
    assert history.asked == 6


@virtual
async def test_none_while_the_history_cannot_be_read() -> None:
    history = SlowHistory()
    cache = FigureCache(history, VirtualClock())
    assert await cache.get()
    await asyncio.sleep(FRESH)
    history.error = StoreError("tsmon.db: the disk reports an I/O error")
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            assert await cache.get() == {}
            await asyncio.sleep(1)
        history.error = None
        await asyncio.sleep(5)
        assert await cache.get()
    assert [line["event"] for line in lines] == ["figures_failing", "figures_recovered"]
