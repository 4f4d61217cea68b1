"""The write side: a unix socket, guarded by file permissions.

HTTP over the socket, for the `tsmon` command: silencing, acknowledging, test messages, reloading, exporting.
"""

import grp
import os
import pwd
import socket
import struct
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from tsmon.base.clock import Clock, parse_rfc3339, rfc3339
from tsmon.base.text import clean_text
from tsmon.config import ConfigError
from tsmon.history.notes import add_note
from tsmon.history.store import Store
from tsmon.history.table_rows import TABLES, export_rows
from tsmon.monitor.alerts import Silence
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.operators import Operators
from tsmon.server.noting import wanted_note
from tsmon.server.replies import ApiError, errors, note_begun
from tsmon.source.errors import NOT_JSON

_LARGEST_REQUEST = 512 * 1024 * 1024
"""Bytes: years of another monitor's samples. Only the owner reaches the socket."""


class Result(Protocol):
    """What became of a test message."""

    @property
    def delivered(self) -> bool: ...
    @property
    def error(self) -> str: ...


class Channels(Protocol):
    """The channels, as the commands need them."""

    @property
    def names(self) -> list[str]:
        """The channels."""

    async def test(self, name: str) -> Result:
        """Send one message through a channel now."""

    def enable(self, name: str) -> None:
        """Try a channel at once."""


class Silences(Protocol):
    """The silences, as the commands need them."""

    @property
    def silences(self) -> list[Silence]:
        """Those that last."""

    async def silence(self, silence: Silence) -> Silence:
        """Begin one; it comes back with its id."""

    async def unsilence(self, silence_id: int, author: str) -> Silence | None:
        """End one; None when there is none of that id."""


