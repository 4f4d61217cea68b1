"""What `tsmon doctor` looks at: configuration, access, InfluxDB and clock (the tailnet and the machine have
modules of their own). Each function examines one thing and says what is wrong and what to do."""

import asyncio
import importlib.util
import os
import stat
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tsmon.base.text import length_words
from tsmon.cli.doctor.control_server import examine_control
from tsmon.cli.doctor.finding import TIMEOUT, Finding
from tsmon.cli.doctor.machine import examine_listen, examine_state
from tsmon.cli.doctor.outbox import examine_outbox
from tsmon.cli.doctor.running import examine_running
from tsmon.cli.doctor.tailnet import examine_source
from tsmon.cli.options import Given
from tsmon.cli.terminal import os_words, plain
from tsmon.config import ConfigError, Settings, is_loopback, redact_url

if TYPE_CHECKING:
    from tsmon.source.status import Snapshot

_OLDEST_NOW = 1_790_000_000.0  # nobody can run this version before it was written
_SKEW = 30.0


async def examine(given: Given) -> list[Finding]:
    """Everything, in the order in which one thing needs the other."""
    now = time.time()
    settings, found = examine_config(given)
    found.append(examine_clock(now))
    if settings is None:
        return found
    (snapshot, of_source), listen, influx, running = await asyncio.gather(
        examine_source(settings),
        examine_listen(settings),
        examine_influx(settings, now),
        examine_running(settings),
    )
    control = await examine_control(settings, snapshot)
    access = examine_access(settings, snapshot)
    state = examine_state(settings, os.environ, now)
    outbox = examine_outbox(settings, now)
    return [*found, *of_source, *control, access, *state, listen, *influx, *outbox, *running]


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
    secrets = {"auth.token", "influx.token", "heartbeat.url", "control.token", "control.client_secret"}
    return bool(written & secrets) or ("notify" in written and bool(settings.notify))


def _is_web(url: str) -> bool:
    return url.startswith(("webhook+", "alertmanager+"))


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


async def examine_influx(settings: Settings, now: float) -> list[Finding]:
    """Whether samples can be written. Writes nothing: an empty body is taken or refused as a full one is."""
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
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.post(url, params=query, headers=headers, data=b"", allow_redirects=False) as response,
        ):
            words = plain((await response.content.read(500)).decode("utf-8", "replace"), 160)
            code, date = response.status, response.headers.get("Date", "")
    except TimeoutError:
        return [
            Finding("influxdb", "failed", f"{name}: no answer within {TIMEOUT:g} s", "does it run there?")
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
        found += await _examine_reading(settings, name, now)
    else:
        remedy = remedies.get(code, "is influx.url that of an InfluxDB 2?")
        found = [Finding("influxdb", "failed", f"{name}: answered {code}: {words}", remedy)]
    return found + _examine_skew(name, date, now)


async def _examine_reading(settings: Settings, name: str, now: float) -> list[Finding]:
    """Whether uptime can be read back, where it is to be."""
    from tsmon.base.clock import Clock  # noqa: PLC0415 (start-up time)
    from tsmon.history.influx import InfluxReader, ReadError  # noqa: PLC0415

    if settings.history.uptime_source == "embedded":
        return []
    reader = InfluxReader(settings.influx, Clock(), settings.collect_interval)
    try:
        held = await reader.tallies(now - 86400, now)
    except ReadError as error:
        remedy = 'let influx.token read the bucket, or set history.uptime_source = "embedded"'
        return [Finding("history", "warning", f"{name}: uptime cannot be read back: {error}", remedy)]
    return [Finding("history", "ok", f"{name}: holds samples of {len(held)} machines of the last day")]


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
