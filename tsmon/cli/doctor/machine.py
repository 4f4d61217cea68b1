"""What `tsmon doctor` says of the state directory, the database and the port."""

import errno
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from tsmon.base.text import length_words
from tsmon.cli.doctor.finding import TIMEOUT, Finding
from tsmon.cli.terminal import os_words, plain
from tsmon.config import Settings, state_dir

_FREE_BYTES = 200_000_000


def examine_state(settings: Settings, environ: Mapping[str, str], now: float) -> list[Finding]:
    """State directory, disk, database, and whether a tsmon runs on it."""
    from tsmon.history.files import open_to_others  # noqa: PLC0415 (start-up time)

    directory = state_dir(settings, environ)
    if not directory.is_dir():
        return [_examine_missing(directory)]
    found = []
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        says = f"{directory} cannot be written by this user (uid {os.getuid()})"
        found.append(
            Finding("state", "failed", says, "run the doctor as the user that tsmon runs as, or chown it")
        )
    elif others := open_to_others(directory):
        found.append(Finding("state", "warning", *others.split(": ", 1)))
    else:
        found.append(Finding("state", "ok", str(directory)))
    free = shutil.disk_usage(directory).free
    if free < _FREE_BYTES:
        says = f"{free / 1e6:.0f} MB are free at {directory}"
        found.append(Finding("disk", "warning", says, "free some, or lower retention"))
    database = directory / "tsmon.db"
    linked = [path for path in (database, directory / "tsmon.lock") if path.is_symlink()]
    if linked:
        says = f"{linked[0]} is a symbolic link, which tsmon does not follow"
        return [*found, Finding("database", "failed", says, "remove it, and let state_dir name the place")]
    if not database.exists():
        return [*found, Finding("database", "skipped", "none yet: the first run makes it")]
    return [*found, _examine_database(database, now)]


def _examine_missing(directory: Path) -> Finding:
    parent = next(path for path in directory.parents if path.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("state", "ok", f"{directory}: not there yet, the first run makes it")
    says = f"{directory}: is not there, and this user may not make it in {parent}"
    return Finding("state", "failed", says, "make it, or set state_dir")


def _examine_database(path: Path, now: float) -> Finding:
    from tsmon.history.bad_rows import count_aside, words_aside  # noqa: PLC0415 (start-up time)
    from tsmon.history.schema import APPLICATION_ID, MIGRATIONS  # noqa: PLC0415 (start-up time)

    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            deadline = time.monotonic() + TIMEOUT
            database.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if application not in (APPLICATION_ID, 0):
                return Finding(
                    "database", "failed", f"{path} is not tsmon's", "move it away, or set state_dir"
                )
            if version > len(MIGRATIONS):
                says = f"{path} is of a newer tsmon (schema {version}, this one knows {len(MIGRATIONS)})"
                return Finding("database", "failed", says, "update tsmon")
            (check,) = database.execute("PRAGMA quick_check(1)").fetchone()
            newest = "SELECT max(end) FROM observed WHERE typeof(end) = 'real'"
            (last,) = database.execute(newest).fetchone() if version else (None,)
            aside = words_aside(count_aside(database)) if version == len(MIGRATIONS) else ""
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        if "interrupt" in str(error):
            return Finding("database", "ok", f"{path}, {_size(path)}; too large to check it whole")
        return Finding("database", "failed", f"{path}: {error}", "may this user read it?")
    except sqlite3.DatabaseError as error:
        remedy = "tsmon sets it aside at its next start and begins a new one"
        return Finding("database", "failed", f"{path} is broken: {error}", remedy)
    if check != "ok":
        return Finding("database", "failed", f"{path} is broken: {plain(check, 100)}", "restore a copy of it")
    if last is not None and last > now + 60:
        says = f"the clock is {length_words(last - now)} behind what {path} holds"
        return Finding("clock", "failed", says, "set the clock (NTP)")
    if aside:
        return Finding("database", "warning", *aside.split("; ", 1))
    seen = f"; last saw the tailnet {length_words(now - last)} ago" if last is not None else ""
    return Finding("database", "ok", f"{path}, {_size(path)}{seen}")


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


async def examine_listen(settings: Settings) -> Finding:
    """Whether the port is free, or a tsmon answers there already."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    host, port = settings.address
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return Finding("listen", "failed", f"{host}: {plain(error.strerror)}", "give --listen an address")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding(
                "listen", "failed", f"{settings.listen}: {os_words(error)}", "give --listen another"
            )
    else:
        return Finding("listen", "ok", f"{settings.listen} is free: no tsmon runs there")
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (asked, not bound)
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/healthz"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            body = (await response.content.read(500)).decode("utf-8", "replace")
            code = response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        says = f"{settings.listen} is taken by something that does not answer as tsmon does"
        return Finding("listen", "failed", says, "stop it, or give --listen another address")
    if code == 200:
        return Finding("listen", "ok", f"a server runs at {settings.listen} and says that it is healthy")
    remedy = "look at its log and restart it; if it is no tsmon give --listen another address"
    return Finding(
        "listen", "failed", f"what runs at {settings.listen} answered {code}: {plain(body, 120)}", remedy
    )
