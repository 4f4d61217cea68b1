"""Builds the parts, starts and stops them in order, supervises the loops. Only this room knows every part."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from tsmon import __version__
from tsmon.api import Api, Readiness
from tsmon.base.clock import Clock, rfc3339
from tsmon.collector import Collector
from tsmon.config import BAD_CONFIGURATION, NEED_RESTART, ConfigError, Settings, admin_sockets
from tsmon.daemon.logging import configure
from tsmon.daemon.loops import Loops
from tsmon.daemon.systemd import notify, reloading, watchdog_interval
from tsmon.history.backlog import Backlog
from tsmon.history.bad_rows import words_aside
from tsmon.history.chosen import ChosenHistory
from tsmon.history.files import open_to_others
from tsmon.history.influx import Influx, InfluxReader, ReadError
from tsmon.history.influx.importing import put, read_request
from tsmon.history.pruning import Pruning
from tsmon.history.store import Store, StoreError
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.state import Node
from tsmon.notify.heartbeat import Heartbeat
from tsmon.notify.notice import check_row
from tsmon.notify.notifier import Notifier
from tsmon.server.admin import Admin
from tsmon.server.connections import IDLE_SECONDS, Connections
from tsmon.server.metrics import Channel, Metrics, Own, Snapshot
from tsmon.server.routing import Route
from tsmon.source import Source, make_source

log = structlog.get_logger(__name__)

STOP_SECONDS = 3.0
"""Within this a stop ends, whatever hangs."""
_PRUNE_INTERVAL = 3600.0


class StartError(Exception):
    """tsmon cannot start; the text says why and the remedy."""

    def __init__(self, words: str, code: int = 1) -> None:
        """`code` is the process' exit code."""
        super().__init__(words)
        self.code = code


