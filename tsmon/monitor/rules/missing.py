"""node_missing: a critical role that a node filled and none fills any more (rules 8.5 and 8.16)."""

from collections.abc import Mapping

from tsmon.base.clock import Moment
from tsmon.monitor.alerts import AlertBook
from tsmon.monitor.rules.step import EPSILON, Step, observed_since, severity_of, until_due
from tsmon.monitor.state import Node

LONG_KNOWN = 86400.0
"""Seconds after which the removal of a critical node is worth a word, though others fill its role."""


class MissingRoles:
    """Over an `AlertBook`. Its alerts belong to the key of the role, and bear the last node's name; that of a
    removed node whose role others fill is its own, and ends as soon as it was said."""

    def __init__(self, book: AlertBook) -> None:
        self.book = book

    def look(self, step: Step) -> None:
        """Raise, fire and end."""
        self._say_who_was_removed(step)
        for alert in self.book.of_kind("node_missing"):
            if alert.subject not in step.missing_roles and alert.subject != alert.node_id:
                ended = self.book.update(alert, message=_filled(alert.subject, step))
                self.book.end(ended, step.now, "filled", untold=not alert.subject)
        for key, node in step.missing_roles.items():
            self._misses(key, node, step)

    def _misses(self, key: str, node: Node, step: Step) -> None:
        alert = self.book.find("node_missing", key)
        since = step.now.wall if node.removed_at is None else node.removed_at
        if alert is None:
            alert = self.book.raise_(
                "node_missing",
                severity_of(node),
                step.now,
                node=node,
                subject=key,
                since=since,
                last_seen=node.last_online,
                delay=node.role.offline_after,
                waited=observed_since(since, step),
            )
        elif alert.state == "pending":
            alert = self.book.update(alert, waited=alert.waited + step.elapsed)
        if alert.state == "pending" and until_due(alert, node) <= EPSILON:
            self.book.fire(alert, step.now, _lost(key, node, step))

    def _say_who_was_removed(self, step: Step) -> None:
        for event in step.events:
            node = step.removed.get(event.node_id or "") if event.event_type == "node_removed" else None
            if node is not None and node.id not in step.ephemeral and _is_missed(node, step):
                self.book.raise_(
                    "node_missing",
                    "warning",
                    step.now,
                    node=node,
                    subject=node.id,
                    since=node.removed_at,
                    last_seen=node.last_online,
                    waited=observed_since(node.removed_at, step) - step.elapsed,
                )
        for alert in self.book.of_kind("node_missing"):
            node = step.removed.get(alert.node_id or "")
            if alert.subject != alert.node_id:
                continue
            left = 0 if node is None else _filling(node.role.key, step)
            if node is None or node.successor or not left:
                self.book.end(alert, step.now, "filled", untold=True)
                continue
            waiting = self.book.update(alert, waited=alert.waited + step.elapsed)
            if until_due(waiting, node) <= EPSILON:
                words = f"{node.hostname} was removed, {left} of {left + 1} of the role {node.role.key} left"
                self.book.end(self.book.fire(waiting, step.now, words), step.now, "removed")

    def roles_changed(self, missing_roles: Mapping[str, Node], now: Moment) -> None:
        """The configuration was reloaded: what it does not ask for ends without a message (rule 8.10)."""
        for alert in self.book.of_kind("node_missing"):
            node = missing_roles.get(alert.subject)
            if alert.subject == alert.node_id:
                continue
            if node is None:
                self.book.end(alert, now, "role_changed", untold=True)
            else:
                self.book.update(alert, severity=severity_of(node), delay=node.role.offline_after)


def _is_missed(node: Node, step: Step) -> bool:
    known_for = (node.removed_at or 0.0) - node.watched_since
    long_known = node.role.critical and node.role.alert != "none" and known_for >= LONG_KNOWN
    return long_known and not node.successor and _filling(node.role.key, step) > 0


def _filling(key: str, step: Step) -> int:
    """How many nodes fill the role."""
    return sum(node.role.key == key for node in step.nodes.values())


def _lost(key: str, node: Node, step: Step) -> str:
    now = step.nodes.get(node.id)
    if now is None:
        how = "and was removed from the tailnet"
    elif now.hostname != node.hostname:
        how = f"and is called {now.hostname} now"
    else:
        how = "and does not fit it any more"
    return f"no node fills the role {key}: {node.hostname} was the last, {how}"


def _filled(key: str, step: Step) -> str:
    """Who fills the role again; that it is offline is said, lest it sound like a recovery."""
    nodes = [node for node in step.nodes.values() if node.role.key == key]
    node = min(nodes, key=lambda node: (node.state != "online", node.hostname), default=None)
    if node is None:
        return f"the role {key} is filled again"
    state = "" if node.state == "online" else f", but is {node.state}"
    return f"{node.hostname} fills the role {key} again{state}"
