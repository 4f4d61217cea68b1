"""/healthz and /readyz: whether tsmon lives, and whether it serves."""

from collections.abc import Callable

from aiohttp import web

from tsmon.server.access import AUTHORIZED
from tsmon.server.answers import ReadyAnswer
from tsmon.server.params import NoQuery
from tsmon.server.replies import encode
from tsmon.server.routing import Route, Routes


class Probes:
    """The two routes that service managers and load balancers ask; `stuck_loop` names a loop that hangs."""

    def __init__(self, readiness: Callable[[], ReadyAnswer], stuck_loop: Callable[[], str | None]) -> None:
        self._readiness = readiness
        self._stuck_loop = stuck_loop

    def routes(self) -> Routes:
        return [
            Route("/healthz", self.healthz, "Liveness", dict[str, str], NoQuery),
            Route("/readyz", self.readyz, "Readiness", ReadyAnswer, NoQuery),
        ]

    async def healthz(self, _: web.Request, __: NoQuery) -> web.StreamResponse:
        stuck = self._stuck_loop()
        answer = {"status": "ok"} if stuck is None else {"status": "stuck", "loop": stuck}
        headers = {"Cache-Control": "no-store"}
        return web.json_response(answer, status=200 if stuck is None else 503, headers=headers)

    async def readyz(self, request: web.Request, _: NoQuery) -> web.StreamResponse:
        readiness = self._readiness()
        status = 200 if readiness.ready else 503
        headers = {"Cache-Control": "no-store"}
        if not request.get(AUTHORIZED, False):
            return web.Response(status=status, headers=headers)
        body = encode(readiness)
        return web.Response(
            status=status, body=body, content_type="application/json", charset="utf-8", headers=headers
        )
