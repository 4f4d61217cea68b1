"""Applies changed settings to the running parts."""

import structlog

from tsmon.config import NEED_RESTART, Settings
from tsmon.daemon.jobs import jobs_of
from tsmon.daemon.logging import configure
from tsmon.daemon.outlet import Reread
from tsmon.daemon.parts import Parts, choose_history, make_asking, make_heartbeat
from tsmon.daemon.systemd import reloading
from tsmon.history.intervals import INTERVALS

log = structlog.get_logger(__name__)


class Reload:
    """`SIGHUP` and `tsmon reload`."""

    def __init__(self, parts: Parts, reread: Reread | None) -> None:
        """`reread` reads the configuration again; None: there is none to read."""
        self.reread = reread
        self._parts = parts

    async def reload(self) -> str:
        """Read the configuration again, apply it, and say what needs a restart. Raises ConfigError and keeps
        the old settings."""
        if self.reread is None:
            return "there is no configuration to read again"
        with reloading():
            return await self._reload(self.reread())

    async def _reload(self, fresh: Settings) -> str:
        old = self._parts.settings
        unchangeable = [name for name in NEED_RESTART if getattr(fresh, name) != getattr(old, name)]
        await self.apply(fresh)
        if fresh.log != old.log:
            configure(fresh.log)
        words = "the configuration was reloaded"
        if unchangeable:
            words += f"; a restart is needed for {', '.join(unchangeable)}"
        log.info("reloaded", needs_restart=unchangeable)
        return words

    async def apply(self, fresh: Settings) -> None:
        """Every part takes the new settings; its loop starts again where it must."""
        parts, old = self._parts, self._parts.settings
        parts.settings = fresh
        parts.collector.apply(fresh)
        parts.checking.apply(fresh)
        parts.lookout.apply(fresh)
        parts.api.apply(fresh)
        await parts.operators.reload(fresh)
        if fresh.influx != old.influx:
            await self._change_influx(fresh)
        await self._change_intervals(fresh)
        parts.reader = choose_history(parts.history, fresh, parts.clock, parts.intervals)
        await self._change_channels(fresh)
        if fresh.heartbeat != old.heartbeat:
            await self._change_heartbeat(fresh)
        if fresh.control != old.control:
            await self._change_control(fresh)

    async def _change_intervals(self, fresh: Settings) -> None:
        """The jobs count by the new ones; samples so far stand for the old one."""
        parts = self._parts
        for job in jobs_of(parts):
            parts.loops.set_patience(job.name, job.patience)
        changed = parts.intervals.changed(parts.clock.wall(), fresh.collect_interval)
        if changed is not parts.intervals:
            parts.intervals = changed
            await parts.monitor.note(meta={INTERVALS: changed.store()})

    async def _change_influx(self, fresh: Settings) -> None:
        """What the outbox holds goes to the new InfluxDB."""
        await self._parts.loops.end("influx")
        await self._parts.outlet.apply(fresh.influx)
        if self._parts.outlet.influx is not None:
            self._parts.loops.start("influx", self._parts.outlet.influx.run)

    async def _change_channels(self, fresh: Settings) -> None:
        """What the old channels had to say goes on in the new ones."""
        notifier, loops = self._parts.notifier, self._parts.loops
        before = [name for name, _ in notifier.loops()]
        replaced = notifier.apply(fresh)
        if not replaced and before == [name for name, _ in notifier.loops()]:
            return
        for name in before:
            await loops.end(name)
        for line in replaced:
            await line.close()
        for name, run in notifier.loops():
            loops.start(name, run)

    async def _change_heartbeat(self, fresh: Settings) -> None:
        parts = self._parts
        await parts.loops.end("heartbeat")
        parts.heartbeat = make_heartbeat(fresh, parts.clock, parts.monitor, parts.backlog)
        if parts.heartbeat is not None:
            parts.loops.start("heartbeat", parts.heartbeat.run)

    async def _change_control(self, fresh: Settings) -> None:
        """Another control server's word is nothing to compare the old one's with."""
        parts = self._parts
        await parts.loops.end("control")
        if parts.asking is not None:
            await parts.asking.api.close()
        parts.asking = make_asking(fresh, parts.clock, parts.known, parts.ledger)
        if parts.asking is not None:
            parts.loops.start("control", parts.asking.run)
