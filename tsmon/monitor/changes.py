"""Comparing the known nodes with a trusted snapshot and the pings -> nodes, spans, events. Pure.

Sections 2 and 4 of docs/rules.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tsmon.base.clock import Moment, rfc3339
from tsmon.classify import Role, Severity
from tsmon.monitor.reach import Pings
from tsmon.monitor.state import Event, Node, OfflineReason, Reach, State
from tsmon.monitor.wording import REASON_WORDS
from tsmon.source.status import NodeFacts, Snapshot

SECOND_LOOK = 10.0
"""Seconds that must lie between the two documents that lack a node before it counts as removed (rule 4.1)."""

_VOLATILE = ("online", "last_seen", "cur_addr", "peer_relay", "relay", "rx_bytes", "tx_bytes")
_VOLATILE_REACH = ("latency_ms", "path", "measured_at")


@dataclass(slots=True)
class Changes:
    """What one trusted document changed."""

    nodes: dict[str, Node] = field(default_factory=dict)
    removed: dict[str, Node] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    """Known nodes that `exclude` leaves out from now on."""
    stored: list[Node] = field(default_factory=list)
    """Nodes that changed in more than counters, addresses and latency."""
    spans: list[tuple[str, float, State | None]] = field(default_factory=list)
    """(stable ID, time, state from then on; None when removed)."""
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Look:
    """One trusted document, and what is needed to read it."""

    snapshot: Snapshot
    now: Moment
    role_of: Callable[[NodeFacts], Role]
    pings: Pings
    unobserved_since: float | None = None
    """Begin of the unobserved stretch that this document ended, None without one."""
    taken_away: frozenset[str] = frozenset()
    """Removed for sure (a collapse that stayed), at `taken_away_at`."""
    taken_away_at: float = 0.0
    hidden: frozenset[str] = frozenset()
    """Known nodes that are taken to be rows that could not be decoded."""
    left_out_before: frozenset[str] = frozenset()
    """Stable IDs that `exclude` left out of the last document."""
    first: bool = False
    """First document on an empty store: there is no "before" to compare with."""


def compare(nodes: dict[str, Node], removed: dict[str, Node], look: Look) -> Changes:
    """What `look` says against the known `nodes` and `removed` ones (neither is changed)."""
    changes = Changes(removed=dict(removed))
    seen = look.snapshot.nodes
    for id_, facts in seen.items():
        node = nodes.get(id_)
        if node is None:
            changes.nodes[id_] = _arrive(facts, look, changes)
        else:
            changes.nodes[id_] = _again(node, facts, look, changes)
    for id_, node in nodes.items():
        if id_ not in seen:
            _lacking(node, look, changes)
    return changes


def _arrive(facts: NodeFacts, look: Look, changes: Changes) -> Node:
    """A node that was not known, or the return of a removed one."""
    now = look.now.wall
    before = changes.removed.pop(facts.id, None)
    if before is not None and before.left_out:
        return _let_in(before, facts, look, changes)
    role = look.role_of(facts)
    seen_online = before is not None and before.seen_online
    state, reason = _conclude(facts, look.pings.reach_of(facts.id), seen_online=seen_online)
    node = Node(
        facts=facts,
        role=role,
        first_seen=before.first_seen if before else now,
        state=state,
        reason=reason,
        since=now if state != "offline" else facts.last_seen,
        last_online=now if state == "online" else facts.last_seen,
        seen_online=seen_online or state == "online",
        predecessors=before.predecessors if before else (),
        successor=before.successor if before else "",
    )
    changes.stored.append(node)
    changes.spans.append((node.id, now, state))
    if not look.first:
        details = {"returned": True} if before else {}
        words = _arrival(node, before, look)
        changes.events.append(node_event("node_added", "ok", node, now, words, **details))
    if state != "unknown" and (role.critical or not look.first):
        changes.events.append(_state_event(node, now, first=True))
    return node


def _arrival(node: Node, before: Node | None, look: Look) -> str:
    """The words for it; `before` is the node as it was removed."""
    if node.id in look.left_out_before:
        return f"{node.hostname} is left out no longer (exclude)"
    if before is None:
        return f"{node.hostname} joined the tailnet"
    name = f" (it was called {before.hostname})" if before.hostname != node.hostname else ""
    state = "" if node.state == "online" else f", but is {node.state}"
    return f"{node.hostname} is back in the tailnet{name}{state}"


def _let_in(before: Node, facts: NodeFacts, look: Look, changes: Changes) -> Node:
    """`exclude` leaves the node out no longer: it goes on as after any time unseen."""
    known = before.state if before.state != "unknown" else before.last_state
    node = msgspec.structs.replace(
        before,
        removed_at=None,
        left_out=False,
        state="unknown",
        reason=None,
        since=before.removed_at,
        last_state=known,
        last_state_at=before.removed_at,
        last_since=before.since if before.state != "unknown" else before.last_since,
    )
    node = _again(node, facts, look, changes)
    if node.state == "unknown":
        changes.spans.append((node.id, look.now.wall, "unknown"))
    if changes.stored[-1:] != [node]:
        changes.stored.append(node)
    return node


def _again(node: Node, facts: NodeFacts, look: Look, changes: Changes) -> Node:
    """A known node in a further document."""
    if facts.online and not node.facts.online:
        look.pings.control_returned(node.id)
    elif node.facts.online and not facts.online:
        look.pings.control_offline(node.id, look.now)
    reach = look.pings.reach_of(node.id)
    if facts is node.facts and reach == node.reach and node.state != "unknown" and node.missing_since is None:
        return node
    now = look.now.wall
    renewed = msgspec.structs.replace(node, facts=facts, reach=reach, missing_since=None, unreadable=False)
    if facts is not node.facts:
        renewed = _described(node, renewed, look, changes)
    state, reason = _conclude(facts, reach, seen_online=node.seen_online)
    was = node.last_state if node.state == "unknown" and node.last_state else node.state
    if state == node.state:
        renewed = msgspec.structs.replace(renewed, reason=reason)
    elif state == was:
        # Rule 2.7: back from unknown to what was known before: no change, and `since` stays what it was.
        renewed = msgspec.structs.replace(
            renewed, state=state, reason=reason, since=node.last_since, **_NO_LAST_STATE
        )
        changes.spans.append((node.id, now, state))
    else:
        renewed = _turned(renewed, was, (state, reason), look, changes)
    if _is_worth_storing(node, renewed):
        changes.stored.append(renewed)
    return renewed


_NO_LAST_STATE: dict[str, Any] = {"last_state": None, "last_state_at": None, "last_since": None}


def _turned(
    node: Node, was: State, conclusion: tuple[State, OfflineReason | None], look: Look, changes: Changes
) -> Node:
    """The node's state changed from `was` to that of `conclusion`."""
    state, reason = conclusion
    at = _dated(node, was, reason, look)
    fields: dict[str, Any] = {"state": state, "reason": reason, "since": at, **_NO_LAST_STATE}
    if state == "online":
        fields |= {"seen_online": True, "last_online": at}
    elif was == "online":
        fields["last_online"] = at
    turned = msgspec.structs.replace(node, **fields)
    changes.spans.append((node.id, at, state))
    if state != "unknown":
        changes.events.append(_state_event(turned, at, first=was == "unknown"))
    return turned


