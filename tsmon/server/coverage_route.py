"""The route of what the control server has and this monitor sees."""

from typing import Annotated

from aiohttp import web

from tsmon.base.clock import rfc3339
from tsmon.base.threads import off_loop
from tsmon.monitor.control.coverage import coverage
from tsmon.monitor.state import View
from tsmon.server.control_answers import CoverageAnswer, local_only_answer, unseen_answer
from tsmon.server.params import Query, Takes
from tsmon.server.present import PresentAnswers
from tsmon.server.replies import Bodies, Body, encode, reply
from tsmon.server.routing import Route, Routes


class CoverageQuery(Query, frozen=True):
    """/coverage."""

    limit: Annotated[int, Takes("int", "how many unseen machines at most", 1, 10_000)] = 1000
    offset: Annotated[int, Takes("int", "how many of them to skip", 0, 1_000_000)] = 0


class CoverageRoutes:
    """Of the last snapshot and the control server's last good answer."""

    def __init__(self, present: PresentAnswers) -> None:
        self._present = present
        self._bodies = Bodies()

    def routes(self, base: str) -> Routes:
        words = "What the control server knows and this monitor sees"
        return [Route(f"{base}/coverage", self.coverage, words, CoverageAnswer | None, CoverageQuery)]

    async def coverage(self, request: web.Request, query: CoverageQuery) -> web.StreamResponse:
        view = self._present.view

        async def make() -> Body:
            size = len(view.inventory.devices) if view.inventory is not None else 0
            return await off_loop(lambda: _body(view, query), size)

        body = await self._bodies.get(query, view.version, make)
        return await reply(request, body, {"X-Total-Count": str(body.total)})


def _body(view: View, query: CoverageQuery) -> Body:
    found = coverage_answer(view, query.limit, query.offset)
    if found is None:
        return Body(b"null")
    return Body(encode(found), total=found.known - found.seen)


def coverage_answer(view: View, limit: int, offset: int = 0) -> CoverageAnswer | None:
    """At most `limit` of the unseen machines; None: no control server is asked."""
    inventory = view.inventory
    if inventory is None:
        return None
    found = coverage(view, inventory)
    return CoverageAnswer(
        kind=inventory.kind,
        known=found.known,
        seen=found.seen,
        unseen=[unseen_answer(row) for row in found.unseen[offset : offset + limit]],
        local_only=[local_only_answer(row) for row in found.local_only[:limit]],
        as_of=rfc3339(inventory.as_of),
        error=inventory.error or None,
    )
