"""Which critical roles lost their last node (rule 4.5). Pure."""

from collections.abc import Container, Iterable, Mapping

import msgspec
import structlog

from tsmon.monitor.alerts import Alert
from tsmon.monitor.changes import Changes
from tsmon.monitor.state import Node

log = structlog.get_logger(__name__)


def missing_after(
    missing: Mapping[str, Node], before: Mapping[str, Node], changes: Changes, ephemeral: Container[str] = ()
) -> dict[str, Node]:
    """The roles that miss a node after a trusted document: key -> the last node, as it was when it fitted.

    `missing` are those before it, `before` the nodes. A role that `exclude` took the nodes of was not lost,
    one that asks for no alerts is not missed: nobody could acknowledge it. Nor is one whose last node was
    `ephemeral` (IDs) and left the tailnet: such nodes are made to go."""
    filled = {node.role.key for node in changes.nodes.values()}
    lost: dict[str, list[Node]] = {}
    for node in before.values():
        if node.role.key and node.role.key not in filled:
            lost.setdefault(node.role.key, []).append(node)
    after = {key: node for key, node in missing.items() if key not in filled}
    for key, nodes in lost.items():
        last = max(nodes, key=lambda node: (node.last_online or 0.0, node.hostname))
        left = last.id not in changes.nodes and last.id in ephemeral
        if last.role.alert != "none" and not left and not any(node.id in changes.left_out for node in nodes):
            after[key] = changes.removed.get(last.id, last)
    return after


def missing_of(stored: str | None, alerts: Iterable[Alert], removed: Mapping[str, Node]) -> dict[str, Node]:
    """What the last run stored; where it was one before version 0.2, what its open alerts say."""
    if stored is None:
        nodes = [removed.get(alert.node_id or "") for alert in alerts if alert.kind == "node_missing"]
        return {node.role.key: node for node in nodes if node is not None and node.role.key}
    try:
        return msgspec.json.decode(stored, type=dict[str, Node])
    except (msgspec.DecodeError, TypeError):
        log.warning("stored_missing_roles_unreadable")
        return {}


def with_role_keys(alerts: Iterable[Alert], missing: Mapping[str, Node]) -> list[Alert]:
    """The stored alerts: of a missing node's, as versions before 0.2 raised them, is made its role's."""
    keys = {node.id: key for key, node in missing.items()}
    return [
        msgspec.structs.replace(alert, subject=keys.get(alert.node_id or "", ""))
        if alert.kind == "node_missing" and not alert.subject
        else alert
        for alert in alerts
    ]
