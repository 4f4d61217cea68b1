"""The files of the dashboard and of the API's page for people, with their types and ETags."""

import asyncio
import stat
from pathlib import Path

from aiohttp import web

from tsmon.server.params import AnyQuery
from tsmon.server.replies import Body, reply
from tsmon.server.routing import Route, Routes, nothing_at, redirect

WEB = Path(__file__).parent.parent / "web"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


class Assets:
    """Reads each file once, and again when it was changed (a developer's browser shows it at once)."""

    def __init__(self, folder: Path = WEB) -> None:
        self._folder = folder
        self._bodies: dict[str, tuple[int, Body]] = {}

    def get(self, name: str) -> Body | None:
        """The file of that name in the folder, None when there is none, or none of a kind that is served."""
        kind = _TYPES.get(Path(name).suffix)
        path = self._folder / name
        if kind is None or path.name != name:
            return None
        try:
            found = path.stat()
        except (OSError, ValueError):  # not there, or no name that a file can have
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        changed = found.st_mtime_ns
        if name not in self._bodies or self._bodies[name][0] != changed:
            self._bodies[name] = changed, Body(path.read_bytes(), kind)
        return self._bodies[name][1]


class Pages:
    """The routes of everything that is read by a browser."""

    def __init__(self) -> None:
        self._assets = Assets()

    def routes(self) -> Routes:
        return [
            Route("/docs", self.docs, "This API for people", str, AnyQuery),
            Route("/vpn", self.dashboard, "The dashboard", str, AnyQuery),
            Route("/web/{name}", self.asset, "The dashboard's files", bytes, AnyQuery),
            Route("/", self.root, "Redirects to the dashboard", str, AnyQuery),
        ]

    async def dashboard(self, request: web.Request, _: AnyQuery) -> web.StreamResponse:
        return await self._file(request, "vpn.html")

    async def docs(self, request: web.Request, _: AnyQuery) -> web.StreamResponse:
        return await self._file(request, "docs.html")

    async def asset(self, request: web.Request, _: AnyQuery) -> web.StreamResponse:
        return await self._file(request, request.match_info["name"])

    async def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        body = await asyncio.to_thread(self._assets.get, name)  # the disk may be slow
        if body is None:
            raise nothing_at(request)
        return await reply(request, body)

    async def root(self, _: web.Request, __: AnyQuery) -> web.StreamResponse:
        # Relative, so that it holds below any path prefix.
        return redirect("vpn")
