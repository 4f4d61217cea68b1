"""Builds the parts and joins them: for `tsmon run`, the demo, the behaviour tests and the benchmarks alike.

How a status document becomes a message: `Collector.poll` -> `Monitor.answer` -> `Rules.step` (alerts) ->
`Ledger.commit` -> `Notifier.step` -> `MessageLine.step` -> `Desk.step` (notices, in the same transaction) ->
`Notifier.release` -> `MessageLine.run` (sends). How a commit reaches the stream: `Ledger.commit` ->
`Api.publish` -> `Live.publish`.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tsmon.api import Api
from tsmon.base.clock import Clock
from tsmon.collector import Collector, SampleSink
from tsmon.config import Settings
from tsmon.daemon.importing import Importing
from tsmon.daemon.loops import Loops
from tsmon.daemon.monthly import MONTH, MonthlySummary
from tsmon.daemon.outlet import Reread, SampleOutlet
from tsmon.daemon.readiness import readiness
from tsmon.daemon.scrape import scrape
from tsmon.history.backlog import Backlog
from tsmon.history.chosen import ChosenHistory
from tsmon.history.influx import InfluxReader, ReadError
from tsmon.history.intervals import INTERVALS, Intervals, load_intervals
from tsmon.history.store import Store
from tsmon.monitor.control.asking import Asking
from tsmon.monitor.control.keeper import InventoryKeeper
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger
from tsmon.monitor.lookout import Diagnose, Lookout
from tsmon.monitor.monitor import Monitor
from tsmon.monitor.operators import Operators
from tsmon.monitor.services.checking import Checking
from tsmon.monitor.state import Node
from tsmon.notify.heartbeat import Heartbeat
from tsmon.notify.lines import MakeSender, service
from tsmon.notify.notice import check_row
from tsmon.notify.notifier import Notifier
from tsmon.notify.quiet import Quiet
from tsmon.notify.silencing import Silencing
from tsmon.notify.stored import load_channels
from tsmon.server.admin import Admin
from tsmon.server.metrics import Metrics
from tsmon.source import Source, make_source
from tsmon.source.control import ControlApi, make_control
from tsmon.source.diagnosis import diagnose


@dataclass(kw_only=True)
class Parts:
    """One tsmon that does not listen and of which nothing runs yet."""

    settings: Settings
    clock: Clock
    source: Source
    loops: Loops
    store: Store
    backlog: Backlog
    outlet: SampleOutlet
    ledger: Ledger
    monitor: Monitor
    operators: Operators
    notifier: Notifier
    silencing: Silencing
    collector: Collector
    history: ChosenHistory
    intervals: Intervals
    """How often samples were taken, and since when."""
    reader: InfluxReader | None
    """What reads InfluxDB for `history`."""
    heartbeat: Heartbeat | None
    known: Known
    checking: Checking
    lookout: Lookout
    asking: Asking | None
    """What asks the control server."""
    monthly: MonthlySummary
    api: Api
    metrics: Metrics
    begun: float
    """`time.monotonic()` of the start."""


async def build(
    settings: Settings,
    state_dir: Path,
    *,
    clock: Clock | None = None,
    source: Source | None = None,
    control: ControlApi | None = None,
    diagnosis: Diagnose = diagnose,
    make_sender: MakeSender = service,
    witness: SampleSink | None = None,
    reread: Reread | None = None,
    demo: bool = False,
) -> Parts:
    """All parts over the store in `state_dir`. Raises StoreError.

    `reread` reads the configuration again. For tests: `source`, `control` and `diagnosis` take the place of
    what the settings mean, `make_sender` of the services that channels name; `witness` gets every sample.
    """
    clock = clock or Clock()
    source = source or make_source(settings)
    loops = Loops()
    store = await Store.open(state_dir, {"notifications": check_row})
    last = await store.load(clock.wall() - settings.flapping.window)
    channels = await store.read(load_channels)

    outlet = SampleOutlet(settings.influx, store, clock, reread=reread, witness=witness)
    backlog = Backlog(store.commit, store.find_nodes, outlet.rewrite, store.removed_of)
    quiet = Quiet(settings.maintenance, channels.silences)
    known = Known(settings, last, clock.now(), quiet)
    await outlet.look()
    ledger = Ledger(clock, known, last, backlog)
    monitor = Monitor(clock, known, ledger, outlet)
    notifier = Notifier(
        clock,
        settings,
        monitor,
        channels,
        quiet,
        has_bus=lambda: source.bus_open,
        make_sender=make_sender,
    )
    collector = Collector(
        clock,
        settings,
        source,
        monitor,
        last_grid=float(last.meta.get("last_grid", 0)),
        sink=outlet,
        beat=loops.beat,
    )

    def present() -> Iterable[Node]:
        return monitor.view.nodes.values()

    history = ChosenHistory(store, clock, present, failure=ReadError)
    intervals = load_intervals(last.meta.get(INTERVALS), clock.wall(), settings.collect_interval)
    known.carried.meta[INTERVALS] = intervals.store()
    api = Api(
        settings=settings,
        clock=clock,
        monitor=monitor,
        store=store,
        history=history,
        whois=source.whois,
        source_name=lambda: source.name,
        readiness=lambda: readiness(parts),
        stuck_loop=loops.stuck,
        notified_at=notifier.notified_at,
        demo=demo,
    )
    # The two arrows that go up: a step's messages are stored with it, and everybody hears of it once it is.
    ledger.accompany(notifier)
    ledger.subscribe(api.publish)
    parts = Parts(
        settings=settings,
        clock=clock,
        source=source,
        loops=loops,
        store=store,
        backlog=backlog,
        outlet=outlet,
        ledger=ledger,
        monitor=monitor,
        operators=Operators(clock, known, ledger),
        notifier=notifier,
        silencing=Silencing(quiet, monitor),
        collector=collector,
        history=history,
        intervals=intervals,
        reader=choose_history(history, settings, clock, intervals),
        heartbeat=make_heartbeat(settings, clock, monitor, backlog),
        known=known,
        checking=Checking(
            clock,
            settings,
            source,
            known,
            ledger,
            lives=monitor.lives,
            beat=loops.beat,
            news=collector.want_read,
        ),
        lookout=Lookout(clock, settings, source, known, ledger, diagnose=diagnosis, news=collector.want_read),
        asking=make_asking(settings, clock, known, ledger, control),
        monthly=MonthlySummary(
            clock,
            lambda: parts.settings,
            answer=api.reports.answer,
            announce=notifier.announce,
            remember=lambda meta: monitor.note(meta=meta),
            done=last.meta.get(MONTH) or "",
        ),
        api=api,
        metrics=Metrics(lambda: scrape(parts)),
        begun=time.monotonic(),
    )
    return parts


def make_admin(parts: Parts, reload: Callable[[], Awaitable[str]], url: Callable[[], str]) -> Admin:
    """The commands over the parts; `url` is where the API answers."""
    importing = Importing(parts.clock, parts.store, parts.operators, lambda: parts.settings.retention)
    return Admin(
        parts.clock,
        parts.monitor,
        parts.store,
        operators=parts.operators,
        channels=parts.notifier,
        silences=parts.silencing,
        reload=reload,
        readiness=lambda: readiness(parts),
        url=url,
        put_lines=parts.outlet.put_lines,
        import_samples=importing.samples,
    )


def make_heartbeat(settings: Settings, clock: Clock, monitor: Monitor, backlog: Backlog) -> Heartbeat | None:
    """The heartbeat of the settings; it is held back while tsmon cannot do its work."""

    def unwell() -> str:
        return backlog.error if monitor.sees else "tsmon cannot see the tailnet"

    heartbeat = settings.heartbeat
    return Heartbeat(heartbeat, clock, unwell) if heartbeat.url is not None else None


def make_asking(
    settings: Settings, clock: Clock, known: Known, ledger: Ledger, api: ControlApi | None = None
) -> Asking | None:
    """What asks the control server of the settings, None when they name none; `api` takes its place."""
    if not settings.control.kind:
        return None
    keeper = InventoryKeeper(settings.control, clock, known, ledger)
    return Asking(settings.control, clock, api or make_control(settings.control, clock), keeper)


def choose_history(
    history: ChosenHistory, settings: Settings, clock: Clock, intervals: Intervals
) -> InfluxReader | None:
    """Let `history` read where the settings say; returns what reads InfluxDB, if that is asked for."""
    influx, source = settings.influx, settings.history.uptime_source
    wanted = bool(influx.url) and source != "embedded"
    reader = InfluxReader(influx, clock, settings.collect_interval) if wanted else None
    history.choose(source, reader, intervals)
    return reader
