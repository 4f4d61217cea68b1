"""The route table put to work: parameters are read, and everything answers below the path prefix too."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, NamedTuple

from aiohttp import web

from tsmon.server.params import Param, Q, Query, params_of, parse_query
from tsmon.server.replies import ApiError


class Route(NamedTuple, Generic[Q]):
    """One route: what it takes and answers. The OpenAPI document is made of these."""

    path: str
    handler: Callable[[web.Request, Q], Awaitable[web.StreamResponse]]
    summary: str
    answer: Any
    query: type[Q]

    @property
    def params(self) -> tuple[Param, ...]:
        """The query parameters that it takes."""
        kind: type[Query] = self.query
        return params_of(kind)


Routes = list[Route[Any]]


def add_routes(app: web.Application, routes: Iterable[Route[Any]], prefix: Callable[[], str]) -> None:
    """Register `routes` at their paths, and below `prefix()`: that is asked at every request, since a reload
    may change what `public_url` says."""

    def below(route: Route[Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            given = request.match_info.get("below")
            if given is not None and f"/{given}" != prefix():
                raise nothing_at(request)
            return await route.handler(request, parse_query(request.query, route.query))

        return handle

    async def bare_prefix(request: web.Request) -> web.StreamResponse:
        given = request.match_info["below"]
        if f"/{given}" != prefix():
            raise nothing_at(request)
        return redirect(f"{given.rpartition('/')[2]}/vpn")

    for route in routes:
        for path in (route.path, "/{below:.+}" + route.path):
            app.router.add_get(path, below(route), expect_handler=_expect_nothing)
    app.router.add_get("/{below:.+}", bare_prefix, expect_handler=_expect_nothing)


def nothing_at(request: web.Request) -> ApiError:
    return ApiError(404, "not_found", f"there is nothing at {request.path[:200]}")


def redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={"Location": location, "Cache-Control": "no-cache"})


async def _expect_nothing(_: web.Request) -> None:
    """No body is read here: whatever a client expects before it sends one, it gets its answer."""
