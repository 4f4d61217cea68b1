"""The timelines about who is there: renamed, removed, unreadable, left out; rows of docs/timelines.md."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.support.virtual import virtual
from tests.support.world import TEAM, World, running
from tsmon.config import load
from tsmon.daemon.reload import Reload

PROD = "chocolate-factory"


async def _reload(world: World, settings: str) -> None:
    """A reload with these settings before the channel's."""
    path = world.state_dir / "tsmon.toml"
    path.write_text(settings + TEAM)
    world.settings = load(path, {}, {})
    await Reload(world.parts, None).apply(world.settings)


@virtual
async def test_row_37_a_critical_node_is_renamed(tmp_path: Path) -> None:
    """The role is missed, not the node; who says that it is not needed is believed over restarts."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.change(PROD, name="web-1")
        await world.run(100)
        assert world.alerts() == []
        assert world.alerts(state="pending") == [("node_missing", PROD)]
        await world.run(60)
        assert world.alerts() == [("node_missing", PROD)]
        assert world.monitor.view.health().status == "critical"
        assert world.messages() == [f"CRITICAL: the role prod has no node: {PROD} was the last"]
        alert = world.alert("node_missing")
        assert alert.message.endswith("was the last, and is called web-1 now")
        assert (alert.severity, alert.node_type) == ("critical", "production")
        await world.parts.operators.acknowledge(alert.id, "alice")
        assert world.alerts() == []
        assert world.monitor.view.health().status == "healthy"
        await world.run(300)
        await world.restart()
        await world.run(600)
        assert world.alerts() == world.alerts(state="pending") == []
        assert world.monitor.view.health().status == "healthy"
        assert world.messages()[1:] == ["INFO: the role prod is not needed: acknowledged by alice"]
        world.tailnet.change("web-1", name=PROD)
        await world.run(30)
        world.tailnet.change(PROD, name="web-1")
        await world.run(200)
        assert world.alerts() == [("node_missing", PROD)], "filled again, it is missed again"


@virtual
async def test_row_37_the_role_is_filled_again_by_a_node_that_is_off(tmp_path: Path) -> None:
    """The same ID back ends it, and whoever is back offline is not called well."""
    async with running(tmp_path) as world:
        await world.run(61)
        machine = world.tailnet.find(PROD)
        world.tailnet.remove(PROD)
        await world.run(200)
        assert world.alerts() == [("node_missing", PROD)]
        await world.restart(after=60)
        await world.run(60)
        assert world.alerts() == [("node_missing", PROD)], "it outlives a restart"
        world.tailnet.nodes[machine.id] = machine
        world.tailnet.off(PROD)
        await world.run(30)
        assert world.alerts() == []
        words = [event.message for event in world.events if event.event_type == "node_added"]
        assert words == [f"{PROD} is back in the tailnet, but is offline"]
        await world.run(200)
        assert world.messages()[1:] == [
            f"OK: {PROD} fills the role prod again, but is offline",
            f"CRITICAL: {PROD} is offline",
        ]


@virtual
async def test_row_37_a_removed_node_comes_back_under_another_name(tmp_path: Path) -> None:
    """Its role is missed until somebody says that it is not needed."""
    async with running(tmp_path) as world:
        await world.run(61)
        machine = world.tailnet.find("git")
        world.tailnet.remove("git")
        await world.run(60)
        machine.name = "archive"
        world.tailnet.nodes[machine.id] = machine
        world.tailnet.change("archive")
        await world.run(200)
        alert = world.alert("node_missing")
        assert (alert.state, alert.hostname, alert.severity) == ("firing", "git", "warning")
        added = [event.message for event in world.events if event.event_type == "node_added"]
        assert added == ["archive is back in the tailnet (it was called git)"]
        await world.parts.operators.acknowledge(alert.id, "bob")
        await world.run(600)
        assert world.alerts() == []


@virtual
async def test_row_37_a_reload_takes_the_role_away(tmp_path: Path) -> None:
    """Whoever changes the roles knows it: nothing is missed, and what nobody asks for any more ends."""
    async with running(tmp_path) as world:
        await world.run(61)
        await _reload(world, 'project_name = "vanilla"\n')
        await world.run(600)
        assert world.alerts() == world.alerts(state="pending") == []
        assert world.monitor.view.health().status == "healthy"
        world.tailnet.remove("git")
        await world.run(200)
        assert world.alerts() == [("node_missing", "git")]
        await _reload(world, 'project_name = "vanilla"\ncheck_interval = "1m"\n')
        assert world.alerts() == [("node_missing", "git")], "this reload is about something else"
        await _reload(world, "default_roles = false\n")
        assert world.alerts() == []
        await world.run(600)
        assert len(world.messages()) == 1


@virtual
async def test_row_38_prods_row_cannot_be_decoded(tmp_path: Path) -> None:
    """It is unknown and people are warned; whoever else is deleted is removed as ever."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.change(PROD, malformed=True)
        world.tailnet.off(PROD)
        world.tailnet.remove("dev")
        await world.run(60)
        assert world.told("node_removed") == [("node_removed", "dev")]
        assert world.state(PROD) == "unknown"
        await world.run(100)
        assert ("row_unreadable", PROD) in world.alerts()
        assert f"WARNING: what the source says of {PROD} cannot be read" in world.messages()
        assert world.monitor.view.health().status == "critical", "dev's role is missing, prod is unknown"
        await world.restart()
        await world.run(60)
        assert ("row_unreadable", PROD) in world.alerts()
        world.tailnet.change(PROD, malformed=False)
        await world.run(30)
        assert world.state(PROD) == "offline"
        assert ("row_unreadable", PROD) not in world.alerts()
        await world.run(200)
        assert ("node_offline", PROD) in world.alerts()


