"""What `tsmon doctor` looks at: each function examines one thing and says what is wrong and what to do."""

import asyncio
import errno
import importlib.util
import os
import shutil
import socket
import sqlite3
import stat
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tsmon.cli.options import Given
from tsmon.cli.terminal import length_words, os_words, plain
from tsmon.config import ConfigError, Settings, is_loopback, redact_url, state_dir

if TYPE_CHECKING:
    from tsmon.status import Snapshot

_FREE_BYTES = 200_000_000
_OLDEST_NOW = 1_790_000_000.0  # nobody can run this version before it was written
_SKEW = 30.0
_TIMEOUT = 10.0


class Finding(NamedTuple):
    """One thing looked at: how it is, in one line, and what to do about it."""

    what: str
    level: Literal["ok", "warning", "failed", "skipped"]
    says: str
    remedy: str = ""


def examine_config(given: Given) -> tuple[Settings | None, list[Finding]]:
    """The settings, None when they are wrong."""
    try:
        loaded = given.load()
    except ConfigError as error:
        return None, [
            Finding("configuration", "failed", str(error), "tsmon config check tells when it is right")
        ]
    where = str(loaded.file) if loaded.file else "no file"
    found = [Finding("configuration", "ok", f"{where}, {len(loaded.origins)} settings changed")]
    found += [Finding("environment", "warning", text, "correct or remove it") for text in loaded.warnings]
    settings = loaded.settings
    written = {key for key, origin in loaded.origins.items() if origin == where}
    if loaded.file and _holds_secrets(settings, written) and loaded.file.stat().st_mode & stat.S_IROTH:
        remedy = f"chmod o-r {loaded.file}, or put each secret into a file of its own (…_file)"
        found.append(
            Finding("secrets", "warning", f"{where} holds secrets and everybody may read it", remedy)
        )
    services = [channel for channel in settings.notify if not _is_web(channel.url.reveal())]
    if services and importlib.util.find_spec("apprise") is None:
        names = ", ".join(channel.name for channel in services)
        says = f"{names}: the library that these channels need is not installed"
        found.append(Finding("notifications", "failed", says, "pip install 'tsmon[notify]'"))
    return settings, found


def _holds_secrets(settings: Settings, written: set[str]) -> bool:
    return bool(written & {"auth.token", "influx.token", "heartbeat.url"}) or (
        "notify" in written and bool(settings.notify)
    )


def _is_web(url: str) -> bool:
    return url.startswith(("webhook+", "alertmanager+"))


async def examine_source(settings: Settings) -> tuple["Snapshot | None", list[Finding]]:
    """Whether the tailnet can be read, and what it says."""
    from tsmon.source import SourceError, make_source  # noqa: PLC0415 (start-up time)
    from tsmon.status import BadDocument, Decoder  # noqa: PLC0415 (start-up time)

    source = make_source(settings)
    try:
        begun = time.monotonic()
        raw = await source.status()
        took = time.monotonic() - begun
        snapshot = Decoder(settings.exclude).decode(raw)
    except SourceError as error:
        remedy = "start tailscaled or the sidecar, or name it: --source, docs/configuration.md"
        return None, [Finding("source", "failed", str(error), remedy)]
    except BadDocument as error:
        remedy = "does `tailscale status --json` work on the sidecar's side?"
        return None, [Finding("source", "failed", f"{source.name}: {error}", remedy)]
    else:
        says = f"{source.name}: {len(raw):,} bytes in {took * 1000:.0f} ms, tailscaled {snapshot.version}"
        found = [Finding("source", "ok", says), _examine_trust(snapshot), *_examine_rows(snapshot, settings)]
        found += [await _examine_ping(source, snapshot, settings)]
        if settings.auth.mode == "tailnet":
            found += [await _examine_whois(source, snapshot)]
        return snapshot, found
    finally:
        await source.close()


def _examine_trust(snapshot: "Snapshot") -> Finding:
    from tsmon.sight import document_reason  # noqa: PLC0415 (start-up time)

    reason, words = document_reason(snapshot, frozenset())
    if reason:
        return Finding("view", "failed", words, "until then tsmon says that it cannot see (blind)")
    name = snapshot.tailnet.name if snapshot.tailnet else "?"
    online = sum(node.online for node in snapshot.nodes.values())
    return Finding(
        "view", "ok", f"{name}: {len(snapshot.nodes)} nodes, {online} online, {snapshot.excluded} left out"
    )