def _dated(node: Node, was: State, reason: OfflineReason | None, look: Look) -> float:
    """When the change happened: at the first sighting, unless something says better (rule 2.6)."""
    now = look.now.wall
    if reason is None:
        return now
    since = node.reach.unreachable_since
    if reason == "unreachable" and since is not None:
        begin = node.since if was == "online" and node.since is not None else node.first_seen
        return min(now, max(since, begin))
    hidden_since = node.since if node.state == "unknown" else look.unobserved_since
    seen = node.facts.last_seen
    if seen is not None and hidden_since is not None and hidden_since < seen <= now:
        return seen
    return now


def _described(node: Node, renewed: Node, look: Look, changes: Changes) -> Node:
    """Names, addresses, tags, OS or owner may have changed, and the role with them."""
    before, after = _description(node.facts), _description(renewed.facts)
    if before == after:
        return renewed
    differences = {key: [before[key], after[key]] for key in after if before[key] != after[key]}
    renewed = msgspec.structs.replace(renewed, role=look.role_of(renewed.facts))
    words = f"{renewed.hostname}: {', '.join(differences)} changed"
    if "hostname" in differences:
        words = f"{node.hostname} is now called {renewed.hostname}"
    changes.events.append(
        node_event("node_changed", "ok", renewed, look.now.wall, words, changes=differences)
    )
    return renewed


def _description(facts: NodeFacts) -> dict[str, Any]:
    return {
        "hostname": facts.hostname,
        "ips": list(facts.ips),
        "tags": list(facts.tags),
        "os": facts.os,
        "user": facts.user,
    }


def _lacking(node: Node, look: Look, changes: Changes) -> None:
    """A known node that the document lacks: a first look, unknown, or removed."""
    now = look.now.wall
    if node.id in look.taken_away:
        _remove(node, look.taken_away_at, changes)
    elif node.id in look.snapshot.excluded_ids:
        _leave_out(node, now, changes)
    elif node.id in look.hidden:
        _hide(node, now, changes)
    elif node.missing_since is None:
        missing = msgspec.structs.replace(node, missing_since=now)
        changes.nodes[node.id] = missing
        changes.stored.append(missing)
    elif now - node.missing_since >= SECOND_LOOK:
        _remove(node, node.missing_since, changes)
    else:
        changes.nodes[node.id] = node


