"""Tailscale versions of nodes: only whois tells them (LocalAPI), one by one, so they are asked rarely."""

import asyncio
from typing import Any

from tsmon.base.clock import Clock
from tsmon.monitor.state import Node
from tsmon.server.waiting import BusyError, Whois
from tsmon.source.errors import SourceError

_KEPT = 600.0
_KEPT_FAILURE = 60.0
_PATIENCE = 2.0
"""Seconds: a page about a node does not wait longer for this one fact."""
_MOST = 10_000


class Versions:
    """Asks when somebody looks at a node, and keeps the answer for ten minutes."""

    def __init__(self, whois: Whois, clock: Clock) -> None:
        self._whois = whois
        self._clock = clock
        self._known: dict[str, tuple[float, str | None]] = {}

    async def of(self, node: Node) -> str | None:
        """The version that the node runs, None when nobody tells it."""
        now = self._clock.mono()
        known = self._known.get(node.id)
        if known is not None and known[0] > now:
            return known[1]
        version, kept = None, _KEPT
        try:
            async with asyncio.timeout(_PATIENCE):
                version = _version(await self._whois(node.facts.ip)) if node.facts.ip else None
        except (SourceError, TimeoutError, BusyError):
            kept = _KEPT_FAILURE
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[node.id] = (now + kept, version)
        return version


def _version(answer: Any) -> str | None:
    for name in ("Node", "Hostinfo", "IPNVersion"):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer[:64] if isinstance(answer, str) and answer else None
