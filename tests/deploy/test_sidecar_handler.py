"""The sidecar: real socat, real shells and the real handler in front of a scripted Tailscale CLI."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import FIXTURES, SUPPORT
from tests.support.sidecar_proxy import SCRIPT, Proxy, parse, sidecar
from tests.support.sources import expect_answers, failure, wait_for
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.demo.servers import FakeLocalApi, serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.source.sidecar import Sidecar

DOCUMENT = (FIXTURES / "all-online.cli.json").read_text()
SHELLS = ["dash", "busybox"]

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("socat") is None, reason="SKIPPED LOUDLY: no socat here, the sidecar is untested"
    ),
]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"SKIPPED LOUDLY: no {name} here, the sidecar is untested with it")
    return name


@pytest.fixture
async def proxy(shell: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with sidecar(shell, tmp_path, TSMON_SIDECAR_HOSTS="sidecar, Monitor.tail.example") as found:
        found.say("status", out=DOCUMENT)
        found.say("whois", out='{"Node": {"StableID": "n1"}}\n')
        found.say("debug", out='{"LatencySeconds": 0.002}\n', err="# doing request POST /localapi/v0/ping")
        yield found


# -- the contract ------------------------------------------------------------------------------------------


async def test_the_answers_of_the_contract(proxy: Proxy) -> None:
    status = await proxy.ask("/status")
    assert status.status == 200
    assert status.headers["content-type"] == "application/json"
    assert status.body.decode() == DOCUMENT
    assert (await proxy.ask("/healthz")).json == {"ok": True}
    for address in ("100.64.0.2", "100.64.0.2:8000", "fd7a::2", "[fd7a::2]:8000"):
        assert (await proxy.ask(f"/whois/{address}")).json == {"Node": {"StableID": "n1"}}
    assert (await proxy.ask("/ping/fd7a:115c:a1e0::2")).json == {"LatencySeconds": 0.002}
    assert proxy.calls == [
        "<status><--json>",
        "<status><--json><--peers=false>",
        "<whois><--json><100.64.0.2>",
        "<whois><--json><100.64.0.2:8000>",
        "<whois><--json><fd7a::2>",
        "<whois><--json><[fd7a::2]:8000>",
        "<debug><localapi><POST></localapi/v0/ping?ip=fd7a:115c:a1e0::2&type=disco>",
    ]
    assert proxy.leftovers == []


async def test_head_is_get_without_a_body(proxy: Proxy) -> None:
    for path in ("/status", "/healthz", "/ping/100.64.0.2", "/whois/100.64.0.2", "/nothing", "/ping/x"):
        get, head = await proxy.ask(path), await proxy.ask(path, method="HEAD")
        assert (head.status, head.headers) == (get.status, get.headers)


async def test_whois_in_plain_text_and_of_nobody(proxy: Proxy) -> None:
    proxy.say("whois", out=(FIXTURES / "whois-git.cli.txt").read_text())
    plain = await proxy.ask("/whois/100.64.0.2", Accept="text/plain")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.body == (FIXTURES / "whois-git.cli.txt").read_bytes()
    assert proxy.calls[-1] == "<whois><100.64.0.2>"
    proxy.say("whois", err="peer not found\n", code="1")
    for accept in ("text/plain", "application/json"):
        nobody = await proxy.ask("/whois/100.64.9.9", Accept=accept)
        assert (nobody.status, nobody.code) == (404, "not_found")


async def test_a_large_document_arrives_whole(proxy: Proxy) -> None:
    text = json.dumps({"Peer": ["x" * 1000] * 12_000})
    proxy.say("status", out=text)
    assert (await proxy.ask("/status")).body.decode() == text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"])
async def test_other_methods(proxy: Proxy, method: str) -> None:
    answer = await proxy.ask("/status", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert proxy.calls == []


# -- a CLI that fails --------------------------------------------------------------------------------------


async def test_a_cli_that_fails_is_502_with_its_words(proxy: Proxy) -> None:
    words = 'failed to connect; is "tailscaled" \\ running?\n\x1b[31msecond\tline\x07\n' + "é" + "x" * 900
    for command in ("status", "whois", "debug"):
        proxy.say(command, err=f"# doing request GET /x\n{words}", code="1")
    for path in ("/status", "/healthz", "/whois/100.64.0.2", "/ping/100.64.0.2"):
        answer = await proxy.ask(path)
        assert (answer.status, answer.code) == (502, "cli_failed")
        message = answer.json["error"]["message"]
        assert message.startswith("failed to connect; is 'tailscaled' / running? [31msecond line x")
        assert len(message) == 500
    assert proxy.leftovers == []


async def test_never_200_with_an_error(proxy: Proxy) -> None:
    for command, words in (
        ("status", "Tailscale is stopped."),
        ("whois", "peer what?"),
        ("debug", "400 Bad Request: want POST"),
    ):
        proxy.say(command, out=words)
        path = {"status": "/status", "whois": "/whois/100.64.0.2", "debug": "/ping/100.64.0.2"}[command]
        answer = await proxy.ask(path)
        assert (answer.status, answer.code) == (502, "cli_no_json")
        assert words in answer.json["error"]["message"]
        proxy.say(command, out=words, code="3")
        assert (await proxy.ask(path)).json["error"]["message"] == words
        proxy.say(command, code="3")
        assert (await proxy.ask(path)).json["error"]["message"].endswith("exit code 3")


async def test_a_cli_that_is_not_there(shell: str, tmp_path: Path) -> None:
    async with sidecar(shell, tmp_path, TAILSCALE_BIN="/nowhere/tailscale") as proxy:
        answer = await proxy.ask("/status")
        assert answer.status == 502
        assert answer.code in ("cli_missing", "cli_failed")  # older busybox: exit code 1 and its own words


@pytest.mark.slow
async def test_a_dead_node_is_an_answer_and_a_hung_daemon_is_504(proxy: Proxy) -> None:
    """A dead node's ping never ends, nor does any call when tailscaled hangs; tsmon must hear it in time."""
    begun = time.monotonic()
    proxy.say("debug", hang="60")
    proxy.say("status", hang="60", out=DOCUMENT)  # without the peers it answers
    proxy.say("whois", stubborn="", hang="12")  # ignores SIGTERM
    status, whois, dead = await asyncio.gather(
        *(proxy.ask(path) for path in ("/status", "/whois/100.64.0.2", "/ping/100.64.0.66"))
    )
    assert dead.json == {"IP": "100.64.0.66", "Err": "timeout"}
    assert (status.status, status.code) == (whois.status, whois.code) == (504, "cli_timeout")
    assert time.monotonic() - begun < 10.5
    (proxy.directory / "cli" / "status.hang").unlink()
    proxy.say("status", err="failed to connect to local tailscaled", code="1")
    assert (await proxy.ask("/ping/100.64.0.66")).status == 502
    assert proxy.leftovers == []
    assert (proxy.directory / "stderr").read_text() == ""