class Admin:
    """The commands that change something, and those that read everything."""

    def __init__(
        self,
        clock: Clock,
        monitor: Monitor,
        store: Store,
        *,
        operators: Operators,
        channels: Channels,
        silences: Silences,
        reload: Callable[[], Awaitable[str]],
        readiness: Callable[[], Mapping[str, Any]],
        url: Callable[[], str],
        put_lines: Callable[[bytes], Awaitable[bool]],
        import_samples: Callable[[bytes], Awaitable[dict[str, Any]]],
    ) -> None:
        """`url` is where the API answers. `reload` applies the configuration and returns a line about it; it
        raises ConfigError.
        `put_lines` puts gzipped samples into the outbox to InfluxDB, False while enough waits there;
        `import_samples` makes history of another monitor's and says what came of it; both raise
        ValueError."""
        self._monitor = monitor
        self._store = store
        self._operators = operators
        self._all_channels = channels
        self._all_silences = silences
        self._clock = clock
        self._reload = reload
        self._readiness = readiness
        self._url = url
        self._put_lines = put_lines
        self._import_samples = import_samples
        self._runner: web.AppRunner | None = None
        self._paths: Sequence[Path] = ()

    async def start(self, paths: Sequence[Path], group: str = "") -> None:
        """Listen on these unix sockets, for their owner and `group` (if not ""). Raises OSError, and
        ConfigError when there is no such group."""
        gid = _gid(group) if group else None
        app = web.Application(middlewares=[errors], client_max_size=_LARGEST_REQUEST)
        app.on_response_prepare.append(note_begun)
        app.router.add_get("/export", self._export)
        app.router.add_post("/ack", self._ack)
        app.router.add_post("/note", self._note)
        app.router.add_get("/readiness", self._ready)
        app.router.add_get("/address", self._address)
        app.router.add_get("/silences", self._silences)
        app.router.add_post("/silence", self._silence)
        app.router.add_post("/unsilence", self._unsilence)
        app.router.add_post("/notify/test", self._notify_test)
        app.router.add_post("/notify/enable", self._notify_enable)
        app.router.add_post("/reload", self._reloaded)
        app.router.add_post("/influx/lines", self._influx_lines)
        app.router.add_post("/import", self._imported)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        self._paths = tuple(paths)
        for path in self._paths:
            path.unlink(missing_ok=True)
            await web.UnixSite(self._runner, str(path)).start()
            path.chmod(0o600)
            if gid is not None:
                _give(path, gid, group)

    @property
    def is_whole(self) -> bool:
        """Every socket is where it was made."""
        return all(path.exists() for path in self._paths)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        for path in self._paths:
            with suppress(OSError):
                path.unlink()

    async def _ack(self, request: web.Request) -> web.Response:
        data = await _body(request)
        alert_id, author = str(data.get("id", "")), _author(request, data)
        if not _is_id(alert_id) or not author:
            raise ApiError(400, "bad_request", "ack takes the id of an alert and an author")
        reason = clean_text(str(data.get("reason", "")), 200)
        alert = await self._operators.acknowledge(int(alert_id), author, reason)
        if alert is None:
            raise ApiError(404, "not_found", f"no open alert has the id {alert_id}")
        return web.json_response(
            {"message": f"acknowledged {alert.kind} of {alert.hostname or 'the monitor'}"}
        )

    async def _note(self, request: web.Request) -> web.Response:
        data = await _body(request)
        author = _author(request, data)
        note, hostname = await wanted_note(data, author, self._monitor, self._store, self._clock.wall())
        words = f"{author} noted{' as planned' if note.planned else ''} of {hostname}: {note.text}"
        begin, end = rfc3339(note.start), rfc3339(note.end)
        details = {"author": author, "reason": note.text, "from": begin, "to": end, "planned": note.planned}
        await self._operators.noted(words, lambda db: add_note(db, note), node=hostname, **details)
        return web.json_response({"message": f"noted of {hostname}, from {begin} to {end}"})

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response(self._readiness())

    async def _address(self, _: web.Request) -> web.Response:
        return web.json_response({"url": self._url()})

    async def _silences(self, _: web.Request) -> web.Response:
        rows = [_silence_row(silence) for silence in self._all_silences.silences]
        return web.json_response({"silences": rows})

    async def _silence(self, request: web.Request) -> web.Response:
        data = await _body(request)
        wanted = _wanted_silence(data, _author(request, data), self._clock.wall())
        if wanted.alert is not None and wanted.alert not in self._monitor.alerts:
            raise ApiError(404, "not_found", f"no open alert has the id {wanted.alert}")
        silence = await self._all_silences.silence(wanted)
        return web.json_response(
            {
                "message": f"silence {silence.id}: {silence.words()} until {rfc3339(silence.ends)}",
                "silence": _silence_row(silence),
            }
        )

    async def _unsilence(self, request: web.Request) -> web.Response:
        data = await _body(request)
        silence_id, author = str(data.get("id", "")), _author(request, data)
        if not _is_id(silence_id) or not author:
            raise ApiError(400, "bad_request", "unsilence takes the id of a silence and an author")
        silence = await self._all_silences.unsilence(int(silence_id), author)
        if silence is None:
            raise ApiError(404, "not_found", f"no silence has the id {silence_id}")
        return web.json_response({"message": f"ended the silence of {silence.words()}"})

    async def _notify_test(self, request: web.Request) -> web.Response:
        results = []
        for name in self._channels(await _body(request)):
            outcome = await self._all_channels.test(name)
            results.append({"channel": name, "delivered": outcome.delivered, "error": outcome.error or None})
        return web.json_response({"results": results})

    async def _notify_enable(self, request: web.Request) -> web.Response:
        names = self._channels(await _body(request))
        for name in names:
            self._all_channels.enable(name)
        return web.json_response({"message": f"{', '.join(names)}: tried again at once"})

    def _channels(self, data: dict[str, Any]) -> list[str]:
        """The channel that is named, or all of them."""
        known = self._all_channels.names
        if not known:
            raise ApiError(404, "not_found", "there is no channel: configure [[notify]]")
        name = data.get("channel")
        if name is not None and name not in known:
            raise ApiError(404, "not_found", f"no such channel; there are {', '.join(known)}")
        return known if name is None else [str(name)]

    async def _reloaded(self, _: web.Request) -> web.Response:
        try:
            return web.json_response({"message": await self._reload()})
        except ConfigError as error:
            raise ApiError(400, "bad_config", f"{error}; the old settings stay in force") from None

    async def _influx_lines(self, request: web.Request) -> web.Response:
        try:
            payload = b64decode((await _body(request)).get("lines", ""), validate=True)
            return web.json_response({"taken": await self._put_lines(payload)})
        except (TypeError, ValueError) as error:
            raise ApiError(400, "bad_request", str(error)) from None

    async def _imported(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(await self._import_samples(await request.read()))
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "bad_request", str(error)) from None

    async def _export(self, request: web.Request) -> web.StreamResponse:
        table = request.query.get("table", "events")
        if table not in TABLES:
            raise ApiError(400, "bad_request", f"table takes one of {', '.join(TABLES)}")
        try:
            since = parse_rfc3339(request.query["since"]) if "since" in request.query else 0.0
        except (ValueError, OverflowError):
            raise ApiError(400, "bad_request", "since takes a time as 2026-11-23T14:02:00Z") from None
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async for rows in export_rows(self._store, table, since):
            await response.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        await response.write_eof()
        return response


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _author(request: web.Request, data: dict[str, Any]) -> str:
    """Who it is by the command's own word, and in brackets by the kernel's where that differs; "" when the
    command names nobody."""
    claimed = clean_text(str(data.get("author", "")), 100)
    proven = _peer_name(request)
    return claimed if not claimed or not proven or claimed == proven else f"{claimed} ({proven})"


