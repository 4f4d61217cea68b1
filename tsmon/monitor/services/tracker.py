"""All checked ports: what answers say of them, and what follows with each trusted document. Pure, time passed
in."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from tsmon.base.clock import Moment
from tsmon.base.text import length_words
from tsmon.classify import Severity
from tsmon.config.service_checks import ServiceCheck
from tsmon.monitor.services.service import Service, ServiceKey, ServiceSpan, Target
from tsmon.monitor.state import Event, Node
from tsmon.source.check_answer import CheckAnswer
from tsmon.source.extras import TailscaleService

MISSES = 3
"""Failed checks in a row that make a service down (rule 13.2)."""


@dataclass(slots=True)
class ServiceChanges:
    """What one step changed."""

    stored: list[Service] = field(default_factory=list)
    gone: list[ServiceKey] = field(default_factory=list)
    spans: list[ServiceSpan] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Services:
    """All services that are asked for."""

    def __init__(self, stored: Iterable[Service] = ()) -> None:
        """`stored` as the last run left them."""
        self.known: Mapping[ServiceKey, Service] = {service.key: service for service in stored}
        """As of the last step: replaced, never changed, so that a view may keep it."""
        self.targets: Mapping[ServiceKey, Target] = {}
        """What can be asked now: of nodes that are online."""
        self._heard: dict[ServiceKey, Service] = {}  # what answers said since then

    def misses(self, key: ServiceKey) -> int:
        """Failed checks in a row of a service that is not down yet."""
        service = self._heard.get(key) or self.known.get(key)
        return service.misses if service is not None and not service.down else 0

    def record(self, key: ServiceKey, sent: Moment, answer: CheckAnswer) -> bool:
        """An answer to a check sent at `sent`. True when the state changes with it."""
        before = self._heard.get(key) or self.known.get(key)
        if before is None:
            return False
        self._heard[key] = after = heard(before, answer, sent.wall)
        return after.state != before.state

    def step(
        self, targets: Iterable[Target], nodes: Mapping[str, Node], now: Moment, *, unsure: bool
    ) -> ServiceChanges:
        """Bring what is known up to this trusted document. `unsure`: the monitor's own path is suspect, or
        nobody can be asked."""
        changes = ServiceChanges()
        found: dict[ServiceKey, Service] = {}
        askable: dict[ServiceKey, Target] = {}
        for target in targets:
            node = nodes.get(target.key.owner)
            before = self.known.get(target.key)
            after = self._heard.get(target.key) or before or _new(target, node, now)
            is_there = _is_there(after, node)
            after = after if is_there and not unsure else _held(after, node, now)
            if node is not None and after.name != node.hostname:
                after = msgspec.structs.replace(after, name=node.hostname)
            found[target.key] = after
            if is_there:
                askable[target.key] = target
            if after is not before:
                _note(before, after, node, now, changes)
        changes.gone = [key for key in self.known if key not in found]
        changes.spans += [ServiceSpan(key, now.wall, None) for key in changes.gone]
        self._heard.clear()
        self.known, self.targets = found, askable
        return changes

    def cut(self, now: float) -> list[Service]:
        """The clock went back: nothing may lie beyond `now` (Unix seconds). Returns what it changed."""
        times = ("first_seen", "since", "first_miss", "down_since")
        changed = []
        for service in [*self.known.values(), *self._heard.values()]:
            beyond = {name: now for name in times if (at := getattr(service, name)) is not None and at > now}
            if beyond:
                changed.append(msgspec.structs.replace(service, **beyond))
        self.known = {**self.known, **{service.key: service for service in changed}}
        self._heard.clear()
        return changed


def targets(nodes: Iterable[Node], services: Iterable[TailscaleService]) -> Iterator[Target]:
    """Everything that is asked for: the checks of each node's role, the ports of `services`."""
    for node in nodes:
        ip = node.facts.ip
        for check in node.role.checks if ip is not None else ():
            yield Target(ServiceKey(node.id, str(check)), check, ip or "", node.facts.dns_name or ip or "")
    for service in services:
        for port in service.ports if service.ip is not None else ():
            check = ServiceCheck("tcp", port)
            yield Target(ServiceKey(service.name, str(check)), check, service.ip or "", service.ip or "")


