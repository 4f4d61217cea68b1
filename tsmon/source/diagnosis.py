"""Why the control server is lost: has this machine a network, does the server answer it, do others?

At most two requests to hosts that tailscaled talks to itself; nothing is sent but their path.
"""

import socket
from typing import Literal
from urllib.parse import urlsplit

import aiohttp

TAILSCALE = "https://controlplane.tailscale.com"
OTHER_HOST = "https://derp1.tailscale.com/generate_204"
"""A server of another network than the control server's, which every tailscaled knows."""
TIMEOUT = 5.0
"""Seconds for one request."""
_NO_ROUTE = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Documentation addresses: whether there is a way to them says whether there is a default route."""

Finding = Literal["no_network", "control_silent", "nothing_answers", "control_answers", "unknown"]
WORDS: dict[Finding, str] = {
    "no_network": "this machine has no network (no default route)",
    "control_silent": "the control server does not answer, the internet does",
    "nothing_answers": "neither the control server nor anything else on the internet answers this machine",
    "control_answers": "the control server answers this machine: it is tailscaled that has lost it",
    "unknown": "",
}


async def diagnose(control_url: str | None, other: str = OTHER_HOST) -> Finding:
    """What keeps this machine from the control server at `control_url` (None: nobody knows which it is). At
    most twice `TIMEOUT` seconds; never raises."""
    if not has_route():
        return "no_network"
    if control_url is None:
        return "unknown"
    if await _answers(control_url.rstrip("/") + health_path(control_url)):
        return "control_answers"
    return "control_silent" if await _answers(other) else "nothing_answers"


def health_path(control_url: str) -> str:
    """What Tailscale's own server, or headscale, answers to everybody."""
    host = urlsplit(control_url).hostname or ""
    return "/key?v=142" if host == "tailscale.com" or host.endswith(".tailscale.com") else "/health"


def has_route() -> bool:
    """This machine has a default route, of either family. Nothing is sent."""
    return any(_has_route(*target) for target in _NO_ROUTE)


def _has_route(ip: str, family: socket.AddressFamily) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, 9))
    except OSError:
        return False
    return True


async def _answers(url: str) -> bool:
    """Whoever serves `url` answers something, whatever it is."""
    limits = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            return response.status < 500
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return False
