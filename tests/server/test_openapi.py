"""The OpenAPI document: every route is in it and the reverse; a running tsmon answers what it says."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema_rs import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.paths import ROOT
from tests.support.site import PROD, site
from tsmon.server.answers import ReadyAnswer

DOCS = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = int(os.environ.get("TSMON_TEST_EXAMPLES", "20"))
"""Requests to each route."""
PATHS = {"node": "git", "ip": "100.64.0.2", "name": "vpn.css"}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "tsmon.toml"
    path.write_text(
        '[[notify]]\nname = "hook"\nurl = "webhook+http://127.0.0.1:1/"\n'
        '[heartbeat]\nurl = "http://127.0.0.1:1/"\n'
        '[influx]\nurl = "http://127.0.0.1:1"\norg = "home"\n'
    )
    return path


def validator(found: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": found["components"]})


async def test_every_route_is_in_it_and_documented(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        found = await here.get("/openapi.json")
        routes = {route.resource.canonical for route in here.daemon.listening.runner.app.router.routes()}  # type: ignore[union-attr]
        served = {path for path in routes if not path.startswith("/{below}")}
    assert found["openapi"] == "3.1.0"
    assert set(found["paths"]) == served
    assert set(re.findall(r"^## GET (\S+)$", DOCS, re.MULTILINE)) == served
    names = [path["get"]["operationId"] for path in found["paths"].values()]
    assert len(names) == len(set(names))


async def test_the_answers_are_what_it_says(tmp_path: Path, toml: Path) -> None:
    async with site(tmp_path, toml=toml) as here:
        here.tailnet.off(PROD)
        await here.poll()
        found = await here.get("/openapi.json")
        seen = 0
        for path, methods in found["paths"].items():
            content = methods["get"]["responses"].get("200", {}).get("content", {})
            if "application/json" not in content or path == "/openapi.json":
                continue
            answer = await here.get(path.format(**PATHS))
            errors = list(validator(found, content["application/json"]["schema"]).iter_errors(answer))
            assert errors == [], path
            seen += 1
        assert seen >= 11
        msgspec.convert(await here.get("/readyz"), ReadyAnswer, strict=True)
        unknown = set(await here.get("/readyz")) - set(ReadyAnswer.__struct_fields__)
        assert unknown == set()


async def test_errors_have_the_shape_it_says(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        found = await here.get("/openapi.json")
        responses = found["paths"]["/health-monitoring/nodes/{node}"]["get"]["responses"]
        schema = responses["404"]["content"]["application/json"]["schema"]
        answer = await here.get("/health-monitoring/nodes/nobody", status=404)
        assert list(validator(found, schema).iter_errors(answer)) == []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tsmon in a thread of its own: schemathesis asks it over the network."""
    ready, stop = threading.Event(), threading.Event()
    url: list[str] = []

    async def main() -> None:
        async with site(tmp_path_factory.mktemp("fuzz")) as here:
            url.append(here.daemon.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(30)
    yield url[0]
    stop.set()
    thread.join(30)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("mode", "least"), [(GenerationMode.POSITIVE, 17), (GenerationMode.NEGATIVE, 6)])
def test_schemathesis_finds_no_fault(running: str, mode: GenerationMode, least: int) -> None:
    """All its checks, with what the document allows and with what it does not."""
    schema = schemathesis.openapi.from_url(f"{running}/openapi.json")
    schema.config.base_url = running
    asked = 0
    for result in schema.exclude(path_regex="/stream$").get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        if mode is GenerationMode.NEGATIVE and not operation.query:
            continue  # any text may be a path's part: nothing is wrong with it

        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            # A month that has not begun, or one beside a day, is refused: the schema cannot say that.
            free = case.operation.path.endswith("/report")
            case.call_and_validate(excluded_checks=[positive_data_acceptance] if free else [])

        ask()
        asked += 1
    assert asked >= least