def _examine_rows(snapshot: "Snapshot", settings: Settings) -> list[Finding]:
    from tsmon.classify import Classifier  # noqa: PLC0415 (start-up time)

    found = []
    if snapshot.malformed:
        says = f"{snapshot.malformed} rows cannot be read: {'; '.join(snapshot.malformed_named[:3])}"
        found.append(Finding("rows", "warning", says, "please report this with the version of tailscaled"))
    if snapshot.noise:
        says = f"the sidecar's command line warns: {snapshot.noise}"
        found.append(Finding("rows", "warning", says, "update tailscale beside the sidecar"))
    if len(snapshot.nodes) <= 1:
        remedy = "the tailnet's policy must let this machine reach the others, or they it"
        found.append(Finding("peers", "warning", "this machine sees no other", remedy))
    classifier = Classifier(settings)
    critical = sorted(node.hostname for node in snapshot.nodes.values() if classifier.role(node).critical)
    if critical:
        found.append(Finding("roles", "ok", f"{len(critical)} critical nodes: {_some(critical)}"))
    else:
        remedy = "set project_name, or give them [[roles]] (tsmon config init suggests some)"
        found.append(Finding("roles", "warning", "no node is critical: no outage is severe", remedy))
    return found


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


async def _examine_ping(source: "object", snapshot: "Snapshot", settings: Settings) -> Finding:
    from tsmon.classify import Classifier  # noqa: PLC0415 (start-up time)
    from tsmon.source import Source  # noqa: PLC0415 (start-up time)

    pinger: Source = source  # type: ignore[assignment]
    classifier = Classifier(settings)
    asked = [
        node
        for node in snapshot.nodes.values()
        if node.online and not node.is_self and node.ip and classifier.role(node).ping
    ]
    if not asked:
        return Finding("ping", "skipped", "no other node that is online has a role with ping = true")
    node = min(asked, key=lambda node: node.hostname)
    outcome = await pinger.ping(node.ip or "")
    if outcome.outcome == "answered":
        return Finding(
            "ping", "ok", f"{node.hostname} answers in {outcome.latency_ms or 0:g} ms ({outcome.path})"
        )
    if outcome.outcome == "missed":
        return Finding(
            "ping", "warning", f"{node.hostname} is called online but answers no ping", "is it hung?"
        )
    remedy = "without pings tsmon takes the control server's word; a newer sidecar has /ping"
    return Finding("ping", "warning", outcome.error or "this source cannot ping", remedy)


async def _examine_whois(source: "object", snapshot: "Snapshot") -> Finding:
    from tsmon.source import Source, SourceError  # noqa: PLC0415 (start-up time)

    asker: Source = source  # type: ignore[assignment]
    remedy = "with auth.mode tailnet nobody gets in until this works"
    if not snapshot.self_ips:
        return Finding("whois", "failed", "this machine has no tailnet address", remedy)
    try:
        answer = await asker.whois(snapshot.self_ips[0])
    except SourceError as error:
        return Finding("whois", "failed", str(error), remedy)
    if answer is None or "text" in answer:
        return Finding("whois", "failed", "the source does not say in JSON who an address is", remedy)
    return Finding("whois", "ok", "the source says who an address is")


def examine_access(settings: Settings, snapshot: "Snapshot | None") -> Finding:
    """Who can read tsmon."""
    mode = settings.auth.mode or "none"
    host, _ = settings.address
    if mode != "none":
        networks = settings.auth.trusted_networks
        within = f", without it from {', '.join(networks)}" if networks else ""
        if snapshot and not snapshot.tun and any(is_loopback(text.split("/")[0]) for text in networks):
            says = (
                "auth.trusted_networks holds loopback, where a userspace tailscaled lets the whole tailnet in"
            )
            return Finding("access", "failed", says, "take loopback out of it, or run tailscaled with TUN")
        return Finding("access", "ok", f"auth.mode {mode}{within}")
    if snapshot and not snapshot.tun:
        says = "tailscaled runs in userspace mode (TUN false): the whole tailnet reaches tsmon's loopback"
        return Finding("access", "warning", says, "set auth.mode, or run tailscaled with TUN")
    if not is_loopback(host):
        return Finding("access", "warning", f"everybody who reaches {host} may read", "set auth.mode")
    return Finding("access", "ok", "programs of this machine alone")


