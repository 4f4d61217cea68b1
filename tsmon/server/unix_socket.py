"""Unix sockets: made for their owner and perhaps a group, and who is at the other end of one."""

import grp
import os
import pwd
import socket
import struct
from pathlib import Path

from aiohttp import web

from tsmon.config import ConfigError


def group_id(name: str) -> int:
    """The number of the group. Raises ConfigError when there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"admin_group: there is no group {name!r} on this machine") from None


def make_socket(path: Path, group: str = "") -> socket.socket:
    """A socket bound to `path`, whatever was there, for the owner and `group` (if not ""). Raises OSError,
    and ConfigError when there is no such group or the socket may not be given to it."""
    gid = group_id(group) if group else None
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        path.chmod(0o600)
        if gid is not None:
            _give(path, gid, group)
    except (OSError, ConfigError):
        made.close()
        raise
    return made


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


def peer_name(request: web.Request) -> str:
    """The user at the other end of the unix socket, "" where the system does not say."""
    peer = request.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if peer is None or option is None:
        return ""
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, option, 12))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
