"""Connections to nodes of the tailnet: by ordinary sockets where the tailnet's addresses are this machine's,
else through tailscaled (LocalAPI `dial`; measured facts in docs/sources.md)."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterable

from tsmon.base.text import clean_text
from tsmon.source.check_answer import CannotAskError

_LONGEST_HEAD = 8192
"""Bytes of tailscaled's answer to an upgrade."""


class RefusedError(Exception):
    """The node answered that nobody listens there: the node lives."""


class NoWayError(Exception):
    """Nothing answered; the text says what was seen."""


Dial = Callable[[str, int], Awaitable[socket.socket]]
"""A connection to an address and a port, non-blocking. Raises RefusedError, NoWayError, CannotAskError; the
caller bounds its time."""


def is_ours(ips: Iterable[str]) -> bool:
    """One of these addresses is this machine's: its kernel has a way into the tailnet (a TUN). The status
    document cannot tell: its `TUN` is the daemon's, which may run in another container."""
    return any(map(_can_bind, ips))


def _can_bind(ip: str) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True


async def dial_direct(ip: str, port: int) -> socket.socket:
    """An ordinary connection."""
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except ConnectionRefusedError:
        sock.close()
        raise RefusedError from None
    except OSError as error:
        sock.close()
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EPERM, errno.EACCES):
            raise CannotAskError(clean_text(error.strerror or "no socket", 120)) from None
        raise NoWayError(clean_text(error.strerror or str(error), 120)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def dial_through(path: str) -> Dial:
    """Connections that tailscaled makes, asked on its unix socket at `path`."""

    async def dial(ip: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await _upgrade(sock, path, ip, port)
        except OSError as error:
            sock.close()
            words = clean_text(error.strerror or "the connection broke", 120)
            raise CannotAskError(f"tailscaled's socket: {words}") from None
        except BaseException:
            sock.close()
            raise
        return sock

    return dial


async def _upgrade(sock: socket.socket, path: str, ip: str, port: int) -> None:
    """Ask tailscaled to become the connection: from its 101 on every byte is the node's. A node that speaks
    first may lose what came with it: no web server does, and a port that is only connected to needs none."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, path)
    lines = (
        "POST /localapi/v0/dial HTTP/1.1",
        "Host: local-tailscaled.sock",
        "Connection: upgrade",
        "Upgrade: ts-dial",
        f"Dial-Host: {ip}",
        f"Dial-Port: {port}",
        "Dial-Network: tcp",
        "Content-Length: 0",
    )
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LONGEST_HEAD:
        more = await loop.sock_recv(sock, _LONGEST_HEAD)
        if not more:
            break
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    code = head.split(b" ", 2)[1:2]
    if code == [b"101"]:
        return
    words = clean_text(body[:400].decode("utf-8", "replace"), 160)
    if code == [b"502"] and "refused" in words:
        raise RefusedError
    if code == [b"502"]:
        raise NoWayError(words)
    if code == [b"200"]:
        raise CannotAskError(f"tailscaled does not reach {ip} through the tailnet")
    shown = b"".join(code).decode("ascii", "replace")[:16] or "nothing"
    raise CannotAskError(f"tailscaled answered {shown}" + (f": {words}" if words else ""))
