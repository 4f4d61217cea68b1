"""The running tsmon's admin socket, for the commands that change something."""

import asyncio
import grp
import json
import os
import stat
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tsmon.cli.options import Given
from tsmon.cli.terminal import CliError, os_words, plain
from tsmon.config import Settings, admin_socket_places

_TIMEOUT = 120.0
"""Seconds: a test message may take a minute per channel."""


class Place(NamedTuple):
    """Where a command looked for the running tsmon's socket."""

    path: Path
    state: Literal["there", "none", "closed"]
    """`closed` is a directory into which this user does not see."""


def places(settings: Settings) -> list[Place]:
    """Every place where a running tsmon's socket may be, the likeliest first, and what is there."""
    return [Place(path, _state(path)) for path in admin_socket_places(settings, os.environ)]


def _state(path: Path) -> Literal["there", "none", "closed"]:
    try:
        path.stat()
    except PermissionError:
        return "closed"
    except OSError:
        return "none"
    return "there"


def admin_socket(given: Given) -> Path:
    """Where it is. Raises CliError."""
    return socket_of(given.load_or_fail().settings)


def socket_of(settings: Settings) -> Path:
    """Where it is with these settings: one that is there, else one that may be, else where it would be."""
    found = places(settings)
    for state in ("there", "closed"):
        for place in found:
            if place.state == state:
                return place.path
    return found[0].path


def unreachable(socket: Path, error: OSError) -> CliError:
    """What to say when nobody answers there."""
    if isinstance(error, PermissionError):
        reason = f"permission denied: run this as root (sudo){_group_words(socket)}"
    else:
        reason = f"{os_words(error)}: does tsmon run, with this state directory? (--state-dir)"
    return CliError(f"{socket}: {reason}")


def _group_words(socket: Path) -> str:
    """Who else may use it."""
    try:
        found = socket.stat()
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return " or as the user that tsmon runs as"
    if found.st_mode & stat.S_IWGRP:
        return f" or as a member of the group {group}"
    return ", or let a group (admin_group)"


def ask(given: Given, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET `path`, or POST `body` to it; the JSON that comes back. Raises CliError with tsmon's words."""
    return asyncio.run(exchange(admin_socket(given), path, body))


async def exchange(
    socket: Path, path: str, body: dict[str, Any] | None, seconds: float = _TIMEOUT
) -> dict[str, Any]:
    """The same, from a running loop."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket)), timeout=aiohttp.ClientTimeout(total=seconds)
            ) as session,
            session.request(method, f"http://tsmon{path}", json=body) as response,
        ):
            answer = json.loads(await response.read())
            if response.status == 200 and isinstance(answer, dict):
                return answer
            raise CliError(plain(answer["error"]["message"]))
    except aiohttp.ClientConnectorError as error:
        raise unreachable(socket, error.os_error) from None
    except (aiohttp.ClientError, TimeoutError):
        raise CliError(f"{socket}: no answer: see tsmon's log") from None
    except (ValueError, KeyError, TypeError):
        raise CliError(f"{socket}: the answer is none of tsmon's") from None
