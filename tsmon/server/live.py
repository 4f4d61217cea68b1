"""The SSE stream: every view, event and alert as it happens; `Last-Event-ID` resumes from the store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from tsmon.history.log import alerts_of, events_after
from tsmon.history.store import Store, StoreError
from tsmon.monitor.alerts import Alert
from tsmon.monitor.ledger import Published
from tsmon.monitor.state import Event, View
from tsmon.server.answers import NodeAnswer, SummaryAnswer
from tsmon.server.render import NodeAlerts, alert_answer, event_answer, node_answer
from tsmon.server.replies import ApiError, encode

log = structlog.get_logger(__name__)

MOST_CLIENTS = 1000
_MOST_STEPS = 100
"""That wait for a client; one more, and it is dropped."""
_AT_ONCE = 100
"""More news of one step than this is not encoded for the queues: every client reads it from the store."""
_CHUNK = 100
_PING = 15.0
_SEND_TIMEOUT = 30.0
_RETRY_MS = 2000
_LOOK = 25.0
"""Seconds after which it is looked whether a client may still read: within 30 its stream has ended."""
_BEHIND = "behind"


class StreamItem(NamedTuple):
    """Written once, whatever the number of clients: to format it for each would take most of the time."""

    kind: str
    """`snapshot`, `event`, `alert`; `behind` is for the client's task: read what follows `id`."""
    id: str | None
    frame: bytes
    """As it goes over the wire (html.spec.whatwg.org/multipage/server-sent-events.html)."""


def make_message(kind: str, data: Any, id_: str | None = None, retry: int | None = None) -> StreamItem:
    """A message whose data is JSON, which has no line breaks."""
    parts = [b"id: %b\r\n" % id_.encode()] if id_ is not None else []
    parts += [b"event: %b\r\ndata: %b\r\n" % (kind.encode(), encode(data))]
    parts += [b"retry: %d\r\n" % retry] if retry is not None else []
    return StreamItem(kind, id_, b"".join([*parts, b"\r\n"]))


_Queue = asyncio.Queue[list[StreamItem] | None]


class Live:
    """Fans what the monitor publishes out to the clients; a slow one is dropped, reconnects and resumes."""

    def __init__(
        self,
        store: Store,
        view: Callable[[], View],
        alerts: Callable[[], Iterable[Alert]],
        summary: Callable[[], SummaryAnswer],
    ) -> None:
        self._store = store
        self._view = view
        self._alerts = alerts
        self._summary = summary
        self._clients: set[_Queue] = set()
        self._closed = False

    @property
    def clients(self) -> int:
        return len(self._clients)

    def publish(self, published: Published) -> None:
        """A listener of the monitor: encodes once, whatever the number of clients."""
        if not self._clients:
            return
        messages = self._news(published)
        for queue in list(self._clients):
            if queue.qsize() >= _MOST_STEPS:
                self._drop(queue)
            else:
                queue.put_nowait(messages)

    def _drop(self, queue: _Queue) -> None:
        """End a client's stream now."""
        self._clients.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    # -- messages --------------------------------------------------------------------------------------

    def _news(self, published: Published) -> list[StreamItem]:
        events = published.events
        alerts = {str(alert.id): alert for alert in published.alerts}
        if len(events) + len(alerts) <= _AT_ONCE:
            messages = self._messages(events, alerts)
        else:
            messages = [StreamItem(_BEHIND, str(events[0].id - 1), b"")] if events else []
        return [*messages, self._snapshot_message()]

    def _messages(self, events: Sequence[Event], alerts: Mapping[str, Alert]) -> list[StreamItem]:
        """Each event, behind it the alert that it tells of; then the alerts without an event."""
        view = self._view()
        of_nodes = NodeAlerts(self._alerts())
        rest = {id_: alert for id_, alert in alerts.items() if alert.state != "pending"}
        messages = []
        for event in events:
            id_ = str(event.id)
            answer = {"event": event_answer(event), "node": _node_of(event, view, of_nodes)}
            messages.append(make_message("event", answer, id_))
            alert = rest.pop(str(event.details.get("alert_id")), None)
            if alert is not None:
                messages.append(_alert_message(alert, view, id_))
        return [*messages, *(_alert_message(alert, view, None) for alert in rest.values())]

    def _snapshot_message(self, retry: int | None = None) -> StreamItem:
        data = {"version": self._view().version, "summary": self._summary()}
        return make_message("snapshot", data, retry=retry)

    # -- one client ------------------------------------------------------------------------------------

    async def stream(
        self, request: web.Request, lets_in: Callable[[web.Request], Awaitable[bool]]
    ) -> web.StreamResponse:
        """One client, until it goes, may not read any more, or tsmon stops."""
        if self._closed:
            raise ApiError(503, "stopping", "tsmon is being stopped")
        if len(self._clients) >= MOST_CLIENTS:
            raise ApiError(503, "too_many_clients", f"{MOST_CLIENTS} streams are open already; poll instead")
        last_id = _last_event_id(request)
        queue: _Queue = asyncio.Queue()
        self._clients.add(queue)
        try:
            async with sse_response(request, ping_interval=_PING, send_timeout=_SEND_TIMEOUT) as response:
                await _send(response, [self._snapshot_message(_RETRY_MS)])
                sent = 0 if last_id is None else await self._catch_up(last_id, response)
                look_at = _now() + _LOOK
                while (messages := await _next(queue, look_at - _now())) is not None:
                    if _now() >= look_at:
                        look_at = _now() + _LOOK
                        if not await lets_in(request):
                            break
                    if not messages:
                        continue
                    if messages[0].kind == _BEHIND:
                        behind = max(sent, int(messages[0].id or 0))
                        sent = max(sent, await self._catch_up(behind, response))
                    await _send(response, [m for m in messages if m.id is None or int(m.id) > sent])
                return response
        finally:
            self._clients.discard(queue)

    async def _catch_up(self, after: int, response: EventSourceResponse) -> int:
        """Send what is stored after the event `after`. Returns the last id sent, 0 when nothing was there:
        ids start again with a new database, and live events must not be held back."""
        sent = 0
        try:
            while events := await events_after(self._store, after, _CHUNK):
                await _send(response, self._messages(events, await alerts_of(self._store, events)))
                sent = after = events[-1].id
        except StoreError as error:
            log.warning("stream_not_resumed", error=str(error))
        return sent

    async def close(self, _: web.Application | None = None) -> None:
        """tsmon stops: every stream ends at once, and no other begins."""
        self._closed = True
        self.end_all()

    def end_all(self) -> None:
        """Every stream ends; who may still read comes back by itself."""
        for queue in list(self._clients):
            self._drop(queue)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _next(queue: _Queue, seconds: float) -> list[StreamItem] | None:
    """What is to be sent next; nothing ([]) after `seconds` without news, None at the end."""
    try:
        async with asyncio.timeout(seconds):
            return await queue.get()
    except TimeoutError:
        return []


def _node_of(event: Event, view: View, alerts: NodeAlerts) -> NodeAnswer | None:
    node = view.nodes.get(event.node_id or "")
    return None if node is None else node_answer(node, view, alerts, {})


def _alert_message(alert: Alert, view: View, event_id: str | None) -> StreamItem:
    return make_message("alert", alert_answer(alert, view.now), event_id)


async def _send(response: EventSourceResponse, messages: Iterable[StreamItem]) -> None:
    async with asyncio.timeout(_SEND_TIMEOUT):
        await response.write(b"".join(message.frame for message in messages))


def _last_event_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
