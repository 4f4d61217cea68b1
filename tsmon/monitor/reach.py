"""What pings say: misses, witnesses, unreachable, isolated, detached (section 3 of docs/rules.md). Pure, time
passed in.

Control is not believed blindly: a hung machine stays "online" at the control server for many minutes. But
silence alone proves nothing either, since the monitor's own path may be dead: so a third miss in a row asks
witnesses, and only when one of them answers is the node called unreachable.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tsmon.base.clock import Moment
from tsmon.monitor.state import Node, Reach
from tsmon.source.pings import Path, Ping

MISSES = 3
"""Missed pings in a row that make a node suspect (rule 3.4)."""
WITNESSES = 3
MOST_PINGED = 200


class PingFigures(NamedTuple):
    """One node's pings over one collect interval: milliseconds, the share lost (0 to 1), the last path."""

    node_id: str
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    loss: float
    path: Path | None


@dataclass(slots=True)
class _Track:
    misses: int = 0
    first_miss: float | None = None  # wall time at which the first missed ping of the row was sent
    third_miss: float = 0.0  # monotonic time at which the third miss was known
    reachable: bool | None = None
    latency_ms: float | None = None
    path: Path | None = None
    measured_at: float | None = None
    unreachable_since: float | None = None
    cross_checked: bool = True
    offline_at: float | None = None  # monotonic time since which control says offline
    asked: bool = False  # a ping sent after that has an outcome
    detached: bool = False
    latencies: list[float] = field(default_factory=list)
    sent: int = 0
    answered: int = 0

    def forget_misses(self) -> None:
        self.misses = 0
        self.first_miss = None

    def summary(self) -> Reach:
        return Reach(
            reachable=self.reachable,
            latency_ms=self.latency_ms,
            path=self.path,
            measured_at=self.measured_at,
            unreachable_since=self.unreachable_since,
            cross_checked=self.cross_checked,
            asked=self.asked,
            detached=self.detached,
        )


