"""The running tsmon's admin socket, for the commands that change something."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tsmon.cli.options import Given
from tsmon.cli.terminal import CliError, os_words, plain
from tsmon.config import Settings, state_dir

_TIMEOUT = 120.0
"""Seconds: a test message may take a minute per channel."""


def admin_socket(given: Given) -> Path:
    """Where it is. Raises CliError."""
    return socket_of(given.load_or_fail().settings)


def socket_of(settings: Settings) -> Path:
    """Where it is with these settings."""
    return state_dir(settings, os.environ) / "admin.sock"


def unreachable(socket: Path, error: OSError) -> CliError:
    """What to say when nobody answers there."""
    if isinstance(error, PermissionError):
        reason = "permission denied: run this as the user that tsmon runs as"
    else:
        reason = f"{os_words(error)}: does tsmon run, with this state directory? (--state-dir)"
    return CliError(f"{socket}: {reason}")


def ask(given: Given, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET `path`, or POST `body` to it; the JSON that comes back. Raises CliError with tsmon's words."""
    return asyncio.run(exchange(admin_socket(given), path, body))


async def exchange(socket: Path, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """The same, from a running loop."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(socket)), timeout=aiohttp.ClientTimeout(total=_TIMEOUT)
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