# -- who may ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8765", 200),
        ("[::1]", 200),
        ("10.0.0.1", 200),
        ("sidecar", 200),
        ("monitor.TAIL.example:8765", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("[evil.example]", 403),
        ("[::1]:x", 403),
        ("[::1]evil.example", 403),
        ("[::1]:evil.example]:1", 403),
        ("[localhost.evil]", 403),
        ("sidecar:", 403),
        ("*", 403),
        ("127.0.0.1, evil.example", 403),
    ],
)
async def test_the_host(proxy: Proxy, host: str, status: int) -> None:
    assert (await proxy.ask("/healthz", Host=host)).status == status
    assert len(proxy.calls) == (status == 200)


async def test_no_host_two_hosts_and_web_pages(proxy: Proxy) -> None:
    for request, status in [
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\noRiGiN: http://localhost\r\n\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin:\r\n\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin : http://x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Origin: http://x\r\n\r\n", 200),
    ]:
        assert parse(await proxy.raw(request)).status == status, request


# -- hostile requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/status/", 404),
        ("/STATUS", 404),
        ("/status?peers=false", 404),
        ("//status", 404),
        ("http://127.0.0.1/status", 404),
        ("/localapi/v0/logout", 404),
        ("/whois/", 400),
        ("/whois/git", 400),
        ("/whois/-h", 400),
        ("/whois/--socket=/x", 400),
        ("/whois/1.2.3", 400),
        ("/whois/1.2.3.4 5", 400),
        ("/whois/1.2.3.4:0", 400),
        ("/whois/1.2.3.4:65536", 400),
        ("/whois/1.2.3.4:99999999999999999999", 400),
        ("/whois/1.2.3.4:-1", 400),
        ("/whois/[::1]:$(id)", 400),
        ("/whois/[::1]", 400),
        ("/whois/[::1]:80[::1]:80", 400),
        ("/whois/[::1]--json]:80", 400),
        ("/whois/[::1]]:80", 400),
        ("/whois/[[::1]:80", 400),
        ("/whois/100.64.0.2;id", 400),
        ("/ping/$(id)", 400),
        ("/ping/`id`", 400),
        ("/ping/%00", 400),
        ("/ping/100.64.0.2%0a", 400),
        ("/ping/100.64.0.2&type=ICMP", 400),
        ("/ping/100.64.0.2:80", 400),
        ("/ping/fe80::1%25eth0", 400),
        ("/ping/" + "1" * 46, 400),
        ("/ping/../status", 400),
    ],
)
async def test_hostile_paths_reach_no_command(proxy: Proxy, path: str, status: int) -> None:
    assert (await proxy.ask(path)).status == status
    assert proxy.calls == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /status\r\n\r\n", 400),
        (b"get /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /status HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\n: empty\r\n\r\n", 400),
        (b"GET /sta\0tus HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: local\0host\r\n\r\n", 400),
        (b"GET /sta\rtus HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\x1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\xff\xfe\xfd HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 431),
        (b"x" * 60_000, 431),
        (b"\n" * 60_000, 400),
    ],
)
async def test_requests_that_are_none(proxy: Proxy, data: bytes, status: int) -> None:
    assert parse(await proxy.raw(data)).status == status
    assert proxy.calls == []