@virtual
async def test_row_38_a_row_of_nobody(tmp_path: Path) -> None:
    """A key that nobody has may be one of those that went missing with it, and of no others."""
    async with running(tmp_path) as world:
        for n in range(3):
            world.tailnet.add(f"server-{n}", tags=["tag:server"])
        await world.run(61)
        world.tailnet.change("git", malformed=True, renewals=1)
        world.tailnet.remove("server-0")
        await world.run(60)
        assert world.state("git") == "unknown", "the critical one first"
        assert world.told("node_removed") == [("node_removed", "server-0")]
        world.tailnet.remove("server-1")
        world.tailnet.remove(PROD)
        await world.run(60)
        removed = {name for _, name in world.told("node_removed")}
        assert removed == {"server-0", "server-1", PROD}, "they were there beside that row"
        world.tailnet.change("git", malformed=False)
        await world.run(30)
        assert world.state("git") == "online"
        assert world.told("node_changed") == []


@virtual
async def test_row_39_another_exclude_removes_nobody(tmp_path: Path) -> None:
    """What it leaves out waits, what it lets in goes on."""
    async with running(tmp_path, toml="exclude = []\n" + TEAM) as world:
        for n in range(30):
            world.tailnet.add(f"sharee-{n}", sharee=True)
        world.tailnet.add("git-2", sharee=True)
        await world.run(61)
        world.tailnet.off("git-2")
        await world.run(300)
        assert world.alerts() == [("node_offline", "git-2")]
        before, messages = len(world.told()), len(world.messages())
        await _reload(world, "")
        await world.run(300)
        assert len(world.monitor.view.nodes) == 5
        assert world.monitor.view.blind is None
        assert world.told()[before:] == [("operator", None), ("alert_resolved", "git-2")]
        assert world.alerts() == world.alerts(state="pending") == []
        await world.restart()
        await world.run(60)
        assert len(world.monitor.view.nodes) == 5
        before = len(world.told())
        await _reload(world, "exclude = []\n")
        await world.run(60)
        assert len(world.monitor.view.nodes) == 36
        assert world.told()[before:] == [("operator", None)], "all are as they were"
        assert len(world.messages()) == messages
        uptime = await world.uptime("sharee-3", 0, world.clock.mono())
        assert uptime.uptime_percentage == 100
        assert uptime.unknown_s > 300, "nobody looked at it meanwhile"
        world.tailnet.add("new-one", sharee=True)
        await world.run(30)
        assert world.told()[-2:] == [("node_added", "new-one"), ("node_online", "new-one")]


