"""docs/api.md tells of every route, parameter and field, and its examples are answers."""

import re
from types import SimpleNamespace
from typing import Any, get_args, get_origin

import msgspec
import pytest

from tests.support.paths import ROOT
from tests.support.world import settings
from tsmon.api import Api
from tsmon.base.clock import Clock
from tsmon.monitor.alerts import ALERT_KINDS
from tsmon.monitor.state import EVENT_TYPES
from tsmon.server.answers import ErrorAnswer
from tsmon.server.routing import Route

DOCS = ROOT / "docs"
TEXT = (DOCS / "api.md").read_text()


def table() -> list[Route[Any]]:
    """The route table of an API that nobody asks."""
    nothing: Any = SimpleNamespace(subscribe=lambda _: None, view=None, alerts={})
    api = Api(
        settings=settings(),
        clock=Clock(),
        monitor=nothing,
        store=nothing,
        history=nothing,
        whois=nothing,
        source_name=lambda: "",
        readiness=nothing,
        stuck_loop=lambda: None,
        notified_at=dict,
    )
    return api.routes()


ROUTES = table()
SHARED = {
    "NodeAnswer",
    "AlertAnswer",
    "SummaryAnswer",
    "BlindAnswer",
    "CriticalSummary",
    "IncidentsAnswer",
    "IncidentAnswer",
    "NotifiedAnswer",
    "HistoryNode",
    "ControlFacts",
    "NodeDetail",
    "UptimeAnswer",
    "OutageAnswer",
    "ServiceCounts",
    "PredecessorAnswer",
    "ServicesAnswer",
    "ServiceAnswer",
    "ServiceBars",
    "ServiceOutage",
    "RoutesAnswer",
    "RouteAnswer",
    "ExitNodeAnswer",
    "LockedOutAnswer",
    "CoverageAnswer",
    "UnseenAnswer",
    "LocalOnlyAnswer",
    "LatencyAnswer",
    "EventAnswer",
}
"""Parts of several answers, which are described once."""


def section(path: str) -> str:
    """What stands under the heading of a route."""
    found = re.search(rf"^## GET {re.escape(path)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/api.md has no heading 'GET {path}'"
    return found[1]


def structs(kind: Any) -> set[type[msgspec.Struct]]:
    """The struct types that an answer is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        inner = {part for field in msgspec.structs.fields(kind) for part in structs(field.type)}
        return {kind} | inner
    return {part for argument in get_args(kind) for part in structs(argument)}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_with_its_parameters_and_fields(route: Route[Any]) -> None:
    text = section(route.path)
    for param in route.params:
        assert f"`{param.name}`" in text, param.name
    for struct in structs(route.answer):
        for field in msgspec.structs.fields(struct):
            where = TEXT if struct.__name__ in SHARED else text
            assert re.search(rf"[`\"]{field.name}[`\"]", where), f"{struct.__name__}.{field.name}"


def test_every_heading_is_a_route() -> None:
    # /metrics is not the API's own: tests/server/test_openapi.py has all routes of a running tsmon.
    documented = set(re.findall(r"^## GET (\S+)$", TEXT, re.MULTILINE)) - {"/metrics"}
    assert documented == {route.path for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_the_examples_are_answers(route: Route[Any]) -> None:
    for block in re.findall(r"```json\n(.*?)```", section(route.path), re.DOTALL):
        answer: Any = msgspec.json.decode(
            block, type=Any if get_origin(route.answer) is None else route.answer
        )
        if isinstance(route.answer, type) and issubclass(route.answer, msgspec.Struct):
            shown = msgspec.convert(answer, route.answer)
            assert answer.keys() == set(route.answer.__struct_fields__), shown


def test_the_error_example_is_an_error() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT.split("\n## GET ", 1)[0], re.DOTALL)
    assert msgspec.json.decode(block, type=ErrorAnswer).error.code == "bad_parameter"


def test_every_choice_is_documented() -> None:
    for route in ROUTES:
        for param in route.params:
            if param.takes.kind == "choice":
                for choice in param.takes.choices:
                    assert not choice or f"`{choice.removeprefix('-')}`" in TEXT, (route.path, param, choice)
    assert all(f"`{kind}`" in section("/health-monitoring/alerts") for kind in ALERT_KINDS)
    assert all(f"`{kind}`" in section("/health-monitoring/logs") for kind in EVENT_TYPES)


def test_every_error_code_is_told() -> None:
    sources = "".join(path.read_text() for path in (DOCS.parent / "tsmon").glob("*.py"))
    codes = set(re.findall(r"(?:ApiError|error_response)\(\s*\d+,\s*\"(\w+)\"", sources))
    codes -= {"bad_request", "bad_config"}  # of the admin socket
    assert codes
    assert not {code for code in codes if f"`{code}`" not in TEXT}
