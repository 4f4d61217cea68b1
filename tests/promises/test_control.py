"""What the control server knows, played through: coverage, drift, its alerts, its failures (section 12 of
docs/rules.md)."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.sim_control import CONTROL, SimControl
from tests.support.virtual import virtual
from tests.support.world import World, settings
from tsmon.daemon.reload import Reload
from tsmon.monitor.control.coverage import Coverage, coverage
from tsmon.source.control.devices import Credential
from tsmon.source.control.fault import ControlError

DAY = 86400.0
INTERVAL = 300.0
CONFIRMED = INTERVAL + 31
"""Seconds after which a change was seen twice."""


@asynccontextmanager
async def controlled(
    state_dir: Path,
    *names: str,
    before: Callable[[World, SimControl], None] = lambda _, __: None,
    **values: Any,
) -> AsyncIterator[tuple[World, SimControl]]:
    """A world whose control server is asked; `before` acts before the start."""
    world = World(state_dir, *names, **(CONTROL | values))
    world.control = control = SimControl(world.tailnet, world.clock)
    before(world, control)
    await world.start()
    await world.run(60)
    try:
        yield world, control
    finally:
        await world.kill()


def covered(world: World) -> Coverage:
    view = world.monitor.view
    assert view.inventory is not None
    return coverage(view, view.inventory)


async def stored(world: World) -> int:
    """How many machines of the control server the store keeps."""

    def count(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM control_devices").fetchone()[0])

    return await world.store.read(count)


def drift(world: World) -> list[str]:
    """The messages of the events that the control server's word made."""
    return [
        event.message
        for event in world.events
        if event.event_type == "node_changed" and event.details.get("source") == "control"
    ]


# -- coverage ----------------------------------------------------------------------------------------------


@virtual
async def test_what_the_policy_hides_is_known_and_not_seen(tmp_path: Path) -> None:
    def before(world: World, control: SimControl) -> None:
        world.tailnet.add("partner.tail9.example", shared=True)
        control.add("vault")
        control.add("kiosk", authorized=False)
        control.add("locked", tailnetLockError="not signed")

    async with controlled(tmp_path, before=before) as (world, _):
        found = covered(world)
        assert (found.known, found.seen) == (8, 5)
        assert [(row.device.hostname, row.because) for row in found.unseen] == [
            ("kiosk", "waits_for_approval"),
            ("locked", "locked_out"),
            ("vault", "policy"),
        ]
        assert [(row.node.hostname, row.because) for row in found.local_only] == [
            ("partner.tail9.example", "shared")
        ]
        assert world.told("node_added", "node_changed") == []
        assert world.alerts() == [], "the first answer says nothing"


