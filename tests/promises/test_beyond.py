"""What is known beyond nodes, played through: checked ports, routes, the tailnet lock, why tsmon is blind
(section 13 of docs/rules.md)."""

from pathlib import Path

from tests.support.virtual import virtual
from tests.support.world import TEAM, World, running
from tsmon.demo.tailnet import SimService
from tsmon.history.service_history import ServiceHistory
from tsmon.monitor.services.service import Service, ServiceKey
from tsmon.source.diagnosis import WORDS
from tsmon.source.pings import Ping

DB = """
[[roles]]
name = "db"
hosts = ["db*"]
alert = "critical"
ping = true
checks = ["tcp:5432", "http:8080/healthz"]
"""


def service(world: World, name: str, check: str) -> Service:
    owner = name if name.startswith("svc:") else world.tailnet.find(name).id
    return world.monitor.view.services[ServiceKey(owner, check)]


def said(world: World, *types: str) -> list[str]:
    return [event.message for event in world.events if event.event_type in types]


class Playing:
    """A world with a database server whose ports are asked."""

    def __init__(self, state_dir: Path, toml: str = DB, **values: str) -> None:
        self.world = World(state_dir, "db", "git", "app", toml=TEAM + toml, **values)  # type: ignore[arg-type]
        self.world.tailnet.change("db", ports={5432: "open", 8080: "open"})

    async def __aenter__(self) -> World:
        await self.world.start()
        await self.world.run(90)
        return self.world

    async def __aexit__(self, *_: object) -> None:
        await self.world.kill()


# -- checked ports -----------------------------------------------------------------------------------------


