"""What commands say over the admin socket, and what they are answered: a struct each."""

from typing import Annotated, ClassVar, TypeVar

import msgspec
from aiohttp import web

from tsmon.base.clock import rfc3339
from tsmon.base.text import clean_text
from tsmon.monitor.alerts import Silence
from tsmon.server.replies import ApiError
from tsmon.source.errors import NOT_JSON

_MOST_SILENCE = 366 * 86400.0
_LONGEST_REASON = 200
_Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Globs = tuple[_Glob, ...]


class Command(msgspec.Struct, kw_only=True):
    """The body of a request."""

    takes: ClassVar[str]
    """What it takes, for people."""


class Signed(Command):
    """Who it is by; a name is needed."""

    author: str = ""


class Acknowledge(Signed, kw_only=True):
    takes: ClassVar[str] = "ack takes the id of an alert and an author"
    id: str | int = ""
    reason: str = ""


class EndSilence(Signed, kw_only=True):
    takes: ClassVar[str] = "unsilence takes the id of a silence and an author"
    id: str | int = ""


class BeginSilence(Signed, kw_only=True):
    """What to silence: an alert, globs of nodes, or all; one of them."""

    takes: ClassVar[str] = (
        "silence takes an author, a reason, seconds from 1 to a year, and the id of an alert, lists of globs"
        " (hosts, tags, os, users, roles) or all"
    )
    reason: str = ""
    seconds: Annotated[float, msgspec.Meta(ge=1, le=_MOST_SILENCE)]
    alert: int | None = None
    hosts: _Globs = ()
    tags: _Globs = ()
    os: _Globs = ()
    users: _Globs = ()
    roles: _Globs = ()
    all: bool = False

    def silence(self, author: str, now: float) -> Silence:
        """The silence that is asked for, without its id. Raises ApiError."""
        reason = clean_text(self.reason, _LONGEST_REASON)
        if not author or not reason:
            raise bad_request("silence takes an author and a reason")
        globs = {
            name: tuple(clean_text(glob, 200) for glob in getattr(self, name))
            for name in ("hosts", "tags", "os", "users", "roles")
        }
        if (self.alert is not None) + any(globs.values()) + self.all != 1:
            raise bad_request("say what to silence: an alert, globs of nodes, or all")
        ends = now + self.seconds
        return Silence(id=0, author=author, reason=reason, created=now, ends=ends, alert=self.alert, **globs)


class WriteNote(Signed, kw_only=True):
    """About a node or an alert; an alert gives the times that are left out."""

    takes: ClassVar[str] = "note takes a node or an alert, an author and a text, and the times from and to"
    about: str | int = ""
    text: str = ""
    start: str | None = msgspec.field(default=None, name="from")
    end: str | None = msgspec.field(default=None, name="to")
    planned: bool = False


class ChooseChannel(Command, kw_only=True):
    """One channel; all of them when none is named."""

    takes: ClassVar[str] = "notify takes the name of a channel, or nothing"
    channel: str | None = None


class PutLines(Command, kw_only=True):
    """Samples for InfluxDB: gzipped line protocol, in base64."""

    takes: ClassVar[str] = "lines takes gzipped line protocol in base64"
    lines: bytes = b""


class Done(msgspec.Struct):
    """What came of a command, in a line for people."""

    message: str


class Address(msgspec.Struct):
    """Where the API answers."""

    url: str


class SilenceAnswer(msgspec.Struct):
    id: str
    what: str
    author: str
    reason: str
    created: str | None
    ends: str | None


class Begun(msgspec.Struct):
    message: str
    silence: SilenceAnswer


class SilencesAnswer(msgspec.Struct):
    silences: list[SilenceAnswer]


class TestResult(msgspec.Struct):
    channel: str
    delivered: bool
    error: str | None


class TestResults(msgspec.Struct):
    results: list[TestResult]


class LinesAnswer(msgspec.Struct):
    taken: bool
    """False while enough waits: ask again."""


C = TypeVar("C", bound=Command)


async def read_command(request: web.Request, kind: type[C]) -> C:
    """The body of a request. Raises ApiError."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.ValidationError as error:
        raise bad_request(f"{kind.takes} ({error})") from None
    except NOT_JSON:
        raise bad_request("the body must be a JSON object") from None


def read_id(id_: str | int) -> int | None:
    """An id as a number, None when it is none."""
    text = str(id_)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def bad_request(words: str) -> ApiError:
    return ApiError(400, "bad_request", words)


def silence_answer(silence: Silence) -> SilenceAnswer:
    return SilenceAnswer(
        id=str(silence.id),
        what=silence.words(),
        author=silence.author,
        reason=silence.reason,
        created=rfc3339(silence.created),
        ends=rfc3339(silence.ends),
    )
