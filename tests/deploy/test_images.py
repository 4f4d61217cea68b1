"""The two images, built by buildah without any engine, on a base that debootstrap makes; and run."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import CHECKOUT, ROOT
from tests.support.sidecar_proxy import DOUBLE, free_port

MISSING = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
MISSING += [] if os.geteuid() == 0 else ["root"]

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"SKIPPED LOUDLY: no {', '.join(MISSING)} here, the images are not built"
    ),
]

# What the official images bring: Python, and what Alpine's Tailscale image and `apk add socat` would.
PACKAGES = "python3-venv,python-is-python3,ca-certificates,socat,wget"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Builder:
    """buildah with a store of its own, everything in a chroot (which has the network of this machine)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._command = ["buildah", "--root", str(directory / "store"), "--runroot", str(directory / "run")]
        self._command += ["--storage-driver", "vfs"]

    def __call__(self, *arguments: str, seconds: float = 600) -> str:
        run = subprocess.run(
            [*self._command, *arguments], capture_output=True, check=False, text=True, timeout=seconds
        )
        assert run.returncode == 0, f"buildah {arguments}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
        return run.stdout.strip()

    def build(self, name: str, *arguments: str) -> dict[str, Any]:
        """The configuration of the image."""
        options = ["--isolation", "chroot", "--format", "docker", "--pull=never", "-t", name]
        self("build", *options, *arguments, str(CHECKOUT))
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", f"localhost/{name}"))["Docker"][
            "config"
        ]
        return found

    def run(self, container: str, environ: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._run(container, environ, command), capture_output=True, check=False, text=True, timeout=60
        )

    @contextmanager
    def running(
        self, container: str, environ: dict[str, str], *command: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            self._run(container, environ, command),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _run(self, container: str, environ: dict[str, str], command: Sequence[str]) -> list[str]:
        variables = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        return [*self._command, "run", "--isolation", "chroot", *variables, container, "--", *command]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    directory = tmp_path_factory.mktemp("images")
    base = directory / "base"
    run = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "stable", str(base)],
        capture_output=True,
        check=False,
        text=True,
        timeout=900,
    )
    if run.returncode != 0:
        pytest.skip(
            f"SKIPPED LOUDLY: debootstrap made no base, images unbuilt: {run.stdout[-200:]}{run.stderr}"
        )
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, base / CERTIFICATES.relative_to("/"))
    for name, text in {
        "apk": '#!/bin/sh\necho "$*" >/apk-was-asked\n',
        "containerboot": "#!/bin/sh\nexec sleep 600\n",
        "tailscale": DOUBLE.read_text(),
    }.items():
        path = base / "usr" / "local" / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    found = Builder(directory)
    container = found("from", "scratch")
    found("add", "-q", container, str(base), "/")
    found("commit", "-q", "--rm", container, "base")
    shutil.rmtree(base)
    yield found
    found("rm", "--all")
    shutil.rmtree(directory)  # gigabytes


@pytest.fixture(scope="module")
def tsmon_image(builder: Builder) -> dict[str, Any]:
    return builder.build(
        "tsmon", "--no-cache", "--build-arg", "PYTHON=localhost/base", "--build-arg", "REVISION=abc1234"
    )


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def test_tsmon_is_nobody_and_writes_its_state_only(builder: Builder, tsmon_image: dict[str, Any]) -> None:
    assert tsmon_image["User"] == "10001:10001"
    assert tsmon_image["Labels"]["org.opencontainers.image.revision"] == "abc1234"
    assert tsmon_image["Volumes"] == {"/var/lib/tsmon": {}}
    container = builder("from", "--pull=never", "localhost/tsmon")
    assert builder.run(container, {}, "id", "-u").stdout.strip() == "10001"
    script = (
        "find / -xdev -writable -not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*' -not -type l"
        " -not -path '/tmp*' -not -path '/var/tmp*' -not -path '/run/lock*' -print 2>/dev/null; true"
    )
    assert builder.run(container, {}, "sh", "-c", script).stdout.split() == ["/var/lib/tsmon"]
    assert builder.run(container, {}, "sh", "-c", "command -v pip curl; ls /build").stdout == ""


def test_tsmon_runs_and_its_health_check_tells(builder: Builder, tsmon_image: dict[str, Any]) -> None:
    container = builder("from", "--pull=never", "localhost/tsmon")
    environ = {"TSMON_LISTEN": f"127.0.0.1:{free_port()}"}
    check = tsmon_image["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert builder.run(container, environ, *check[1:]).returncode == 1
    with builder.running(container, environ, *tsmon_image["Entrypoint"], "demo"):
        until(lambda: answers(f"http://{environ['TSMON_LISTEN']}/healthz"))
        assert builder.run(container, environ, *check[1:]).returncode == 0


def test_two_builds_are_the_same(builder: Builder, tsmon_image: dict[str, Any]) -> None:
    builder.build("tsmon-again", "--no-cache", "--build-arg", "PYTHON=localhost/base")
    sums = []
    for name in ("tsmon", "tsmon-again"):
        container = builder("from", "--pull=never", f"localhost/{name}")
        # A few words only: on a busy machine buildah was seen to lose the end of a long output.
        files = "cd /opt/tsmon && find . -type f -o -type l"
        script = f"{files} | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum; {files} | wc -l"
        sums.append(builder.run(container, {}, "sh", "-c", script).stdout.split())
    assert int(sums[0][-1]) > 1000
    assert len(sums[0][0]) == 64
    assert sums[0] == sums[1]


def test_the_sidecars_image_answers(builder: Builder, tmp_path: Path) -> None:
    """With doubles of containerboot and the CLI in the base; socat, wget and the scripts are real."""
    image = builder.build(
        "sidecar",
        "--build-arg",
        "TAILSCALE=localhost/base",
        "-f",
        str(ROOT / "docker" / "tailscale-sidecar.Dockerfile"),
    )
    container = builder("from", "--pull=never", "localhost/sidecar")
    assert builder.run(container, {}, "cat", "/apk-was-asked").stdout.strip() == "add --no-cache socat"
    port = free_port()
    environ = {"TSMON_SIDECAR_PORT": str(port), "TSMON_TEST_CLI": "/tmp"}
    kind, *check = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert builder.run(container, environ, *check).returncode != 0
    with builder.running(container, environ, *image["Entrypoint"]):
        until(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        assert builder.run(container, environ, *check).returncode == 0
