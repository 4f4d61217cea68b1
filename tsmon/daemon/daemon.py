"""One tsmon from start to stop; what it is made of stands in `parts`."""

import asyncio
import os
import signal
from pathlib import Path

import structlog

from tsmon import __version__
from tsmon.api import Api
from tsmon.base.clock import Clock
from tsmon.collector import Collector
from tsmon.config import ConfigError, Settings
from tsmon.daemon.jobs import Housekeeping, jobs_of
from tsmon.daemon.listening import Listening, StartError
from tsmon.daemon.outlet import Reread
from tsmon.daemon.parts import Parts, build, make_admin
from tsmon.daemon.reload import Reload
from tsmon.daemon.systemd import notify
from tsmon.history.store import Store, StoreError
from tsmon.monitor.monitor import Monitor
from tsmon.notify.notifier import Notifier
from tsmon.source import Source, make_source

log = structlog.get_logger(__name__)

STOP_SECONDS = 3.0
"""Within this a stop ends, whatever hangs."""


class Daemon:
    """One tsmon: `start`, `serve`, `stop`."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        clock: Clock | None = None,
        source: Source | None = None,
        reread: Reread | None = None,
        demo: bool = False,
    ) -> None:
        """`reread` reads the configuration again (SIGHUP); `source` takes the place of the configured one."""
        self.state_dir = state_dir
        self.clock = clock or Clock()
        self.demo = demo
        self.url = ""
        """Of the API, once it listens."""
        self.parts: Parts
        self.reloading: Reload
        self.listening: Listening
        self._settings = settings
        self._source = source or make_source(settings)
        self._reread = reread
        self._stopping = asyncio.Event()
        self._stopped = False

    # -- startup ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything up to the first request that can be answered. Raises StartError."""
        try:
            self.parts = await build(
                self._settings,
                self.state_dir,
                clock=self.clock,
                source=self._source,
                reread=self._reread,
                demo=self.demo,
            )
        except StoreError as error:
            raise StartError(str(error)) from None
        self.reloading = Reload(self.parts, self._reread)
        self.listening = Listening(
            self.parts, make_admin(self.parts, self.reload, lambda: self.url), self.state_dir
        )
        try:
            self.url = await self.listening.start(self._settings)
        except StartError:
            await self.parts.store.close()
            await self._source.close()
            raise
        for job in (*jobs_of(self.parts), *Housekeeping(self.parts, self.listening).jobs()):
            self.parts.loops.start(*job)

    # -- running ---------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP reloads. A second signal ends the process at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload_on_signal()))
        # Logged only once signals are handled: who waits for this line may send SIGHUP, which else kills.
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
        return await self.reloading.reload()

    # -- shutdown --------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop accepting, end streams, finish the writes; at most `STOP_SECONDS`."""
        if self._stopped:
            return
        self._stopped = True
        notify("STOPPING=1")
        log.info("stopping")
        parts = self.parts
        parts.store.hurry()
        try:
            async with asyncio.timeout(STOP_SECONDS - 0.5):
                self.listening.close()
                await parts.api.live.close()
                await parts.loops.stop()
                await parts.monitor.stop()
                for line in parts.notifier.lines.values():
                    await line.close()
                await self.listening.stop()
                await parts.source.close()
                if parts.asking is not None:
                    await parts.asking.api.close()
                await parts.store.close()
                if parts.heartbeat is not None:
                    await parts.heartbeat.stopped()
        except TimeoutError:
            log.warning("stopped_hard", problem=f"something did not end within {STOP_SECONDS:g} s")
        log.info("stopped")

    # -- the parts that callers look at ----------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.parts.settings

    @property
    def store(self) -> Store:
        return self.parts.store

    @property
    def monitor(self) -> Monitor:
        return self.parts.monitor

    @property
    def collector(self) -> Collector:
        return self.parts.collector

    @property
    def notifier(self) -> Notifier:
        return self.parts.notifier

    @property
    def api(self) -> Api:
        return self.parts.api
