"""The recorded documents of a real tailnet, played to a whole monitor: each leads to the state that its
README implies."""

from pathlib import Path

import pytest

from tests.support.paths import FIXTURES
from tests.support.virtual import virtual
from tests.support.world import World

EXPIRED = {"bobs-phone": "key_expired"}
"""True in every document recorded after `peer-expired.json`."""
PEERS = ("git", "chocolate-factory", "chocolate-factory-dev", "alices-laptop", "bobs-phone")


async def play(world: World, name: str, seconds: float = 46.0) -> None:
    """From now on the source answers with the recorded document `name`."""
    raw = (FIXTURES / name).read_bytes()
    world.tailnet.document = lambda: raw  # type: ignore[method-assign]
    await world.run(seconds)


async def begin(tmp_path: Path) -> World:
    world = World(tmp_path)
    raw = (FIXTURES / "all-online.json").read_bytes()
    world.tailnet.document = lambda: raw  # type: ignore[method-assign]
    await world.start()
    world.source.can_ping = False
    await world.run(31)
    return world


@pytest.mark.parametrize(
    ("name", "offline"),
    [
        ("all-online.json", {}),
        ("all-online.cli.json", {}),
        ("after-ping.json", {}),
        ("git-killed-offline.json", {"git": "control"}),
        ("git-back.json", {}),
        ("dev-down.json", {"chocolate-factory-dev": "control"}),
        ("control-resumed.json", {"alices-laptop": "control"}),
        ("peer-suspended-180s.json", {}),
        ("peer-expired.json", {"bobs-phone": "key_expired"}),
        ("peer-tagged.json", EXPIRED),
        ("peer-routes-exit-node.json", EXPIRED),
        ("ephemeral-there.json", EXPIRED),
        ("same-hostname-twice.json", EXPIRED),
    ],
)
@virtual
async def test_a_trusted_document(name: str, offline: dict[str, str], tmp_path: Path) -> None:
    world = await begin(tmp_path)
    try:
        await play(world, name)
        view = world.monitor.view
        assert view.blind is None
        down = {node.hostname: node.reason for node in view.nodes.values() if node.state == "offline"}
        assert down == offline
        assert set(world.told("node_offline")) == {("node_offline", name) for name in offline}
    finally:
        await world.kill()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("control-down.json", "control_lost"),
        ("control-paused-peers-frozen.json", "control_lost"),
        ("monitor-stopped.json", "tailscale_stopped"),
        ("monitor-stopped.cli.json", "tailscale_stopped"),
        ("needs-login-authurl.json", "logged_out"),
        ("logged-out.json", "logged_out"),
    ],
)
@virtual
async def test_a_document_that_must_not_be_trusted(name: str, reason: str, tmp_path: Path) -> None:
    """The peers are unknown, not offline; the monitor itself is known to be off when it is stopped."""
    world = await begin(tmp_path)
    try:
        await play(world, name, 61)
        view = world.monitor.view
        assert view.blind is not None
        assert view.blind.reason == reason
        assert {world.state(peer) for peer in PEERS} == {"unknown"}
        own = view.shown(world.node("monitor"))
        stopped = reason in ("tailscale_stopped", "logged_out")
        assert (own.state, own.reason) == (("offline", "stopped") if stopped else ("unknown", None))
        assert world.told("node_offline") == ([("node_offline", "monitor")] if stopped else [])
    finally:
        await world.kill()


@virtual
async def test_nodes_that_go_and_are_renamed(tmp_path: Path) -> None:
    world = await begin(tmp_path)
    try:
        await play(world, "peer-renamed.json")
        assert world.told("node_changed", "node_added", "node_removed") == [("node_changed", "build-box")]
        await play(world, "ephemeral-there.json")
        added = {name for _, name in world.told("node_added")}
        assert added == {"git-1", "digital-frame", "ci-runner"}
        assert world.node("git-1").facts.os_hostname == "git"
        await play(world, "ephemeral-gone.json")
        assert world.told("node_removed") == [("node_removed", "ci-runner")]
        assert ("node_offline", "ci-runner") not in world.told("node_offline")
        await play(world, "peer-deleted.json")
        assert world.told("node_removed")[-1] == ("node_removed", "build-box")
        await play(world, "tagged-node.json")
        assert world.node("db").role.name == "server"
        assert world.node("git").state == "offline"
    finally:
        await world.kill()
