"""The one sentence about everything, and incidents in words."""

import msgspec
import pytest

from tests.support.alerts import NOW, alert, of, tailnet
from tsmon.base.clock import rfc3339
from tsmon.monitor.alerts import Alert
from tsmon.monitor.incidents import join_alerts
from tsmon.monitor.state import Blind, View
from tsmon.server.incidents import headline, incident_answer, sight_returned


def said(view: View, *alerts: Alert) -> tuple[str, str]:
    sight = sight_returned(alerts, view, 120.0)
    return headline(view, view.health(), join_alerts(alerts, view, 10.0), sight)


def with_servers(state: str = "online") -> View:
    """Three critical nodes in a state, and two servers that are offline."""
    critical = tailnet("git", "dev", "chocolate-factory", state=state)  # type: ignore[arg-type]
    servers = tailnet("web-1", "web-2", tags=("tag:server",))
    return msgspec.structs.replace(critical, nodes=critical.nodes | servers.nodes)


def test_all_is_well() -> None:
    assert said(tailnet("git", "dev", state="online")) == ("All 2 critical nodes online", "healthy")
    assert said(tailnet("git", state="online")) == ("The critical node is online", "healthy")
    assert said(tailnet("phone", state="online")) == ("1 of 1 node online", "healthy")


def test_the_second_clause_tells_of_everything_else_and_colours_it() -> None:
    view = with_servers()
    alerts = [alert(n, **of(view, f"web-{n}")) for n in (1, 2)]
    line = f"All 3 critical nodes online · 2 servers offline since {rfc3339(NOW - 180)} (tag:server)"
    assert said(view, *alerts) == (line, "degraded")
    worse = [msgspec.structs.replace(one, severity="critical") for one in alerts]
    assert said(view, *worse) == (line, "critical")


def test_what_is_silenced_neither_colours_nor_is_said() -> None:
    view = with_servers()
    alerts = [alert(n, silenced_until=NOW + 60, **of(view, f"web-{n}")) for n in (1, 2)]
    assert said(view, *alerts) == ("All 3 critical nodes online", "healthy")


def test_production_is_named_first_and_always_since_when() -> None:
    view = with_servers("offline")
    view = msgspec.structs.replace(
        view,
        nodes={id_: msgspec.structs.replace(node, since=NOW - 60) for id_, node in view.nodes.items()},
    )
    line, level = said(view)
    assert line == (f"3 of 3 critical nodes are down since {rfc3339(NOW - 60)}: chocolate-factory, dev, git")
    assert level == "critical"


@pytest.mark.parametrize(("steady", "left"), [(0.0, "1 min"), (20.0, "40 s")])
def test_after_sight_returned_it_settles(steady: float, left: str) -> None:
    """Not "cannot see" beside green."""
    view = tailnet("git", state="online")
    blind = alert(1, kind="monitor_blind", severity="warning", node_id=None, hostname=None, steady=steady)
    line, level = said(view, blind)
    again = f"sees again since {rfc3339(NOW - steady)}, settles in {left}"
    assert (line, level) == (f"The critical node is online · {again}", "healthy")
    (incident,) = join_alerts([blind], view, 10.0)
    assert incident_answer(incident, {}, sight_returned([blind], view, 120.0)).message == f"tsmon {again}"


def test_blind_is_all_that_is_said() -> None:
    view = msgspec.structs.replace(
        with_servers(), blind=Blind(reason="control_lost", since=NOW - 60, message="x")
    )
    words = f"tsmon cannot see the tailnet since {rfc3339(NOW - 60)}"
    assert said(view, alert(1, **of(view, "web-1"))) == (words, "unknown")


def test_an_incident_names_its_channels_and_its_first_hundred_nodes() -> None:
    names = [f"web-{n:03}" for n in range(120)]
    view = tailnet(*names, tags=("tag:server",))
    alerts = [alert(n + 1, **of(view, name)) for n, name in enumerate(names)]
    (incident,) = join_alerts(alerts, view, 10.0)
    answer = incident_answer(incident, {"phone": {1: NOW, 2: NOW - 5}, "mail": {999: NOW}}, None)
    assert (answer.count, len(answer.nodes), len(answer.alerts)) == (120, 100, 120)
    assert [(told.channel, told.at) for told in answer.notified] == [("phone", rfc3339(NOW - 5))]
    assert answer.message == f"120 servers offline since {rfc3339(NOW - 180)}"
