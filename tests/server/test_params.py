"""Query parameters: what is taken, what is refused, and that nothing else comes out."""

import random
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from yarl import URL

from tests.support.site import site
from tsmon.base.clock import rfc3339
from tsmon.server.page import GlanceQuery, TableQuery
from tsmon.server.params import AnyQuery, BadParameterError, Param, Query, Takes, params_of, parse_query
from tsmon.server.report_route import ReportQuery
from tsmon.server.route_params import (
    AlertsQuery,
    HistoryQuery,
    LatencyQuery,
    LogsQuery,
    NodesQuery,
    UptimeQuery,
)

QUERIES: list[type[Query]] = [
    NodesQuery,
    AlertsQuery,
    LogsQuery,
    UptimeQuery,
    LatencyQuery,
    HistoryQuery,
    GlanceQuery,
    TableQuery,
    ReportQuery,
]
EVERY = [(query, param) for query in QUERIES for param in params_of(query)]
WORDS = st.one_of(
    st.text(max_size=30),
    st.integers().map(str),
    st.sampled_from(
        ["", "0", "-0", "1_000", " 1", "\u0661", "1e3", "24h", "1.5d", "true", "NO", "id,ip", "-state"]
    ),
    st.datetimes().map(lambda when: when.isoformat()),
)


@given(which=st.sampled_from(EVERY), text=WORDS)
def test_a_value_is_taken_or_refused_by_name(which: tuple[type[Query], Param], text: str) -> None:
    """What is taken has the type that the query's struct promises, and lies in what the parameter takes."""
    query, param = which
    takes = param.takes
    refusal = ""
    try:
        found = parse_query(MultiDict({param.name: text}), query)
    except BadParameterError as error:
        refusal = str(error)
    if refusal:
        assert refusal == f"{param.name} takes {takes.words}"
        return
    value = getattr(found, param.field)
    assert msgspec.convert(msgspec.to_builtins(found), query) == found
    match takes.kind:
        case "int":
            assert takes.least <= value <= takes.most
        case "time":
            assert rfc3339(value)
        case "duration":
            assert value >= 0
        case "choice":
            assert value in takes.choices
        case "names":
            assert set(value) <= set(takes.choices)
        case "text" | "month" | "moment" | "zone":
            assert value == text
        case kind:
            assert kind == "bool"


def test_what_is_not_given_has_its_default() -> None:
    assert parse_query(MultiDict(), NodesQuery) == NodesQuery()
    found = parse_query(MultiDict({"from": "2026-10-01"}), ReportQuery)
    assert (found.start, found.end, found.format) == ("2026-10-01", "", "")
    assert parse_query(MultiDict(anything="1"), AnyQuery) == AnyQuery()


def only(kind: str) -> Any:
    """A query of one parameter, `p`."""
    takes = Takes(kind, "", least=-10, most=10)
    return msgspec.defstruct(
        "Only", [("p", Annotated[Any, takes], None)], bases=(Query,), frozen=True, kw_only=True
    )


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bool", "TRUE", True),
        ("bool", "yes", True),
        ("bool", "0", False),
        ("time", "1970-01-01T00:01:00Z", 60.0),
        ("time", "1970-01-01T01:00:00+01:00", 0.0),
        ("duration", "1h30m", 5400.0),
        ("int", "-5", -5),
    ],
)
def test_values(kind: str, text: str, value: Any) -> None:
    kind_of_query = only(kind)
    assert parse_query(MultiDict(p=text), kind_of_query) == kind_of_query(p=value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("time", "9999-12-31T23:59:59-14:00"),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("time", ""),
        ("int", "--5"),
        ("int", "5-"),
        ("int", "-"),
        ("int", "9" * 5000),
        ("bool", ""),
        ("text", "a\0b"),
        ("duration", "99999999999999d"),
    ],
)
def test_refused(kind: str, text: str) -> None:
    with pytest.raises(BadParameterError, match="p takes"):
        parse_query(MultiDict(p=text), only(kind))


def test_unknown_and_repeated_names() -> None:
    with pytest.raises(BadParameterError, match="no query parameter 'x' here; there are: p"):
        parse_query(MultiDict(x="1"), only("text"))
    with pytest.raises(BadParameterError, match="p is given more than once"):
        parse_query(MultiDict([("p", "1"), ("p", "2")]), only("text"))


async def test_whatever_is_asked_nothing_fails(tmp_path: Path) -> None:
    """Random questions to every route: an answer or a refusal, never a fault."""
    dice = random.Random(20261123)
    texts = [
        "",
        "0",
        "1",
        "-1",
        "99999999999999999",
        "true",
        "x",
        "%",
        "_",
        "\\",
        "git",
        "'",
        "\ud7ff",
        "\U0010ffff",
    ]
    texts += [
        "24h",
        "1ms",
        "400d",
        "2026-11-23T00:00:00Z",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59-14:00",
    ]
    seen: dict[int, int] = {}
    async with site(tmp_path) as here:
        routes = [route for route in here.daemon.api.routes() if "stream" not in route.path]
        for _ in range(600):
            route = dice.choice(routes)
            query = {}
            params = route.params
            for param in dice.sample(params, k=min(len(params), dice.randint(0, 3))):
                query[param.name] = dice.choice([*texts, *param.takes.choices])
            path = route.path.replace("{node}", dice.choice(["git", "nobody", "%00", "..%2f"]))
            path = path.replace("{ip}", "100.64.0.2").replace("{name}", dice.choice(["vpn.css", "%2e%2e"]))
            url = URL(here.daemon.url + path, encoded=True).with_query(query)
            async with here.client.get(url, allow_redirects=False) as response:
                assert response.status < 500, (url, await response.text())
                assert "Content-Security-Policy" in response.headers
                seen[response.status] = seen.get(response.status, 0) + 1
    assert min(seen.get(status, 0) for status in (200, 400, 404)) > 20, seen
