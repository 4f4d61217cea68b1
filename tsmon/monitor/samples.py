"""The samples that a view makes for InfluxDB. Pure."""

import msgspec

from tsmon.monitor.state import View

LATENCY_FRESH = 300.0
"""Seconds for which a measured latency counts as the present one (rule 11.2)."""


class Sample(msgspec.Struct, frozen=True):
    """One node on the 5-minute grid: what InfluxDB stores."""

    hostname: str
    node_type: str
    os: str
    online: int
    ip: str | None
    latency_ms: float | None


def samples_of(view: View, now: float) -> list[Sample]:
    """One sample of each node whose state is known (rule 11.1)."""
    samples = []
    for node in view.nodes.values():
        state = view.shown(node).state
        if state == "unknown":
            continue
        samples.append(
            Sample(
                hostname=node.hostname,
                node_type=node.role.node_type,
                os=node.facts.os,
                online=int(state == "online"),
                ip=node.facts.ip,
                latency_ms=view.measured(node, now).latency_ms,
            )
        )
    return samples
