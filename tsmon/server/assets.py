"""The files of the dashboard, with their types and ETags."""

from pathlib import Path

from tsmon.server.replies import Body

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
        if kind is None or path.name != name or not path.is_file():
            return None
        changed = path.stat().st_mtime_ns
        if name not in self._bodies or self._bodies[name][0] != changed:
            self._bodies[name] = changed, Body(path.read_bytes(), kind)
        return self._bodies[name][1]
