"""The demo's control server: it answers as Tailscale's API does, of the simulated tailnet and of machines
that its policy hides from the monitor."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from tsmon.demo.tailnet import USERS, SimNode, SimTailnet

TOKEN = "demo"  # noqa: S105 (it opens nothing but this)
_HIDDEN: tuple[dict[str, Any], ...] = (
    {"name": "vault", "os": "linux", "tags": ["tag:secret"]},
    {"name": "payroll", "os": "windows", "tags": ["tag:hr"]},
    {"name": "carols-tablet", "os": "iOS", "authorized": False, "user": USERS[2]},
    {"name": "build-cache", "os": "linux", "tags": ["tag:ci"], "connectedToControl": False},
)


class FakeControl:
    """Serves `GET /api/v2/tailnet/-/devices`, and nothing else."""

    def __init__(self, tailnet: SimTailnet) -> None:
        self._tailnet = tailnet

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/v2/tailnet/-/devices", self._devices)
        return app

    async def _devices(self, _: web.Request) -> web.Response:
        rows = [self._row(node) for node in self._tailnet.nodes.values() if not node.shared]
        rows += [self._hidden(number, fields) for number, fields in enumerate(_HIDDEN)]
        return web.Response(body=msgspec.json.encode({"devices": rows}), content_type="application/json")

    def _row(self, node: SimNode) -> dict[str, Any]:
        old = node.number % 4 == 0
        return {
            "nodeId": node.id,
            "name": f"{node.name}.{self._tailnet.suffix}",
            "hostname": node.os_hostname,
            "addresses": node.ips,
            "user": USERS[node.user],
            "tags": node.tags,
            "os": node.os,
            "clientVersion": "1.100.2" if old else "1.102.3",
            "updateAvailable": old,
            "created": _text(node.created),
            "connectedToControl": node.online,
            **({"lastSeen": _text(node.last_seen)} if node.last_seen and not node.online else {}),
            "keyExpiryDisabled": node.key_expiry is None,
            "expires": _text(node.key_expiry or 0.0),
            "authorized": True,
            "isEphemeral": "tag:ci" in node.tags,
            "advertisedRoutes": node.routes,
            "enabledRoutes": node.routes,
        }

    def _hidden(self, number: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "nodeId": f"nHidden{number}CNTRL",
            "hostname": fields["name"],
            "addresses": [f"100.64.200.{number + 1}"],
            "user": USERS[1],
            "clientVersion": "1.102.3",
            "created": _text(self._tailnet.own.created),
            "connectedToControl": True,
            "keyExpiryDisabled": True,
            "authorized": True,
            "advertisedRoutes": [],
            "enabledRoutes": [],
            **fields,
            "name": f"{fields['name']}.{self._tailnet.suffix}",
        }


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