@virtual
async def test_row_39_what_exclude_lets_in_for_the_first_time(tmp_path: Path) -> None:
    """It was there before: it did not join."""
    async with running(tmp_path) as world:
        world.tailnet.add("sharee", sharee=True)
        await world.run(61)
        await _reload(world, "exclude = []\n")
        await world.run(30)
        [added] = [event for event in world.events if event.event_type == "node_added"]
        assert added.message == "sharee is left out no longer (exclude)"


@virtual
async def test_row_40_the_tailnet_is_renamed(tmp_path: Path) -> None:
    """Name and suffix change together: the machines' keys say that it is the same."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.rename("new.example", "tail-new.example")
        await world.run(60)
        assert world.monitor.view.blind is None
        [event] = [event for event in world.events if event.event_type == "tailnet_renamed"]
        assert event.message.startswith("the tailnet example.com is now new.example")
        await world.kill()
        world.tailnet.rename("third.example", "tail3.example")
        world.tailnet.remove("dev")
        await world.start()
        await world.run(60)
        assert world.monitor.view.blind is None
        assert len(world.told("tailnet_renamed")) == 2
        uptime = await world.uptime("git", 0, world.clock.mono())
        assert uptime.uptime_percentage == 100
        world.tailnet.other = ("other.example", "tail2.example")
        await world.run(60)
        blind = world.monitor.view.blind
        assert blind is not None
        assert blind.reason == "other_tailnet"


@pytest.mark.slow
@virtual
async def test_row_41_ephemeral_nodes_and_a_reinstalled_machine(tmp_path: Path) -> None:
    """As long as another node fills the role nothing is missed."""
    async with running(tmp_path) as world:
        await world.run(86_500)
        for n in range(10):
            world.tailnet.add(f"{PROD}-pr-{n}", tags=["tag:ci"])
            await world.run(20)
        await world.run(300)
        for n in range(10):
            world.tailnet.remove(f"{PROD}-pr-{n}")
            await world.run(20)
        await world.run(600)
        assert world.messages() == []
        assert world.monitor.view.health().status == "healthy"
        world.tailnet.off("git")
        await world.run(60)
        world.tailnet.add("git-1", os_hostname="git")
        await world.run(40)
        fallen = world.clock.mono() - 100
        world.tailnet.remove("git")
        await world.run(600)
        assert world.messages() == []
        assert world.alerts() == world.alerts(state="pending") == []
        assert world.monitor.view.health().status == "healthy"
        [added] = [e for e in world.events if e.event_type == "node_added" and e.hostname == "git-1"]
        assert added.message == "git-1 joined the tailnet, as the successor of git"
        uptime = await world.uptime("git-1", 0, world.clock.mono())
        assert uptime.offline_s == pytest.approx(60, abs=16), "from git's end to git-1's begin"
        assert uptime.coverage == 100
        [outage] = await world.outages("git-1")
        assert world.since_start(outage.start) == pytest.approx(fallen, abs=16)
        await world.restart()
        await world.run(60)
        assert [one.hostname for one in world.node("git-1").predecessors] == ["git"]


@virtual
async def test_what_an_older_version_missed_is_its_roles(tmp_path: Path) -> None:
    """Before version 0.2 the alert belonged to the node, and the database knew which roles were filled."""
    async with running(tmp_path) as world:
        await world.run(61)
        world.tailnet.remove(PROD)
        await world.run(200)
        alert = world.alert("node_missing")
        await world.kill()
        old = msgspec.msgpack.encode(msgspec.structs.replace(alert, subject="", delay=None))

        with closing(sqlite3.connect(tmp_path / "tsmon.db")) as db, db:
            db.execute("UPDATE alerts SET body = ? WHERE id = ?", (old, alert.id))
            db.execute("UPDATE meta SET key = 'roles_fitted' WHERE key = 'roles_missing'")
        await world.start()
        await world.run(60)
        assert world.alert("node_missing").subject == "prod"
        assert world.alert("node_missing").id == alert.id
        assert world.monitor.view.health().status == "critical"
        world.tailnet.add(PROD)
        await world.run(30)
        assert world.alerts() == []
        assert world.messages()[-1] == f"OK: {PROD} fills the role prod again"


@pytest.mark.parametrize("alert", ["none", "warning"])
@virtual
async def test_a_role_without_alerts_is_not_missed(tmp_path: Path, alert: str) -> None:
    """Nobody could acknowledge it."""
    role = f'[[roles]]\nname = "db"\nhosts = ["db"]\ncritical = true\nalert = "{alert}"\n'
    async with running(tmp_path, "db", "git", toml=TEAM + role) as world:
        await world.run(61)
        world.tailnet.remove("db")
        await world.run(300)
        missed = alert != "none"
        assert bool(world.alerts()) == missed
        assert (world.monitor.view.health().critical_offline == 1) == missed


@virtual
async def test_row_42_the_old_one_comes_back(tmp_path: Path) -> None:
    """Then they are two machines, each with its own history."""
    async with running(tmp_path) as world:
        await world.run(7200)
        world.tailnet.off("git")
        await world.run(600)
        world.tailnet.add("git-1", os_hostname="git")
        await world.run(600)
        joined = await world.uptime("git-1", 0, world.clock.mono())
        assert joined.offline_s == pytest.approx(600, abs=32)
        world.tailnet.on("git")
        await world.run(60)
        [event] = [event for event in world.events if event.event_type == "node_separated"]
        assert event.message == "git is online again: git-1 is another machine"
        assert world.node("git-1").predecessors == ()
        assert world.node("git").successor == ""
        apart = await world.uptime("git-1", 0, world.clock.mono())
        assert (apart.uptime_percentage, apart.offline_s) == (100, 0)
        world.tailnet.off("git-1")
        await world.run(60)
        assert len(world.told("node_separated")) == 1
        assert world.node("git").predecessors == (), "it was there first"


@virtual
async def test_row_42_a_chain_is_cut_where_one_comes_back(tmp_path: Path) -> None:
    """git, git-1 and git again: the first one is back when the second is long out of memory."""
    async with running(tmp_path) as world:
        await world.run(7200)
        first = world.tailnet.find("git")
        world.tailnet.remove("git")
        await world.run(3700)
        world.tailnet.add("git-1", os_hostname="git")
        await world.run(7200)
        second = world.tailnet.find("git-1")
        world.tailnet.remove("git-1")
        await world.run(60)
        world.tailnet.add("git")
        await world.run(7200)
        assert [one.hostname for one in world.node("git").predecessors] == ["git-1", "git"]
        whole = await world.uptime("git", 0, world.clock.mono())
        assert whole.online_s == pytest.approx(3 * 7200, abs=100)
        assert world.monitor.view.removed == {}
        third = world.node("git").id
        first.name = "git-2"
        world.tailnet.nodes[first.id] = first
        await world.run(60)
        assert world.told("node_separated") == [("node_separated", "git-1")]
        assert [one.id for one in world.monitor.view.nodes[third].predecessors] == [second.id]
        apart = await world.uptime_of(third, 0, world.clock.mono())
        assert apart.online_s == pytest.approx(2 * 7200, abs=100)


@pytest.mark.slow
@virtual
async def test_row_43_one_of_many_is_removed(tmp_path: Path) -> None:
    """Others fill its role: it is said once, and no alert stays."""
    role = '[[roles]]\nname = "db"\nhosts = ["db-*"]\ncritical = true\n'
    async with running(tmp_path, *(f"db-{n}" for n in range(4)), toml=TEAM + role) as world:
        await world.run(90_000)
        world.tailnet.remove("db-2")
        await world.run(400)
        assert world.messages() == ["INFO: db-2 was removed from the tailnet"]
        assert "db-2 was removed, 3 of 4 of the role db left" in world.told_to["team"][0].text
        assert world.alerts() == world.alerts(state="pending") == []
        assert world.monitor.view.health().status == "healthy"
        world.tailnet.add("db-9")
        await world.run(600)
        world.tailnet.remove("db-9")
        world.tailnet.remove("db-3")
        await world.run(30)
        world.tailnet.add("db-3")
        await world.run(400)
        assert len(world.messages()) == 1, "db-9 was young, db-3 has a successor"
