"""The simulated tailnet behind real servers: a sidecar on loopback HTTP, a LocalAPI on a unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tsmon.demo.tailnet import SimTailnet

_JSON = "application/json"


class FakeSidecar:
    """Answers as docker/tailscale-http-server.sh does (contract in docs/sidecar.md)."""

    def __init__(self, tailnet: SimTailnet, ping_timeout: float = 5.0) -> None:
        self.tailnet = tailnet
        self.ping_timeout = ping_timeout
        self.requests: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_get("/whois/{address}", self._whois)
        app.router.add_get("/ping/{ip}", self._ping)
        app.router.add_get("/healthz", self._health)
        return app

    async def _status(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        fault = self.tailnet.fault
        if fault == "timeout":
            await asyncio.sleep(3600)
        if fault == "refused" and request.transport is not None:
            request.transport.abort()
        if fault == "bad_gateway":
            return _error(502, "cli_failed", "failed to connect to local tailscaled")
        if fault == "garbage":
            return web.Response(
                text="failed to connect to local tailscaled; it doesn't appear to be running\n"
            )
        return web.Response(body=self.tailnet.document(), content_type=_JSON)

    async def _whois(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        answer = self.tailnet.whois(request.match_info["address"])
        if answer is None:
            return _error(404, "not_found", "peer not found")
        return web.Response(body=msgspec.json.encode(answer), content_type=_JSON)

    async def _ping(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        ip = request.match_info["ip"]
        result = self.tailnet.ping_result(ip)
        if result is None:
            await asyncio.sleep(self.ping_timeout)
            result = {"IP": ip, "Err": "timeout"}
        else:
            await asyncio.sleep(result.get("LatencySeconds", 0.0))
        return web.Response(body=msgspec.json.encode(result), content_type=_JSON)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})


class FakeLocalApi:
    """Answers as tailscaled's LocalAPI does: Host and Origin checked, ping by POST that never ends without a
    reply, whois, and the bus with patches of peers."""

    def __init__(self, tailnet: SimTailnet) -> None:
        self.tailnet = tailnet
        self.requests: list[str] = []
        self.bus_status = 200
        self.control_url = "https://control.example"
        self.health: dict[str, Any] = {}
        self._buses: set[asyncio.Queue[dict[str, Any] | None]] = set()
        tailnet.listen(self._changed)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/localapi/v0/status", self._status)
        app.router.add_get("/localapi/v0/whois", self._whois)
        app.router.add_get("/localapi/v0/watch-ipn-bus", self._bus)
        app.router.add_route("*", "/localapi/v0/ping", self._ping)
        app.router.add_post("/localapi/v0/dial", self._dial)
        app.router.add_get("/localapi/v0/services", self._services)
        app.router.add_get("/localapi/v0/tka/status", self._lock)
        app.router.add_get("/localapi/v0/prefs", self._prefs)
        return app

    @property
    def buses(self) -> int:
        return len(self._buses)

    def close_buses(self) -> None:
        """The daemon drops every watcher."""
        for queue in self._buses:
            queue.put_nowait(None)

    def say(self, notice: dict[str, Any]) -> None:
        for queue in self._buses:
            queue.put_nowait(notice)

    def _changed(self, id_: str) -> None:
        self.say({"PeerChangedPatch": [{"NodeID": id_}]} if id_ else {"State": 6})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if request.headers.get("Host") != "local-tailscaled.sock" or "Origin" in request.headers:
            return web.Response(status=403, text="invalid localapi request")
        response: web.StreamResponse = await handler(request)
        return response

    async def _status(self, request: web.Request) -> web.StreamResponse:
        fault = self.tailnet.fault
        if fault == "timeout":
            await asyncio.sleep(3600)
        if fault in ("refused", "bad_gateway") and request.transport is not None:
            request.transport.abort()
        headers = {"Tailscale-Version": self.tailnet.version, "Tailscale-Cap": "142"}
        body = b"{" if fault == "garbage" else self.tailnet.document()
        return web.Response(body=body, content_type=_JSON, headers=headers)

    async def _whois(self, request: web.Request) -> web.Response:
        answer = self.tailnet.whois(request.query.get("addr", ""))
        if answer is None:
            return web.Response(status=404, text="no match for IP:port")
        return web.Response(body=msgspec.json.encode(answer), content_type=_JSON)

    async def _ping(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return web.Response(status=400, text="want POST")
        result = self.tailnet.ping_result(request.query.get("ip", ""))
        if result is None:
            await asyncio.sleep(3600)
        return web.Response(body=msgspec.json.encode(result), content_type=_JSON)

    async def _services(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.tailnet.service_rows()), content_type=_JSON)

    async def _lock(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.tailnet.lock_status()), content_type=_JSON)

    async def _prefs(self, _: web.Request) -> web.Response:
        return web.json_response({"ControlURL": self.control_url})

    async def _dial(self, request: web.Request) -> web.StreamResponse:
        """Becomes the connection, to a web server or to something that is only connected to."""
        ip, port = request.headers.get("Dial-Host", ""), int(request.headers.get("Dial-Port", "0"))
        state = self.tailnet.port(ip, port)
        if state is None:
            await asyncio.sleep(3600)
        if state == "refused":
            words = f"dial failure: connect tcp {ip}:{port}: connection was refused"
            return web.Response(status=502, text=words)
        response = web.StreamResponse(
            status=101, headers={"Connection": "upgrade", "Upgrade": "ts-dial", "Content-Length": "0"}
        )
        await response.prepare(request)
        talk = _Dialled(request, {"open": 204, "failing": 503}.get(state or "", 0))
        request.protocol.set_parser(talk)  # type: ignore[arg-type]
        await talk.ended.wait()
        return response

    async def _bus(self, request: web.Request) -> web.StreamResponse:
        if self.bus_status != 200:
            return web.Response(status=self.bus_status, text="watch-ipn-bus is refused")
        response = web.StreamResponse(headers={"Content-Type": _JSON})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._buses.add(queue)
        try:
            first = {"Version": self.tailnet.version, "State": 6, "Health": self.health or None}
            await response.write(msgspec.json.encode(first) + b"\n")
            while (notice := await queue.get()) is not None:
                await response.write(msgspec.json.encode(notice) + b"\n")
        except ConnectionError:
            pass
        finally:
            self._buses.discard(queue)
        return response


class _Dialled:
    """The other end of a dialled connection: answers each request with a status code, or nothing."""

    def __init__(self, request: web.Request, code: int) -> None:
        self.ended = asyncio.Event()
        self._transport = request.transport
        self._code = code
        self._head = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """A part of a request."""
        self._head += data
        if self._code and b"\r\n\r\n" in self._head and self._transport is not None:
            self._transport.write(f"HTTP/1.1 {self._code} -\r\nContent-Length: 0\r\n\r\n".encode())
            self._head = b""
        return False, b""

    def feed_eof(self) -> None:
        """The other side is gone."""
        self.ended.set()


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


@asynccontextmanager
async def serving(app: web.Application, where: Path | int = 0) -> AsyncIterator[str]:
    """Serve `app` on a free loopback port (0), a given one, or a unix socket; yields its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        if isinstance(where, Path):
            await web.UnixSite(runner, str(where)).start()
            yield f"unix://{where}"
        else:
            await web.TCPSite(runner, "127.0.0.1", where).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
