"""Incidents as /incidents answers them, and the one sentence about everything. Pure, time passed in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tsmon.base.clock import rfc3339
from tsmon.base.text import length_words
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import Incident
from tsmon.monitor.state import Health, Node, View
from tsmon.server.answers import IncidentAnswer, NotifiedAnswer

MOST_NODES = 100
_MOST_NAMES = 3
_LONGEST_NAME = 60
Level = Literal["healthy", "degraded", "critical", "unknown"]
_LEVELS: tuple[Level, ...] = ("healthy", "degraded", "critical")
NotifiedAt = Mapping[str, Mapping[int, float]]
"""By channel: alerts that it was notified of -> when (Unix seconds)."""
_TOGETHER = {
    "node_offline": "offline",
    "node_detached": "off the control plane, but answering pings",
    "node_missing": "the last of their roles",
    "node_flapping": "flapping",
    "path_degraded": "on a degraded path",
    "device_pending": "waiting for approval",
    "device_joined": "new in the tailnet",
}


class SightReturned(NamedTuple):
    """SightReturned returned and settles: when it did, and how many seconds are left until it is believed."""

    since: float
    settles_in: float


def sight_returned(alerts: Iterable[Alert], view: View, blind_after: float) -> SightReturned | None:
    """While the alert of a past blindness still fires; None otherwise."""
    if view.blind is not None or view.as_of is None:
        return None
    for alert in alerts:
        if alert.kind == "monitor_blind" and alert.state == "firing":
            return SightReturned(view.now - alert.steady, max(0.0, blind_after / 2 - alert.steady))
    return None


def incident_answer(incident: Incident, notified: NotifiedAt, sight: SightReturned | None) -> IncidentAnswer:
    ids = {alert.id for alert in incident.alerts}
    times = {name: [at for id_, at in of.items() if id_ in ids] for name, of in notified.items()}
    first = incident.alerts[0]
    authors = [alert.acknowledged_by for alert in incident.alerts if alert.acknowledged_by]
    silenced = [alert.silenced_until for alert in incident.alerts if alert.silenced_until is not None]
    return IncidentAnswer(
        id=str(incident.id),
        severity=incident.severity,
        kind=incident.kind,
        cause=incident.cause,
        since=rfc3339(incident.since if incident.since is not None else first.fired_at),
        count=len(incident.alerts),
        nodes=[alert.hostname for alert in incident.alerts[:MOST_NODES] if alert.hostname],
        notified=[NotifiedAnswer(name, rfc3339(min(at))) for name, at in times.items() if at],
        alerts=[str(alert.id) for alert in incident.alerts],
        message=words(incident, sight),
        critical=incident.critical,
        calm=incident.is_calm,
        acknowledged=len(authors),
        acknowledged_by=", ".join(sorted(set(authors))) or None,
        silenced=len(silenced),
        silenced_until=rfc3339(max(silenced, default=None)),
    )


def words(incident: Incident, sight: SightReturned | None) -> str:
    """What it is, in one line; times in it are RFC 3339."""
    if incident.kind == "monitor_blind" and sight is not None:
        return _sees_again(sight)
    if len(incident.alerts) == 1:
        return incident.alerts[0].message or incident.kind
    since = f" since {rfc3339(incident.since)}" if incident.since is not None else ""
    return f"{_counted(incident)}{since}"


def _counted(incident: Incident) -> str:
    number = len(incident.alerts)
    kinds = {alert.kind for alert in incident.alerts}
    if incident.kind == "key_expiring":
        return f"{number} keys expire soon"
    if not any(alert.hostname for alert in incident.alerts):
        return f"{number} conditions of tsmon itself"
    state = _TOGETHER.get(incident.kind, incident.kind) if len(kinds) == 1 else "in trouble"
    return f"{number} {incident.noun}s {state}"


def headline(
    view: View, health: Health, incidents: Sequence[Incident], sight: SightReturned | None
) -> tuple[str, Level]:
    """The state of everything in one line, production first, and how bad it is: the worse of the summary's
    status and the worst firing alert that is not silenced. Times in it are RFC 3339."""
    loud = [i for i in incidents if not all(a.silenced_until is not None for a in i.alerts)]
    if sight is not None:
        loud = [incident for incident in loud if incident.kind != "monitor_blind"]
    if view.blind is not None:
        return f"tsmon cannot see the tailnet since {rfc3339(view.blind.since)}", health.status
    if view.as_of is None:
        return "Waiting for the first look at the tailnet", "unknown"
    level: Level = health.status
    for incident in loud:
        severity: Level = "critical" if incident.severity == "critical" else "degraded"
        level = max(level, severity, key=_LEVELS.index)
    clauses = [_of_critical(view, health)]
    others = [incident for incident in loud if not incident.critical]
    if others:
        cause = f" ({others[0].cause})" if others[0].cause else ""
        clauses.append(words(others[0], sight) + cause)
        if len(others) > 1:
            clauses[-1] += f", and {len(others) - 1} more"
    if sight is not None:
        clauses.append(_sees_again(sight).removeprefix("tsmon "))
    return " · ".join(clauses), level


def _of_critical(view: View, health: Health) -> str:
    nodes = [node for node in view.nodes.values() if node.role.critical]
    down = [node for node in nodes if view.shown(node).state == "offline"]
    down.sort(key=lambda node: (node.role.node_type != "production", node.hostname))
    missing = [f"no node fills the role {key}" for key in view.missing_roles]
    if len(down) == 1:
        what = [f"{_short(down[0].hostname)} {_is_down(down[0], view)}", *missing]
        return "; ".join(what)
    if down:
        begins = [since for node in down if (since := view.shown(node).since) is not None]
        begun = f" since {rfc3339(min(begins))}" if begins else ""
        names = ", ".join(_short(node.hostname) for node in down[:_MOST_NAMES])
        more = f" and {len(down) - _MOST_NAMES} more" if len(down) > _MOST_NAMES else ""
        counted = f"{len(down)} of {health.critical_total} critical nodes are down{begun}: {names}{more}"
        return "; ".join([counted, *missing])
    if missing:
        text = "; ".join(missing)
        return text[0].upper() + text[1:]
    total, online = health.critical_total, health.critical_online
    if not total:
        return f"{health.online} of {health.total} node{'s' if health.total != 1 else ''} online"
    if online == total:
        return "The critical node is online" if total == 1 else f"All {total} critical nodes online"
    return f"{online} of {total} critical nodes online, {health.critical_unknown} not known"


def _short(name: str) -> str:
    """A long name keeps its begin and its end: they tell it from the others."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 21]}…{name[-20:]}"


def _is_down(node: Node, view: View) -> str:
    since = view.shown(node).since
    state = "is off the control plane, but answers pings" if node.detached else "is down"
    return state + (f" since {rfc3339(since)}" if since is not None else "")


def _sees_again(sight: SightReturned) -> str:
    return f"tsmon sees again since {rfc3339(sight.since)}, settles in {length_words(sight.settles_in)}"
