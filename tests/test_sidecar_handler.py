"""The sidecar's shell scripts with real socat and real shells, in front of a double of the Tailscale CLI."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import string
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import settings
from tsmon.source import Sidecar

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "docker" / "tailscale-http-server.sh"
START = ROOT / "docker" / "tailscale-start.sh"
DOCUMENT = ROOT / "tests" / "fixtures" / "tailscale" / "all-online.cli.json"
SHELLS = [shell for shell in ("dash", "busybox") if shutil.which(shell)] or ["sh"]

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("socat") is None,
        reason="SKIPPED LOUDLY: socat is not installed, the sidecar is untested",
    ),
]

DOUBLE = """#!/bin/sh
printf '%s\\n' "$*" >>"{log}"
case "$*" in
  "status --json") case $(cat "{mode}") in
      down) echo "failed to connect to local tailscaled" >&2; exit 1 ;;
      hang) sleep 60 ;;
      *) cat "{document}" ;;
    esac ;;
  "status --json --peers=false") [ "$(cat "{mode}")" = down ] && exit 1; echo "{{}}" ;;
  whois*100.64.9.9*) echo "peer not found" >&2; exit 1 ;;
  "whois --json "*) echo '{{"Node": {{"StableID": "n1"}}}}' ;;
  "whois "*) echo "Machine: git" ;;
  *100.64.0.66*) sleep 60 ;;
  "debug localapi POST "*)
      echo "# doing request" >&2
      echo '{{"LatencySeconds": 0.002, "Endpoint": "192.0.2.1:1"}}' ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


