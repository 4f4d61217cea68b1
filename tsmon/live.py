"""The SSE stream: every view, event and alert as it happens; `Last-Event-ID` resumes from the store."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from tsmon.alerts import Alert
from tsmon.answers import NodeAnswer, SummaryAnswer
from tsmon.logs import events_after
from tsmon.monitor import Published
from tsmon.render import NodeAlerts, alert_answer, event_answer, node_fields
from tsmon.replies import ApiError, encode
from tsmon.state import Event, View
from tsmon.store import Store

MOST_CLIENTS = 1000
_QUEUE = 256
_RESUME = 1000
"""Events that a client may have missed and still gets; beyond that it reads the log."""
_PING = 15.0


class Message(NamedTuple):
    kind: str
    data: str
    id: str | None


class Live:
    """Fans what the monitor publishes out to the clients; a slow one is dropped, reconnects and resumes."""

    def __init__(
        self, store: Store, summary: Callable[[View], SummaryAnswer], alerts: Callable[[], list[Alert]]
    ) -> None:
        self._store = store
        self._summary = summary
        self._alerts = alerts
        self._clients: set[asyncio.Queue[Message | None]] = set()

    @property
    def clients(self) -> int:
        return len(self._clients)

    def publish(self, published: Published) -> None:
        """A listener of the monitor: encodes once, whatever the number of clients."""
        view = published.view
        if not self._clients:
            return
        messages = [self._event_message(event, view) for event in published.events]
        messages += self._alert_messages(published)
        messages.append(self._snapshot_message(view))
        for queue in list(self._clients):
            self._offer(queue, messages)

    def _offer(self, queue: asyncio.Queue[Message | None], messages: list[Message]) -> None:
        if queue.qsize() + len(messages) >= _QUEUE:
            self._clients.discard(queue)
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
            return
        for message in messages:
            queue.put_nowait(message)

    def _snapshot_message(self, view: View) -> Message:
        data = {"version": view.version, "summary": self._summary(view)}
        return Message("snapshot", encode(data).decode(), None)

    def _event_message(self, event: Event, view: View) -> Message:
        answer = {"event": event_answer(event), "node": self._node(event, view)}
        return Message("event", encode(answer).decode(), str(event.id))

    def _node(self, event: Event, view: View) -> NodeAnswer | None:
        node = view.nodes.get(event.node_id or "")
        if node is None:
            return None
        return NodeAnswer(**node_fields(node, view, NodeAlerts(self._alerts()), {}))

    def _alert_messages(self, published: Published) -> list[Message]:
        by_alert = {event.details.get("alert_id"): str(event.id) for event in published.events}
        return [
            Message(
                "alert", encode(alert_answer(alert, published.view.now)).decode(), by_alert.get(str(alert.id))
            )
            for alert in published.alerts
            if alert.state != "pending"
        ]

    async def stream(self, request: web.Request, view: View) -> web.StreamResponse:
        """One client, until it goes or tsmon stops."""
        if len(self._clients) >= MOST_CLIENTS:
            raise ApiError(503, "too_many_clients", f"{MOST_CLIENTS} streams are open already; poll instead")
        last_id = _last_event_id(request)
        queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._clients.add(queue)
        try:
            async with sse_response(request, ping_interval=_PING, send_timeout=30) as response:
                await response.send(*_parts(self._snapshot_message(view)), retry=2000)
                sent = await self._resume(last_id, response, view)
                while (message := await queue.get()) is not None:
                    if message.id is None or int(message.id) > sent or message.kind == "alert":
                        await response.send(*_parts(message))
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._clients.discard(queue)
        return response

    async def _resume(self, last_id: int | None, response: EventSourceResponse, view: View) -> int:
        """What was stored after `last_id`; returns the id of the last event sent."""
        if last_id is None:
            return 0
        for event in await events_after(self._store, last_id, _RESUME):
            await response.send(*_parts(self._event_message(event, view)))
            last_id = event.id
        return last_id

    async def close(self, _: web.Application | None = None) -> None:
        """tsmon stops: every stream ends at once."""
        for queue in list(self._clients):
            queue.put_nowait(None)
        self._clients.clear()


def _parts(message: Message) -> tuple[str, str | None, str | None]:
    return message.data, message.id, message.kind


def _last_event_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
