"""Everything that is known: restored from the last run, changed by steps and operators. Pure, time passed
in."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog

from tsmon.base.clock import Moment
from tsmon.classify import Classifier
from tsmon.config import ControlSettings, Settings
from tsmon.monitor.alerts import Alert, AlertBook
from tsmon.monitor.batch import Batch, LastRun, SpanChange
from tsmon.monitor.beyond import Beyond
from tsmon.monitor.changes import Changes
from tsmon.monitor.control.drift import Drift
from tsmon.monitor.control.inventory import ephemeral_ids, read_stored, restored, source_of
from tsmon.monitor.filling import missing_after, missing_of, with_role_keys
from tsmon.monitor.hidden import Suspects
from tsmon.monitor.reach import Pings
from tsmon.monitor.rules import Limits, Quieting, Rules, Step
from tsmon.monitor.sight import Sight, Verdict
from tsmon.monitor.state import Event, Node, View
from tsmon.source.control.devices import Device
from tsmon.source.status import Snapshot, Tailnet

log = structlog.get_logger(__name__)


class Known:
    """The view and what it is made of: trust, pings, alerts, roles."""

    def __init__(self, settings: Settings, last: LastRun, started: Moment, quiet: Quieting) -> None:
        """As the last run left it; nothing is trusted until the first answer of the source."""
        self.started = started
        self.trusted = False
        """The last answer of the source was."""
        self.can_ping = True
        self.empty = not last.nodes and last.last_observed is None
        """No node was ever seen: the first document's nodes are not new ones."""
        self.suspects: Suspects = {}
        """Undecodable rows of the last document, and whose they may be."""
        self.left_out: frozenset[str] = frozenset()
        """Stable IDs that `exclude` left out of the last document."""
        self.carried = Batch()
        """What the start changed; it is committed with the first answer."""
        self.classifier = Classifier(settings)
        self.limits = limits_of(settings)
        meta = last.meta
        present = {node.id: self.with_role(node) for node in last.nodes if node.removed_at is None}
        self_id = meta.get("self_id", "")
        blind_since = meta.get("blind_since")
        self.sight = Sight(
            started=started,
            reconnect_grace=settings.reconnect_grace,
            poll_interval=settings.poll_interval,
            source_timeout=settings.source_timeout,
            tailnet=_read_tailnet(meta.get("tailnet")),
            peers=frozenset(id_ for id_ in present if id_ != self_id),
            keys={id_: node.facts.key for id_, node in present.items()},
            last_trusted=last.last_observed,
            blind_since=float(blind_since) if blind_since else None,
        )
        self.pings = Pings(present.values())
        self.beyond = Beyond(settings, last)
        removed = {node.id: node for node in last.nodes if node.removed_at is not None}
        missing = missing_of(meta.get("roles_missing"), last.alerts, removed)
        self.rules = Rules(
            AlertBook(with_role_keys(last.alerts, missing), last.next_alert_id),
            last.flips,
            started,
            quiet,
            redundant=_read_texts(meta.get("control_redundant")),
        )
        inventory = restored(settings.control, last.devices, read_stored(meta.get("control")))
        self._control = settings.control
        self.baseline: Mapping[str, Device] | None = (
            inventory.devices if inventory is not None and inventory.as_of is not None else None
        )
        """What was noted of each machine that the control server knows; None: nothing yet."""
        self.leftover = (
            frozenset(device.id for device in last.devices) if self.baseline is None else frozenset()
        )
        """Stored machines of another control server."""
        self.view = View(
            version=1,
            now=started.wall,
            as_of=last.last_observed,
            nodes=present,
            removed=removed,
            blind=self.sight.blind,
            self_id=self_id,
            self_stopped=False,
            tailnet=self.sight.tailnet,
            tun=None,
            excluded=0,
            missing_roles=self._still_missing(missing, present),
            inventory=inventory,
            ephemeral=ephemeral_ids((self.baseline or {}).values()),
            **self.beyond.fields(),
        )
        if last.last_observed is not None and last.last_observed > started.wall:
            self.cut(started, last.last_observed - started.wall, self.carried)

    @property
    def alerts(self) -> Mapping[int, Alert]:
        """The open alerts, pending and firing, by id."""
        return self.rules.book.open

    def whole(self, now: float, meta: Mapping[str, str]) -> Batch:
        """All of it as one batch; `now` in Unix seconds."""
        batch = Batch(
            nodes=[*self.view.nodes.values(), *self.view.removed.values()],
            spans=[SpanChange(node.id, now, node.state) for node in self.view.nodes.values()],
            alerts=list(self.alerts.values()),
            devices=list((self.baseline or {}).values()),
            meta=dict(meta),
        )
        self.beyond.add_whole(batch, now)
        return batch

    def meta(self) -> dict[str, str]:
        """What the next run needs beyond nodes and alerts; "" where there is nothing."""
        tailnet = self.view.tailnet
        return {
            "self_id": self.view.self_id,
            "tailnet": msgspec.json.encode(tailnet).decode() if tailnet is not None else "",
            "roles_missing": msgspec.json.encode(self.view.missing_roles, order="sorted").decode(),
            "control_redundant": msgspec.json.encode(sorted(self.rules.redundant)).decode()
            if self.view.inventory is not None
            else "",
            **self.beyond.meta(),
        }

    def apply(self, settings: Settings) -> list[Node]:
        """New settings; returns the nodes whose role they change."""
        self.classifier = Classifier(settings)
        self.sight.apply(settings.reconnect_grace, settings.poll_interval, settings.source_timeout)
        self.limits = limits_of(settings)
        self._change_control(settings.control)
        self.beyond.apply(settings)
        nodes = {id_: self.with_role(node) for id_, node in self.view.nodes.items()}
        changed = [node for id_, node in nodes.items() if node is not self.view.nodes[id_]]
        self.renew(nodes=nodes, missing_roles=self._still_missing(self.view.missing_roles, nodes))
        return changed

    def _change_control(self, settings: ControlSettings) -> None:
        """Another control server, a first one, or none any more."""
        if source_of(settings) == source_of(self._control):
            return
        self._control = settings
        self.leftover |= frozenset(self.baseline or ())
        self.baseline = None
        self.renew(inventory=restored(settings, (), None), ephemeral=frozenset())

    def view_at(self, mono: float) -> View:
        """What is known at `mono` (monotonic): once nothing was judged for too long, nothing (rule 1.12)."""
        if self.sight.grow_stale(mono):
            self.trusted = False
            self.pings.blind()
            self.renew(blind=self.sight.blind)
        return self.view

    def sees_at(self, mono: float) -> bool:
        """The last answer was trusted and is not too old at `mono` (monotonic)."""
        return self.view_at(mono).blind is None and self.trusted

    def renew(self, **fields: Any) -> None:
        """The next view: the present one with these fields."""
        self.view = msgspec.structs.replace(self.view, version=self.view.version + 1, **fields)

    def look_at(self, answer: Snapshot, changes: Changes) -> dict[str, Any]:
        """The fields of the view that a trusted document gives; `changes` is what it changed."""
        self.empty = False
        self.left_out = answer.excluded_ids
        own = answer.nodes[answer.self_id]
        return {
            "self_id": answer.self_id,
            "self_names": (own.dns_name, *own.ips),
            "tailnet": answer.tailnet,
            "missing_roles": missing_after(
                self.view.missing_roles, self.view.nodes, changes, self.view.ephemeral
            ),
        }

    def step(
        self,
        now: Moment,
        verdict: Verdict | None,
        events: Iterable[Event],
        *,
        storage_error: str,
        influx_error: str | None,
    ) -> Step:
        """What the rules look at; `verdict` None: no answer came."""
        view = self.view
        return Step(
            now=now,
            limits=self.limits,
            trusted=verdict.trusted if verdict is not None else self.trusted,
            elapsed=verdict.elapsed if verdict is not None else 0.0,
            observed_from=verdict.observed_from if verdict is not None else None,
            nodes=view.nodes,
            removed=view.removed,
            missing_roles=view.missing_roles,
            ephemeral=view.ephemeral,
            events=events,
            blind=view.blind,
            blind_for=self.sight.blind_for(now),
            self_node=view.nodes.get(view.self_id),
            self_stopped=view.self_stopped,
            isolated_since=self.pings.isolated_since,
            pings_answered=self.pings.answered,
            can_ping=self.can_ping,
            storage_error=storage_error,
            influx_error=influx_error,
            control=view.inventory,
            services=view.services,
            routes=view.routes,
            locked_out=view.locked_out,
        )

    def control_step(self, now: Moment, drifts: tuple[Drift, ...]) -> Step:
        """What the rules about the control server's word look at; no answer of the source came."""
        step = self.step(now, None, (), storage_error="", influx_error="")
        return msgspec.structs.replace(step, drifts=drifts)

    def cut(self, now: Moment, lost: float, batch: Batch) -> None:
        """The wall clock was set back by `lost` seconds: nothing may lie beyond now."""
        batch.cut_at = now.wall
        before = self.view
        nodes = {id_: _cut_node(node, now.wall) for id_, node in before.nodes.items()}
        removed = {id_: _cut_node(node, now.wall) for id_, node in before.removed.items()}
        batch.nodes += [node for id_, node in nodes.items() if node is not before.nodes[id_]]
        batch.nodes += [node for id_, node in removed.items() if node is not before.removed[id_]]
        self.view = msgspec.structs.replace(before, nodes=nodes, removed=removed)
        self.beyond.cut(now.wall, batch)
        self.rules.book.clock_back(now, lost)
        log.warning("clock_set_back", seconds=round(lost))

    def acknowledged(self, alert: Alert) -> None:
        """An operator says that what the alert is about is not needed. A role counts as never filled until a
        node fits it again, a route as never routed."""
        if alert.kind == "node_missing":
            missing = {key: node for key, node in self.view.missing_roles.items() if key != alert.subject}
            self.renew(missing_roles=missing)
        elif alert.kind in ("route_lost", "exit_node_lost"):
            self.beyond.give_up(alert.kind, alert.subject)
            self.renew(**self.beyond.fields())

    def _still_missing(self, missing: Mapping[str, Node], nodes: Mapping[str, Node]) -> dict[str, Node]:
        """The roles in `missing` that the present settings know and none of `nodes` fills."""
        filled = {node.role.key for node in nodes.values()}
        last = {key: self.with_role(node) for key, node in missing.items() if key not in filled}
        return {key: node for key, node in last.items() if node.role.key == key and node.role.alert != "none"}

    def with_role(self, node: Node) -> Node:
        """`node` with its role under the present settings."""
        role = self.classifier.role(node.facts)
        return node if role == node.role else msgspec.structs.replace(node, role=role)


def limits_of(settings: Settings) -> Limits:
    return Limits(
        blind_after=settings.blind_after,
        flapping_changes=settings.flapping.changes,
        flapping_window=settings.flapping.window,
        flapping_settle=settings.flapping.settle,
        path_latency=settings.path_degraded.latency,
        path_relay=settings.path_degraded.relay,
        credential_steps=settings.key_expiry_steps,
        device_joined=settings.control.device_joined,
        offline_after=settings.offline_after,
    )


def _read_tailnet(text: str | None) -> Tailnet | None:
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return msgspec.json.decode(text or "", type=Tailnet)
    return None


def _read_texts(text: str | None) -> frozenset[str]:
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        return frozenset(msgspec.json.decode(text or "", type=list[str]))
    return frozenset()


def _cut_node(node: Node, now: float) -> Node:
    times = ("since", "last_online", "last_state_at", "last_since", "missing_since", "removed_at")
    beyond = {name: now for name in times if (value := getattr(node, name)) is not None and value > now}
    return msgspec.structs.replace(node, **beyond) if beyond else node