def _peer_name(request: web.Request) -> str:
    """The user at the other end of the unix socket, "" where the system does not tell."""
    peer = request.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if peer is None or option is None:
        return ""
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, option, 12))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


_MOST_SILENCE = 366 * 86400.0
_GLOBS = ("hosts", "tags", "os", "users", "roles")


def _wanted_silence(data: dict[str, Any], author: str, now: float) -> Silence:
    """The silence that a command asks for, without its id. Raises ApiError."""
    reason = clean_text(str(data.get("reason", "")), 200)
    seconds = data.get("seconds")
    if not author or not reason:
        raise ApiError(400, "bad_request", "silence takes an author and a reason")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= _MOST_SILENCE:
        raise ApiError(400, "bad_request", "silence takes seconds from 1 to a year")
    globs = {name: _glob_list(data.get(name, []), name) for name in _GLOBS}
    alert = data.get("alert")
    if alert is not None and not (isinstance(alert, int) and not isinstance(alert, bool)):
        raise ApiError(400, "bad_request", "alert takes the id of an open alert")
    given = (alert is not None) + any(globs.values()) + (data.get("all") is True)
    if given != 1:
        raise ApiError(400, "bad_request", "say what to silence: an alert, globs of nodes, or all")
    return Silence(id=0, author=author, reason=reason, created=now, ends=now + seconds, alert=alert, **globs)


def _glob_list(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(text, str) and 0 < len(text) <= 200 for text in value
    ):
        raise ApiError(400, "bad_request", f"{name} takes a list of globs")
    return tuple(clean_text(text, 200) for text in value)


def _silence_row(silence: Silence) -> dict[str, Any]:
    return {
        "id": str(silence.id),
        "what": silence.words(),
        "author": silence.author,
        "reason": silence.reason,
        "created": rfc3339(silence.created),
        "ends": rfc3339(silence.ends),
    }


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(await request.read())
    except NOT_JSON:
        data = None
    if not isinstance(data, dict):
        raise ApiError(400, "bad_request", "the body must be a JSON object")
    return data


def _give(path: Path, gid: int, group: str) -> None:
    """Let the group use it. A hardened service may not call chown at all, nor need to for its own group."""
    try:
        if path.stat().st_gid != gid:
            os.chown(path, -1, gid)
        path.chmod(0o660)
    except PermissionError:
        raise ConfigError(
            f"admin_group: tsmon may not give its socket to {group!r}: run it with that group as its own"
        ) from None


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"admin_group: there is no group {group!r} on this machine") from None
