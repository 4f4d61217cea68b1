"""The simulated tailnet as a source, without sockets."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tsmon.config.service_checks import ServiceCheck
from tsmon.demo.tailnet import SimTailnet
from tsmon.source.check_answer import CHECK_TIMEOUT, Asker, CannotAskError, CheckAnswer
from tsmon.source.errors import SourceError
from tsmon.source.extras import LockedOut, TailscaleService, read_lock
from tsmon.source.pings import Ping


class SimSource:
    """The `Source` protocol straight over a simulated tailnet: no sockets, any clock."""

    kind = "localapi"
    name = "unix:///simulated"

    def __init__(self, tailnet: SimTailnet, *, bus: bool = False, ping_timeout: float = 5.0) -> None:
        self.tailnet = tailnet
        self.can_ping = True
        self.health_codes: frozenset[str] = frozenset()
        self.reads = 0
        self.bus_open = bus
        self._bus = bus
        self._ping_timeout = ping_timeout

    async def status(self) -> bytes:
        self.reads += 1
        fault = self.tailnet.fault
        if fault == "timeout":
            await self.tailnet.clock.sleep(10.0)
            raise SourceError("source_timeout", f"{self.name}: no answer within 10 s")
        if fault == "garbage":
            return b"failed to connect to local tailscaled"
        if fault:
            raise SourceError("source_unreachable", f"{self.name}: connection refused")
        return self.tailnet.document()

    async def whois(self, address: str) -> dict[str, Any] | None:
        return self.tailnet.whois(address)

    async def ping(self, ip: str) -> Ping:
        result = self.tailnet.ping_result(ip)
        if result is None:
            await self.tailnet.clock.sleep(self._ping_timeout)
            return Ping("missed")
        if result.get("Err"):
            return Ping("unmeasured", error=result["Err"])
        node = self.tailnet.find(result["NodeName"])
        await self.tailnet.clock.sleep(node.latency_ms / 1000)
        return Ping("answered", latency_ms=node.latency_ms, path=node.path, relay=node.relay)

    def asker(self, own_ips: Sequence[str]) -> Asker:
        del own_ips
        if not self.tailnet.can_dial:
            raise CannotAskError("no port can be asked through this source")
        return self._ask

    async def _ask(self, check: ServiceCheck, ip: str, name: str) -> CheckAnswer:
        del name
        state = self.tailnet.port(ip, check.port)
        if state is None or (state == "silent" and check.web):
            await self.tailnet.clock.sleep(CHECK_TIMEOUT)
            return CheckAnswer("no_answer", detail="no answer within 5 s", lives=state is not None)
        await self.tailnet.clock.sleep(0.012)
        if state == "refused":
            return CheckAnswer("refused", detail="the port is closed", lives=True)
        if state == "failing" and check.web:
            return CheckAnswer("bad_answer", detail="answered 503", lives=True)
        return CheckAnswer("ok", latency_ms=12.0, lives=True)

    async def services(self) -> tuple[TailscaleService, ...] | None:
        return None

    async def locked_out(self) -> tuple[LockedOut, ...] | None:
        return read_lock(msgspec.json.encode(self.tailnet.lock_status()))

    async def control_url(self) -> str | None:
        return "https://control.example"

    async def watch(self, changed: Callable[[], None]) -> None:
        if not self._bus:
            return
        stop = self.tailnet.listen(lambda _: changed())
        try:
            await asyncio.Event().wait()
        finally:
            stop()

    async def close(self) -> None:
        """Nothing is open."""