async def test_a_body_is_not_waited_for_and_costs_no_answer(proxy: Proxy) -> None:
    head = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n"
    assert parse(await proxy.raw(head + b"x" * 50_000)).status == 405
    assert parse(await proxy.raw(head)).status == 405


# -- slow and many clients ---------------------------------------------------------------------------------


async def test_a_client_that_shuts_its_sending_side_gets_its_answer(proxy: Proxy) -> None:
    proxy.say("whois", hang="1.2", out="{}")  # longer than what socat itself would wait
    raw = await proxy.raw(b"GET /whois/100.64.0.2 HTTP/1.1\r\nHost: localhost\r\n\r\n", shut=True)
    assert parse(raw).code == "cli_no_json"  # the double's sleep says nothing
    raw = await proxy.raw(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", shut=True)
    assert parse(raw).status == 200


async def test_a_request_in_pieces_is_read(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for piece in (b"GET /sta", b"tus HTTP/1.1\r", b"\nHost: local", b"host\r\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.1)
    assert parse(await asyncio.wait_for(reader.read(-1), 5)).body.decode() == DOCUMENT
    writer.close()


async def test_a_dribbling_client_is_ended(proxy: Proxy) -> None:
    """One byte at a time, for ever: the limit is for the whole head, not for each byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    begun = time.monotonic()

    async def dribble() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.2)

    task = asyncio.create_task(dribble())
    try:
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), 8)
    finally:
        task.cancel()
        writer.close()
    assert parse(answer).status == 408
    assert time.monotonic() - begun < 6


async def test_silent_clients_are_ended_and_keep_nobody_out(proxy: Proxy) -> None:
    """All places taken by clients that say nothing: others are answered within tsmon's time limit."""
    silent = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(64)]
    begun = time.monotonic()
    assert (await proxy.ask("/healthz")).status == 200
    assert time.monotonic() - begun < 8
    for reader, writer in silent:
        assert parse(await asyncio.wait_for(reader.read(-1), 8)).status == 408
        writer.close()
    assert proxy.leftovers == []
    assert (proxy.directory / "stderr").read_text() == ""


@pytest.mark.slow
async def test_190_silent_and_2000_whois_clients_keep_status_from_nobody(proxy: Proxy) -> None:
    """More of each than the listener has children and backlog for, and a whois that hangs."""
    proxy.say("whois", out="{}", hang="20")
    silent = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(190)]

    async def ask_who() -> int:
        try:
            return (await proxy.ask("/whois/100.64.0.2", seconds=12)).status
        except (OSError, TimeoutError, AssertionError):  # refused, waited in vain, cut off
            return 0

    crowd = [asyncio.create_task(ask_who()) for _ in range(2000)]
    waited = []
    try:
        for _ in range(3):
            begun = time.monotonic()
            assert (await proxy.ask("/status")).status == 200
            waited.append(time.monotonic() - begun)
        seen = Counter(await asyncio.gather(*crowd))
    finally:
        for task in crowd:
            task.cancel()
        for _, writer in silent:
            writer.close()
    assert min(waited) < 5, "starved, each would wait for the 9 s of the whois"
    assert max(waited) < 10, "tsmon's own limit"
    assert seen[503] > 100
    assert len([call for call in proxy.calls if "<whois>" in call]) <= 48, "16 at a time, for 9 s each"


@pytest.mark.parametrize("kind", ["whois", "ping"])
async def test_16_of_a_kind_at_once_and_the_rest_is_503(proxy: Proxy, kind: str) -> None:
    proxy.say("whois", out="{}", hang="3")
    proxy.say("debug", out="{}", hang="3")
    answers = await asyncio.gather(*(proxy.ask(f"/{kind}/100.64.0.2") for _ in range(20)))
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 4
    assert {(answer.code, answer.headers["retry-after"]) for answer in refused} == {("busy", "1")}
    proxy.say("whois", out="{}")
    proxy.say("debug", out="{}")
    assert (await proxy.ask(f"/{kind}/100.64.0.2")).status == 200, "the places were given back"


async def test_the_place_of_a_killed_handler_is_taken_by_the_next(proxy: Proxy) -> None:
    proxy.say("whois", out="{}", hang="2")
    writers = []
    for _ in range(16):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /whois/100.64.0.2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writers.append(writer)
    await wait_for(lambda: len(proxy.calls) == 16)
    assert (await proxy.ask("/whois/100.64.0.2")).status == 503
    handlers = [int(file.read_text()) for file in (proxy.directory / "tmp").rglob("whois.*")]
    assert len(handlers) == 16
    for handler in handlers:
        os.kill(handler, signal.SIGKILL)
    for writer in writers:
        writer.close()
    await wait_for(lambda: not any(Path(f"/proc/{handler}").exists() for handler in handlers))
    proxy.say("whois", out="{}")
    assert (await proxy.ask("/whois/100.64.0.2")).status == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "", 403),
        ("cross-site", "navigate", 200),
        ("none", "", 200),
    ],
)
async def test_pages_of_other_sites_get_nothing(proxy: Proxy, site: str, mode: str, status: int) -> None:
    """An <img> sends no Origin."""
    answer = await proxy.ask("/status", sec_fetch_site=site, Sec_Fetch_Mode=mode)
    assert answer.status == status


