"""Alert rules and their life; pure: (state, events, time) -> changes."""

from typing import Literal

import msgspec

AlertState = Literal["pending", "firing", "resolved"]
ALERT_KINDS = (
    "node_offline",
    "node_detached",
    "node_missing",
    "node_flapping",
    "key_expiring",
    "monitor_blind",
    "monitor_isolated",
    "storage_failing",
    "path_degraded",
)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that lasts. Replaced, never changed; stored at every step."""

    id: int
    kind: str
    severity: Literal["warning", "critical"]
    state: AlertState = "pending"
    node_id: str | None = None
    hostname: str | None = None
    node_type: str | None = None
    since: float | None = None
    """When the condition began (the outage, not the alert); None when it began before tsmon knew the node."""
    pending_at: float
    """When tsmon first saw the condition."""
    fired_at: float | None = None
    resolved_at: float | None = None
    last_seen: float | None = None
    message: str = ""
    cause: str | None = None
    """Why a resolved alert ended: recovered, removed, role_changed, renewed, expired, flapping, settled, blind, acknowledged."""
    acknowledged_by: str | None = None
    silenced_until: float | None = None
    waited: float = 0.0
    """Observed seconds that count for the delay, so far."""
    steady: float = 0.0
    """Observed seconds since the condition last changed (flapping) or of sight (blind)."""
    step: float | None = None
    """key_expiring: the last step told, in seconds before the expiry."""
    key_expiry: float | None = None
    clock_lost: float = 0.0
    """Seconds that steps back of the clock took from the duration."""
    untold: bool = False
    """Resolved without a message (absorbed by another alert, a changed role)."""
    notified: bool = False
    """A notification of it was delivered."""

    def duration(self, now: float) -> float | None:
        """Seconds from `since` (else the first sight) to the end, or to `now` while it lasts."""
        begin = self.since if self.since is not None else self.pending_at
        end = self.resolved_at if self.resolved_at is not None else now
        return max(0.0, end - begin + self.clock_lost)
