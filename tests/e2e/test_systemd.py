"""The service in a real systemd, booted by systemd-nspawn over Debian: package, unit, journal, upgrade.

The tree is shared and never written (an overlay in memory takes what the machine writes); the tailnet is
real, its socket is handed in.
"""

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.docker import cache, debootstrap, until
from tests.e2e.tailnet import MISSING, real_tailnet
from tests.support.paths import RELEASES, ROOT

PACKAGES = "systemd,systemd-sysv,dbus,libnss-systemd,python3,python3-venv,ca-certificates,procps"
FIXTURE = RELEASES / "0.1.0" / "tsmon.db.gz"


def unable() -> str:
    if os.environ.get("TSMON_TEST_DEPLOY") != "1":
        return "it takes minutes and root: make e2e-deploy"
    if os.geteuid() != 0:
        return "not root"
    absent = [
        name for name in ("systemd-nspawn", "debootstrap", "dpkg-deb", "nsenter") if not shutil.which(name)
    ]
    absent += MISSING
    return f"no {', '.join(absent)} on PATH or in TSMON_E2E_BIN" if absent else ""


_LACKS = unable()
pytestmark = [
    pytest.mark.deploy,
    pytest.mark.slow,
    pytest.mark.skipif(bool(_LACKS), reason=f"SKIPPED LOUDLY: systemd is not booted: {_LACKS}"),
]


