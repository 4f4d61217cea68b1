"""A scripted server that answers writes as InfluxDB 2.x does, and a reader of line protocol of its own.

What it says for which fault was measured on InfluxDB 2.9.1. It checks what a real one checks: token, org,
bucket, precision, gzip, syntax, and the type that a field has had before.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aiohttp import web

TOKEN = "secret-token"
HANG = -1
"""In a script: no answer at all."""
RESET = 0
"""In a script: the connection is cut."""
_PRECISIONS = {"ns": 10**9, "us": 10**6, "ms": 1000, "s": 1}
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


class Point(NamedTuple):
    """One line of line protocol; the time as it is written."""

    measurement: str
    tags: dict[str, str]
    fields: Mapping[str, int | float | str]
    time: int


class Answer(NamedTuple):
    """What the script says instead of storing."""

    status: int
    body: str | bytes = ""
    headers: Mapping[str, str] = MappingProxyType({})
    stored: bool = False
    """Whether the lines are stored nevertheless (a write time-out of InfluxDB)."""


def refusal(code: str, message: str) -> str:
    """The JSON of an InfluxDB that refuses."""
    return json.dumps({"code": code, "message": message})


def read_line(line: str) -> Point:
    """Raises ValueError. A backslash escapes what follows it, also another backslash."""
    head, rest = _until(line, " ")
    fields_text, stamp = _until(rest, " ", quoted=True)
    names = list(_split(head, ","))
    fields: dict[str, int | float | str] = {}
    for pair in _split(fields_text, ",", quoted=True):
        name, value = _until(pair, "=")
        fields[_plain(name)] = _value(value)
    tags = [_until(pair, "=") for pair in names[1:]]
    if not names[0] or not all(name and value for name, value in tags) or not fields:
        raise ValueError("missing tag value" if tags else "missing fields")
    if len(set(dict(tags))) != len(tags):
        raise ValueError("duplicate tags")
    return Point(_plain(names[0]), {_plain(name): _plain(value) for name, value in tags}, fields, int(stamp))


def _until(text: str, mark: str, *, quoted: bool = False) -> tuple[str, str]:
    first, *rest = _split(text, mark, quoted=quoted)
    return first, text[len(first) + 1 :] if rest else ""


def _split(text: str, mark: str, *, quoted: bool = False) -> list[str]:
    parts, begin, at, inside = [], 0, 0, False
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif quoted and text[at] == '"':
            inside = not inside
        elif text[at] == mark and not inside:
            parts.append(text[begin:at])
            begin = at + 1
        at += 1
    return [*parts, text[begin:]]


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _value(text: str) -> int | float | str:
    if re.fullmatch(r"-?\d+i", text):
        return int(text[:-1])
    if _NUMBER.fullmatch(text):
        return float(text)
    if re.fullmatch(r'"([^"\\]|\\.)*"', text, re.DOTALL):
        return _plain(text[1:-1])
    raise ValueError("invalid number" if text else "missing field value")


class FakeInflux:
    """Stores what is written, in order; a script of answers comes first."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.refusing: Answer | None = None
        """What every write is answered while it is set."""
        self.token, self.org, self.bucket = TOKEN, "home", "analytics"
        self.bad: set[str] = set()
        """Hostnames whose lines it cannot parse."""
        self.most = 50_000_000
        """Bytes of a request that a proxy before it lets through."""
        self.writes: list[web.Request] = []
        self.bodies: list[list[str]] = []
        self.stored: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._types: dict[tuple[str, str], type] = {}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._any)
        return app

    def points(self) -> list[Point]:
        """What is stored, each line as often as it was written."""
        return [read_line(line) for line in self.stored]

    def kept(self) -> Counter[tuple[str, int]]:
        """How many series hold a sample of a hostname at a time: InfluxDB overwrites within one series."""
        points = self.points()
        series = {(tuple(p.tags.items()), p.time) for p in points if p.measurement == "tailscale_health"}
        return Counter((dict(tags)["hostname"], time) for tags, time in series)

    async def _any(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = await self._answer(request, raw)
        finally:
            self.in_flight -= 1
        if answer.status == RESET:
            assert request.transport is not None
            request.transport.abort()
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        return web.Response(status=answer.status or 500, body=body, headers=answer.headers)

    async def _answer(self, request: web.Request, raw: bytes) -> Answer:
        if (request.method, request.path) != ("POST", "/api/v2/write"):
            return Answer(200, "<!doctype html><title>InfluxDB</title>")
        lines = raw.decode().split("\n")  # aiohttp unpacked it
        self.writes.append(request)
        self.bodies.append(lines)
        answer = self.script.pop(0) if self.script else self.refusing
        if answer is not None:
            if answer.status == HANG:
                await asyncio.sleep(3600)
            if answer.stored:
                self.stored += lines
            return answer
        return self._stored(request, lines, request.content_length or 0)

    def _stored(self, request: web.Request, lines: list[str], size: int) -> Answer:
        query = request.query
        if size > self.most:
            return Answer(413, "<html>nginx")
        if request.headers.get("Authorization") != f"Token {self.token}":
            return Answer(401, refusal("unauthorized", "unauthorized access"))
        if query.get("org") != self.org:
            return Answer(404, refusal("not found", f'organization name "{query.get("org")}" not found'))
        if query.get("bucket") != self.bucket:
            return Answer(404, refusal("not found", f'bucket "{query.get("bucket")}" not found'))
        if query.get("precision") not in _PRECISIONS:
            message = "invalid precision; valid precision units are ns, us, ms, s"
            return Answer(400, refusal("invalid", message))
        faults = [f"unable to parse '{line}': {why}" for line in lines if (why := self._fault(line))]
        if faults:
            return Answer(400, refusal("invalid", "\n".join(faults)))
        good = [line for line in lines if self._fits(read_line(line))]
        self.stored += good
        if len(good) < len(lines):
            return Answer(422, refusal("unprocessable entity", "failure writing points: partial write"))
        return Answer(204)

    def _fault(self, line: str) -> str:
        try:
            point = read_line(line)
        except ValueError as error:
            return str(error)
        return "invalid boolean" if point.tags["hostname"] in self.bad else ""

    def _fits(self, point: Point) -> bool:
        return all(
            self._types.setdefault((point.measurement, name), type(value)) is type(value)
            for name, value in point.fields.items()
        )
