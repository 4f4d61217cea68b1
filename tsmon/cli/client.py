"""The client of tsmon's own API: one request function, every failure one clear line."""

import functools
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from tsmon.cli.admin import exchange, places
from tsmon.cli.terminal import CliError, os_words, plain, secret_variable
from tsmon.config import ConfigError, Settings, find_file, load_all

if TYPE_CHECKING:
    import aiohttp

DEFAULT_URL = "http://127.0.0.1:8000"


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--url` and `--timeout`; the command gets them as `url` and `timeout`."""

    @click.option(
        "--url",
        envvar="TSMON_URL",
        metavar="URL",
        help="Where tsmon answers (TSMON_URL); else the one that runs here is asked for its address, and if"
        f" there is none to ask, {DEFAULT_URL}. Where it wants a token: TSMON_TOKEN or TSMON_TOKEN_FILE.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0.1, max=600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    return wrapped


async def running_url(timeout: float) -> tuple[str, str]:
    """The address that the tsmon which runs here gives over its admin socket. When none is found the default,
    and words for where it was looked for."""
    try:
        settings = load_all(find_file(None, os.environ), os.environ, {}).settings
    except ConfigError:
        settings = Settings()  # its own affair, and `tsmon config check`'s
    looked = []
    for place in places(settings):
        why = {"none": "none there", "closed": "only root sees it, try sudo"}.get(place.state, "")
        if place.state == "there":
            try:
                return _reachable(str((await exchange(place.path, "/address", None, timeout))["url"])), ""
            except CliError as error:
                why = error.message.removeprefix(f"{place.path}: ")
            except KeyError:
                why = "an older tsmon, it does not say"
        looked.append(f"\n  {place.path}: {why}")
    return DEFAULT_URL, "\nNo running tsmon said another address; looked for its socket:" + "".join(looked)


def _reachable(url: str) -> str:
    """All addresses are to be listened on, not asked: loopback is among them."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


class ApiClient:
    """An open connection to tsmon. Made by `connect`."""

    def __init__(
        self, session: "aiohttp.ClientSession", base: str, name: str, timeout: float, looked: str
    ) -> None:
        """`looked` says where a running tsmon was looked for, "" when its address was given or found."""
        self._session = session
        self._base = base
        self._timeout = timeout
        self._looked = looked
        self.name = name

    async def get(self, path: str, **params: str | int) -> Any:
        """The JSON answer of `/health-monitoring/…`. Raises CliError."""
        try:
            return json.loads(await self.read(path, **params))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise CliError(f"{self.name}: the answer is no JSON: is that tsmon? (--url)") from None

    async def read(self, path: str, **params: str | int) -> bytes:
        """The answer as it is. Raises CliError."""
        import aiohttp  # noqa: PLC0415 (start-up time)

        url = f"{self._base}/health-monitoring/{path}"
        try:
            async with self._session.get(url, params=params, allow_redirects=False) as response:
                body = await response.read()
                if response.status != 200:
                    raise CliError(self._refusal(response.status, body))
                return body
        except TimeoutError:
            raise CliError(f"{self.name}: no answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            reason = os_words(error.os_error)
            raise CliError(
                f"{self.name}: {reason}: does tsmon run there? (tsmon run; another address: --url)"
                + self._looked
            ) from None
        except aiohttp.ClientError as error:
            raise CliError(
                f"{self.name}: {plain(str(error) or type(error).__name__, 160)}: is that tsmon? (--url)"
            ) from None

    def _refusal(self, code: int, body: bytes) -> str:
        if 300 <= code < 400:
            return f"{self.name}: answered {code}, a redirect, which is not followed: give the right --url"
        try:
            words = plain(json.loads(body)["error"]["message"], 200)
        except (ValueError, KeyError, TypeError, RecursionError):
            words = ""
        remedies = {
            401: "it wants a token: set TSMON_TOKEN",
            403: "it does not let you in (auth and allowed_hosts of its configuration)",
            404: "" if words else "is that tsmon, and of this version? (--url)",
        }
        remedy = remedies.get(code, "")
        return f"{self.name}: answered {code}" + "".join(f": {text}" for text in (words, remedy) if text)


@asynccontextmanager
async def connect(url: str | None, timeout: float) -> AsyncIterator[ApiClient]:
    """The API at `url` (with the path prefix of a reverse proxy, if any), None means that of the tsmon which
    runs on this machine. Raises CliError."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    looked = ""
    if url is None:
        url, looked = await running_url(timeout)
    base = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(base)
        name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise CliError(f"--url: {plain(url, 60)!r} is no address: give one as {DEFAULT_URL}")
    if parts.username or parts.password:
        raise CliError("--url: must hold no user or password: set TSMON_TOKEN")
    token = secret_variable("TSMON_TOKEN")
    if not token.isprintable():
        raise CliError("TSMON_TOKEN: holds characters that no token has")
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    limits = aiohttp.ClientTimeout(total=timeout)
    async with aiohttp.ClientSession(timeout=limits, headers=headers) as session:
        yield ApiClient(session, base.split("?")[0].rstrip("/"), plain(name), timeout, looked)
