"""What alerts are called: one of them, many of one kind, and their end. Events, messages and Alertmanager say
the same. Pure."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tsmon.base.text import counted, length_words
from tsmon.monitor.state import Node

if TYPE_CHECKING:
    from tsmon.monitor.alerts import Alert

_DAY = 86400


class KindWords(NamedTuple):
    """Of one kind of alert. `{name}` is the node, `{n}` how many (`3`, `3 more`), `{still}` is `still ` where
    it was said before, `{subject}` the alert's, `{within}` the last step before a key's expiry.
    """

    one: str
    many: str
    one_over: str
    many_over: str


def _of_tsmon(one: str, over: str) -> KindWords:
    """There is never more than one of it."""
    return KindWords(one, one, over, over)


KIND_WORDS: Mapping[str, KindWords] = {
    "node_offline": KindWords(
        "{name} is {still}offline",
        "{n} nodes are {still}down",
        "{name} is back online",
        "{n} nodes are back",
    ),
    "node_detached": KindWords(
        "{name} is {still}off the control plane, but answers pings",
        "{n} nodes are {still}off the control plane, but answer pings",
        "{name} is back online",
        "{n} nodes are back",
    ),
    "node_missing": KindWords(
        "the role {subject} {still}has no node: {name} was the last",
        "{n} roles {still}have no node",
        "{message}",
        "{n} roles have a node again",
    ),
    "node_flapping": KindWords(
        "{name} is {still}flapping",
        "{n} nodes are {still}flapping",
        "{name} has settled",
        "{n} nodes have settled",
    ),
    "key_expiring": KindWords(
        "the key of {name} expires within {within}",
        "{n} keys expire within {within}",
        "the key of {name} was renewed",
        "{n} keys were renewed",
    ),
    "row_unreadable": KindWords(
        "what the source says of {name} {still}cannot be read",
        "what the source says of {n} nodes {still}cannot be read",
        "what the source says of {name} can be read again",
        "what the source says of {n} nodes can be read again",
    ),
    "path_degraded": KindWords(
        "the path to {name} is {still}degraded",
        "{n} paths are {still}degraded",
        "the path to {name} is well again",
        "{n} paths are well again",
    ),
    "monitor_blind": _of_tsmon("tsmon {still}cannot see the tailnet", "tsmon sees the tailnet again"),
    "monitor_isolated": _of_tsmon("no node {still}answers tsmon's pings", "nodes answer tsmon's pings again"),
    "storage_failing": _of_tsmon("tsmon {still}cannot store what it sees", "tsmon stores again what it sees"),
    "control_api_failing": _of_tsmon(
        "the control server's API {still}gives no answer", "the control server's API answers again"
    ),
    "device_pending": KindWords(
        "{name} {still}waits for approval",
        "{n} devices {still}wait for approval",
        "{name} was approved",
        "{n} devices were approved",
    ),
    "device_joined": KindWords(
        "{name} joined the tailnet",
        "{n} devices joined the tailnet",
        "{name} is no new device any more",
        "{n} devices are no new ones any more",
    ),
    "credential_expiring": KindWords(
        "the credential {subject} expires within {within}",
        "{n} credentials expire within {within}",
        "the credential {subject} was renewed",
        "{n} credentials were renewed",
    ),
    "redundancy_lost": KindWords(
        "{subject} {still}has lost a router: {name}",
        "{n} routes have {still}lost a router",
        "{subject} has its routers again",
        "{n} routes have their routers again",
    ),
    "service_down": KindWords(
        "{name}: {subject} {still}does not answer as it should",
        "{n} services {still}do not answer as they should",
        "{name}: {subject} answers again",
        "{n} services answer again",
    ),
    "route_lost": KindWords(
        "nobody {still}routes {subject}: {name} was the last",
        "{n} routes {still}have no router",
        "{subject} has a router again",
        "{n} routes have a router again",
    ),
    "exit_node_lost": _of_tsmon(
        "no exit node is {still}online: {name} was the last", "an exit node is online"
    ),
    "locked_out": KindWords(
        "{name} is {still}locked out: its key waits for a signature",
        "{n} machines are {still}locked out: their keys wait for a signature",
        "{name} is no longer locked out",
        "{n} machines are no longer locked out",
    ),
    "storage_failing influx": _of_tsmon("InfluxDB {still}takes no samples", "InfluxDB takes samples again"),
}
_REMOVED = KindWords("", "", "{name} was removed from the tailnet", "{n} nodes were removed from the tailnet")
_ACKNOWLEDGED = KindWords(
    "", "", "{name} is gone for good: acknowledged by {author}", "{n} nodes are gone for good: acknowledged"
)
_ROLE_NOT_NEEDED = KindWords(
    "",
    "",
    "the role {subject} is not needed: acknowledged by {author}",
    "{n} roles are not needed: acknowledged",
)
_UNTOLD: Mapping[str, str] = {
    "left_out": "exclude leaves its node out",
    "role_changed": "its role asks for no such alert any more",
    "flapping": "it goes on as flapping",
    "expired": "the key expired",
    "blind": "tsmon cannot see the tailnet at all",
    "not_configured": "what it is about is not configured any more",
    "path_unknown": "its path is not measured any more",
    "known": "it is no new device any more",
    "no_second_router": "the tailnet has no second router for it any more",
}
"""Why an alert ended that nobody is notified of."""


def is_gone(alert: "Alert", nodes: Mapping[str, Node] | None = None) -> bool:
    """It ended since its node left the tailnet, or the node left after it ended: nothing is well again.
    `nodes` are those of the tailnet, where they are known."""
    if alert.cause == "acknowledged":
        return True
    if nodes is not None and alert.kind in ("node_offline", "node_detached", "node_flapping"):
        return alert.node_id not in nodes
    return alert.cause == "removed"


def headline(alert: "Alert", nodes: Mapping[str, Node] | None = None, *, still: bool = False) -> str:
    """The state of one alert in a few words; `still`: it was said before."""
    words, name = _words(alert, nodes), alert.hostname or "tsmon"
    if alert.state == "resolved":
        return words.one_over.format(
            name=name, subject=alert.subject, author=alert.acknowledged_by, message=alert.message
        )
    now = "still " if still else ""
    text = words.one.format(name=name, subject=alert.subject, still=now, within=_within([alert]))
    if alert.follows is not None:
        return f"{name} has settled: it is {now}offline"
    if alert.kind == "monitor_blind" and alert.hostname:
        return f"{text}, {name} is offline"
    return text


def together(
    alerts: Iterable["Alert"],
    nodes: Mapping[str, Node] | None = None,
    *,
    still: bool = False,
    more: bool = False,
) -> list[tuple[str, list["Alert"]]]:
    """The alerts by what is said of them, with the words: `20 keys expire within 3 days`, `2 nodes are back`.
    `more`: others were said before."""
    groups: dict[tuple[bool, str], list[Alert]] = {}
    for alert in alerts:
        over = alert.state == "resolved"
        words = _words(alert, nodes)
        groups.setdefault((over, words.many_over if over else words.many), []).append(alert)
    found = []
    for (_, many), group in groups.items():
        number = f"{len(group)} more" if more else str(len(group))
        said = many.format(n=number, still="still " if still else "", within=_within(group))
        found.append((said if len(group) > 1 else headline(group[0], nodes, still=still), group))
    return found


def ended_words(alert: "Alert") -> str:
    """How an alert ended, for the log."""
    name = alert.hostname or "tsmon"
    why = _UNTOLD.get(alert.cause or "") if alert.untold else None
    if why is not None:
        return f"{name}: the alert {alert.kind} ended: {why}"
    if alert.kind == "key_expiring":
        return headline(alert)
    return f"{headline(alert)}, after {length_words(alert.duration(alert.resolved_at or 0.0))}"


def _words(alert: "Alert", nodes: Mapping[str, Node] | None) -> KindWords:
    if alert.state == "resolved" and is_gone(alert, nodes):
        if alert.cause == "acknowledged":
            return _ROLE_NOT_NEEDED if alert.kind == "node_missing" else _ACKNOWLEDGED
        return _REMOVED
    return KIND_WORDS.get(f"{alert.kind} {alert.subject}") or KIND_WORDS[alert.kind]


def _within(alerts: Iterable["Alert"]) -> str:
    seconds = max((alert.step or 0.0 for alert in alerts), default=0.0)
    days, rest = divmod(round(seconds), _DAY)
    return counted(days, "day") if days and not rest else length_words(seconds)
