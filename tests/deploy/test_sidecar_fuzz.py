"""The sidecar under thousands of hostile requests: never an effect beyond the status code."""

import asyncio
import ipaddress
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.sidecar_proxy import Proxy, parse, sidecar

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("socat") is None, reason="SKIPPED LOUDLY: no socat here, the sidecar is untested"
    ),
]

# What shells, options, URLs, paths, printf, sed, JSON and HTTP mind. CANARY would be a file of that name.
WORDS = r"""
    $(touch${IFS}CANARY) `touch${IFS}CANARY` ;touch${IFS}CANARY; |touch${IFS}CANARY &>CANARY& >CANARY
    --socket=CANARY -h -- - --json --help --peers=false up down logout set %0a %00 %2e%2e %24(id) %s%s%n
    \n \ \\ \033 & | / // ../ ' " $IFS ${IFS} $HOME ~ * ? [a-z]* {a,b} ! !! # ^ = [ ] ]: [:
    100.64.0.1 fd7a:115c:a1e0::1 :: : . 256 0 00 1.2.3 100.64.0.1:443 [::1]:80
    &type=peerapi &ip=1.1.1.1 ?ip= localapi/v0/logout
"""
LONG_WORDS = ["$(touch CANARY)", "`touch CANARY`", " ", "\t", "é", "\x80", "\xff", "x" * 500, "1" * 60]
PIECES = [*WORDS.split(), *LONG_WORDS]
BYTES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\x01",
    b"\x1b[2J",
    b"\x7f",
    b"\r\n\r\n",
    b" HTTP/1.1\r\n",
    b"Origin:\r\n",
]
ROUTES = ["/whois/", "/ping/", "/status", "/healthz", "/", "", "/whois/100.64.0.1", "/ping/::1"]


def hostile_request(chance: random.Random) -> bytes:
    path = chance.choice(ROUTES) + "".join(chance.choice(PIECES) for _ in range(chance.randint(0, 4)))
    host = "127.0.0.1" if chance.random() < 0.9 else "".join(chance.choice(PIECES) for _ in range(2))
    method = chance.choice(["GET"] * 18 + ["HEAD", "POST", chance.choice(PIECES)])
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
    if chance.random() < 0.1:
        cut = chance.randint(0, len(request) - 4)
        request = request[:cut] + chance.choice(BYTES) + request[cut:]
    return request


def check_calls(calls: list[str]) -> None:
    """The command line saw nothing but the calls of the contract, with addresses that are some."""
    allowed = re.compile(
        r"<status><--json>(<--peers=false>)?|<whois><--json><(?P<who>[^<>]+)>"
        r"|<debug><localapi><POST></localapi/v0/ping\?ip=(?P<ping>[^<>&]+)&type=disco>"
    )
    for call in calls:
        match = allowed.fullmatch(call)
        assert match, call
        if match["ping"]:
            ipaddress.ip_address(match["ping"])
        if match["who"]:
            ipaddress.ip_address(re.sub(r"^\[(.*)\]:\d+$|^([\d.]+):\d+$", r"\1\2", match["who"]))


async def attack(proxy: Proxy, requests: list[bytes], at_once: int = 16) -> Counter[int]:
    """The statuses; every answer is a whole, clean one and every error JSON."""
    seen: Counter[int] = Counter()
    work = iter(requests)

    async def client() -> None:
        for request in work:
            answer = parse(await proxy.raw(request, shut=True), head=None)
            seen[answer.status] += 1
            assert answer.status in (200, 400, 403, 404, 405, 408, 431, 503), request
            if answer.body and answer.status != 200:
                assert set(answer.json["error"]) == {"code", "message"}

    async with asyncio.TaskGroup() as clients:
        for _ in range(at_once):
            clients.create_task(client())
    return seen


@pytest.mark.parametrize(("shell", "number"), [("dash", 8000), ("busybox", 2000)])
async def test_10000_hostile_requests_have_no_effect(shell: str, number: int, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"SKIPPED LOUDLY: no {shell} here, the sidecar is untested with it")
    chance = random.Random(number)
    async with sidecar(shell, tmp_path) as proxy:
        for command in ("status", "whois", "debug"):
            proxy.say(command, out="{}")
        scripted = sorted(path.name for path in (tmp_path / "cli").iterdir())
        seen = await attack(proxy, [hostile_request(chance) for _ in range(number)])
        assert sum(seen.values()) == number
        assert {200, 400, 403, 404, 405} <= set(seen), "the fuzz must reach every kind of answer"
        assert len(proxy.calls) == seen[200]
        check_calls(proxy.calls)
        assert list((tmp_path / "cwd").iterdir()) == []
        assert not list(tmp_path.rglob("*CANARY*"))
        assert sorted(path.name for path in (tmp_path / "cli").iterdir()) == sorted([*scripted, "calls"])
        assert proxy.leftovers == []
        assert (await proxy.ask("/status")).status == 200


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def almost_address(chance: random.Random) -> str:
    """An address, or something one character away from one, or digits and colons at random."""
    if chance.random() < 0.3:
        return "".join(chance.choice("0123456789abcdefABCDEF::..") for _ in range(chance.randint(1, 12)))
    address = ipaddress.IPv6Address(
        chance.getrandbits(128) & chance.getrandbits(128) & chance.getrandbits(128)
    )
    if chance.random() < 0.5:
        text = str(ipaddress.IPv4Address(chance.getrandbits(32)))
    elif chance.random() < 0.2:
        text = f"::ffff:{ipaddress.IPv4Address(chance.getrandbits(32))}"
    else:
        text = chance.choice([str(address), address.exploded, str(address).upper()])
    if chance.random() < 0.5:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(["", ":", "0", ".", "f", "::"]) + text[at + chance.randint(0, 1) :]
    return text or "0"


@pytest.mark.parametrize("shell", ["dash", "busybox"])
async def test_an_address_is_what_python_calls_one(shell: str, tmp_path: Path) -> None:
    """The handler's own check against an independent one, on addresses and on what is nearly one."""
    if shutil.which(shell) is None:
        pytest.skip(f"SKIPPED LOUDLY: no {shell} here, the sidecar is untested with it")
    chance = random.Random(7)
    texts = [almost_address(chance) for _ in range(1500)]
    texts += [
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7::",
        "1:2:3:4:5:6:7:8",
        "::2:3:4:5:6:7:8",
        "1::8:",
        "1:2:3:4:5:6:7",
    ]
    texts += [
        "1:2:3:4:5:6:1.2.3.4",
        "::1.2.3.4",
        "1.2.3.4::",
        "::1.2.3",
        "01.2.3.4",
        "1.2.3.4.",
        "1.2.3.256",
        "0.0.0.0",
    ]
    async with sidecar(shell, tmp_path) as proxy:
        proxy.say("debug", out="{}")
        wrong: list[str] = []
        work = iter(texts)

        async def client() -> None:
            for text in work:
                taken = (await proxy.ask(f"/ping/{text}")).status == 200
                wrong.extend([text] if taken != is_address(text) else [])

        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(client())
    assert wrong == []
    assert 300 < sum(map(is_address, texts)) < len(texts) - 300
