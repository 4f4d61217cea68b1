"""Machines of their own on one machine: Linux network namespaces joined by a bridge."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUBNET = "10.213.77"
"""The first three parts of the machines' addresses; private, and seen in the namespaces only."""


def unable() -> str:
    """Why there can be no such machines here, "" when there can."""
    if os.geteuid() != 0:
        return "not root"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    if shutil.which("ip") is None:
        return "no ip (iproute2)"
    name = f"tsmon-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    tun = ["ip", "netns", "exec", name, "ip", "tuntap", "add", "dev", "probe", "mode", "tun"]
    made = subprocess.run(tun, capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no TUN device can be made: {made.stderr.strip()}" if made.returncode else ""


@contextmanager
def machines(*names: str) -> Iterator[dict[str, str]]:
    """A namespace for each name; the first has the bridge. Their addresses end with 1, 2, 3, ..."""
    spaces = {name: f"tsmon-{os.getpid()}-{name}" for name in names}
    first = spaces[names[0]]
    try:
        for space in spaces.values():
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", first, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", first, "address", "add", f"{SUBNET}.1/24", "dev", "bridge0")
        _ip("-n", first, "link", "set", "bridge0", "up")
        for number, name in enumerate(names[1:], 2):
            end = ("peer", "name", f"port{number}", "netns", first)
            _ip("-n", spaces[name], "link", "add", "eth0", "type", "veth", *end)
            _ip("-n", first, "link", "set", f"port{number}", "master", "bridge0", "up")
            _ip("-n", spaces[name], "address", "add", f"{SUBNET}.{number}/24", "dev", "eth0")
            _ip("-n", spaces[name], "link", "set", "eth0", "up")
            _ip("-n", spaces[name], "route", "add", "default", "via", f"{SUBNET}.1")
        yield spaces
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
