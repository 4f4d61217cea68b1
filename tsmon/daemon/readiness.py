"""What /readyz says of each part."""

import time
from typing import TYPE_CHECKING

import msgspec

from tsmon import __version__
from tsmon.base.clock import rfc3339
from tsmon.history.bad_rows import words_aside
from tsmon.history.files import open_to_others
from tsmon.server.answers import (
    ChannelReady,
    HeartbeatReady,
    InfluxReady,
    ReadyAnswer,
    SourceReady,
    StorageReady,
)
from tsmon.server.control_answers import ControlReady

if TYPE_CHECKING:
    from tsmon.daemon.parts import Parts

USERSPACE_WARNING = (
    "tailscaled runs in userspace mode (TUN false): everybody in the tailnet reaches this machine's loopback,"
    " and so tsmon; set auth.mode, or run tailscaled with TUN"
)


def readiness(parts: "Parts") -> ReadyAnswer:
    """Ready once the source was read and while the store can be written."""
    influx, heartbeat = parts.outlet.influx, parts.heartbeat
    return ReadyAnswer(
        ready=parts.collector.polls > 0 and not parts.backlog.error,
        source=_source(parts),
        storage=StorageReady(
            error=parts.backlog.error or None,
            waiting=parts.backlog.waiting,
            report=parts.store.report or None,
            bad_rows=dict(parts.store.bad_rows),
        ),
        influxdb=msgspec.convert(influx.readiness(), InfluxReady) if influx is not None else None,
        channels=msgspec.convert(parts.notifier.readiness(), list[ChannelReady]),
        heartbeat=msgspec.convert(heartbeat.readiness(), HeartbeatReady) if heartbeat is not None else None,
        control=_control(parts),
        warnings=[
            *([USERSPACE_WARNING] if open_to_tailnet(parts) else []),
            *_check_warnings(parts),
            *_storage_warnings(parts),
            *parts.notifier.warnings(),
            *_history_warnings(parts),
        ],
        uptime_s=round(time.monotonic() - parts.begun),
        version=__version__,
    )


def open_to_tailnet(parts: "Parts") -> bool:
    """Everybody in the tailnet reaches the API without a password, though it listens on loopback only."""
    return parts.monitor.view.tun is False and parts.settings.auth.mode in ("", "none")


def _source(parts: "Parts") -> SourceReady:
    view, source, collector = parts.monitor.view, parts.source, parts.collector
    return SourceReady(
        name=source.name,
        kind=source.kind,
        polls=collector.polls,
        failures=collector.failures,
        last_success=rfc3339(view.as_of),
        error=collector.last_failure.message if collector.last_failure else None,
        blind=view.blind.reason if view.blind else None,
        malformed_peers=view.malformed,
        malformed=list(view.malformed_named),
        duplicate_ids=view.duplicates,
        noise=collector.noise or None,
        can_ping=source.can_ping,
        last_poll_s=round(collector.poll_seconds, 4),
    )


def _control(parts: "Parts") -> ControlReady | None:
    asking, inventory = parts.asking, parts.monitor.view.inventory
    if asking is None or inventory is None:
        return None
    return ControlReady(
        kind=asking.api.kind,
        url=asking.api.name,
        requests=asking.api.requests,
        last_success=rfc3339(inventory.as_of),
        error=inventory.error or None,
        credentials_error=asking.credentials_error or None,
        unreadable_rows=inventory.unreadable,
        unreadable=list(inventory.unreadable_named),
    )


def _check_warnings(parts: "Parts") -> list[str]:
    """Ports that are to be asked, and why nobody can."""
    why = parts.monitor.view.cannot_ask
    return [f"checks: no port can be asked: {why}"] if why else []


def _storage_warnings(parts: "Parts") -> list[str]:
    """What is amiss in the state directory, with the remedy."""
    found = [open_to_others(parts.store.path.parent), words_aside(parts.store.bad_rows)]
    return [text for text in found if text]


def _history_warnings(parts: "Parts") -> list[str]:
    if parts.history.doubt:
        return [parts.history.doubt]
    if parts.reader is not None and parts.reader.error:
        return [f"InfluxDB is not read: {parts.reader.error}; the embedded history answers"]
    return []
