"""A small double of tsmon's API, in a thread of its own: the command line runs its own event loop."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tsmon.server.answers import AlertAnswer, CriticalSummary, NodeAnswer, SummaryAnswer

HOSTILE = "\x1b[31mevil\x1b[2J\u202e\x9b1m[bold red]loud[/]\r\n|x"
"""What a name may hold: colours, a cleared screen, a turned reading direction, markup, a new line, a pipe."""
NOW = 1_790_000_000.0


@contextmanager
def serving(app: web.Application, socket: Path | None = None) -> Iterator[str]:
    """The application on a free loopback port (or a unix socket) while the context is open; its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await (web.UnixSite(runner, str(socket)) if socket else web.TCPSite(runner, "127.0.0.1", 0)).start()
        return runner

    async def stop(runner: web.AppRunner) -> None:
        await runner.cleanup()
        await asyncio.sleep(0)  # the transports close in the loop's next round

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield "unix" if socket else f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(runner), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def node(hostname: str, **values: Any) -> dict[str, Any]:
    """A node as the API shows it: online and not critical unless said otherwise."""
    plain: dict[str, Any] = {
        "hostname": hostname,
        "ip": "100.64.0.9",
        "online": True,
        "node_type": "other",
        "os": "Linux",
        "last_seen": None,
        "uptime_24h": 99.95,
        "id": f"id-{hostname}",
        "dns_name": f"{hostname}.tail.example",
        "ips": ("100.64.0.9",),
        "state": "online",
        "reason": None,
        "reachable": None,
        "since": "2026-09-20T00:00:00Z",
        "last_state": None,
        "last_state_at": None,
        "critical": False,
        "role": "server",
        "shared": False,
        "tags": (),
        "user": "",
        "uptime_7d": None,
        "uptime_30d": None,
        "coverage_24h": 100.0,
        "watched_since": None,
        "latency_ms": None,
        "path": None,
        "relay": None,
        "key_expiry": None,
        "exit_node_option": False,
        "routes": (),
        "alert": None,
        "flapping": False,
        "silenced_until": None,
        "control": None,
    }
    values.setdefault("online", {"online": True, "offline": False}.get(values.get("state", "online")))
    return _builtins(NodeAnswer(**(plain | values)))


def prod(**values: Any) -> dict[str, Any]:
    return node("chocolate-factory", **({"node_type": "production", "critical": True} | values))


def git(**values: Any) -> dict[str, Any]:
    return node("git", **({"node_type": "git", "critical": True} | values))


def alert(message: str, **values: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "id": "7",
        "kind": "node_offline",
        "severity": "critical",
        "state": "firing",
        "node_id": "n1",
        "hostname": "chocolate-factory",
        "node_type": "production",
        "since": "2026-09-21T00:00:00Z",
        "fired_at": "2026-09-21T00:02:00Z",
        "resolved_at": None,
        "duration_s": 60,
        "last_seen": None,
        "message": message,
        "cause": None,
        "acknowledged_by": None,
        "silenced_until": None,
        "notified": True,
    }
    return _builtins(AlertAnswer(**(plain | values)))


def entry(number: int, message: str = "git is offline", **values: Any) -> dict[str, Any]:
    """An entry of the log."""
    plain: dict[str, Any] = {
        "id": str(number),
        "timestamp": "2026-09-21T12:00:00Z",
        "recorded_at": "2026-09-21T12:00:00Z",
        "event_type": "node_offline",
        "severity": "warning",
        "node_id": "n1",
        "hostname": "git",
        "node_type": "git",
        "message": message,
        "details": {},
    }
    return plain | values


def _builtins(answer: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found


class FakeApi:
    """Answers as the API does; what it says is set by the test."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [prod(), git(), node("alices-laptop")]
        self.alerts: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []
        """Oldest first."""
        self.changes: dict[str, Any] = {}
        """Fields of the summary that the nodes do not tell."""
        self.missing_critical = 0
        self.answers: dict[str, Any] = {"coverage": None, "services": {"services": [], "can_check": True}}
        """Of routes that have no more to them: path below `/health-monitoring/` -> what it says."""
        self.token = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.overrides: dict[str, Callable[[], web.Response]] = {}
        """Path below `/health-monitoring/` -> another answer."""
        self.on_request: Callable[[int], None] = lambda _: None
        self.url = ""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health-monitoring/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.requests.append((path, dict(request.query)))
        self.on_request(len(self.requests))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return error(401, "unauthorized", "a token is needed")
        if path in self.overrides:
            return self.overrides[path]()
        if path in self.answers:
            return web.json_response(self.answers[path])
        if path.startswith("nodes/"):
            found = [node for node in self.nodes if node["hostname"] == path.removeprefix("nodes/")]
            return web.json_response(found[0]) if found else error(404, "not_found", "there is no such node")
        answers: dict[str, Callable[[dict[str, str]], Any]] = {
            "summary": lambda _: self.summary(),
            "nodes": self._nodes,
            "alerts": self._alerts,
            "logs": self._logs,
        }
        return web.json_response(answers[path](dict(request.query)))

    def summary(self) -> dict[str, Any]:
        count = [
            sum(node["state"] == state for node in self.nodes) for state in ("online", "offline", "unknown")
        ]
        critical = [node["state"] for node in self.nodes if node["critical"]]
        down = critical.count("offline") + self.missing_critical
        online = critical.count("online")
        share = round(100 * online / (online + down), 2) if online + down else None
        summary = SummaryAnswer(
            total_nodes=len(self.nodes),
            online_nodes=count[0],
            offline_nodes=count[1],
            unknown_nodes=count[2],
            excluded_nodes=0,
            critical_nodes=CriticalSummary(
                len(critical) + self.missing_critical, online, down, critical.count("unknown"), share
            ),
            status="healthy",
            blind=None,
            active_alerts=len(self.alerts),
            as_of="2026-09-21T13:59:57Z",
            source="unix:///run/tailscaled.sock",
            tailnet="factory.example",
            version="1",
            demo=False,
            headline="All 3 critical nodes online",
            level="healthy",
            sees_again_since=None,
        )
        return _builtins(summary) | self.changes

    def _nodes(self, query: dict[str, str]) -> list[dict[str, Any]]:
        fields = query["fields"].split(",")
        assert set(fields) <= set(NodeAnswer.__struct_fields__)
        critical_only = query["project_only"] == "true"
        found = [node for node in self.nodes if node["critical"] or not critical_only]
        return [{name: node[name] for name in fields} for node in found]

    def _alerts(self, query: dict[str, str]) -> dict[str, Any]:
        state, kind = query.get("state", "firing"), query.get("kind")
        found = [row for row in self.alerts if row["state"] == state and kind in (None, row["kind"])]
        return {"alerts": found, "total": len(found), "as_of": None}

    def _logs(self, query: dict[str, str]) -> dict[str, Any]:
        before = int(query.get("before", 10**9))
        found = [row for row in reversed(self.entries) if int(row["id"]) < before]
        found = [row for row in found if query.get("severity") in (None, row["severity"])]
        return {"logs": found[: int(query["per_page"])], "pagination": {}, "filters": {}, "summary": {}}


def error(code: int, name: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": name, "message": message}}, status=code)


def text(body: str, status: int = 200) -> web.Response:
    return web.Response(text=body, status=status)