class Machine:
    """A booted Debian; commands run in it as root."""

    def __init__(self, leader: int) -> None:
        self._enter = ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "--"]

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            [*self._enter, *command],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def __call__(self, *command: str, seconds: float = 60) -> str:
        run = self.run(*command, seconds=seconds)
        assert run.returncode == 0, f"{command}: {run.returncode}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
        return run.stdout.strip()

    def show(self, what: str) -> str:
        return self("systemctl", "show", "tsmon", "--value", "-p", what)

    def write(self, path: str, text: str) -> None:
        self("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', "sh", path, text)

    def sees(self, wanted: str = "2/2 online") -> bool:
        return self.show("StatusText") == wanted

    def wait(self, wanted: str = "2/2 online") -> None:
        until(lambda: self.sees(wanted), 60, f"{wanted}: {self.run('systemctl', 'status', 'tsmon').stdout}")


@contextmanager
def booted(tree: Path, *binds: str) -> Iterator[Machine]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [
                "systemd-nspawn", "--quiet", "--directory", str(tree), "--volatile=overlay", "--boot",
                "--machine", f"tsmon-{os.getpid()}", "--register=no", "--keep-unit", "--private-network",
                "--console=pipe", *binds,
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            until(
                lambda: process.poll() is not None or children.read_text().split(),
                20,
                "nspawn's first process",
            )
            if process.poll() is not None:
                log.seek(0)
                pytest.skip(f"SKIPPED LOUDLY: systemd-nspawn does not work here: {log.read()[-500:]!r}")
            machine = Machine(int(children.read_text().split()[0]))
            # "degraded" too: a container lacks some of what Debian starts.
            until(
                lambda: (
                    machine.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")
                ),
                90,
                "systemd has started",
            )
            yield machine
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def package() -> Path:
    """The Debian package of this checkout, for the Python of the tree and of this machine: both Debian 12."""
    tools, wheels, made = (cache() / name for name in ("tools", "wheels", "deb"))
    shutil.rmtree(made, ignore_errors=True)
    pip = str(tools / "bin" / "pip")
    hashed = ("--quiet", "--no-deps", "--require-hashes")
    system = "/usr/bin/python3"
    if not tools.exists():
        subprocess.run([system, "-m", "venv", str(tools)], check=True)
        subprocess.run([pip, "install", *hashed, "-r", str(ROOT / "requirements-build.lock")], check=True)
    for old in wheels.glob("tsmon-*.whl"):
        old.unlink()
    downloading = [pip, "download", *hashed, "--only-binary=:all:", "-d", str(wheels)]
    subprocess.run([*downloading, "-r", str(ROOT / "requirements.lock")], check=True)
    building = [pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)]
    subprocess.run(building, check=True)
    builder = [str(tools / "bin" / "python"), str(ROOT / "packaging/debian/build.py"), str(wheels), str(made)]
    subprocess.run(builder, check=True)
    (found,) = made.glob("*.deb")
    return found


async def test_the_life_of_the_service(package: Path) -> None:
    tree = debootstrap("systemd", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        home = Path(directory)
        (home / "in").mkdir()
        shutil.copy(package, home / "in" / "tsmon.deb")
        shutil.copy(ROOT / "packaging/systemd/tsmon.service", home / "in")
        (home / "in" / "tsmon.db").write_bytes(gzip.decompress(FIXTURE.read_bytes()))
        async with real_tailnet(home, ("monitor", "git")):
            binds = (f"--bind={home / 'monitor'}:/run/tailscale", f"--bind-ro={home / 'in'}:/mnt")
            with booted(tree, *binds) as machine:
                try:
                    installs_and_starts(machine)
                    commands_find_it(machine)
                    reloads_well_or_visibly(machine)
                    a_wrong_start_is_not_tried_again(machine)
                    hangs_and_is_started_again(machine)
                    upgrades_with_the_history_of_0_1_0(machine)
                    leaves_with_the_package(machine)
                    the_unit_of_the_repository_has_a_user_while_it_runs(machine)
                except AssertionError as error:
                    error.add_note(machine.run("journalctl", "-u", "tsmon", "-n", "30", "-o", "cat").stdout)
                    raise


def installs_and_starts(machine: Machine) -> None:
    machine("dpkg", "-i", "/mnt/tsmon.deb")
    assert machine.show("ActiveState") == "active"
    assert machine("systemctl", "is-enabled", "tsmon") == "enabled"
    # The service's own settings, which nobody who runs a command has.
    machine.write(
        "/etc/tsmon/environment", "TSMON_SOURCE=unix:///run/tailscale/s\nTSMON_LISTEN=127.0.0.1:8123\n"
    )
    machine("systemctl", "restart", "tsmon")
    machine.wait()
    assert machine("stat", "-c", "%U %a", "/var/lib/tsmon") == "tsmon 700"


def commands_find_it(machine: Machine) -> None:
    nodes = json.loads(machine("tsmon", "status", "--json"))["nodes"]
    assert {node["hostname"] for node in nodes} == {"monitor", "git"}
    assert "OK" in machine("tsmon", "check")
    asked = machine.run("setpriv", "--reuid=65534", "--clear-groups", "env", "HOME=/", "tsmon", "reload")
    assert asked.returncode == 1
    assert "run this as root (sudo)" in asked.stderr
    # A member of the group may; the address is no secret, either.
    machine.write("/etc/tsmon/tsmon.toml", 'admin_group = "tsmon"\n')
    machine("systemctl", "restart", "tsmon")
    machine.wait()
    machine("setpriv", "--reuid=65534", "--regid=tsmon", "--clear-groups", "env", "HOME=/", "tsmon", "reload")


def reloads_well_or_visibly(machine: Machine) -> None:
    machine.write("/etc/tsmon/tsmon.toml", "nonsense = 1\n")
    failed = machine.run("systemctl", "reload", "tsmon")
    assert failed.returncode != 0
    assert machine.show("ActiveState") == "active"
    assert "nonsense" in machine("journalctl", "-u", "tsmon", "-p", "err", "-o", "cat")
    machine.write("/etc/tsmon/tsmon.toml", 'log = { level = "debug" }\n')
    machine("systemctl", "reload", "tsmon")
    quiet = machine("journalctl", "-u", "tsmon", "-p", "warning", "-o", "cat")
    loud = machine("journalctl", "-u", "tsmon", "-o", "cat")
    assert '"reloaded"' in loud
    assert '"reloaded"' not in quiet, "priorities part the lines"


def a_wrong_start_is_not_tried_again(machine: Machine) -> None:
    machine.write("/etc/tsmon/tsmon.toml", "nonsense = 1\n")
    assert machine.run("systemctl", "restart", "tsmon").returncode != 0
    until(lambda: machine.show("SubState") == "failed", 20, f"failed for good: {machine.show('SubState')}")
    assert (machine.show("ExecMainStatus"), machine.show("NRestarts")) == ("78", "0")
    machine("rm", "/etc/tsmon/tsmon.toml")
    machine("systemctl", "start", "tsmon")
    machine.wait()


def hangs_and_is_started_again(machine: Machine) -> None:
    machine.write("/etc/systemd/system/tsmon.service.d/fast.conf", "[Service]\nWatchdogSec=4\nRestartSec=1\n")
    machine("systemctl", "daemon-reload")
    machine("systemctl", "restart", "tsmon")
    machine.wait()
    hung = machine.show("MainPID")
    machine("kill", "-STOP", hung)
    until(lambda: machine.show("MainPID") not in ("0", hung), 60, "the watchdog starts it again")
    machine.wait()
    assert "watchdog" in machine("journalctl", "-u", "tsmon", "-o", "cat").casefold()


def upgrades_with_the_history_of_0_1_0(machine: Machine) -> None:
    machine("systemctl", "stop", "tsmon")
    # Of another tailnet: tsmon says so, instead of mixing the two.
    machine(
        "sh", "-c", "rm -f /var/lib/tsmon/* && install -o tsmon -g tsmon -m 600 /mnt/tsmon.db /var/lib/tsmon/"
    )
    machine("dpkg", "-i", "/mnt/tsmon.deb")
    machine("systemctl", "start", "tsmon")
    machine.wait("blind: other_tailnet")
    kept = int(machine("sh", "-c", "tsmon export events | wc -l"))
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        file.write(gzip.decompress(FIXTURE.read_bytes()))
        file.flush()
        with closing(sqlite3.connect(file.name)) as db:
            assert kept >= db.execute("SELECT count(*) FROM events").fetchone()[0]


def leaves_with_the_package(machine: Machine) -> None:
    machine("dpkg", "-r", "tsmon")
    assert machine.run("systemctl", "is-active", "tsmon").stdout.strip() != "active"
    machine("test", "-e", "/var/lib/tsmon/tsmon.db")
    machine("dpkg", "-P", "tsmon")
    for path in ("/var/lib/tsmon", "/usr/lib/tsmon", "/usr/bin/tsmon", "/lib/systemd/system/tsmon.service"):
        assert machine.run("test", "-e", path).returncode == 1, path


def the_unit_of_the_repository_has_a_user_while_it_runs(machine: Machine) -> None:
    """As `docs/deployment.md` has it without a package: tsmon in /usr/local/bin, DynamicUser."""
    machine("sh", "-c", "dpkg-deb -x /mnt/tsmon.deb / && ln -s /usr/bin/tsmon /usr/local/bin/tsmon")
    machine("rm", "-rf", "/lib/systemd/system/tsmon.service", "/etc/systemd/system/tsmon.service.d")
    machine("userdel", "tsmon")
    machine("cp", "/mnt/tsmon.service", "/etc/systemd/system/")
    machine.write(
        "/etc/tsmon/environment", "TSMON_SOURCE=unix:///run/tailscale/s\nTSMON_LISTEN=127.0.0.1:8123\n"
    )
    machine("systemctl", "daemon-reload")
    machine("systemctl", "enable", "--now", "tsmon")
    machine.wait()
    assert json.loads(machine("tsmon", "status", "--json"))["nodes"]
    machine("systemctl", "reload", "tsmon")
    machine("test", "-e", "/var/lib/private/tsmon/tsmon.db")
    machine("systemctl", "stop", "tsmon")
    assert machine.show("Result") == "success"
