"""The admin socket: where it is, who may use it, and what client commands learn from it."""

import asyncio
import grp
import os
import socket
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.site import site
from tests.support.world import settings
from tsmon.cli import main
from tsmon.cli.admin import places, socket_of, unreachable
from tsmon.config import BAD_CONFIGURATION, loading
from tsmon.daemon.daemon import Daemon
from tsmon.daemon.listening import StartError

ROOT_ONLY = pytest.mark.skipif(
    os.geteuid() != 0, reason="SKIPPED LOUDLY: only root gives a socket to a group"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable of this machine, and system directories of its own."""
    for name in (*os.environ, "STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        if name.startswith(("TSMON_", "STATE_D", "RUNTIME_D", "XDG_")):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "_SYSTEM_STATE", tmp_path / "var")
    monkeypatch.setattr(loading, "_SYSTEM_RUNTIME", tmp_path / "run")
    return tmp_path


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments))


async def test_client_commands_ask_the_service_for_its_address(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has its settings from its own environment, which nobody who runs a command shares."""
    (home / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(home / "run"))
    async with site(home) as here:
        monkeypatch.delenv("RUNTIME_DIRECTORY")
        result = await run("status", "--json")
        assert result.exit_code == 0, result.output
        assert here.daemon.url not in ("", "http://127.0.0.1:8000")
        assert (await run("check")).exit_code == 0
        # What is given beats what is found.
        assert (await run("status", "--url", "http://127.0.0.1:1")).exit_code == 1
    assert not (home / "run" / "admin.sock").exists()


async def test_a_service_with_a_state_directory_of_the_configuration(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(home):
        monkeypatch.setenv("TSMON_STATE_DIR", str(home / "state"))
        assert (await run("status", "--json")).exit_code == 0


async def test_without_a_running_one_they_say_where_they_looked(home: Path) -> None:
    result = await run("status", "--timeout", "1")
    assert result.exit_code == 1
    assert "127.0.0.1:8000" in result.stderr
    for place in ("run", "var", "home/.local/state/tsmon"):
        assert f"{home}/{place}/admin.sock: none there" in result.stderr


async def test_one_that_died_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / "run" / "admin.sock"))
    result = await run("status", "--timeout", "1")
    assert f"{home}/run/admin.sock: connection refused" in result.stderr


def test_a_socket_that_is_there_comes_before_a_directory_that_is_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a service with a user of its own: /var/lib/private is root's alone."""
    real = Path.stat

    def looked(path: Path, **options: bool) -> os.stat_result:
        if path.is_relative_to(home / "var"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", looked)
    found = {place.path.parent.name: place.state for place in places(settings())}
    assert found["var"] == "closed"
    assert socket_of(settings()) == home / "var" / "admin.sock"
    (home / "run").mkdir()
    (home / "run" / "admin.sock").touch()
    assert socket_of(settings()) == home / "run" / "admin.sock"


@ROOT_ONLY
async def test_a_group_may_use_it(home: Path) -> None:
    async with site(home, admin_group="daemon"):
        path = home / "state" / "admin.sock"
        found = path.stat()
        assert (grp.getgrgid(found.st_gid).gr_name, stat.S_IMODE(found.st_mode)) == ("daemon", 0o660)
        words = str(unreachable(path, PermissionError(13, "x")))
        assert "run this as root (sudo) or as a member of the group daemon" in words


async def test_without_a_group_the_owner_alone(home: Path) -> None:
    async with site(home):
        path = home / "state" / "admin.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "or let a group (admin_group)" in str(unreachable(path, PermissionError(13, "x")))


async def test_a_group_that_is_not_there_is_named(home: Path) -> None:
    daemon = Daemon(settings(listen="127.0.0.1:0", admin_group="no-such-group"), home / "state")
    with pytest.raises(StartError, match="admin_group: there is no group 'no-such-group'") as found:
        await daemon.start()
    assert found.value.code == BAD_CONFIGURATION, "a restart would not mend it"


def deny(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


async def test_a_service_that_may_not_chown_uses_its_own_group(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the unit's filter of system calls has it."""
    monkeypatch.setattr(os, "chown", deny)
    own = grp.getgrgid(os.getegid()).gr_name
    async with site(home, admin_group=own):
        assert stat.S_IMODE((home / "state" / "admin.sock").stat().st_mode) == 0o660
    other = next(group.gr_name for group in grp.getgrall() if group.gr_gid != os.getegid())
    daemon = Daemon(settings(listen="127.0.0.1:0", admin_group=other), home / "other")
    with pytest.raises(StartError, match="run it with that group as its own"):
        await daemon.start()
