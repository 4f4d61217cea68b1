"""What a node is for: hostname, tags, OS and owner -> role. Pure."""

from typing import Literal

import msgspec

NodeType = Literal["production", "development", "git", "other"]
Severity = Literal["ok", "warning", "critical"]


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is for and how it alerts."""

    name: str
    node_type: NodeType
    key: str
    """The role's key in `/critical`; "" for a role that is not critical."""
    critical: bool
    alert: Literal["none", "warning", "critical"]
    offline_after: float
    """Seconds of observed offline time before an outage alerts."""
    ping: bool
    key_expiry_steps: tuple[float, ...]
    """Seconds before the key's expiry at which it is told, falling."""