def _hide(node: Node, now: float, changes: Changes) -> None:
    """It may be one of the rows that could not be decoded (rule 4.2)."""
    if node.unreadable and node.missing_since is None:
        changes.nodes[node.id] = node
        return
    hidden = msgspec.structs.replace(node, unreadable=True, missing_since=None)
    if node.state != "unknown":
        hidden = msgspec.structs.replace(
            hidden,
            state="unknown",
            reason=None,
            since=now,
            last_state=node.state,
            last_state_at=now,
            last_since=node.since,
        )
        changes.spans.append((node.id, now, "unknown"))
    changes.nodes[node.id] = hidden
    changes.stored.append(hidden)


def _leave_out(node: Node, now: float, changes: Changes) -> None:
    """It is still in the tailnet, but `exclude` leaves it out: no event, its history waits (rule 4.6)."""
    waits = msgspec.structs.replace(node, missing_since=None, removed_at=now, left_out=True)
    changes.left_out.add(node.id)
    changes.removed[node.id] = waits
    changes.stored.append(waits)
    changes.spans.append((node.id, now, None))


def _remove(node: Node, at: float, changes: Changes) -> None:
    gone = msgspec.structs.replace(node, missing_since=None, removed_at=at)
    changes.removed[node.id] = gone
    changes.stored.append(gone)
    changes.spans.append((node.id, at, None))
    words = f"{node.hostname} was removed from the tailnet"
    changes.events.append(node_event("node_removed", role_severity(node.role), gone, at, words))


def stop_self(node: Node, now: float) -> Changes:
    """Tailscale is stopped on the monitor: its own node is off the tailnet."""
    changes = Changes()
    if node.state == "offline":
        stopped = msgspec.structs.replace(node, reason="stopped")
    else:
        stopped = msgspec.structs.replace(
            node, state="offline", reason="stopped", since=now, last_online=now, **_NO_LAST_STATE
        )
        changes.spans.append((node.id, now, "offline"))
        changes.events.append(_state_event(stopped, now))
    changes.nodes[node.id] = stopped
    changes.stored.append(stopped)
    return changes


def _conclude(facts: NodeFacts, reach: Reach, *, seen_online: bool) -> tuple[State, OfflineReason | None]:
    if facts.expired:
        return "offline", "key_expired"
    if not facts.online:
        # Rule 2.5: control may withhold the state of machines shared in from another tailnet.
        return ("unknown", None) if facts.shared and not seen_online else ("offline", "control")
    if reach.unreachable_since is not None:
        return "offline", "unreachable"
    return "online", None


def _is_worth_storing(before: Node, after: Node) -> bool:
    if msgspec.structs.replace(after, facts=before.facts, reach=before.reach) != before:
        return True
    return any(
        getattr(before.facts, name) != getattr(after.facts, name)
        for name in NodeFacts.__struct_fields__
        if name not in _VOLATILE and name not in ("last_handshake", "active")
    ) or any(
        getattr(before.reach, name) != getattr(after.reach, name)
        for name in Reach.__struct_fields__
        if name not in _VOLATILE_REACH
    )


def role_severity(role: Role) -> Severity:
    return "ok" if role.alert == "none" else role.alert


def node_event(
    event_type: str, severity: Severity, node: Node, at: float, message: str, **details: Any
) -> Event:
    """An event of a node that is not numbered yet."""
    return Event(
        id=0,
        timestamp=at,
        recorded_at=0.0,
        event_type=event_type,
        severity=severity,
        node_id=node.id,
        hostname=node.hostname,
        node_type=node.role.node_type,
        message=message,
        details=details,
    )


def _state_event(node: Node, at: float, *, first: bool = False) -> Event:
    if node.state == "online":
        words = f"{node.hostname} is online"
        return node_event("node_online", "ok", node, at, words, **({"first": True} if first else {}))
    reason = node.reason or "control"
    words = f"{node.hostname} is offline: {REASON_WORDS[reason]}"
    details: dict[str, Any] = {"reason": reason, "last_seen": rfc3339(node.last_online)}
    if reason == "unreachable" and not node.reach.cross_checked:
        words += " (there was no other node to cross-check with)"
        details["cross_checked"] = False
    if first:
        details["first"] = True
    return node_event("node_offline", role_severity(node.role), node, at, words, **details)


def counts(nodes: Iterable[Node]) -> dict[str, int]:
    """How many nodes are in which state, and how many are critical."""
    found = {"nodes": 0, "online": 0, "offline": 0, "unknown": 0, "critical": 0}
    for node in nodes:
        found["nodes"] += 1
        found[node.state] += 1
        found["critical"] += node.role.critical
    return found