class Pings:
    """The ping records of all nodes that are pinged."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        """`nodes` as stored: those that were unreachable stay so until a ping is answered, those that were
        detached until three in a row are missed."""
        self.isolated_since: Moment | None = None
        self.routers: frozenset[str] = frozenset()
        """Stable IDs of nodes that route something, or did last: pinged, whatever their role says."""
        self._tracks: dict[str, _Track] = {}
        self._answers: dict[str, float] = {}  # monotonic time at which the last answered ping was sent
        for node in nodes:
            reach = node.reach
            if reach.unreachable_since is not None:
                self._tracks[node.id] = _Track(
                    misses=MISSES,
                    first_miss=reach.unreachable_since,
                    reachable=False,
                    unreachable_since=reach.unreachable_since,
                    cross_checked=reach.cross_checked,
                )
            elif node.detached:
                self._tracks[node.id] = _Track(
                    reachable=True,
                    offline_at=-math.inf,
                    asked=True,
                    detached=True,
                    measured_at=reach.measured_at,
                )

    def reach_of(self, node_id: str) -> Reach:
        track = self._tracks.get(node_id)
        return track.summary() if track is not None else Reach()

    def wants(self, node: Node) -> bool:
        """The node is pinged: its role says so, or it routes something (rule 13.5)."""
        return node.role.ping or (node.role.may_ping and node.id in self.routers)

    def targets(self, nodes: Mapping[str, Node], self_id: str, due_outages: Collection[str]) -> list[str]:
        """Whom a ping round asks (rule 3.1): nodes whose role wants it, never Self, at most 200, critical
        ones first. One that control calls offline is asked only when its outage fell due (`due_outages`)."""
        wanted = [
            node
            for node in nodes.values()
            if self.wants(node)
            and node.id != self_id
            and node.facts.ip is not None
            and (node.facts.online or node.id in due_outages)
            and not node.facts.expired
        ]
        wanted.sort(key=lambda node: (not node.role.critical, node.hostname))
        return [node.id for node in wanted[:MOST_PINGED]]

    def retries(self, targets: list[str]) -> list[str]:
        """Those of `targets` that are asked again at once, without waiting for the next round."""
        return [id_ for id_ in targets if (track := self._tracks.get(id_)) and track.misses > 0]

    def keep(self, pinged: Collection[str]) -> None:
        """Nobody pings the others any more: what pings said of them no longer holds (rule 3.7)."""
        self._tracks = {id_: track for id_, track in self._tracks.items() if id_ in pinged}

    def blind(self) -> None:
        """tsmon went blind: all misses are forgotten, and the suspicion of the own path with them."""
        self.isolated_since = None
        for track in self._tracks.values():
            if track.unreachable_since is None:
                track.forget_misses()

    def control_offline(self, node_id: str, now: Moment) -> None:
        """Control says from now on that the node is offline."""
        track = self._tracks.setdefault(node_id, _Track())
        track.forget_misses()
        track.offline_at, track.asked, track.detached = now.mono, False, False

    def control_returned(self, node_id: str) -> None:
        """Control went from offline to online: whatever the pings said before is over (rule 3.7)."""
        track = self._tracks.get(node_id)
        if track is not None:
            track.forget_misses()
            track.unreachable_since, track.cross_checked = None, True
            track.offline_at, track.asked, track.detached = None, False, False

    def record(self, node: Node, sent: Moment, ping: Ping, now: Moment) -> None:
        """The outcome of a ping sent at `sent`; a witness that no role asks for only answers or does not."""
        node_id = node.id
        if ping.outcome == "answered":
            self._answers[node_id] = max(sent.mono, self._answers.get(node_id, 0.0))
            if self.isolated_since is not None:
                self.blind()
        if not self.wants(node):
            return
        track = self._tracks.setdefault(node_id, _Track())
        if not node.facts.online and track.offline_at is None:
            track.offline_at = sent.mono
        current = track.offline_at is None or sent.mono >= track.offline_at
        track.asked = track.asked or (track.offline_at is not None and current)
        if ping.outcome == "unmeasured" or not current:
            return
        track.sent += 1
        if ping.outcome == "missed":
            self._missed(track, sent, now)
            return
        track.forget_misses()
        track.answered += 1
        track.reachable, track.measured_at = True, now.wall
        track.latency_ms, track.path = ping.latency_ms, ping.path
        if ping.latency_ms is not None:
            track.latencies.append(ping.latency_ms)
        track.detached = track.offline_at is not None
        track.unreachable_since, track.cross_checked = None, True

    @property
    def missing(self) -> set[str]:
        """Stable IDs of those that missed their last ping."""
        return {id_ for id_, track in self._tracks.items() if track.misses}

    def lives(self, node: Node, sent: Moment) -> None:
        """The node answered something else that was sent at `sent`: as good as an answered ping, but for
        latency, path and loss, of which it says nothing (rule 13.4)."""
        self._answers[node.id] = max(sent.mono, self._answers.get(node.id, 0.0))
        if self.isolated_since is not None:
            self.blind()
        track = self._tracks.get(node.id)
        if track is None or (track.offline_at is not None and sent.mono < track.offline_at):
            return
        track.forget_misses()
        track.reachable = True
        track.asked = track.detached = track.offline_at is not None
        track.unreachable_since, track.cross_checked = None, True

    def _missed(self, track: _Track, sent: Moment, now: Moment) -> None:
        if track.misses == 0:
            track.first_miss = sent.wall
        track.misses += 1
        if track.misses == MISSES:
            track.third_miss = now.mono
        if track.misses >= MISSES:
            track.reachable = False
            track.detached = False

    def witnesses(self, nodes: Mapping[str, Node], self_id: str) -> list[str]:
        """Whom to ask (rule 3.4) about the suspects that no answer speaks for yet: up to three other online
        nodes, pinged and healthy ones first. With nobody to ask the suspects are unreachable, not
        cross-checked."""
        suspects = self._judge_suspects(nodes)
        if not suspects:
            return []
        others = [
            node
            for node in nodes.values()
            if node.state == "online" and node.id != self_id and node.facts.ip is not None
        ]
        others = [node for node in others if [node.id] != suspects]
        if not others:
            for id_ in suspects:
                self._call_unreachable(id_, cross_checked=False)
            return []
        others.sort(key=lambda node: (self._misses(node.id) > 0, not self.wants(node), node.hostname))
        return [node.id for node in others[:WITNESSES]]

    def conclude(self, nodes: Mapping[str, Node], now: Moment) -> None:
        """All witnesses were asked: suspects that one of them speaks for are unreachable (rule 3.5); if
        nobody answered, the monitor's own path is the suspect (rule 3.6)."""
        if self._judge_suspects(nodes) and self.isolated_since is None:
            self.isolated_since = now

    def _judge_suspects(self, nodes: Mapping[str, Node]) -> list[str]:
        """Call those suspects unreachable that another node's later answer speaks for; return the others."""
        undecided = []
        for id_, track in self._tracks.items():
            node = nodes.get(id_)
            if node is None or not node.facts.online or node.facts.expired:
                continue
            if track.misses < MISSES or track.unreachable_since is not None:
                continue
            if any(sent >= track.third_miss for other, sent in self._answers.items() if other != id_):
                self._call_unreachable(id_, cross_checked=True)
            else:
                undecided.append(id_)
        return undecided

    def _call_unreachable(self, node_id: str, *, cross_checked: bool) -> None:
        track = self._tracks[node_id]
        track.unreachable_since, track.cross_checked = track.first_miss, cross_checked

    def _misses(self, node_id: str) -> int:
        track = self._tracks.get(node_id)
        return track.misses if track is not None else 0

    @property
    def answered(self) -> bool:
        """Any ping was answered since the start of tsmon."""
        return bool(self._answers)

    def drain(self) -> list[PingFigures]:
        """The figures of every node pinged since the last call."""
        figures = []
        for id_, track in self._tracks.items():
            if not track.sent:
                continue
            times = track.latencies
            figures.append(
                PingFigures(
                    node_id=id_,
                    min_ms=min(times, default=None),
                    mean_ms=sum(times) / len(times) if times else None,
                    max_ms=max(times, default=None),
                    loss=1 - track.answered / track.sent,
                    path=track.path if track.answered else None,
                )
            )
            track.latencies, track.sent, track.answered = [], 0, 0
        return figures