def heard(service: Service, answer: CheckAnswer, sent: float) -> Service:
    """`service` after an answer to a check sent at `sent` (Unix seconds)."""
    outcome = answer.outcome
    if outcome in ("ok", "unknown"):
        return msgspec.structs.replace(
            service,
            state=outcome,
            since=service.since if service.state == outcome else max(sent, service.since),
            latency_ms=answer.latency_ms,
            detail=answer.detail,
            misses=0,
            first_miss=None,
            down_since=None if outcome == "ok" else service.down_since,
        )
    misses = service.misses + 1
    first_miss = service.first_miss if service.first_miss is not None else max(sent, service.since)
    failed = msgspec.structs.replace(service, misses=misses, first_miss=first_miss)
    if not service.down and misses < MISSES:
        return failed
    since = service.since if service.down else first_miss
    return msgspec.structs.replace(
        failed,
        state=outcome,
        since=since,
        latency_ms=None,
        detail=answer.detail,
        down_since=service.down_since if service.down_since is not None else since,
    )


def _new(target: Target, node: Node | None, now: Moment) -> Service:
    name = node.hostname if node is not None else target.key.owner
    return Service(owner=target.key.owner, check=target.check, name=name, first_seen=now.wall, since=now.wall)


def _is_there(service: Service, node: Node | None) -> bool:
    if service.tailscale_service:
        return True
    return node is not None and node.state == "online" and node.missing_since is None


def _held(service: Service, node: Node | None, now: Moment) -> Service:
    """Nothing is known of a service while its node is offline or unknown, or the own path is suspect: what a
    check said of it then is not believed (rule 13.3)."""
    if service.state == "unknown" and not service.misses:
        return service
    since = now.wall
    if node is not None and node.state != "online" and node.since is not None:
        since = min(now.wall, max(node.since, service.since))
    return msgspec.structs.replace(
        service,
        state="unknown",
        since=service.since if service.state == "unknown" else since,
        latency_ms=None,
        detail="",
        misses=0,
        first_miss=None,
    )


def _note(
    before: Service | None, after: Service, node: Node | None, now: Moment, changes: ServiceChanges
) -> None:
    if before is None or _lasting(before) != _lasting(after):
        changes.stored.append(after)
    if before is None or before.span_state != after.span_state:
        at = after.since if before is None or after.since > before.since else now.wall
        changes.spans.append(ServiceSpan(after.key, at, after.span_state))
    fell = before.down_since if before is not None else None
    if fell is None and after.down_since is not None:
        changes.events.append(_event("service_down", _severity(node), after, node, after.down_since))
    elif fell is not None and after.down_since is None:
        length = max(0.0, after.since - fell)
        changes.events.append(_event("service_up", "ok", after, node, after.since, length=length))


def _lasting(service: Service) -> tuple[object, ...]:
    """What is worth a write: figures and single misses are not."""
    return service.name, service.state, service.since, service.detail, service.down_since


def _severity(node: Node | None) -> Severity:
    if node is None:
        return "warning"
    return "ok" if node.role.alert == "none" else node.role.alert


def _event(
    event_type: str,
    severity: Severity,
    service: Service,
    node: Node | None,
    at: float,
    *,
    length: float | None = None,
) -> Event:
    details: dict[str, object] = {"check": str(service.check)}
    if event_type == "service_down":
        words = service.words
        details["reason"] = service.state
    else:
        words = f"{service.name}: {service.check} answers again, after {length_words(length or 0.0)}"
        details["duration_s"] = round(length or 0.0)
    if service.tailscale_service:
        details["service"] = service.owner
    return Event(
        id=0,
        timestamp=at,
        recorded_at=0.0,
        event_type=event_type,
        severity=severity,
        node_id=node.id if node is not None else None,
        hostname=node.hostname if node is not None else None,
        node_type=node.role.node_type if node is not None else None,
        message=words,
        details=details,
    )
