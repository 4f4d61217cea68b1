"""The write side: a unix socket, guarded by file permissions.

HTTP over the socket, for the `tsmon` command: silencing, acknowledging, test messages, reloading, exporting.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from tsmon.base.clock import Clock, parse_rfc3339, rfc3339
from tsmon.base.text import clean_text
from tsmon.config import ConfigError
from tsmon.history.influx.importing import Taken
from tsmon.history.notes import add_note
from tsmon.history.store import Store
from tsmon.history.table_rows import TABLES, export_rows
from tsmon.monitor.alerts import Silence
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.operators import Operators
from tsmon.server.answers import ReadyAnswer
from tsmon.server.commands import (
    Acknowledge,
    Address,
    BeginSilence,
    Begun,
    ChooseChannel,
    Done,
    EndSilence,
    LinesAnswer,
    PutLines,
    SilencesAnswer,
    TestResult,
    TestResults,
    WriteNote,
    bad_request,
    read_command,
    read_id,
    silence_answer,
)
from tsmon.server.noting import wanted_note
from tsmon.server.replies import ApiError, encode, errors, note_begun
from tsmon.server.unix_socket import make_socket, peer_name

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
        readiness: Callable[[], ReadyAnswer],
        url: Callable[[], str],
        put_lines: Callable[[bytes], Awaitable[bool]],
        import_samples: Callable[[bytes], Awaitable[Taken]],
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
        ConfigError when there is no such group or the socket may not be given to it."""
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
            await web.SockSite(self._runner, make_socket(path, group)).start()

    @property
    def is_whole(self) -> bool:
        """Every socket is where it was made."""
        return all(path.exists() for path in self._paths)

    async def stop(self) -> None:
        """End what is open, and remove the sockets."""
        if self._runner is not None:
            await self._runner.cleanup()
        for path in self._paths:
            with suppress(OSError):
                path.unlink()

    async def _ack(self, request: web.Request) -> web.Response:
        command = await read_command(request, Acknowledge)
        alert_id, author = read_id(command.id), _author(request, command.author)
        if alert_id is None or not author:
            raise bad_request(command.takes)
        alert = await self._operators.acknowledge(alert_id, author, clean_text(command.reason, 200))
        if alert is None:
            raise ApiError(404, "not_found", f"no open alert has the id {alert_id}")
        return _answer(Done(f"acknowledged {alert.kind} of {alert.hostname or 'the monitor'}"))

    async def _note(self, request: web.Request) -> web.Response:
        command = await read_command(request, WriteNote)
        author = _author(request, command.author)
        note, hostname = await wanted_note(command, author, self._monitor, self._store, self._clock.wall())
        words = f"{author} noted{' as planned' if note.planned else ''} of {hostname}: {note.text}"
        begin, end = rfc3339(note.start), rfc3339(note.end)
        details = {"author": author, "reason": note.text, "from": begin, "to": end, "planned": note.planned}
        await self._operators.noted(words, lambda db: add_note(db, note), node=hostname, **details)
        return _answer(Done(f"noted of {hostname}, from {begin} to {end}"))

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(self._readiness())

    async def _address(self, _: web.Request) -> web.Response:
        return _answer(Address(self._url()))

    async def _silences(self, _: web.Request) -> web.Response:
        return _answer(SilencesAnswer([silence_answer(silence) for silence in self._all_silences.silences]))

    async def _silence(self, request: web.Request) -> web.Response:
        command = await read_command(request, BeginSilence)
        wanted = command.silence(_author(request, command.author), self._clock.wall())
        if wanted.alert is not None and wanted.alert not in self._monitor.alerts:
            raise ApiError(404, "not_found", f"no open alert has the id {wanted.alert}")
        silence = await self._all_silences.silence(wanted)
        words = f"silence {silence.id}: {silence.words()} until {rfc3339(silence.ends)}"
        return _answer(Begun(words, silence_answer(silence)))

    async def _unsilence(self, request: web.Request) -> web.Response:
        command = await read_command(request, EndSilence)
        silence_id, author = read_id(command.id), _author(request, command.author)
        if silence_id is None or not author:
            raise bad_request(command.takes)
        silence = await self._all_silences.unsilence(silence_id, author)
        if silence is None:
            raise ApiError(404, "not_found", f"no silence has the id {silence_id}")
        return _answer(Done(f"ended the silence of {silence.words()}"))

    async def _notify_test(self, request: web.Request) -> web.Response:
        results = []
        for name in self._channels(await read_command(request, ChooseChannel)):
            outcome = await self._all_channels.test(name)
            results.append(TestResult(name, outcome.delivered, outcome.error or None))
        return _answer(TestResults(results))

    async def _notify_enable(self, request: web.Request) -> web.Response:
        names = self._channels(await read_command(request, ChooseChannel))
        for name in names:
            self._all_channels.enable(name)
        return _answer(Done(f"{', '.join(names)}: tried again at once"))

    def _channels(self, command: ChooseChannel) -> list[str]:
        """The channel that is named, or all of them."""
        known = self._all_channels.names
        if not known:
            raise ApiError(404, "not_found", "there is no channel: configure [[notify]]")
        if command.channel is None:
            return known
        if command.channel not in known:
            raise ApiError(404, "not_found", f"no such channel; there are {', '.join(known)}")
        return [command.channel]

    async def _reloaded(self, _: web.Request) -> web.Response:
        try:
            return _answer(Done(await self._reload()))
        except ConfigError as error:
            raise ApiError(400, "bad_config", f"{error}; the old settings stay in force") from None

    async def _influx_lines(self, request: web.Request) -> web.Response:
        command = await read_command(request, PutLines)
        try:
            return _answer(LinesAnswer(await self._put_lines(command.lines)))
        except ValueError as error:
            raise bad_request(str(error)) from None

    async def _imported(self, request: web.Request) -> web.Response:
        try:
            return _answer((await self._import_samples(await request.read()))._asdict())
        except (ValueError, RecursionError) as error:
            raise bad_request(str(error)) from None

    async def _export(self, request: web.Request) -> web.StreamResponse:
        table = request.query.get("table", "events")
        if table not in TABLES:
            raise bad_request(f"table takes one of {', '.join(TABLES)}")
        try:
            since = parse_rfc3339(request.query["since"]) if "since" in request.query else 0.0
        except (ValueError, OverflowError):
            raise bad_request("since takes a time as 2026-11-23T14:02:00Z") from None
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async for rows in export_rows(self._store, table, since):
            await response.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        await response.write_eof()
        return response


def _answer(answer: Any) -> web.Response:
    return web.Response(body=encode(answer), content_type="application/json", charset="utf-8")


def _author(request: web.Request, given: str) -> str:
    """Who it is by the command's own word, and in brackets by the kernel's where that differs; "" when the
    command names nobody."""
    claimed, proven = clean_text(given, 100), peer_name(request)
    return claimed if not claimed or not proven or claimed == proven else f"{claimed} ({proven})"
