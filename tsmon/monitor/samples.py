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


class ServiceSample(msgspec.Struct, frozen=True):
    """One checked port on the 5-minute grid."""

    hostname: str
    node_type: str
    check: str
    up: int
    latency_ms: float | None


AnySample = Sample | ServiceSample


def service_samples_of(view: View) -> list[ServiceSample]:
    """One sample of each checked port whose state is known (rule 13.9)."""
    samples = []
    for service in view.services.values() if view.blind is None else ():
        if service.state == "unknown":
            continue
        node = view.nodes.get(service.owner)
        samples.append(
            ServiceSample(
                hostname=service.name,
                node_type=node.role.node_type if node is not None else "service",
                check=str(service.check),
                up=int(not service.down),
                latency_ms=service.latency_ms,
            )
        )
    return samples


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
