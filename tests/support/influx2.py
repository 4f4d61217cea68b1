"""A real InfluxDB 2.x for the tests: that of `TSMON_TEST_INFLUX_*`, else one from PATH on loopback."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_NAMES = ("url", "token", "org", "bucket")
_PROGRAMS = ("influxd2", "influxd")
MISSING = (
    "SKIPPED LOUDLY: neither TSMON_TEST_INFLUX_URL/_TOKEN/_ORG/_BUCKET nor an influxd 2.x on PATH:"
    " no InfluxDB 2.x was asked"
)


class RealInflux(NamedTuple):
    """How to reach it; the token may do everything in the organisation."""

    url: str
    token: str
    org: str
    bucket: str

    def settings(self) -> dict[str, Any]:
        """As settings of tsmon."""
        return {f"influx__{name}": getattr(self, name) for name in _NAMES}


def program() -> str | None:
    """An influxd on PATH that is no 1.x."""
    for name in _PROGRAMS:
        path = shutil.which(name)
        if path is not None:
            words = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=False)
            if words.stdout and "v1." not in words.stdout and " 1." not in words.stdout:
                return path
    return None


@contextmanager
def real_influx(directory: Path) -> Iterator[RealInflux | None]:
    """None when there is none."""
    given = {name: os.environ.get(f"TSMON_TEST_INFLUX_{name.upper()}", "") for name in _NAMES}
    if all(given.values()):
        yield RealInflux(**given)
        return
    path = program()
    if path is None:
        yield None
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [path, "--http-bind-address", f"127.0.0.1:{port}", "--reporting-disabled"]
    for option, name in (("bolt", "influx.bolt"), ("sqlite", "influx.sqlite"), ("engine", "engine")):
        command += [f"--{option}-path", str(directory / name)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        url = f"http://127.0.0.1:{port}"
        _until_up(url)
        real = RealInflux(url, "test-token", "home", "analytics")
        call(
            url,
            "/api/v2/setup",
            {
                "username": "u",
                "password": "password",
                "org": real.org,
                "bucket": real.bucket,
                "token": real.token,
            },
        )
        yield real
    finally:
        process.terminate()
        process.wait(timeout=20)


def call(url: str, path: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
    """The JSON of one answer. Raises urllib.error.HTTPError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Token {token}"} if token else {})
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def post(url: str, body: str, token: str) -> str:
    """Flux or line protocol, by the path of the URL; the text of the answer."""
    kind = "application/vnd.flux" if "/query" in url else "text/plain"
    headers = {"Authorization": f"Token {token}", "Content-Type": kind}
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=20) as response:
        return str(response.read().decode())


def _until_up(url: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            call(url, "/health")
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
