"""What the embedded history says of checked ports in a period: sums and outages, planned time apart."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tsmon.config import MaintenanceSettings
from tsmon.history.embedded import observed_since
from tsmon.history.notes import notes_between
from tsmon.history.report import Period, Sums, is_planned, node_sums
from tsmon.history.reported import Plans
from tsmon.history.service_history import services_between
from tsmon.history.store import Store
from tsmon.history.uptime import Outage, Span, outages
from tsmon.monitor.services.service import ServiceKey
from tsmon.monitor.state import Node

_SECONDS = 60.0


class ReportedService(NamedTuple):
    """One checked port in the period."""

    key: ServiceKey
    name: str
    """Hostname of its node, or the name of the Tailscale Service."""
    sums: Sums
    outages: tuple[Outage, ...]
    """In order, each with its whole length; none that was planned throughout."""


async def read_services(
    store: Store,
    period: Period,
    windows: Sequence[MaintenanceSettings],
    present: Mapping[str, Node],
    wanted: Callable[[Node], bool] | None,
) -> list[ReportedService]:
    """The services that are asked now, of the nodes `present` that are `wanted`; None: all of them, and those
    of Tailscale Services. Raises StoreError."""

    def read(db: sqlite3.Connection) -> list[ReportedService]:
        start, end, _ = period
        observed, _ = observed_since(db, start)
        plans = Plans(windows, period, notes_between(db, start, end))
        found = []
        for key, first_seen, spans in services_between(db, float("-inf"), end, None):
            node = present.get(key.owner)
            if first_seen >= end or (wanted is not None and (node is None or not wanted(node))):
                continue
            plan = plans.of(node) if node is not None else ()
            mine = [span for span in spans if span[2] > start]
            sums = node_sums(mine, observed, plan, start=start, end=end, first_seen=first_seen)
            fell = outages([Span(*span) for span in spans], start, end, float("inf"))
            unplanned = tuple(one for one in fell if not (plan and is_planned(one, plan, start, end)))
            name = node.hostname if node is not None else key.owner
            found.append(ReportedService(key, name, sums, unplanned))
        return found

    return await store.read(read, timeout=_SECONDS)
