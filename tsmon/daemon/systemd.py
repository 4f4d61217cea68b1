"""Words to the service manager (sd_notify): one datagram to `$NOTIFY_SOCKET`, nothing when there is none."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


def notify(words: str, environ: Mapping[str, str] | None = None) -> None:
    """Send `words` (`READY=1`, `STATUS=…`, `STOPPING=1`, `WATCHDOG=1`), as sd_notify(3) says."""
    path = (environ if environ is not None else os.environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(words.encode(), "\0" + path[1:] if path[0] == "@" else path)
    except OSError as error:
        log.debug("sd_notify_failed", error=str(error))


@contextmanager
def reloading() -> Iterator[None]:
    """Says that the configuration is read again, and that this has ended, well or not: a unit of
    `Type=notify-reload` (systemd 253) waits for both."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds within which the service manager wants a `WATCHDOG=1`, None when it wants none."""
    found = environ if environ is not None else os.environ
    text = found.get("WATCHDOG_USEC", "")
    mine = found.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(text) / 1e6 if mine and text.isdigit() and int(text) > 0 else None
