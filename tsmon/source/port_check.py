"""One port of a node asked over the tailnet, and what came of it."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tsmon.base.text import clean_text
from tsmon.config.service_checks import ServiceCheck
from tsmon.source.check_answer import CHECK_TIMEOUT, CannotAskError, CheckAnswer
from tsmon.source.dial import Dial, NoWayError, RefusedError


async def ask(
    dial: Dial, check: ServiceCheck, ip: str, name: str, timeout: float = CHECK_TIMEOUT
) -> CheckAnswer:
    """Ask `check` of the node at `ip`, whose certificate must be for `name` (its MagicDNS name). At most
    `timeout` seconds; every failure is an outcome."""
    begun = perf_counter()
    connected = False
    try:
        async with asyncio.timeout(timeout):
            sock = await dial(ip, check.port)
            connected = True
            if check.web:
                refusal = await _web(sock, check, ip, name, timeout)
                if refusal:
                    return CheckAnswer("bad_answer", detail=refusal, lives=True)
            else:
                sock.close()
    except RefusedError:
        return CheckAnswer("refused", detail="the port is closed", lives=True)
    except NoWayError as error:
        return CheckAnswer("no_answer", detail=str(error))
    except CannotAskError as error:
        return CheckAnswer("unknown", detail=str(error))
    except TimeoutError:
        words = f"no answer within {timeout:g} s"
        return CheckAnswer(
            "no_answer", detail=f"connected, but {words}" if connected else words, lives=connected
        )
    return CheckAnswer("ok", latency_ms=round(1000 * (perf_counter() - begun), 3), lives=True)


async def _web(sock: socket.socket, check: ServiceCheck, ip: str, name: str, timeout: float) -> str:
    """Ask for the head of a page on a connection that stands; returns what is wrong with it, "" when nothing
    is. The body is not read, a redirect is an answer like others."""
    connector = aiohttp.TCPConnector(
        resolver=_Fixed(ip), socket_factory=_only(sock), force_close=True, happy_eyeballs_delay=None
    )
    limits = aiohttp.ClientTimeout(total=timeout)
    url = f"{check.scheme}://{f'[{name}]' if ':' in name else name}:{check.port}{check.path}"
    session = aiohttp.ClientSession(
        connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )
    try:
        async with session, session.get(url, allow_redirects=False, headers=_HEADERS) as response:
            response.close()
            return "" if 200 <= response.status < 400 else f"answered {response.status}"
    except aiohttp.ClientConnectorCertificateError as error:
        return f"TLS: {_tls_words(error.certificate_error)}"
    except aiohttp.ClientSSLError as error:
        return f"TLS: {_tls_words(error.os_error)}"
    except aiohttp.ClientResponseError as error:
        return f"is no web server: {clean_text(error.message, 100)}"
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectorError):
        return "closed the connection without an answer"
    except aiohttp.ClientError as error:
        return f"the connection broke: {clean_text(str(error), 100)}"
    finally:
        sock.close()


_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "tsmon"}


def _tls_words(error: Any) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return clean_text(error.verify_message, 120)
    return clean_text(getattr(error, "reason", None) or str(error), 120)


class _Standing(socket.socket):
    """A socket that is connected already: a client that connects it finds it so."""

    def connect(self, address: Any) -> None:
        """It is."""


def _only(sock: socket.socket) -> Callable[[Any], socket.socket]:
    """aiohttp asks for a socket to connect: it gets the one that stands, and no second one, which it would
    ask for when the first was closed without an answer."""

    def give(_: Any) -> socket.socket:
        if sock.fileno() < 0:
            raise ConnectionResetError
        return _Standing(sock.family, sock.type, sock.proto, fileno=sock.detach())

    return give


class _Fixed(AbstractResolver):
    """The one address that is meant: nobody is asked for it."""

    def __init__(self, ip: str) -> None:
        self._ip = ip

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        family = socket.AF_INET6 if ":" in self._ip else socket.AF_INET
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [ResolveResult(hostname=host, host=self._ip, port=port, family=family, proto=0, flags=flags)]

    async def close(self) -> None:
        """Nothing is open."""