@virtual
async def test_a_port_that_refuses_is_an_outage_of_the_service_and_not_of_its_node(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        assert service(world, "db", "tcp:5432").state == "ok"
        assert service(world, "db", "tcp:5432").latency_ms == 12.0
        assert said(world, "service_down", "service_up") == []
        fell = world.clock.wall()
        world.tailnet.change("db", ports={5432: "refused", 8080: "open"})
        await world.run(240)
        found = service(world, "db", "tcp:5432")
        assert (found.state, world.state("db")) == ("refused", "online")
        assert fell <= found.since <= fell + 60
        assert said(world, "service_down") == ["db is online, but its port 5432 refuses"]
        assert world.alerts() == [("service_down", "db")]
        alert = world.alert("service_down")
        assert (alert.severity, alert.since, alert.subject) == ("critical", found.since, "tcp:5432")
        assert service(world, "db", "http:8080/healthz").state == "ok"
        assert len(world.messages()) == 1
        world.tailnet.change("db", ports={5432: "open", 8080: "open"})
        await world.run(90)
        assert world.alerts() == []
        assert service(world, "db", "tcp:5432").state == "ok"
        assert len(said(world, "service_up")) == 1
        await world.run(400)
        assert len(world.messages()) == 2


@virtual
async def test_two_misses_are_no_outage(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        for _ in range(5):
            world.tailnet.change("db", ports={5432: "refused", 8080: "open"})
            while world.parts.known.beyond.services.misses(ServiceKey(world.node("db").id, "tcp:5432")) < 2:
                await world.run(1)
            world.tailnet.change("db", ports={5432: "open", 8080: "open"})
            await world.run(70)
        assert said(world, "service_down") == []
        assert service(world, "db", "tcp:5432").misses == 0


@virtual
async def test_outcomes_and_their_words(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.change("db", ports={5432: "silent", 8080: "failing"})
        await world.run(200)
        assert service(world, "db", "tcp:5432").state == "ok", "a connection stands: nothing more is wanted"
        assert service(world, "db", "http:8080/healthz").state == "bad_answer"
        assert said(world, "service_down") == [
            "db is online, but its http:8080/healthz answers badly (answered 503)"
        ]
        world.tailnet.change("db", ports={5432: "open", 8080: "silent"})
        await world.run(200)
        assert service(world, "db", "http:8080/healthz").state == "no_answer"
        assert len(said(world, "service_down")) == 1, "another way of failing is no second outage"


@virtual
async def test_nothing_is_known_of_a_service_while_its_node_is_offline(tmp_path: Path) -> None:
    async with Playing(tmp_path, offline_after="0s") as world:
        world.tailnet.off("db")
        await world.run(120)
        assert service(world, "db", "tcp:5432").state == "unknown"
        assert [kind for kind, _ in world.alerts()] == ["node_offline"]
        world.tailnet.on("db")
        await world.run(120)
        assert service(world, "db", "tcp:5432").state == "ok"
        assert said(world, "service_down", "service_up") == []


@virtual
async def test_an_alert_is_held_while_its_node_is_down_and_goes_on_after(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.change("db", ports={8080: "open"})
        await world.run(240)
        assert world.alerts() == [("service_down", "db")]
        world.tailnet.off("db")
        await world.run(600)
        assert ("service_down", "db") in world.alerts(), "only an answer ends it"
        world.tailnet.on("db")
        await world.run(300)
        assert world.alerts() == [("service_down", "db")]
        assert len(said(world, "service_down")) == 1
        world.tailnet.change("db", ports={5432: "open", 8080: "open"})
        await world.run(90)
        assert world.alerts() == []


@virtual
async def test_while_tsmon_is_blind_no_port_is_asked_and_none_fails(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.lose_control()
        await world.run(120)
        asked = world.parts.checking.asked
        world.tailnet.change("db", ports={})
        await world.run(600)
        assert world.parts.checking.asked == asked
        assert said(world, "service_down") == []


@virtual
async def test_a_port_that_refuses_proves_that_the_node_lives(tmp_path: Path) -> None:
    world = World(tmp_path, "db", "git", toml=TEAM + DB)
    await world.start()
    try:
        ping = world.source.ping

        async def deaf(ip: str) -> Ping:
            """No ping of db is ever answered, whatever its ports do."""
            if ip in world.tailnet.find("db").ips:
                await world.clock.sleep(5.0)
                return Ping("missed")
            return await ping(ip)

        world.source.ping = deaf  # type: ignore[method-assign]
        await world.run(600)
        assert world.state("db") == "online"
        assert service(world, "db", "tcp:5432").state == "refused"
        world.tailnet.hang("db")
        await world.run(400)
        assert world.state("db") == "offline", "without any answer the pings are believed"
    finally:
        await world.kill()


@virtual
async def test_what_cannot_be_asked_is_said_and_is_no_outage(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.can_dial = False
        await world.run(120)
        assert service(world, "db", "tcp:5432").state == "unknown"
        assert "no port can be asked" in world.monitor.view.cannot_ask
        assert said(world, "service_down") == []
        world.tailnet.can_dial = True
        await world.run(120)
        assert service(world, "db", "tcp:5432").state == "ok"
        assert world.monitor.view.cannot_ask == ""


@virtual
async def test_what_is_known_of_a_service_outlives_the_process(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.change("db", ports={8080: "open"})
        await world.run(240)
        before = service(world, "db", "tcp:5432")
        await world.restart(after=30)
        await world.run(120)
        after = service(world, "db", "tcp:5432")
        assert (after.state, after.down_since) == ("refused", before.down_since)
        assert world.alerts() == [("service_down", "db")]
        assert len(said(world, "service_down")) == 1


@virtual
async def test_uptime_and_outages_of_a_service_count_what_was_seen(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        await world.run(1000 - 90)
        world.tailnet.change("db", ports={8080: "open"})
        await world.run(500)
        world.tailnet.change("db", ports={5432: "open", 8080: "open"})
        await world.run(500)
        history, now = ServiceHistory(world.store), world.clock.wall()
        key = ServiceKey(world.node("db").id, "tcp:5432")
        uptime = (await history.uptime(now - 2000, now))[key]
        assert abs(uptime.offline_s - 500) <= 61
        assert abs(uptime.online_s - 1500) <= 122
        (outage,) = (await history.outages(now - 2000, now, key.owner))[key]
        assert outage.end is not None
        assert abs(outage.end - outage.start - 500) <= 61
        bars = (await history.bars([now - 2000 + 500 * n for n in range(5)], key.owner))[key]
        assert len(bars.states) == 4
        assert set(bars.states[2:3]) <= {"x", "m"}


@virtual
async def test_a_check_that_is_configured_no_more_ends_its_alert_in_silence(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.change("db", ports={8080: "open"})
        await world.run(240)
        assert world.alerts() == [("service_down", "db")]
        sent = len(world.messages())
        await world.reload_roles(DB.replace('"tcp:5432", ', ""))
        await world.run(60)
        assert world.alerts() == []
        assert [key.check for key in world.monitor.view.services] == ["http:8080/healthz"]
        await world.run(400)
        assert len(world.messages()) == sent


@virtual
async def test_tailscale_services_are_checked_where_they_are_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, "db", "git", services="true")
    world.tailnet.change("git", ports={443: "open"})
    world.tailnet.services["svc:web"] = SimService("100.100.0.1", ["tcp:443", "tcp:8000-8001"], "git")
    await world.start()
    try:
        await world.run(300)
        states = {key: one.state for key, one in world.monitor.view.services.items()}
        assert states == {
            ("svc:web", "tcp:443"): "ok",
            ("svc:web", "tcp:8000"): "refused",
            ("svc:web", "tcp:8001"): "refused",
        }
        assert ("service_down", "svc:web") in world.alerts()
        assert "svc:web: port 8000 refuses" in said(world, "service_down")
        del world.tailnet.services["svc:web"]
        await world.run(60)
        assert world.monitor.view.services == {}
        assert world.alerts() == []
    finally:
        await world.kill()


@virtual
async def test_samples_of_services_are_taken_with_those_of_nodes(tmp_path: Path) -> None:
    async with Playing(tmp_path) as world:
        world.tailnet.change("db", ports={8080: "open"})
        await world.run(700)
        _, samples = world.service_samples[-1]
        assert {(one.hostname, one.check, one.up) for one in samples} == {
            ("db", "tcp:5432", 0),
            ("db", "http:8080/healthz", 1),
        }


@virtual
async def test_without_checks_nothing_is_asked(tmp_path: Path) -> None:
    async with running(tmp_path, "db", "git") as world:
        await world.run(600)
        assert world.parts.checking.asked == 0
        assert world.monitor.view.services == {}


# -- routes ------------------------------------------------------------------------------------------------


async def _two_routers(tmp_path: Path, toml: str = "") -> World:
    world = World(tmp_path, "r1", "r2", "db", bus=True, toml=TEAM + toml)
    world.tailnet.change("r1", routes=["10.0.0.0/24"])
    await world.start()
    await world.run(120)
    return world


@virtual
async def test_a_route_that_moved_is_an_event_and_its_old_router_is_asked_at_once(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path)
    try:
        assert said(world, "route_moved") == []
        world.tailnet.hang("r1")
        await world.run(14)
        world.tailnet.change("r1", routes=[])
        world.tailnet.change("r2", routes=["10.0.0.0/24"])
        await world.run(14)
        assert said(world, "route_moved") == ["10.0.0.0/24 moved from r1 to r2"]
        assert world.state("r1") == "offline", "found within seconds of the move"
        route = world.monitor.view.routes.subnets["10.0.0.0/24"]
        assert route.routers == (world.node("r2").id,)
        await world.run(300)
        assert ("route_lost", "r1") not in world.alerts()
    finally:
        await world.kill()


@virtual
async def test_a_router_that_must_not_be_pinged_is_not(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path, '[[roles]]\nname = "router"\nhosts = ["r?"]\nping = false\n')
    try:
        world.tailnet.hang("r1")
        world.tailnet.change("r1", routes=[])
        world.tailnet.change("r2", routes=["10.0.0.0/24"])
        await world.run(200)
        assert said(world, "route_moved") == ["10.0.0.0/24 moved from r1 to r2"]
        assert world.state("r1") == "online", "nobody may ask it"
    finally:
        await world.kill()


@virtual
async def test_a_route_without_a_router_is_lost_until_one_is_back(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path)
    try:
        world.tailnet.off("r1")
        await world.run(400)
        assert ("route_lost", "r1") in world.alerts()
        assert world.alert("route_lost").message == "nobody routes 10.0.0.0/24 any more: r1 was the last"
        world.tailnet.on("r1")
        await world.run(60)
        assert world.alerts() == []
        assert said(world, "route_moved") == []
    finally:
        await world.kill()


@virtual
async def test_a_route_that_nobody_needs_is_acknowledged_and_forgotten(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path)
    try:
        world.tailnet.change("r1", routes=[])
        await world.run(400)
        assert world.alerts() == [("route_lost", "r1")]
        await world.parts.operators.acknowledge(world.alert("route_lost").id, "alice")
        await world.run(60)
        assert world.alerts() == []
        assert world.monitor.view.routes.subnets == {}
    finally:
        await world.kill()


@virtual
async def test_several_routers_of_one_prefix_and_overlapping_ones_are_no_moves(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path)
    try:
        world.tailnet.change("r2", routes=["10.0.0.0/24", "10.0.0.0/8"])
        await world.run(60)
        world.tailnet.change("r1", routes=[])
        await world.run(60)
        assert said(world, "route_moved") == []
        world.tailnet.off("r2")
        await world.run(400)
        lost = {alert.subject for alert in world.monitor.alerts.values() if alert.kind == "route_lost"}
        assert lost == {"10.0.0.0/24", "10.0.0.0/8"}
    finally:
        await world.kill()


@virtual
async def test_routes_are_left_as_they_were_right_after_sight_returned(tmp_path: Path) -> None:
    world = await _two_routers(tmp_path)
    try:
        world.tailnet.lose_control()
        await world.run(200)
        world.tailnet.change("r1", routes=[])
        world.tailnet.change("r2", routes=["10.0.0.0/24"])
        world.tailnet.regain_control()
        await world.run(20)
        world.tailnet.change("r2", routes=[])
        world.tailnet.change("r1", routes=["10.0.0.0/24"])
        await world.run(200)
        assert said(world, "route_moved") == []
    finally:
        await world.kill()


@virtual
async def test_the_last_exit_node_is_missed(tmp_path: Path) -> None:
    world = World(tmp_path, "exit-a", "exit-b", "db")
    world.tailnet.change("exit-a", exit_node_option=True)
    world.tailnet.change("exit-b", exit_node_option=True)
    await world.start()
    try:
        await world.run(120)
        world.tailnet.off("exit-a")
        await world.run(400)
        assert world.alerts() == []
        world.tailnet.off("exit-b")
        await world.run(400)
        assert world.alerts() == [("exit_node_lost", "exit-b")]
        world.tailnet.on("exit-a")
        await world.run(60)
        assert world.alerts() == []
    finally:
        await world.kill()


# -- the tailnet lock, and why tsmon is blind --------------------------------------------------------------


@virtual
async def test_who_waits_for_a_signature_is_named_until_it_is_signed(tmp_path: Path) -> None:
    async with running(tmp_path, "db", "git") as world:
        await world.run(30)
        world.tailnet.lock = []
        await world.run(400)
        assert world.alerts() == []
        world.tailnet.lock = ["newcomer"]
        await world.run(90)
        assert world.alerts() == [("locked_out", "newcomer")]
        assert said(world, "node_locked_out") == [
            "newcomer waits for a signature: the tailnet lock keeps it out"
        ]
        await world.restart()
        await world.run(90)
        assert len(said(world, "node_locked_out")) == 1
        world.tailnet.lock = []
        await world.run(90)
        assert world.alerts() == []


@virtual
async def test_the_one_message_says_why_control_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path, "db", "git") as world:
        await world.run(30)
        world.finding = "no_network"
        world.tailnet.lose_control()
        await world.run(300)
        assert world.diagnosed == ["https://control.example"]
        assert world.alert("monitor_blind").message.endswith(f"; {WORDS['no_network']}")
        blind = world.monitor.view.blind
        assert blind is not None
        assert WORDS["no_network"] in blind.message
        world.tailnet.regain_control()
        await world.run(300)
        world.finding = "control_silent"
        world.tailnet.lose_control()
        await world.run(300)
        assert world.alert("monitor_blind").message.endswith(f"; {WORDS['control_silent']}")


@virtual
async def test_nobody_is_asked_why_where_that_is_switched_off(tmp_path: Path) -> None:
    async with running(tmp_path, "db", "git", diagnose="false") as world:
        await world.run(30)
        world.tailnet.lose_control()
        await world.run(300)
        assert world.diagnosed == []
        assert world.alerts() == [("monitor_blind", None)]
