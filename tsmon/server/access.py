"""Who may read: auth, Host check and security headers, as middleware."""

import base64
import hmac
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from tsmon.config import Settings
from tsmon.monitor.state import View
from tsmon.server.refusal import ask_for_token
from tsmon.server.replies import error_response
from tsmon.server.waiting import BusyError, WhoisLine
from tsmon.server.wrong_tokens import WrongTokens
from tsmon.source.errors import SourceError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
OPEN_PATHS = ("/healthz",)
"""Free of auth and Host check: a liveness probe knows no names and no secrets."""
_STATUS_ONLY = ("/readyz",)
"""Answered without auth too, but with the status code alone."""
_WHOIS_SECONDS = 30.0
_WHOIS_MOST = 4000
AUTHORIZED = web.RequestKey("authorized", bool)


_HOST = re.compile(r"[^@/?#\\\s]*")
"""What a Host header may hold; URLs know more (`evil.example@localhost`)."""


def _is_of_another_site(request: web.Request) -> bool:
    """A page of another site asks (an image, a script, fetch), not somebody who opened a link."""
    if request.headers.get("Sec-Fetch-Site") != "cross-site":
        return False
    return request.headers.get("Sec-Fetch-Mode") != "navigate"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler: runs before the headers of any answer leave."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = "tsmon"


class Access:
    """The access rules of the configuration."""

    def __init__(self, settings: Settings, view: Callable[[], View], whois: WhoisLine) -> None:
        self._view = view
        self._whois = whois
        self._wrong = WrongTokens()
        self._seen: dict[str, tuple[float, bool]] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Take the rules of new settings."""
        self._settings = settings
        self._mode = settings.auth.mode or "none"
        networks = settings.auth.trusted_networks
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._hosts = {name.casefold().rstrip(".") for name in settings.allowed_hosts}
        public = urlsplit(settings.public_url).hostname
        if public:
            self._hosts.add(public.casefold())
        self._seen.clear()

    @property
    def middleware(self) -> Any:
        """Host check first, then who is calling."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            path = self._below_prefix(request.path)
            if path in OPEN_PATHS:
                return await handler(request)
            if not self.is_known_host(request.headers.get(hdrs.HOST, "")):
                return error_response(
                    421,
                    "unknown_host",
                    "this Host is not one of tsmon's names: add it to allowed_hosts, or set public_url",
                )
            if _is_of_another_site(request):
                return error_response(403, "cross_site", "pages of other sites get no answer from tsmon")
            refused = await self._refusal(request)
            request[AUTHORIZED] = refused is None
            if refused is not None and path not in _STATUS_ONLY:
                return refused
            return await handler(request)

        return guard

    async def lets_in(self, request: web.Request) -> bool:
        """Whoever asked may still read: for answers that last. The tailnet is asked again, whatever it said
        before."""
        try:
            return await self._refusal(request, known=False) is None
        except BusyError:
            return True  # nobody could be asked; the next look will tell

    def _below_prefix(self, path: str) -> str:
        """The path as the routes name it, without the path prefix of `public_url`."""
        prefix = self._settings.path_prefix
        return path[len(prefix) :] if prefix and path.startswith(prefix + "/") else path

    def is_known_host(self, header: str) -> bool:
        """Loopback names, the monitor's own name and its first label, `public_url`'s host, `allowed_hosts`,
        and every address: a web page that points its own name at tsmon (DNS rebinding) gets nothing.

        An address cannot be pointed elsewhere: a browser that asks for `http://192.0.2.7/` lets only pages
        from there read the answer, and those are tsmon's own. So a pod's address, which nobody knows
        beforehand, needs no setting.
        """
        if not _HOST.fullmatch(header):
            return False
        try:
            host = (urlsplit("//" + header).hostname or "").casefold().rstrip(".")
        except ValueError:
            return False
        if host in ("localhost", "localhost.localdomain") or host in self._hosts or _is_address(host):
            return True
        own = self._view().self_names
        name = own[0].casefold() if own else ""
        return bool(name) and host in (name, name.partition(".")[0])

    async def _refusal(self, request: web.Request, *, known: bool = True) -> web.Response | None:
        """None when the caller may read; `known`: what was answered a short while ago serves."""
        if self._mode == "none" or self.is_trusted(request.remote):
            return None
        if self._mode == "token":
            given = request.headers.get(hdrs.AUTHORIZATION, "")
            if self._has_token(given):
                return None
            if given:
                await self._wrong.slow_down(request.remote or "")
            return ask_for_token(request.headers.get(hdrs.ACCEPT, ""), wrong=bool(given))
        if await self._is_member(request, known=known):
            return None
        return error_response(
            403, "forbidden", "this caller is not one of auth.users or auth.tags, or cannot be named now"
        )

    def is_trusted(self, remote: str | None) -> bool:
        """Let in without auth by `auth.trusted_networks`."""
        try:
            address = ipaddress.ip_address(remote or "")
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback and self._view().tun is not True:
            # A userspace tailscaled hands the tailnet's connections to 127.0.0.1: no proof of anything.
            return False
        networks: Iterable[Any] = self._trusted
        return any(address in network for network in networks)

    def _has_token(self, header: str) -> bool:
        token = self._settings.auth.token
        if token is None:
            return False
        scheme, _, value = header.partition(" ")
        if scheme.casefold() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
            except ValueError:
                return False
        elif scheme.casefold() != "bearer":
            return False
        # A header's bytes that are no UTF-8 arrive as surrogates.
        given = value.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, token.reveal().encode())

    async def _is_member(self, request: web.Request, *, known: bool = True) -> bool:
        """Who is calling is asked from the source by `ip:port`; only its JSON answers count."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not peer:
            return False
        host, port = str(peer[0]).removeprefix("::ffff:"), peer[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        now = time.monotonic()
        seen = self._seen.get(address)
        if known and seen is not None and seen[0] > now:
            return seen[1]
        try:
            answer = await self._whois.ask(address, host)
        except SourceError:
            return False
        allowed = answer is not None and self._is_allowed(answer)
        while len(self._seen) >= _WHOIS_MOST:
            del self._seen[next(iter(self._seen))]  # the oldest
        self._seen.pop(address, None)
        self._seen[address] = (now + _WHOIS_SECONDS, allowed)
        return allowed

    def _is_allowed(self, answer: dict[str, Any]) -> bool:
        profile, node = answer.get("UserProfile"), answer.get("Node")
        if not isinstance(profile, dict) or not isinstance(node, dict):
            return False
        tags = node.get("Tags")
        if isinstance(tags, list) and tags:
            # A tagged machine belongs to nobody: only its tags count.
            return not set(map(str, tags)).isdisjoint(self._settings.auth.tags)
        login = str(profile.get("LoginName", "")).casefold()
        return bool(login) and login in {user.casefold() for user in self._settings.auth.users}
