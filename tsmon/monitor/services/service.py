"""What is known of one checked port. Pure."""

from typing import Literal, NamedTuple

import msgspec

from tsmon.config.service_checks import ServiceCheck
from tsmon.source.check_answer import CheckOutcome

OUTCOME_WORDS: dict[CheckOutcome, str] = {
    "ok": "answers",
    "refused": "refuses",
    "no_answer": "does not answer",
    "bad_answer": "answers badly",
    "unknown": "is not known",
}
"""Of a port: "its port 5432 refuses"."""


class ServiceKey(NamedTuple):
    """Which service."""

    owner: str
    """Stable ID of the node, or the name of a Tailscale Service (`svc:web`)."""
    check: str
    """As it is written in the configuration."""

    @property
    def text(self) -> str:
        """The same in one text, as it is stored: neither part holds a blank."""
        return f"{self.owner} {self.check}"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One checked port; times in Unix seconds."""

    owner: str
    check: ServiceCheck
    name: str
    """Hostname of the node, or the name of the Tailscale Service."""
    first_seen: float
    state: CheckOutcome = "unknown"
    """What three failures in a row, or one answer, proved; `unknown` while it cannot be asked."""
    since: float
    latency_ms: float | None = None
    detail: str = ""
    """What the last failures looked like, in words."""
    misses: int = 0
    first_miss: float | None = None
    down_since: float | None = None
    """Begin of the failure that lasts, also while it cannot be asked: only an answer ends it."""

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.owner, str(self.check))

    @property
    def tailscale_service(self) -> str | None:
        """The Tailscale Service that it is of; any of its hosts may answer for it. None: it is a node's."""
        return self.owner if self.owner.startswith("svc:") else None

    @property
    def down(self) -> bool:
        return self.state not in ("ok", "unknown")

    @property
    def span_state(self) -> Literal["online", "offline", "unknown"]:
        """As which state of a node its time counts."""
        if self.state == "unknown":
            return "unknown"
        return "offline" if self.down else "online"

    @property
    def words(self) -> str:
        """What is wrong with it, for people."""
        what = f"port {self.check.port}" if not self.check.web else str(self.check)
        said = f"{what} {OUTCOME_WORDS[self.state]}"
        if self.state == "bad_answer" and self.detail:
            said += f" ({self.detail})"
        return f"{self.name}: {said}" if self.tailscale_service else f"{self.name} is online, but its {said}"


class Target(NamedTuple):
    """One question: who is asked what, and under which name."""

    key: ServiceKey
    check: ServiceCheck
    ip: str
    name: str
    """What a certificate must be for."""


class ServiceSpan(NamedTuple):
    """From `at` on the service counts as `state`; None: nobody asks for it any more."""

    key: ServiceKey
    at: float
    state: Literal["online", "offline", "unknown"] | None
