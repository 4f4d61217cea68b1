"""A dockerd of the tests' own, Compose, and images without any registry: their base is made by debootstrap.

What is made is kept in `TSMON_E2E_CACHE` (a directory; a temporary one when it is not set), so that the next
run takes a minute less.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.tailnet import program
from tests.support.paths import ROOT

BASE = "tsmon-e2e/base:1"
PACKAGES = "python3-venv,python-is-python3,ca-certificates,socat,wget,iproute2,iptables"
SUBNET = "172.31.87"
GATEWAY = "172.17.0.1"
"""The machine as containers of any bridge see it: docker0."""
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_IMAGES = Path(__file__).parent / "images"
_OLDEST_COMPOSE = (2, 24, 4)


def cache() -> Path:
    """Where bases and images are kept between runs: outside the repository."""
    named = os.environ.get("TSMON_E2E_CACHE")
    path = Path(named) if named else Path(tempfile.gettempdir()) / f"tsmon-e2e-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def debootstrap(name: str, packages: str, suite: str = "bookworm") -> Path:
    """A Debian tree, made once. Raises CalledProcessError."""
    tree = cache() / name
    if not tree.exists():
        made = tree.with_name(f"{name}.new")
        shutil.rmtree(made, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=900)
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, made / _CERTIFICATES.relative_to("/"))
        made.rename(tree)
    return tree


def compose_command() -> list[str] | None:
    """Compose as it is called here, None when there is none that is new enough."""
    for command in ([program("docker-compose")], ["docker", "compose"]):
        try:
            run = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        # One that was built from source calls itself "dev".
        numbers = tuple(map(int, re.findall(r"\d+", run.stdout)[:3]))
        if run.returncode == 0 and (run.stdout.strip() in ("dev", "vdev") or numbers >= _OLDEST_COMPOSE):
            return command
    return None


def unable() -> str:
    """Why there can be no Docker here, "" when there can."""
    if os.environ.get("TSMON_TEST_DEPLOY") != "1":
        return "it takes minutes and a machine's Docker: make e2e-deploy"
    if os.geteuid() != 0:
        return "not root"
    wanted = (
        "dockerd",
        "docker",
        "debootstrap",
        "containerboot",
        "tailscaled",
        "tailscale",
        "headscale",
        "influxd",
    )
    if absent := [name for name in wanted if shutil.which(program(name)) is None]:
        return f"no {', '.join(absent)} on PATH or in TSMON_E2E_BIN"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    return "" if compose_command() else "no Compose 2.24.4 or newer on PATH or in TSMON_E2E_BIN"


class Docker:
    """A running dockerd, and what is asked of it."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._log = directory / "dockerd.log"
        self.environ = os.environ | {
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
        }
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        command = ["dockerd", "--data-root", str(cache() / "docker"), "--exec-root", str(self._dir / "exec")]
        command += ["-H", self.environ["DOCKER_HOST"], "--pidfile", str(self._dir / "pid")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, 60, f"dockerd: see {self._log}")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        return (
            subprocess.run(["docker", "info"], env=self.environ, capture_output=True, check=False).returncode
            == 0
        )

    def stop(self) -> None:
        """As a reboot does it: politely."""
        self._process.terminate()
        self._process.wait(60)

    def __call__(self, *arguments: str, check: bool = True, seconds: float = 600) -> str:
        run = subprocess.run(
            ["docker", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert run.returncode == 0 or not check, (
            f"docker {arguments}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
        )
        return run.stdout.strip()

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name))[0]

    def clean(self) -> None:
        """No containers, volumes or networks."""
        if found := self("ps", "-aq").split():
            self("rm", "-f", *found)
        if found := self("volume", "ls", "-q").split():
            self("volume", "rm", "-f", *found)
        self("network", "prune", "-f")

    def images(self) -> None:
        """Those that the compose files name, built by the commands that the documents give."""
        if not self("images", "-q", BASE):
            tree = debootstrap("docker-base", PACKAGES)
            for name in ("containerboot", "tailscale", "tailscaled"):
                shutil.copy(program(name), tree / "usr/local/bin" / name)
            # The base stands for Alpine's too, where the sidecar's Dockerfile asks for socat.
            (tree / "usr/local/bin/apk").write_text("#!/bin/sh\nexit 0\n")
            (tree / "usr/local/bin/apk").chmod(0o755)
            tar = subprocess.Popen(["tar", "c", "-C", str(tree), "."], stdout=subprocess.PIPE)
            subprocess.run(
                ["docker", "import", "-", BASE],
                stdin=tar.stdout,
                env=self.environ,
                check=True,
                capture_output=True,
            )
            assert tar.wait() == 0
        self("tag", BASE, "busybox:1.37.0")
        if not self("images", "-q", "influxdb:2.9"):
            with tempfile.TemporaryDirectory() as context:
                for file in (*_IMAGES.iterdir(), Path(program("influxd"))):
                    shutil.copy(file, context)
                lines = f"FROM {BASE}\nCOPY influx influxdb-entrypoint influxd /usr/local/bin/\n"
                lines += 'RUN mkdir -p /var/lib/influxdb2\nENTRYPOINT ["influxdb-entrypoint"]\n'
                (Path(context) / "Dockerfile").write_text(lines)
                self("build", "-t", "influxdb:2.9", context)
        self("build", "--build-arg", f"PYTHON={BASE}", "-t", "tsmon", str(ROOT))
        sidecar = str(ROOT / "docker" / "tailscale-sidecar.Dockerfile")
        self("build", "--build-arg", f"TAILSCALE={BASE}", "-f", sidecar, "-t", "tsmon-sidecar", str(ROOT))


@contextmanager
def docker() -> Iterator[Docker]:
    """With nothing left of an earlier run but images."""
    with tempfile.TemporaryDirectory(prefix="tsmon-docker-") as directory:
        found = Docker(Path(directory))
        found.start()
        try:
            found.clean()
            found.images()
            yield found
        finally:
            found.clean()
            found.stop()


def until(condition: Callable[[], Any], seconds: float, words: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came within {seconds:g} s: {words}"
        time.sleep(0.3)
