"""HEALTHCHECK of tsmon's image: exit code 0 when /healthz says 200. Asks where TSMON_LISTEN says.

A tsmon that listens on all addresses is there for others: with nothing but loopback left nobody reaches it,
however well it answers itself.
"""

import os
import sys
import urllib.request
from pathlib import Path

ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (asked, not listened on)


def has_network(directory: Path) -> bool:
    """A route by a device other than loopback; it stands first in a line of IPv4's, last in one of IPv6's."""
    devices = set()
    for name, column in (("route", 0), ("ipv6_route", -1)):
        path = directory / name
        lines = path.read_text().splitlines() if path.exists() else []
        devices |= {line.split()[column] for line in lines}
    return bool(devices - {"Iface", "lo"})


host, _, port = (os.environ.get("TSMON_LISTEN") or ":8000").rpartition(":")
if host in ANY and not has_network(Path(os.environ.get("TSMON_ROUTES", "/proc/net"))):
    sys.exit("this container has no network: restart it")
try:
    with urllib.request.urlopen(f"http://{ANY.get(host, host)}:{port}/healthz", timeout=4):
        pass
except OSError as error:
    sys.exit(f"tsmon does not answer as it should: {error}")