@pytest.mark.slow
async def test_a_client_that_does_not_take_its_answer_is_ended(proxy: Proxy) -> None:
    proxy.say("status", out=json.dumps({"Peer": "x" * 12_000_000}))
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", proxy.port))
        lazy.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_for(lambda: proxy.calls)
        assert (await proxy.ask("/whois/100.64.0.2")).status == 200
        await wait_for(lambda: not proxy.leftovers, 15)


async def test_clients_that_go_away_leave_nothing_behind(proxy: Proxy) -> None:
    for data in (b"", b"GET /sta", b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n") * 5:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(data)
        writer.transport.abort()
    assert (await proxy.ask("/status")).status == 200
    await wait_for(lambda: not proxy.leftovers and not children(proxy.process.pid), 10)
    assert (proxy.directory / "stderr").read_text() == "", "the container's log is not for strangers to fill"


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_64_at_once(proxy: Proxy) -> None:
    source = Sidecar(proxy.url, settings(source_timeout="30s"))
    try:
        found = await asyncio.gather(*(source.status() for _ in range(64)))
    finally:
        await source.close()
    assert [document.decode() for document in found] == [DOCUMENT] * 64


# -- the listener ------------------------------------------------------------------------------------------


async def test_a_script_at_an_odd_place_and_another_socket(shell: str, tmp_path: Path) -> None:
    odd = tmp_path / "it's a \"$HOME\", isn't it: !! \\"
    odd.mkdir()
    script = odd / "server.sh"
    shutil.copy(SCRIPT, script)
    async with sidecar(shell, tmp_path, script, TS_SOCKET="/run/odd place/s") as proxy:
        proxy.say("status", out="{}")
        assert (await proxy.ask("/status")).status == 200
        assert proxy.calls == ["<--socket=/run/odd place/s><status><--json>"]


async def test_it_listens_on_loopback_only_unless_told(proxy: Proxy) -> None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and int(address.split(":")[1], 16) == proxy.port:
            assert address.split(":")[0] == "0100007F"
            return
    pytest.fail("the listener is not there")


async def test_it_answers_those_it_is_told_to(shell: str, tmp_path: Path) -> None:
    async with sidecar(shell, tmp_path, TSMON_SIDECAR_CLIENTS="127.0.0.2/31") as proxy:
        request = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\n\r\n".encode()
        for address, answered in (("127.0.0.2", True), ("127.0.0.3", True), ("127.0.0.1", False)):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", proxy.port, local_addr=(address, 0)
                )
                answer = b""
                with contextlib.suppress(ConnectionError):
                    writer.write(request)
                    answer = await reader.read(1 << 16)
                writer.close()
            assert answer.startswith(b"HTTP/1.1 200") == answered, address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TSMON_SIDECAR_PORT", "http"),
        ("TSMON_SIDECAR_PORT", "0"),
        ("TSMON_SIDECAR_PORT", "65536"),
        ("TSMON_SIDECAR_PORT", "8765,fork"),
        ("TSMON_SIDECAR_BIND", "localhost"),
        ("TSMON_SIDECAR_BIND", "1.2.3.4,fork"),
        ("TSMON_SIDECAR_CLIENTS", "10.0.0.1"),
        ("TSMON_SIDECAR_CLIENTS", "10.0.0.0/33"),
        ("TSMON_SIDECAR_CLIENTS", "10.0.0.0/8,fork"),
        ("TSMON_SIDECAR_CLIENTS", "tsmon/32"),
        ("PATH", "/nowhere"),
    ],
)
def test_bad_settings_are_one_clear_line(shell: str, name: str, value: str) -> None:
    found = shutil.which(shell) or ""
    run = subprocess.run(
        [found, *(["sh"] if shell == "busybox" else []), str(SCRIPT)],
        env={**os.environ, name: value},
        capture_output=True,
        check=False,
        text=True,
        timeout=10,
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("tailscale-http-server: ")
    assert name in line or "is missing" in line


# -- tsmon behind it ---------------------------------------------------------------------------------------


def find_real(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('TSMON_E2E_BIN', '')}:{os.environ['PATH']}")


def tailscale_command(kind: str, directory: Path) -> str:
    if kind == "double":
        double = SUPPORT / "sidecar_cli_double_localapi.py"
        command = directory / "tailscale"
        command.write_text(double.read_text().replace("/usr/bin/env python3", sys.executable, 1))
        command.chmod(0o755)
        return str(command)
    real = find_real("tailscale")
    if real is None:
        pytest.skip("SKIPPED LOUDLY: no tailscale here, the proxy is untested with the real CLI")
    return real


class RealKeys(SimTailnet):
    """With node keys that the real CLI can read."""

    def document(self) -> bytes:
        return re.sub(
            rb"nodekey:(\w+)",
            lambda found: b"nodekey:" + hashlib.sha256(found[1]).hexdigest().encode(),
            super().document(),
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["double", "real"])
async def test_the_source_tests_through_the_real_proxy(kind: str, shell: str, tmp_path: Path) -> None:
    """socat, the handler, a CLI and a LocalAPI: what is wanted of any source."""
    tailnet = RealKeys(Clock())
    for name in ("git", "dev"):
        tailnet.add(name)
    command = tailscale_command(kind, tmp_path)
    path = tmp_path / "s"
    async with (
        serving(FakeLocalApi(tailnet).application(), path),
        sidecar(shell, tmp_path, TAILSCALE_BIN=command, TS_SOCKET=str(path)) as proxy,
    ):
        source: Any = Sidecar(proxy.url, settings())
        try:
            await expect_answers(source, tailnet)
            assert (await proxy.ask("/healthz")).status == 200
            tailnet.fault = "refused"
            error = await failure(source.status())
            assert (error.reason, "502" in str(error)) == ("source_unreachable", True)
            tailnet.fault = ""
            assert await source.status()
        finally:
            await source.close()


@pytest.mark.slow
async def test_with_a_real_tailscaled_that_hangs_and_dies(shell: str, tmp_path: Path) -> None:
    """Nobody is logged in and nothing is sent anywhere: a daemon on its socket is all that is needed."""
    found = [find_real(name) for name in ("tailscale", "tailscaled")]
    if not all(found):
        pytest.skip("SKIPPED LOUDLY: no tailscale and tailscaled here, the proxy is untested with real ones")
    command, daemon = map(str, found)
    path = tmp_path / "s"
    options = ["--tun=userspace-networking", "--state=mem:", "--port=0", "--no-logs-no-support"]
    process = await asyncio.create_subprocess_exec(
        *(daemon, f"--statedir={tmp_path / 'state'}", f"--socket={path}", *options),
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TS_PANIC_IF_HIT_MAIN_CONTROL": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await wait_for(path.exists, 15)
        async with sidecar(shell, tmp_path, TAILSCALE_BIN=command, TS_SOCKET=str(path)) as proxy:
            assert (await proxy.ask("/healthz")).json == {"ok": True}
            assert (await proxy.ask("/status")).json["BackendState"] in ("NoState", "NeedsLogin")
            ping = await proxy.ask("/ping/100.64.0.1")
            assert ping.status in (200, 502)
            assert ping.status == 502 or ping.json["Err"]
            assert (await proxy.ask("/whois/100.64.0.1")).status in (404, 502)
            process.send_signal(signal.SIGSTOP)
            hung = await asyncio.gather(*map(proxy.ask, ("/status", "/ping/100.64.0.1", "/whois/100.64.0.1")))
            assert [answer.status for answer in hung] == [504, 504, 504]
            process.send_signal(signal.SIGCONT)
            assert (await proxy.ask("/healthz")).status == 200
            process.kill()
            await process.wait()
            gone = await proxy.ask("/status")
            assert (gone.status, gone.code) == (502, "cli_failed")
            assert "failed to connect" in gone.json["error"]["message"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