class Proxy:
    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "log"
        self.mode = directory / "mode"

    def raw(self, data: bytes, seconds: float = 12.0) -> bytes:
        """What comes back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as sock:
            sock.sendall(data)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        return answer

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers]
        answer = self.raw("\r\n".join([*lines, "", ""]).encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return int(first.split()[1]), found, body

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(params=SHELLS)
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    shell = [request.param, "sh"] if request.param == "busybox" else [request.param]
    found = Proxy(free_port(), tmp_path)
    found.mode.write_text("up")
    double = tmp_path / "tailscale"
    double.write_text(DOUBLE.format(log=found.log, mode=found.mode, document=DOCUMENT))
    double.chmod(0o755)
    shims = tmp_path / "bin"
    shims.mkdir()
    if request.param == "busybox":
        for name in (
            "sh",
            "awk",
            "sed",
            "tr",
            "cut",
            "grep",
            "head",
            "tail",
            "wc",
            "mktemp",
            "timeout",
            "cat",
            "rm",
        ):
            (shims / name).symlink_to(shutil.which("busybox") or "")
    else:
        (shims / "sh").symlink_to(shutil.which(request.param) or "")
    environ = os.environ | {
        "PATH": f"{shims}:{os.environ['PATH']}",
        "TAILSCALE_BIN": str(double),
        "TSMON_SIDECAR_PORT": str(found.port),
        "TSMON_SIDECAR_HOSTS": "sidecar monitor.tail.example",
    }
    process = subprocess.Popen([*shell, str(SERVER)], env=environ, start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", found.port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_answers_of_the_contract(proxy: Proxy) -> None:
    status, headers, body = proxy.get("/status")
    assert (status, headers["content-type"], headers["connection"]) == (200, "application/json", "close")
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body) == json.loads(DOCUMENT.read_text())
    assert json.loads(proxy.get("/healthz")[2]) == {"ok": True}
    assert json.loads(proxy.get("/whois/100.64.0.2")[2])["Node"]["StableID"] == "n1"
    assert json.loads(proxy.get("/whois/100.64.0.2:8000")[2])["Node"]["StableID"] == "n1"
    assert json.loads(proxy.get("/whois/[fd7a::2]:8000")[2])["Node"]["StableID"] == "n1"
    assert proxy.get("/whois/100.64.0.2", "Accept: text/plain")[2] == b"Machine: git\n"
    assert proxy.get("/whois/100.64.9.9")[0] == 404
    assert json.loads(proxy.get("/ping/fd7a:115c:a1e0::2")[2])["Endpoint"] == "192.0.2.1:1"
    assert "debug localapi POST /localapi/v0/ping?ip=fd7a:115c:a1e0::2&type=disco" in proxy.calls()


def test_head_has_the_length_and_no_body(proxy: Proxy) -> None:
    status, headers, body = proxy.get("/status", method="HEAD")
    assert (status, int(headers["content-length"]), body) == (200, DOCUMENT.stat().st_size, b"")


def test_a_dead_node_is_an_answer(proxy: Proxy) -> None:
    begun = time.monotonic()
    status, _, body = proxy.get("/ping/100.64.0.66")
    assert (status, json.loads(body)["Err"]) == (200, "timeout")
    assert time.monotonic() - begun < 7


def test_a_cli_that_fails_is_502_with_its_words(proxy: Proxy) -> None:
    proxy.mode.write_text("down")
    status, _, body = proxy.get("/status")
    assert (status, json.loads(body)["error"]["message"]) == (502, "failed to connect to local tailscaled")
    assert proxy.get("/healthz")[0] == 502


@pytest.mark.slow
def test_a_cli_that_hangs_is_504(proxy: Proxy) -> None:
    proxy.mode.write_text("hang")
    answer = proxy.raw(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", seconds=25)
    assert answer.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/status/", 404),
        ("/STATUS", 404),
        ("/status?peers=false", 404),
        ("/whois/", 400),
        ("/whois/git", 400),
        ("/whois/-h", 400),
        ("/whois/--socket=/x", 400),
        ("/whois/100.64.0.256", 400),
        ("/whois/1.2.3", 400),
        ("/whois/100.64.0.2:99999999", 400),
        ("/whois/::1::", 400),
        ("/whois/1:2:3:4:5:6:7:8:9", 400),
        ("/whois/100.64.0.2;id", 400),
        ("/ping/$(id)", 400),
        ("/ping/`id`", 400),
        ("/ping/%00", 400),
        ("/ping/100.64.0.2%0a", 400),
        ("/ping/100.64.0.2&type=ICMP", 400),
        ("/ping/100.64.0.2:80", 400),
        ("/localapi/v0/logout", 404),
    ],
)
def test_hostile_paths_reach_no_command(proxy: Proxy, path: str, status: int) -> None:
    assert proxy.get(path)[0] == status
    assert proxy.calls() == []


def test_who_may_not_ask(proxy: Proxy) -> None:
    assert proxy.get("/status", "Origin: http://evil.example")[0] == 403
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = proxy.get("/status", method=method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    for host, allowed in [
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("LOCALHOST:8765", True),
        ("[::1]:8765", True),
        ("10.0.0.1", True),
        ("sidecar", True),
        ("Monitor.tail.example:8765", True),
    ]:
        answer = proxy.raw(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 " if allowed else b"HTTP/1.1 403 "), host


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /status\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET /x\0y HTTP/1.1\r\n\r\n", b"404"),
        (b"\xff\xfe\xfd HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_requests_that_are_none(proxy: Proxy, data: bytes, status: bytes) -> None:
    try:
        answer = proxy.raw(data)
    except ConnectionResetError:
        return  # refused in mid-request: nothing was read any more
    assert answer[9:12] == status
    assert proxy.calls() == []


def test_a_silent_client_is_ended_and_keeps_nobody_out(proxy: Proxy) -> None:
    silent = [socket.create_connection(("127.0.0.1", proxy.port), timeout=12) for _ in range(20)]
    begun = time.monotonic()
    assert proxy.get("/healthz")[0] == 200
    assert time.monotonic() - begun < 4
    answer = silent[0].recv(100)
    assert answer.startswith(b"HTTP/1.1 408 ")
    for sock in silent:
        sock.close()


def test_fuzzed_paths_have_no_effect(proxy: Proxy) -> None:
    """Random paths full of what shells and options mind: 400 or 404, and the CLI is never called."""
    chance = random.Random(1)
    alphabet = string.ascii_letters + string.digits + ";$()`|&<>*?[]{}!#%'\"\\/-.:@~^="
    for _ in range(60):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randint(1, 40)))
        path = chance.choice(["/whois/", "/ping/", "/", "/status"]) + text
        assert proxy.get(path)[0] in (400, 404), path
    assert proxy.calls() == []


def test_many_at_once(proxy: Proxy) -> None:
    async def one(source: Sidecar) -> bytes:
        return await source.status()

    async def main() -> list[bytes]:
        source = Sidecar(proxy.url, settings(source_timeout="30s"))
        try:
            return await asyncio.gather(*(one(source) for _ in range(64)))
        finally:
            await source.close()

    assert len(asyncio.run(main())) == 64


def test_the_source_reads_through_the_real_proxy(proxy: Proxy) -> None:
    async def main() -> tuple[bytes, Any, Any, Any]:
        source = Sidecar(proxy.url, settings())
        try:
            return (
                await source.status(),
                await source.whois("100.64.0.2"),
                await source.whois("100.64.9.9"),
                await source.ping("100.64.0.2"),
            )
        finally:
            await source.close()

    document, who, nobody, ping = asyncio.run(main())
    assert json.loads(document)["BackendState"] == "Running"
    assert who["Node"]["StableID"] == "n1"
    assert nobody is None
    assert (ping.outcome, ping.path, ping.latency_ms) == ("answered", "direct", 2.0)


# -- the entry point ---------------------------------------------------------------------------------------


def start(tmp_path: Path, boot: str, server: str = "exec sleep 60") -> subprocess.Popen[bytes]:
    for name, text in (("boot", boot), ("server", server)):
        (tmp_path / name).write_text("#!/bin/sh\n" + text + "\n")
        (tmp_path / name).chmod(0o755)
    environ = os.environ | {
        "TSMON_SIDECAR_BOOT": str(tmp_path / "boot"),
        "TSMON_SIDECAR_SERVER": str(tmp_path / "server"),
        "TSMON_SIDECAR_PAUSE": "0.05",
    }
    return subprocess.Popen(
        ["sh", str(START)], env=environ, start_new_session=True, stderr=subprocess.DEVNULL
    )


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_container_ends_with_containerboot(tmp_path: Path) -> None:
    process = start(tmp_path, "exit 7")
    assert process.wait(10) == 7


def test_signals_reach_containerboot(tmp_path: Path) -> None:
    boot = (
        f"trap 'echo term >{tmp_path}/got; exit 3' TERM; echo up >{tmp_path}/up; while :; do sleep 0.05; done"
    )
    process = start(tmp_path, boot)
    until((tmp_path / "up").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 3
    assert (tmp_path / "got").exists()


def test_the_listener_is_kept_alive(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 60", f"echo started >>{tmp_path}/starts; exit 1")
    until(lambda: (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text().splitlines()) >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(
    shutil.which("shellcheck") is None,
    reason="SKIPPED LOUDLY: shellcheck is not installed, the scripts are unchecked",
)
def test_shellcheck_finds_nothing() -> None:
    subprocess.run(["shellcheck", str(SERVER), str(START)], check=True)
