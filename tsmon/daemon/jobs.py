"""What runs as long as tsmon does, and how long each job may be silent."""

import gc
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import structlog

from tsmon.daemon.listening import Listening
from tsmon.daemon.parts import Parts
from tsmon.daemon.readiness import USERSPACE_WARNING, open_to_tailnet
from tsmon.daemon.systemd import notify, watchdog_interval
from tsmon.history.pruning import Pruning

log = structlog.get_logger(__name__)

_PRUNE_INTERVAL = 3600.0
_LOOK = 5.0
"""Seconds between two looks at what tells no one itself."""


class Job(NamedTuple):
    """A loop: its name, what runs, and the seconds between two beats after which it counts as stuck."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    patience: float = float("inf")


def jobs_of(parts: Parts) -> list[Job]:
    """The jobs of the parts themselves: whatever listens or not, these make tsmon work."""
    settings, collector = parts.settings, parts.collector
    slack = 3 * settings.source_timeout + 30
    jobs = [
        Job("poll", collector.run_poll, 3 * settings.poll_interval + slack),
        # A round of 200 dead nodes through an old sidecar takes minutes.
        Job("ping", collector.run_ping, 3 * settings.poll_interval + 600),
        Job("collect", collector.run_collect, settings.collect_interval + slack),
        Job("check", collector.run_check, 2 * settings.check_interval + slack),
        Job("report", collector.run_report, 2 * settings.report_interval + slack),
        Job("watch", collector.run_watch),
        Job("checks", parts.checking.run, settings.poll_interval + settings.service_interval + slack),
        Job("lock", parts.lookout.run_lock),
        Job("diagnosis", parts.lookout.run_diagnosis),
        Job("lookout", collector.run_lookout),
        *(Job(name, run) for name, run in parts.notifier.loops()),
        Job("notify", parts.notifier.run),
        Job("monthly", parts.monthly.run),
    ]
    if parts.heartbeat is not None:
        jobs.append(Job("heartbeat", parts.heartbeat.run))
    if parts.asking is not None:
        jobs.append(Job("control", parts.asking.run))
    if parts.outlet.influx is not None:
        jobs.append(Job("influx", parts.outlet.influx.run))
    return jobs


class Housekeeping:
    """The jobs of the process: retention, and looking after the rest."""

    def __init__(self, parts: Parts, listening: Listening) -> None:
        self._parts = parts
        self._listening = listening

    def jobs(self) -> list[Job]:
        return [
            Job("prune", self._run_prune),
            Job("look", self._run_look),
            Job("connections", self._listening.connections.run),
        ]

    async def _run_prune(self) -> None:
        """Retention, in small steps with air between them."""
        clock = self._parts.clock
        async for now in clock.ticks(_PRUNE_INTERVAL):
            settings = self._parts.settings
            pruning = Pruning(now.wall - settings.retention, now.wall - settings.latency_retention)
            while await self._parts.store.prune(pruning):
                await clock.sleep(0.05)

    async def _run_look(self) -> None:
        """What must be looked at once, stuck loops, and the words to the service manager."""
        parts = self._parts
        warned = settled = False
        watchdog = watchdog_interval()
        async for _ in parts.clock.ticks(min(_LOOK, watchdog / 3 if watchdog else _LOOK)):
            if not settled and parts.collector.polls:
                # What the first snapshot made stays for good: Python's search for cycles need not go through
                # it again and again (24 ms of a blocked loop with 10,000 nodes).
                settled = True
                gc.freeze()
            if not warned and open_to_tailnet(parts):
                warned = True
                log.warning("open_to_the_tailnet", problem=USERSPACE_WARNING)
            await self._listening.look_after_commands()
            stuck = parts.loops.stuck()
            parts.loops.mend()
            if watchdog and stuck is None:
                notify("WATCHDOG=1")
            view = parts.monitor.view
            health = view.health()
            words = f"blind: {view.blind.reason}" if view.blind else f"{health.online}/{health.total} online"
            notify(f"STATUS={words}")
