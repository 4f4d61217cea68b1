"""`make scenarios`: scripted tailnets in virtual time, and what people would have heard.

Each scenario keeps its own truth: when each machine was really down. Messages and uptime are held against it.
With `--real` the rows that take less than an hour are played in real time, all at once.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from tests.support.influx_server import TOKEN, Answer, FakeInflux
from tests.support.virtual import VirtualClock, run_virtual
from tests.support.world import TEAM, World, settings
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.monitor.incidents import OUTAGES
from tsmon.source import make_source

Interval = tuple[float, float]
PROD = "chocolate-factory"
SLACK = 120.0
"""Seconds beyond its delay after which an outage that nobody heard of counts as missed."""


class Score(NamedTuple):
    """One row of the table."""

    name: str
    source: str
    """What tsmon reads: `sidecar` (polled) or `LocalAPI` (its bus reports changes)."""
    first_message_s: float | None
    """From the first deed to the first message."""
    messages: int
    false_downs: int
    false_recoveries: int
    missed: int
    uptime_error_s: float
    """Seconds in which tsmon says offline and the script does not, or the other way, of the worst node, per
    change: a late begin and a late end add up."""


class Play:
    """A world, and the truth about it."""

    def __init__(self, world: World, influx: FakeInflux | None = None) -> None:
        self.world = world
        self.influx = influx
        self.begun: float | None = None
        self.outages: dict[str, list[list[float | None]]] = {}
        self.blind: list[list[float | None]] = []
        self.changes: dict[str, int] = {}
        self.offsets = [0.0]
        self.shut = False
        """A proxy before the sidecar answers 404 to everything."""

    @web.middleware
    async def door(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.shut:
            return web.Response(status=404, text="404 page not found")
        answer: web.StreamResponse = await handler(request)
        return answer

    def now(self) -> float:
        return self.world.clock.mono()

    def down(self, *names: str, how: str = "off") -> None:
        """These die now: `off` (control says so) or `hang` (it does not)."""
        self.begin()
        getattr(self.world.tailnet, how)(*names)
        for name in names:
            self.outages.setdefault(name, []).append([self.now(), None])
            self.changes[name] = self.changes.get(name, 0) + 1

    def up(self, *names: str) -> None:
        self.world.tailnet.on(*names)
        for name in names:
            self.outages[name][-1][1] = self.now()
            self.changes[name] = self.changes.get(name, 0) + 1

    def hide(self, deed: Callable[[], Any]) -> None:
        """From now on tsmon cannot know."""
        self.begin()
        self.blind.append([self.now(), None])
        deed()

    def show(self, deed: Callable[[], Any]) -> None:
        deed()
        self.blind[-1][1] = self.now()

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.now()

    def is_down(self, name: str, at: float) -> bool:
        return any(begin <= at and (end is None or at < end) for begin, end in self._stretches(name))

    def _stretches(self, name: str) -> list[tuple[float, float | None]]:
        return [(begin or 0.0, end) for begin, end in self.outages.get(name, [])]

    async def score(self, name: str, source: str) -> Score:
        """Held against the truth."""
        told = self.world.told_to.get("team", [])
        first = None
        if told and self.begun is not None:
            first = round(self._at(told[0].notice.made_at) - self.begun, 1)
        false_downs = false_recoveries = 0
        named: dict[str, int] = {}
        for message in told:
            for entry, alert in message.entries:
                if alert.kind not in OUTAGES or alert.hostname is None:
                    continue
                since = self._at(alert.since if alert.since is not None else alert.pending_at)
                if entry.phase == "fell":
                    named[alert.hostname] = named.get(alert.hostname, 0) + 1
                    # Down at any moment from a poll before the outage it tells of.
                    real = any(
                        begin - 1 <= since + 75 and (end is None or end > since - 75)
                        for begin, end in self._stretches(alert.hostname)
                    )
                    false_downs += not real
                if entry.phase == "back" and alert.cause == "recovered" and alert.resolved_at is not None:
                    ended = self._at(alert.resolved_at)
                    down = self.is_down(alert.hostname, ended - 20) and self.is_down(
                        alert.hostname, ended + 1
                    )
                    false_recoveries += down
        missed = sum(self._is_missed(host, named) for host in self.outages)
        error = await self._uptime_error()
        return Score(name, source, first, len(told), false_downs, false_recoveries, missed, error)

    def _at(self, wall: float) -> float:
        """Seconds since the start, whatever was done to the clock on the wall since then."""
        begun = self.begun or 0.0
        found = [wall - self.world.clock.start - offset for offset in self.offsets]
        return min((at for at in found if begun - 75 <= at <= self.now()), default=found[-1])

    def set_clock(self, seconds: float) -> None:
        """Forward, or back when negative."""
        self.world.clock.offset += seconds
        self.offsets.append(self.world.clock.offset)

    def _is_missed(self, host: str, named: dict[str, int]) -> bool:
        """An outage was long enough to be reported, seen, and the node was never named."""
        long = 0
        for begin, end in self._stretches(host):
            seen = (end if end is not None else self.now()) - begin
            for dark, light in self.blind:
                overlap = min(end or self.now(), light or self.now()) - max(begin, dark or 0.0)
                seen -= max(0.0, overlap)
            long += seen > self.world.settings.offline_after + SLACK
        return long > 0 and host not in named

    async def _uptime_error(self) -> float:
        """Of the stretches that tsmon calls offline, against the script, where tsmon observed."""
        rows, spans = await self.world.store.read(_observed_and_offline)
        observed = [self._since_start(*row) for row in rows]
        worst = 0.0
        for host, changes in self.changes.items():
            said = [self._since_start(begin, end) for name, begin, end in spans if name == host]
            truth = [(begin, self.now() if end is None else end) for begin, end in self._stretches(host)]
            both = _length(said, truth, observed)
            wrong = _length(said, observed) + _length(truth, observed) - 2 * both
            worst = max(worst, wrong / changes)
        return round(worst, 1)

    def _since_start(self, begin: float, end: float | None) -> Interval:
        start = self.world.clock.start
        return begin - start, self.now() if end is None else end - start


def _observed_and_offline(db: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
    observed = db.execute("SELECT start, end FROM observed WHERE scope = ''").fetchall()
    offline = db.execute(
        "SELECT hostname, start, end FROM spans JOIN nodes ON num = node WHERE state = 'offline'"
    ).fetchall()
    return observed, offline


def _length(*parts: Iterable[Interval]) -> float:
    """Seconds that lie in every one of the parts, each of intervals that do not overlap."""
    common = [(float("-inf"), float("inf"))]
    for part in parts:
        common = [(max(a, c), min(b, d)) for a, b in common for c, d in part if max(a, c) < min(b, d)]
    return sum(end - begin for begin, end in common)


_OURS = ("source", "http", "nodes", "influx", "days", "long")
"""Options that are not settings of tsmon: what it reads; the sidecar over HTTP; nodes beside the usual ones;
an InfluxDB; days if it takes a day or more; long if it takes minutes even in virtual time."""
Script = Callable[[Play], Awaitable[None]]
SCRIPTS: dict[str, tuple[Script, dict[str, Any]]] = {}


def scenario(name: str, source: str = "sidecar", **options: Any) -> Callable[[Script], Script]:
    """`source`: `sidecar` or `LocalAPI`."""

    def register(script: Script) -> Script:
        SCRIPTS[f"{name} ({source})"] = script, options | {"source": source}
        return script

    return register


@scenario("one node off", source="LocalAPI")
@scenario("one node off")
async def one_off(play: Play) -> None:
    play.down(PROD)
    await play.world.run(600)
    play.up(PROD)
    await play.world.run(400)


@scenario("one node hung, control still says online", source="LocalAPI")
@scenario("one node hung, control still says online")
async def one_hung(play: Play) -> None:
    play.down(PROD, how="hang")
    await play.world.run(900)
    play.up(PROD)
    await play.world.run(400)


@scenario("500 of 1,000 off at once", source="LocalAPI", nodes=1000)
@scenario("500 of 1,000 off at once", nodes=1000)
async def half(play: Play) -> None:
    names = [f"node-{n:04}" for n in range(500)]
    play.down(*names)
    await play.world.run(600)
    play.up(*names)
    await play.world.run(400)


@scenario("the monitor's own data plane cut, 10 min")
async def uplink(play: Play) -> None:
    def cut() -> None:
        play.world.tailnet.uplink = False

    def mend() -> None:
        play.world.tailnet.uplink = True

    play.hide(cut)
    await play.world.run(600)
    play.show(mend)
    await play.world.run(400)


@scenario("the source unreachable, 10 min")
async def source(play: Play) -> None:
    play.hide(lambda: setattr(play.world.tailnet, "fault", "refused"))
    await play.world.run(600)
    play.show(lambda: setattr(play.world.tailnet, "fault", ""))
    await play.world.run(400)


@scenario("control lost 10 min, the peers frozen, one dies meanwhile")
async def control(play: Play) -> None:
    play.hide(play.world.tailnet.lose_control)
    await play.world.run(100)
    play.down(PROD)
    await play.world.run(500)
    play.show(play.world.tailnet.regain_control)
    await play.world.run(400)
    play.up(PROD)
    await play.world.run(400)


@scenario("one node flaps every 30 s for 15 min, then stays up")
async def flaps(play: Play) -> None:
    for _ in range(15):
        play.down("git")
        await play.world.run(30)
        play.up("git")
        await play.world.run(30)
    await play.world.run(1200)


@scenario("tsmon killed -9 in mid-outage, back after 3 min")
async def killed(play: Play) -> None:
    play.down(PROD)
    await play.world.run(300)
    await play.world.restart(after=180)
    await play.world.run(300)
    play.up(PROD)
    await play.world.run(400)


@scenario("the peer map empty for one poll")
async def empty_once(play: Play) -> None:
    play.hide(lambda: setattr(play.world.tailnet, "hide_peers", True))
    await play.world.run(15)
    play.show(lambda: setattr(play.world.tailnet, "hide_peers", False))
    await play.world.run(400)


@scenario("the peer map empty for good: the nodes are gone")
async def empty(play: Play) -> None:
    play.hide(lambda: setattr(play.world.tailnet, "hide_peers", True))
    for name in ("git", "dev", PROD):
        play.outages[name] = [[play.now(), None]]
    await play.world.run(1800)


@scenario("10 preview machines of prod's role come and go")
async def previews(play: Play) -> None:
    tailnet = play.world.tailnet
    for n in range(10):
        tailnet.add(f"{PROD}-pr-{n}")
        await play.world.run(180)
        # An ephemeral machine that logs out is called offline, then removed.
        tailnet.off(f"{PROD}-pr-{n}")
        await play.world.run(30)
        tailnet.remove(f"{PROD}-pr-{n}")


@scenario("the clock set back an hour in mid-outage")
async def clock(play: Play) -> None:
    play.down(PROD)
    await play.world.run(600)
    play.set_clock(-3600)
    await play.world.run(600)
    play.world.tailnet.on(PROD)
    await play.world.run(400)
    # Outages lie across two counts of the same hour: only messages are scored.
    play.outages[PROD][-1][1] = play.now() - 400
    play.changes.clear()


@scenario("the machine suspended for an hour in mid-outage")
async def suspended(play: Play) -> None:
    play.down("git")
    await play.world.run(60)
    play.set_clock(3600)  # monotonic time stands still
    play.blind.append([play.now(), play.now()])
    await play.world.run(600)
    play.up("git")
    await play.world.run(400)
    play.changes.clear()  # the hour itself is unknown; the rest is in the message


@scenario("20 keys expire in 3 days, half of them are renewed")
async def keys(play: Play) -> None:
    play.begin()
    expiry = play.world.clock.wall() + 3 * 86400
    for n in range(20):
        play.world.tailnet.add(f"srv-{n}", tags=["tag:server"], key_expiry=expiry)
    await play.world.run(400)
    for n in range(10):
        play.world.tailnet.change(f"srv-{n}", key_expiry=expiry + 90 * 86400)
    await play.world.run(600)


@scenario("a proxy answers 404 for 20 s while a node hangs", http=True)
async def proxy(play: Play) -> None:
    play.down(PROD, how="hang")
    await play.world.run(600)
    play.shut = True
    await play.world.run(20)
    play.shut = False
    await play.world.run(600)
    play.up(PROD)
    await play.world.run(400)


@scenario("InfluxDB away for a day, one node off meanwhile", influx=True, days=True)
async def influx_away(play: Play) -> None:
    assert play.influx is not None
    play.begin()
    play.influx.refusing = Answer(503)
    await play.world.run(8 * 3600)
    play.down(PROD)
    await play.world.run(8 * 3600)
    play.up(PROD)
    await play.world.run(8 * 3600)
    play.influx.refusing = None
    await play.world.run(600)
    grid = {point.time for point in play.influx.points() if point.measurement == "tailscale_health"}
    assert len(grid) >= 24 * 12, f"{len(grid)} grid times arrived"


@scenario("a day of random life, 1,000 nodes", nodes=1000, poll_interval="30s", days=True)
async def day(play: Play) -> None:
    await _life(play, 86400.0, 40)


@scenario("a week of random life, 1,000 nodes", nodes=1000, poll_interval="1m", days=True, long=True)
async def week(play: Play) -> None:
    await _life(play, 7 * 86400.0, 200)


async def _life(play: Play, seconds: float, deaths: int) -> None:
    """Nodes die and come back, one after the other and some together."""
    chance = random.Random(7)
    until = play.now() + seconds
    down: dict[str, float] = {}
    while play.now() < until:
        for name, back in list(down.items()):
            if play.now() >= back:
                play.up(name)
                del down[name]
        if chance.random() < deaths * 60 / seconds:
            up = [f"node-{n:04}" for n in range(1000) if f"node-{n:04}" not in down]
            for name in chance.sample(up, chance.choice([1, 1, 1, 5])):
                play.down(name)
                down[name] = play.now() + chance.choice([20, 90, 400, 3600])
        await play.world.run(60)
    if down:
        play.up(*down)
    await play.world.run(700)


async def play_one(name: str, directory: Path, clock: VirtualClock | None = None) -> Score:
    """One scenario from its beginning to its score."""
    script, options = SCRIPTS[name]
    given = {key: value for key, value in options.items() if key not in _OURS}
    async with AsyncExitStack() as stack:
        influx = None
        if options.get("influx"):
            influx = FakeInflux()
            url = await stack.enter_async_context(serving(influx.application()))
            given |= {"influx__url": url, "influx__token": TOKEN, "influx__org": "home"}
        bus = options["source"] == "LocalAPI"
        world = World(directory, toml=TEAM, clock=clock, bus=bus, **given)
        play = Play(world, influx)
        if options.get("http"):
            app = FakeSidecar(world.tailnet).application()
            app.middlewares.append(play.door)
            url = await stack.enter_async_context(serving(app))
            world.over = lambda: make_source(settings(source=url))
        for n in range(options.get("nodes", 0)):
            world.tailnet.add(f"node-{n:04}", notify=False, tags=["tag:server", f"tag:rack-{n // 500}"])
        await world.start()
        stack.push_async_callback(world.kill)
        await world.run(121)
        await script(play)
        return await play.score(name.rpartition(" (")[0], options["source"])


def scores(names: Iterable[str]) -> Iterable[Score]:
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            yield run_virtual(play_one(name, Path(directory)))


async def scores_in_real_time(names: Iterable[str]) -> list[Score]:
    """All at once: the longest takes less than an hour."""
    start = time.time() - asyncio.get_running_loop().time()
    with tempfile.TemporaryDirectory() as directory:
        return await asyncio.gather(
            *(
                play_one(name, Path(directory) / str(number), VirtualClock(start))
                for number, name in enumerate(names)
            )
        )


def show(rows: Iterable[Score]) -> list[Score]:
    heads = ("first message", "messages", "false downs", "false recoveries", "missed", "uptime error")
    print(f"{'scenario':<60}{'source':>10}" + "".join(f"{head:>18}" for head in heads))
    shown = []
    for row in rows:
        first = "-" if row.first_message_s is None else f"{row.first_message_s:.0f} s"
        cells = (
            first,
            row.messages,
            row.false_downs,
            row.false_recoveries,
            row.missed,
            f"{row.uptime_error_s} s",
        )
        print(f"{row.name:<60}{row.source:>10}" + "".join(f"{cell!s:>18}" for cell in cells), flush=True)
        shown.append(row)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scenarios")
    parser.add_argument("--long", action="store_true", help="the week, too (some minutes)")
    parser.add_argument("--real", action="store_true", help="in real time (about 40 minutes)")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows: Iterable[Score]
    if chosen.real:
        short = [name for name, (_, options) in SCRIPTS.items() if not options.get("days")]
        rows = asyncio.run(scores_in_real_time(short))
    else:
        names = [name for name, (_, options) in SCRIPTS.items() if chosen.long or not options.get("long")]
        rows = scores(names)
    if chosen.json:
        json.dump([row._asdict() for row in rows], sys.stdout, indent=1)
    else:
        show(rows)


if __name__ == "__main__":
    main()