class Daemon:
    """One tsmon: `start`, `serve`, `stop`."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        clock: Clock | None = None,
        source: Source | None = None,
        reread: Callable[[], Settings] | None = None,
        demo: bool = False,
    ) -> None:
        """`reread` reads the configuration anew (SIGHUP); `source` takes the place of the configured one."""
        self.settings = settings
        self.state_dir = state_dir
        self.clock = clock or Clock()
        self.loops = Loops()
        self.demo = demo
        self.source = source or make_source(settings)
        self.store: Store
        self.monitor: Monitor
        self.collector: Collector
        self.api: Api
        self.influx: Influx | None = None
        self.reader: InfluxReader | None = None
        self.history: ChosenHistory
        self.notifier: Notifier
        self.heartbeat: Heartbeat | None = None
        self.url = ""
        self._reread = reread
        self._backlog: Backlog
        self._admin: Admin
        self._metrics: Metrics
        self._runner: web.AppRunner | None = None
        self._connections = Connections()
        self._stopping = asyncio.Event()
        self._stopped = False
        self._begun = time.monotonic()

    # -- startup ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything up to the first request that can be answered. Raises StartError."""
        try:
            self.store = await Store.open(self.state_dir, {"notifications": check_row})
            loaded = await self.store.load(self.clock.wall() - self.settings.flapping.window)
        except StoreError as error:
            raise StartError(str(error)) from None
        self._backlog = Backlog(self.store.commit, self.store.find_nodes)
        self.monitor = Monitor(self.clock, self.settings, loaded, self._backlog)
        self.notifier = await Notifier.open(
            self.clock, self.settings, self.monitor, self.store, has_bus=lambda: self.source.bus_open
        )
        self._make_heartbeat()
        self._make_influx()
        self.collector = Collector(
            self.clock,
            self.settings,
            self.source,
            self.monitor,
            last_grid=float(loaded.meta.get("last_grid", 0)),
            put_samples=self.influx.put_samples if self.influx is not None else None,
        )
        self.history = ChosenHistory(self.store, self.clock, self._present_nodes, failure=ReadError)
        self._choose_history()
        self.api = Api(
            settings=self.settings,
            clock=self.clock,
            monitor=self.monitor,
            store=self.store,
            history=self.history,
            whois=self.source.whois,
            source_name=lambda: self.source.name,
            readiness=self.readiness,
            stuck_loop=self.loops.stuck,
            told_at=self.notifier.told_at,
            demo=self.demo,
        )
        self._metrics = Metrics(self._scrape)
        await self._listen()
        self._admin = Admin(
            self.monitor,
            self.store,
            self.notifier,
            self.clock,
            reload=self.reload,
            readiness=lambda: self.readiness().parts,
            url=lambda: self.url,
            put_lines=self._put_lines,
            import_samples=self._import_samples,
        )
        await self._take_commands()
        self._start_loops()

    async def _listen(self) -> None:
        host, port = self.settings.address
        app = self.api.application([Route("/metrics", self._metrics.metrics, "Prometheus text", str)])
        app.on_response_prepare.append(self._connections.make_room)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS
        )
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 (setup made it)
        try:
            bound = await self._connections.listen(self._runner.server, host, port)
        except OSError as error:
            await self._abandon(self._runner)
            raise StartError(
                f"listen: {self.settings.listen} cannot be used: {error.strerror or error}"
                " (is another tsmon running there? see --listen)"
            ) from None
        self.url = f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"

    async def _take_commands(self) -> None:
        try:
            await self._listen_to_commands()
        except (OSError, ConfigError) as error:
            await self._admin.stop()
            self._connections.close()
            if self._runner is not None:
                await self._abandon(self._runner)
            if isinstance(error, ConfigError):
                raise StartError(str(error), BAD_CONFIGURATION) from None
            raise StartError(
                f"state_dir: no socket for commands can be made in {self.state_dir}: "
                f"{error.strerror or error}"
            ) from None

    async def _listen_to_commands(self) -> None:
        await self._admin.start(admin_sockets(self.state_dir, os.environ), self.settings.admin_group)

    async def _take_commands_again(self) -> None:
        """Somebody cleared the state directory: commands need their socket."""
        await self._admin.stop()
        try:
            await self._listen_to_commands()
        except (OSError, ConfigError):
            return  # the directory comes back with the next write
        log.warning("admin_socket_made_anew", path=str(self.state_dir))

    async def _abandon(self, runner: web.AppRunner) -> None:
        """The start failed: end what was begun."""
        await runner.cleanup()
        await self.store.close()
        await self.source.close()

    def _start_loops(self) -> None:
        settings, collector = self.settings, self.collector
        slack = 3 * settings.source_timeout + 30
        jobs: list[tuple[str, Callable[[], Coroutine[Any, Any, None]], float]] = [
            ("poll", collector.run_poll, 3 * settings.poll_interval + slack),
            # A round of 200 dead nodes through an old sidecar takes minutes.
            ("ping", collector.run_ping, 3 * settings.poll_interval + 600),
            ("collect", collector.run_collect, settings.collect_interval + slack),
            ("check", collector.run_check, 2 * settings.check_interval + slack),
            ("report", collector.run_report, 2 * settings.report_interval + slack),
            ("watch", collector.run_watch, float("inf")),
            ("prune", self._run_prune, float("inf")),
            ("look", self._run_look, float("inf")),
            ("connections", self._connections.run, float("inf")),
        ]
        jobs += [(name, run, float("inf")) for name, run in self.notifier.loops()]
        jobs.append(("notify", self.notifier.run, float("inf")))
        if self.heartbeat is not None:
            jobs.append(("heartbeat", self.heartbeat.run, float("inf")))
        if self.influx is not None:
            jobs.append(("influx", self.influx.run, float("inf")))
        for name, run, patience in jobs:
            self.loops.start(name, run, patience)
        collector.beat = self.loops.beat

    async def _run_prune(self) -> None:
        """Retention, in small steps with air between them."""
        async for now in self.clock.ticks(_PRUNE_INTERVAL):
            settings = self.settings
            pruning = Pruning(now.wall - settings.retention, now.wall - settings.latency_retention)
            while await self.store.prune(pruning):
                await self.clock.sleep(0.05)

    async def _run_look(self) -> None:
        """What must be looked at once, and the words to the service manager."""
        warned = settled = False
        watchdog = watchdog_interval()
        async for _ in self.clock.ticks(min(5.0, watchdog / 3 if watchdog else 5.0)):
            view = self.monitor.view
            if not settled and self.collector.polls:
                # What the first snapshot made stays for good: Python's search for cycles need not go through
                # it again and again (24 ms of a blocked loop with 10,000 nodes).
                settled = True
                gc.freeze()
            self.monitor.influx_error = self.influx.lag_error if self.influx is not None else ""
            if view.tun is False and not warned and self.settings.auth.mode in ("", "none"):
                warned = True
                log.warning("open_to_the_tailnet", problem=USERSPACE_WARNING)
            if not self._admin.is_whole:
                await self._take_commands_again()
            stuck = self.loops.stuck()
            self.loops.mend()
            if watchdog and stuck is None:
                notify("WATCHDOG=1")
            health = view.health()
            words = f"blind: {view.blind.reason}" if view.blind else f"{health.online}/{health.total} online"
            notify(f"STATUS={words}")

    # -- running ---------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP reloads. A second signal ends the process at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload_on_signal()))
        # Told only now: who waits for these words may send a signal at once, and SIGHUP would kill before.
        log.info("started", version=__version__, url=self.url, state_dir=str(self.state_dir), demo=self.demo)
        notify(f"READY=1\nSTATUS=listening on {self.url}")
        await self._stopping.wait()

    def _signalled(self) -> None:
        if self._stopping.is_set():
            os._exit(130)
        self._stopping.set()

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload()
        except ConfigError as error:
            log.error("reload_failed", error=str(error), remedy="the old settings stay in force")

    async def reload(self) -> str:
        """Read the configuration again and apply it. Raises ConfigError and keeps the old settings."""
        if self._reread is None:
            return "there is no configuration to read again"
        with reloading():
            return await self._apply(self._reread())

    async def _apply(self, fresh: Settings) -> str:
        old = self.settings
        unchangeable = [name for name in NEED_RESTART if getattr(fresh, name) != getattr(old, name)]
        self.settings = fresh
        self.collector.apply(fresh)
        self.api.apply(fresh)
        await self.monitor.reload(fresh)
        if fresh.influx != old.influx:
            await self._change_influx()
        self._choose_history()
        await self._change_channels(fresh)
        if fresh.heartbeat != old.heartbeat:
            await self._change_heartbeat()
        if fresh.log != old.log:
            configure(fresh.log)
        words = "the configuration was reloaded"
        if unchangeable:
            words += f"; a restart is needed for {', '.join(unchangeable)}"
        log.info("reloaded", needs_restart=unchangeable)
        return words

    def _present_nodes(self) -> Iterable[Node]:
        return self.monitor.view.nodes.values()

    def _storage_warnings(self) -> list[str]:
        """What is amiss in the state directory, with the remedy."""
        found = [open_to_others(self.state_dir), words_aside(self.store.bad_rows)]
        return [text for text in found if text]

    def _history_warnings(self) -> list[str]:
        if self.history.doubt:
            return [self.history.doubt]
        if self.reader is not None and self.reader.error:
            return [f"InfluxDB is not read: {self.reader.error}; the embedded history answers"]
        return []

    def _choose_history(self) -> None:
        """Where uptime is read."""
        influx, source = self.settings.influx, self.settings.history.uptime_source
        wanted = bool(influx.url) and source != "embedded"
        self.reader = InfluxReader(influx, self.clock, self.settings.collect_interval) if wanted else None
        self.history.choose(source, self.reader)

    async def _change_channels(self, fresh: Settings) -> None:
        """Other channels: what the old ones had to say goes on in the new ones."""
        before = [name for name, _ in self.notifier.loops()]
        replaced = self.notifier.apply(fresh)
        if not replaced and before == [name for name, _ in self.notifier.loops()]:
            return
        for name in before:
            await self.loops.end(name)
        for line in replaced:
            await line.close()
        for name, run in self.notifier.loops():
            self.loops.start(name, run)

    def _make_heartbeat(self) -> None:
        settings = self.settings.heartbeat
        self.heartbeat = Heartbeat(settings, self.clock, self._unwell) if settings.url is not None else None

    def _unwell(self) -> str:
        """Why the heartbeat is held back, "" when it is not."""
        if not self.monitor.sees:
            return "tsmon cannot see the tailnet"
        return self._backlog.error

    async def _change_heartbeat(self) -> None:
        await self.loops.end("heartbeat")
        self._make_heartbeat()
        if self.heartbeat is not None:
            self.loops.start("heartbeat", self.heartbeat.run)

    def _make_influx(self) -> None:
        settings, reread = self.settings.influx, self._reread
        fresh = (lambda: reread().influx) if reread is not None else None
        self.influx = Influx(settings, self.store, self.clock, fresh) if settings.url else None

    async def _change_influx(self) -> None:
        """Another InfluxDB, one at last, or none any more; what the outbox holds goes to the new one."""
        await self.loops.end("influx")
        self._make_influx()
        self.collector.put_samples = self.influx.put_samples if self.influx is not None else None
        if self.influx is not None:
            self.loops.start("influx", self.influx.run)

    async def _put_lines(self, payload: bytes) -> bool:
        if self.influx is None:
            raise ValueError("InfluxDB is not configured: set influx.url, then reload")
        return await self.influx.put_lines(payload)

    async def _import_samples(self, raw: bytes) -> dict[str, Any]:
        """Another monitor's samples become history. Raises ValueError and StoreError."""
        request = await asyncio.to_thread(read_request, raw)
        since = self.clock.wall() - self.settings.retention
        taken = await self.store.write(lambda db: put(db, request.samples, request.interval, since))
        if taken.since is not None:
            await self.monitor.imported(taken.first_seen, taken.words())
        return taken._asdict()

    def readiness(self) -> Readiness:
        """What /readyz says."""
        view = self.monitor.view
        source: dict[str, Any] = {
            "name": self.source.name,
            "kind": self.source.kind,
            "polls": self.collector.polls,
            "failures": self.collector.failures,
            "last_success": rfc3339(view.as_of),
            "error": self.collector.last_failure.message if self.collector.last_failure else None,
            "blind": view.blind.reason if view.blind else None,
            "malformed_peers": view.malformed,
            "malformed": list(view.malformed_named),
            "duplicate_ids": view.duplicates,
            "noise": self.collector.noise or None,
            "can_ping": self.source.can_ping,
            "last_poll_s": round(self.collector.poll_seconds, 4),
        }
        storage = {
            "error": self._backlog.error or None,
            "waiting": self._backlog.waiting,
            "report": self.store.report or None,
            "bad_rows": dict(self.store.bad_rows),
        }
        open_to_tailnet = view.tun is False and self.settings.auth.mode in ("", "none")
        return Readiness(
            ready=self.collector.polls > 0 and not self._backlog.error,
            parts={
                "source": source,
                "storage": storage,
                "influxdb": self.influx.readiness() if self.influx is not None else None,
                "channels": self.notifier.readiness(),
                "heartbeat": self.heartbeat.readiness() if self.heartbeat is not None else None,
                "warnings": [
                    *([USERSPACE_WARNING] if open_to_tailnet else []),
                    *self._storage_warnings(),
                    *self.notifier.warnings(),
                    *self._history_warnings(),
                ],
                "uptime_s": round(time.monotonic() - self._begun),
                "version": __version__,
            },
        )

    async def _scrape(self) -> Snapshot:
        """What /metrics tells of."""
        influx = self.influx
        contents = influx.contents if influx is not None else None
        own = Own(
            version=__version__,
            started=self.monitor.started.wall,
            polls=self.collector.polls,
            poll_failures=self.collector.failures,
            poll_seconds=self.collector.poll_seconds,
            store_failing=bool(self._backlog.error),
            store_waiting=self._backlog.waiting,
            stream_clients=self.api.live.clients,
            channels=tuple(
                Channel(row["name"], bool(row["error"]), row["waiting"], row["delivered"], row["failed"])
                for row in self.notifier.readiness()
            ),
            outbox_requests=contents.requests if contents is not None else None,
            outbox_lines=contents.lines if contents is not None else 0,
            outbox_oldest=contents.oldest if contents is not None else None,
            lines_dropped=influx.dropped if influx is not None else 0,
            lines_quarantined=influx.quarantined if influx is not None else 0,
            influx_failing=influx is not None and bool(influx.error),
        )
        figures = await self.api.figures.get()
        alerts = tuple(self.monitor.alerts.values())
        return Snapshot(self.monitor.view, alerts, figures, own, self.settings.metrics.per_node)

    # -- shutdown --------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop accepting, end streams, finish the writes; at most `STOP_SECONDS`."""
        if self._stopped:
            return
        self._stopped = True
        notify("STOPPING=1")
        log.info("stopping")
        self.store.hurry()
        try:
            async with asyncio.timeout(STOP_SECONDS - 0.5):
                self._connections.close()
                await self.api.live.close()
                await self.loops.stop()
                await self.monitor.stop()
                for line in self.notifier.lines.values():
                    await line.close()
                await self._admin.stop()
                if self._runner is not None:
                    await self._runner.cleanup()
                await self.source.close()
                await self.store.close()
                if self.heartbeat is not None:
                    await self.heartbeat.stopped()
        except TimeoutError:
            log.warning("stopped_hard", problem=f"something did not end within {STOP_SECONDS:g} s")
        log.info("stopped")


USERSPACE_WARNING = (
    "tailscaled runs in userspace mode (TUN false): everybody in the tailnet reaches this machine's loopback,"
    " and so tsmon; set auth.mode, or run tailscaled with TUN"
)
