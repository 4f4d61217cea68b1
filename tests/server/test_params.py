"""Query parameters: what is taken, what is refused, and that nothing else comes out."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from yarl import URL

from tests.support.site import site
from tsmon.base.clock import rfc3339
from tsmon.server import route_params as queries
from tsmon.server.params import BadParameterError, Param, parse_query

EVERY = sorted(
    {param for table in (queries.NODES, queries.ALERTS, queries.LOGS, queries.HISTORY) for param in table}
    | {*queries.UPTIME, *queries.LATENCY},
    key=repr,
)
WORDS = st.one_of(
    st.text(max_size=30),
    st.integers().map(str),
    st.sampled_from(
        ["", "0", "-0", "1_000", " 1", "\u0661", "1e3", "24h", "1.5d", "true", "NO", "id,ip", "-state"]
    ),
    st.datetimes().map(lambda when: when.isoformat()),
)


@given(param=st.sampled_from(EVERY), text=WORDS)
def test_a_value_is_taken_or_refused_by_name(param: Param, text: str) -> None:
    value, refusal = None, ""
    try:
        value = parse_query(MultiDict({param.name: text}), [param])[param.name]
    except BadParameterError as error:
        refusal = str(error)
    match "refused" if refusal else param.kind:
        case "refused":
            assert refusal == f"{param.name} takes {param.takes}"
        case "bool":
            assert isinstance(value, bool)
        case "int":
            assert isinstance(value, int)
            assert param.least <= value <= param.most
        case "time":
            assert isinstance(value, float)
            assert rfc3339(value)
        case "duration":
            assert isinstance(value, float)
            assert value >= 0
        case "choice":
            assert value in param.choices
        case "names":
            assert isinstance(value, tuple)
            assert set(value) <= set(param.choices)
        case "text":
            assert value == text
        case _:
            pytest.fail(f"an unknown kind: {param.kind}")


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
    param = Param("p", kind, "", least=-10, most=10)
    assert parse_query(MultiDict(p=text), [param]) == {"p": value}


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
        parse_query(MultiDict(p=text), [Param("p", kind, "", least=-10, most=10)])


def test_unknown_and_repeated_names() -> None:
    with pytest.raises(BadParameterError, match="no query parameter 'x' here; there are: p"):
        parse_query(MultiDict(x="1"), [Param("p", "text", "")])
    with pytest.raises(BadParameterError, match="p is given more than once"):
        parse_query(MultiDict([("p", "1"), ("p", "2")]), [Param("p", "text", "")])


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
            for param in dice.sample(route.params or (), k=min(len(route.params or ()), dice.randint(0, 3))):
                query[param.name] = dice.choice([*texts, *(param.choices or ())])
            path = route.path.replace("{node}", dice.choice(["git", "nobody", "%00", "..%2f"]))
            path = path.replace("{ip}", "100.64.0.2").replace("{name}", dice.choice(["vpn.css", "%2e%2e"]))
            url = URL(here.daemon.url + path, encoded=True).with_query(query)
            async with here.client.get(url, allow_redirects=False) as response:
                assert response.status < 500, (url, await response.text())
                assert "Content-Security-Policy" in response.headers
                seen[response.status] = seen.get(response.status, 0) + 1
    assert min(seen.get(status, 0) for status in (200, 400, 404)) > 20, seen