@virtual
async def test_a_node_that_just_joined_is_not_called_hidden(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("fresh", created="2026-09-21T13:46:00Z")
        view = world.monitor.view
        assert view.as_of is not None
        await world.run(INTERVAL)
        assert [row.because for row in covered(world).unseen] == ["policy"]


@virtual
async def test_without_control_nothing_is_asked_or_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.control = SimControl(world.tailnet, world.clock)
    await world.start()
    await world.run(600)
    assert (world.control.requests, world.parts.asking, world.monitor.view.inventory) == (0, None, None)
    assert await stored(world) == 0
    await world.kill()


@virtual
async def test_an_answer_of_another_tailnet_is_not_taken(tmp_path: Path) -> None:
    def before(world: World, control: SimControl) -> None:
        control.change("monitor", addresses=["100.99.9.9"])

    async with controlled(tmp_path, before=before) as (world, control):
        await world.run(CONFIRMED)
        inventory = world.monitor.view.inventory
        assert inventory is not None
        assert "the credential is one of another tailnet" in inventory.error
        assert (dict(inventory.devices), inventory.as_of) == ({}, None)
        await world.run(1200)
        assert world.alerts() == [("control_api_failing", None)]
        control.change("monitor", addresses=list(world.tailnet.own.ips))
        await world.run(INTERVAL)
        assert (covered(world).known, world.alerts()) == (5, [])


# -- drift -------------------------------------------------------------------------------------------------

CHANGES = [
    ({"advertisedRoutes": ["192.0.2.0/24"]}, "git: advertised routes +192.0.2.0/24"),
    ({"enabledRoutes": ["192.0.2.0/24"]}, "git: approved routes +192.0.2.0/24"),
    ({"keyExpiryDisabled": False}, "git: its key expires again"),
    ({"clientVersion": "1.104.0"}, "git: Tailscale 1.102.3-t0123456789-g012345678 became 1.104.0"),
    ({"authorized": False}, "git: it waits for approval"),
]


@pytest.mark.parametrize(("fields", "says"), CHANGES, ids=lambda value: next(iter(value), ""))
@virtual
async def test_a_change_counts_once_two_answers_show_it(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    async with controlled(tmp_path) as (world, control):
        control.change("git", **fields)
        await world.run(INTERVAL - 60)
        assert drift(world) == []
        await world.run(31)
        assert drift(world) == [says]
        await world.run(3 * INTERVAL)
        assert drift(world) == [says]
        event = next(event for event in world.events if event.message == says)
        assert (event.severity, event.hostname, event.node_type) == ("ok", "git", "git")


@virtual
async def test_what_one_answer_alone_says_does_not_count(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        for _ in range(3):
            control.change("git", enabledRoutes=["192.0.2.0/24"])
            await world.run(INTERVAL - 45)
            control.change("git", enabledRoutes=[])
            await world.run(INTERVAL + 45)
        assert drift(world) == []


@virtual
async def test_tags_and_owner_of_a_node_that_is_seen_are_left_to_the_local_view(tmp_path: Path) -> None:
    def before(_: World, control: SimControl) -> None:
        control.add("vault", tags=["tag:a"])

    async with controlled(tmp_path, before=before) as (world, control):
        for name in ("git", "vault"):
            control.change(name, tags=["tag:b"], user="bob@example.com")
        control.change("vault", keyExpiryDisabled=False, expires="2026-01-01T00:00:00Z")
        await world.run(CONFIRMED)
        owner_and_tags = "owner alice@example.com became bob@example.com, tags +tag:b -tag:a"
        assert drift(world) == [f"vault: {owner_and_tags}, its key expired, its key expires again"]


@virtual
async def test_hidden_machines_that_come_and_go(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("vault")
        control.add("ci-1", isEphemeral=True)
        world.tailnet.add("web")
        control.follow()
        await world.run(CONFIRMED)
        control.remove("vault", "ci-1")
        await world.run(CONFIRMED)
        assert drift(world) == [
            "vault joined the tailnet, says the control server; it is not seen from here",
            "vault left the tailnet, says the control server; it is not seen from here",
        ]
        assert world.told("node_added") == [("node_added", "web")]


@virtual
async def test_a_change_while_tsmon_was_down_counts_from_what_was_noted(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("vault")
        await world.run(CONFIRMED)
        await world.kill()
        control.change("git", enabledRoutes=["192.0.2.0/24"], advertisedRoutes=["192.0.2.0/24"])
        control.error = ControlError("unreachable", "down")
        await world.start()
        await world.run(30)
        assert covered(world).known == 6, "the inventory of the last run"
        control.error = None
        await world.run(2 * INTERVAL)
        assert drift(world)[1:] == ["git: advertised routes +192.0.2.0/24, approved routes +192.0.2.0/24"]
        await world.restart()
        await world.run(2 * INTERVAL)
        assert len(drift(world)) == 2


@virtual
async def test_another_control_server_is_a_new_beginning(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("vault")
        await world.run(CONFIRMED)
        await world.kill()
        world.settings = settings(tmp_path / "tsmon.toml", **CONTROL, control__url="https://proxy.example")
        control.remove("vault")
        control.change("git", enabledRoutes=["192.0.2.0/24"])
        await world.start()
        await world.run(2 * INTERVAL)
        assert len(drift(world)) == 1
        kept = await world.store.read(
            lambda db: db.execute("SELECT count(*) FROM control_devices").fetchone()
        )
        assert kept == (5,)


@virtual
async def test_nothing_is_noted_while_blind(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        world.tailnet.lose_control()
        control.change("git", clientVersion="1.104.0", authorized=False)
        await world.run(3 * INTERVAL)
        assert drift(world) == []
        assert ("device_pending", "git") not in world.alerts()
        world.tailnet.regain_control()
        await world.run(2 * INTERVAL)
        assert drift(world) == [
            "git: it waits for approval, Tailscale 1.102.3-t0123456789-g012345678 became 1.104.0"
        ]
        assert ("device_pending", "git") in world.alerts()


@virtual
async def test_a_row_that_cannot_be_read_is_no_removal(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("vault")
        await world.run(CONFIRMED)
        control.spoil("vault")
        await world.run(3 * INTERVAL)
        assert covered(world).known == 6
        assert len(drift(world)) == 1


@virtual
async def test_fields_that_a_server_leaves_out_are_no_change(tmp_path: Path) -> None:
    def before(_: World, control: SimControl) -> None:
        control.change("git", enabledRoutes=["192.0.2.0/24"], advertisedRoutes=["192.0.2.0/24"])

    async with controlled(tmp_path, before=before) as (world, control):
        control.change_all(enabledRoutes=None, advertisedRoutes=None)
        await world.run(3 * INTERVAL)
        assert drift(world) == []
        inventory = world.monitor.view.inventory
        assert inventory is not None
        git = world.node("git").id
        assert inventory.devices[git].routes_approved == ("192.0.2.0/24",)


@virtual
async def test_who_is_ephemeral(tmp_path: Path) -> None:
    def before(_: World, control: SimControl) -> None:
        control.change("dev", isEphemeral=True)

    async with controlled(tmp_path, before=before) as (world, control):
        dev = world.node("dev").id
        assert world.monitor.view.ephemeral == {dev}
        control.remove("dev")
        await world.run(CONFIRMED)
        assert world.monitor.view.ephemeral == {dev}, "it is marked as long as the view speaks of it"
        await world.restart()
        await world.run(1)
        assert world.monitor.view.inventory is not None


@pytest.mark.slow
@virtual
@pytest.mark.parametrize("ephemeral", [True, False])
@pytest.mark.parametrize("others", [True, False])
async def test_an_ephemeral_node_that_leaves_is_not_missed(
    tmp_path: Path, ephemeral: bool, others: bool
) -> None:
    names = ("git", "dev", "dev-2") if others else ("git", "dev")

    def before(_: World, control: SimControl) -> None:
        control.change("dev", isEphemeral=ephemeral)

    async with controlled(tmp_path, *names, before=before) as (world, control):
        await world.run(DAY + 600)
        world.tailnet.remove("dev")
        control.remove("dev")
        await world.run(CONFIRMED)
        assert ("node_removed", "dev") in world.told()
        await world.restart()
        await world.run(1800)
        assert len(world.messages()) == (0 if ephemeral else 1), world.messages()


# -- alerts ------------------------------------------------------------------------------------------------


@virtual
async def test_a_device_that_waits_for_approval(tmp_path: Path) -> None:
    def before(_: World, control: SimControl) -> None:
        control.add("old", authorized=False)

    async with controlled(tmp_path, before=before) as (world, control):
        control.add("tablet", authorized=False, os="android")
        await world.run(CONFIRMED)
        assert world.alerts() == [("device_pending", "tablet")]
        await world.run(30)
        assert world.messages() == ["WARNING: tablet waits for approval"]
        await world.restart()
        await world.run(2 * INTERVAL)
        assert world.messages() == ["WARNING: tablet waits for approval"]
        control.change("tablet", authorized=True)
        await world.run(CONFIRMED + 30)
        assert world.alerts() == []
        assert world.messages()[1:] == ["OK: tablet was approved"]


@pytest.mark.slow
@virtual
async def test_new_devices_alert_where_they_are_asked_for(tmp_path: Path) -> None:
    async with controlled(tmp_path, control__device_joined="true") as (world, control):
        world.tailnet.add("web")
        control.follow()
        control.add("vault")
        control.add("ci-1", isEphemeral=True)
        await world.run(CONFIRMED + 30)
        assert sorted(world.alerts()) == [("device_joined", "vault"), ("device_joined", "web")]
        assert world.messages() == ["WARNING: 2 devices joined the tailnet"]
        alert = next(alert for alert in world.monitor.alerts.values() if alert.hostname == "vault")
        assert (
            alert.message == "vault (alice@example.com, Linux) joined the tailnet; it is not seen from here"
        )
        await world.parts.operators.acknowledge(alert.id, "bob")
        assert world.alerts() == [("device_joined", "web")]
        await world.run(DAY)
        assert world.alerts() == []
        assert len(world.messages()) == 1


@virtual
async def test_new_devices_do_not_alert_by_themselves(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("vault")
        await world.run(CONFIRMED)
        assert world.alerts() == []


def routers(*names: str) -> Callable[[World, SimControl], None]:
    def before(_: World, control: SimControl) -> None:
        for name in names:
            control.change(name, advertisedRoutes=["192.0.2.0/24"], enabledRoutes=["192.0.2.0/24"])

    return before


@virtual
async def test_a_prefix_that_loses_its_second_router(tmp_path: Path) -> None:
    async with controlled(tmp_path, "r1", "r2", before=routers("r1", "r2")) as (world, _):
        world.tailnet.off("r2")
        await world.run(100)
        assert ("redundancy_lost", "r2") not in world.alerts()
        await world.run(40)
        assert ("redundancy_lost", "r2") in world.alerts()
        assert (
            world.alert("redundancy_lost").message == "192.0.2.0/24 has lost a router, r2: r1 alone routes it"
        )
        await world.restart()
        await world.run(120)
        world.tailnet.on("r2")
        await world.run(30)
        assert world.alerts() == []
        assert "OK: 192.0.2.0/24 has its routers again" in world.messages()


@virtual
async def test_a_router_that_advertises_no_more(tmp_path: Path) -> None:
    async with controlled(tmp_path, "r1", "r2", before=routers("r1", "r2")) as (world, control):
        control.change("r1", advertisedRoutes=[])
        await world.run(2 * INTERVAL)
        assert world.alerts() == [("redundancy_lost", "r1")]
        control.change("r1", enabledRoutes=[])
        await world.run(CONFIRMED)
        assert world.alerts() == [], "an administrator wants one router only"
        assert not [title for title in world.messages() if title.startswith("OK")]


@virtual
async def test_a_lone_router_is_no_loss(tmp_path: Path) -> None:
    def before(world: World, control: SimControl) -> None:
        routers("r1", "r2")(world, control)
        world.tailnet.off("r2")

    async with controlled(tmp_path, "r1", "r2", before=before) as (world, _):
        await world.run(3 * INTERVAL)
        assert "redundancy_lost" not in [kind for kind, _ in world.alerts()], "that is how it was found"


@virtual
async def test_a_hidden_router_is_down_when_two_answers_say_so(tmp_path: Path) -> None:
    def before(_: World, control: SimControl) -> None:
        routers("r1")(_, control)
        control.add("r2", advertisedRoutes=["192.0.2.0/24"], enabledRoutes=["192.0.2.0/24"])

    async with controlled(tmp_path, "r1", before=before) as (world, control):
        control.change_all(connectedToControl=False)
        await world.run(INTERVAL - 50)
        control.change_all(connectedToControl=True)
        await world.run(2 * INTERVAL)
        assert world.alerts() == [], "everybody is disconnected for seconds after the server's start"
        control.change("r2", connectedToControl=False)
        await world.run(3 * INTERVAL)
        assert world.alerts() == [("redundancy_lost", "r2")]


@pytest.mark.slow
@virtual
async def test_credentials_that_end(tmp_path: Path) -> None:
    def before(world: World, control: SimControl) -> None:
        now = world.clock.start
        control.found = (
            Credential(
                id="kOwn", kind="API access token", expires=now + 3.2 * DAY, created=now - 87 * DAY, own=True
            ),
            Credential(id="kDay", kind="auth key", expires=now + DAY, created=now),
        )

    async with controlled(tmp_path, before=before, control__keys="true") as (world, control):
        assert control.everyone
        await world.run(60)
        assert [alert.subject for alert in world.monitor.alerts.values()] == ["kOwn"]
        assert world.messages() == ["WARNING: the credential kOwn expires within 14 days"]
        await world.run(0.3 * DAY)
        assert world.messages()[1:] == ["WARNING: the credential kOwn expires within 3 days"]
        await world.restart()
        await world.run(2.05 * DAY)
        assert world.messages()[2:] == ["WARNING: the credential kOwn expires within 1 day"]
        (alert,) = world.monitor.alerts.values()
        assert alert.message.startswith("tsmon's own API access token kOwn expires at 2026-")
        control.found = (
            Credential(id="kNew", kind="API access token", expires=world.clock.start + 90 * DAY),
        )
        await world.run(0.3 * DAY)
        assert world.messages()[3:] == ["OK: the credential kOwn was renewed"]


# -- failures ----------------------------------------------------------------------------------------------


@virtual
async def test_an_api_that_fails_is_one_alert_and_a_frozen_inventory(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        answered = world.monitor.view.inventory
        assert answered is not None
        control.error = ControlError("unauthorized", "https://c: answered 401: make a new one")
        control.add("vault")
        await world.run(INTERVAL + 780)
        assert world.alerts() == []
        await world.run(120)
        assert world.alerts() == [("control_api_failing", None)]
        frozen = world.monitor.view.inventory
        assert frozen is not None
        assert (frozen.as_of, len(frozen.devices)) == (answered.as_of, 5)
        assert frozen.error == "https://c: answered 401: make a new one"
        assert world.monitor.view.blind is None
        world.tailnet.off("git")
        await world.run(150)
        assert ("node_offline", "git") in world.alerts(), "the monitor goes on"
        await world.restart()
        await world.run(120)
        assert world.messages().count("WARNING: the control server's API gives no answer") == 1
        control.error = None
        await world.run(CONFIRMED)
        assert ("control_api_failing", None) not in world.alerts()
        lines = [line["event"] for line in world.lines if line["event"].startswith("control_api")]
        assert lines == ["control_api_failed", "control_api_failed", "control_api_answers"]


@virtual
async def test_an_api_that_fails_while_tsmon_is_blind_is_no_second_alert(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        world.tailnet.lose_control()
        control.error = ControlError("unreachable", "https://c: no route to the network")
        await world.run(3600)
        assert world.alerts() == [("monitor_blind", None)]


@virtual
async def test_how_often_it_is_asked(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        begun = len(control.asked_at)
        await world.run(3600)
        assert len(control.asked_at) - begun == 12
        for n in range(12):
            control.change("git", clientVersion=f"1.{n}")
            await world.run(INTERVAL)
        assert len(control.asked_at) - begun <= 12 + 24, "confirmations double the requests at most"
        control.error = ControlError("throttled", "too many", 1800.0)
        await world.run(INTERVAL + 60)
        asked = len(control.asked_at)
        await world.run(1700 - INTERVAL)
        assert len(control.asked_at) == asked


@virtual
async def test_what_nobody_foresaw_is_a_failed_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled(tmp_path) as (world, control):

        async def broken() -> Any:
            raise KeyError("x")

        monkeypatch.setattr(control, "devices", broken)
        await world.run(INTERVAL)
        inventory = world.monitor.view.inventory
        assert inventory is not None
        assert inventory.error == "https://api.tailscale.com: reading it failed with an unforeseen KeyError"
        monkeypatch.undo()
        await world.run(2 * INTERVAL)
        assert world.monitor.view.inventory.error == ""  # type: ignore[union-attr]


@virtual
async def test_a_reload_begins_and_ends_it(tmp_path: Path) -> None:
    async with controlled(tmp_path) as (world, control):
        control.add("tablet", authorized=False)
        await world.run(CONFIRMED)
        assert world.alerts() == [("device_pending", "tablet")]
        await Reload(world.parts, None).apply(settings(tmp_path / "tsmon.toml"))
        await world.run(60)
        assert control.closed
        assert (world.monitor.view.inventory, world.alerts()) == (None, [])
        assert world.parts.asking is None