def examine_state(settings: Settings, environ: Mapping[str, str], now: float) -> list[Finding]:
    """State directory, disk, database, and whether a tsmon runs on it."""
    directory = state_dir(settings, environ)
    if not directory.is_dir():
        return [_examine_missing(directory)]
    found = []
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        says = f"{directory} cannot be written by this user (uid {os.getuid()})"
        found.append(
            Finding("state", "failed", says, "run the doctor as the user that tsmon runs as, or chown it")
        )
    else:
        found.append(Finding("state", "ok", str(directory)))
    free = shutil.disk_usage(directory).free
    if free < _FREE_BYTES:
        says = f"{free / 1e6:.0f} MB are free at {directory}"
        found.append(Finding("disk", "warning", says, "free some, or lower retention"))
    database = directory / "tsmon.db"
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
    from tsmon.schema import APPLICATION_ID, MIGRATIONS  # noqa: PLC0415 (start-up time)

    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            deadline = time.monotonic() + _TIMEOUT
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
            (last,) = database.execute("SELECT max(end) FROM observed").fetchone() if version else (None,)
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
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session,
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


async def examine_influx(settings: Settings, now: float) -> list[Finding]:
    """Whether samples can be written. Writes nothing: an empty body is refused or accepted as a full one is."""
    import aiohttp  # noqa: PLC0415 (start-up time)

    influx = settings.influx
    if not influx.url:
        return [Finding("influxdb", "skipped", "not configured (the embedded history is always there)")]
    name = redact_url(influx.url)
    url = f"{influx.url.rstrip('/')}/api/v2/write"
    headers = {"Authorization": f"Token {influx.token.reveal()}"} if influx.token else {}
    query = {"org": influx.org, "bucket": influx.bucket, "precision": "s"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session,
            session.post(url, params=query, headers=headers, data=b"", allow_redirects=False) as response,
        ):
            words = plain((await response.content.read(500)).decode("utf-8", "replace"), 160)
            code, date = response.status, response.headers.get("Date", "")
    except TimeoutError:
        return [
            Finding("influxdb", "failed", f"{name}: no answer within {_TIMEOUT:g} s", "does it run there?")
        ]
    except (aiohttp.ClientError, OSError) as error:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        reason = os_words(cause) if isinstance(cause, OSError) else plain(cause, 120)
        return [Finding("influxdb", "failed", f"{name}: {reason}", "does it run there? (influx.url)")]
    remedies = {
        401: "give a valid influx.token",
        403: f"influx.token must be allowed to write bucket {influx.bucket!r}",
        404: "check influx.org, influx.bucket and influx.url",
    }
    if code == 204:
        found = [Finding("influxdb", "ok", f"{name}: bucket {influx.bucket!r} can be written")]
    else:
        remedy = remedies.get(code, "is influx.url that of an InfluxDB 2?")
        found = [Finding("influxdb", "failed", f"{name}: answered {code}: {words}", remedy)]
    return found + _examine_skew(name, date, now)


def _examine_skew(name: str, date: str, now: float) -> list[Finding]:
    try:
        skew = parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return []
    if abs(skew) < _SKEW:
        return []
    says = f"the clock is {length_words(abs(skew))} {'behind' if skew > 0 else 'ahead of'} that of {name}"
    return [Finding("clock", "warning", says, "let NTP set both")]


def examine_clock(now: float) -> Finding:
    """Whether the wall clock can be right."""
    if now < _OLDEST_NOW:
        says = f"the clock says {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, which is long ago"
        return Finding("clock", "failed", says, "set the clock (NTP)")
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


async def examine(given: Given) -> list[Finding]:
    """Everything, in the order in which one thing needs the other."""
    now = time.time()
    settings, found = examine_config(given)
    found.append(examine_clock(now))
    if settings is None:
        return found
    (snapshot, of_source), listen, influx = await asyncio.gather(
        examine_source(settings), examine_listen(settings), examine_influx(settings, now)
    )
    access = examine_access(settings, snapshot)
    return [*found, *of_source, access, *examine_state(settings, os.environ, now), listen, *influx]
