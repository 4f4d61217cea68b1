"""What released versions wrote and promised: their database opens with every row, their answers
keep their shape.

A field may be added, never taken away, and never changes its type.
"""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.paths import RELEASES
from tests.support.site import site
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.daemon.daemon import Daemon
from tsmon.demo.servers import FakeSidecar, serving
from tsmon.demo.tailnet import SimTailnet

VERSIONS = sorted(path.name for path in RELEASES.iterdir() if path.is_dir())
Document = dict[str, Any]


# -- the API -----------------------------------------------------------------------------------------------


def breaks(old: Document, new: Document) -> Iterator[str]:
    """What a client written for `old` would miss in `new`."""
    for path, methods in old["paths"].items():
        if path not in new["paths"]:
            yield f"{path} is gone"
            continue
        before, after = methods["get"], new["paths"][path]["get"]
        given = {parameter["name"]: parameter for parameter in after["parameters"]}
        for parameter in before["parameters"]:
            if parameter["name"] not in given:
                yield f"{path}: the parameter {parameter['name']} is gone"
        asked = {parameter["name"] for parameter in before["parameters"]}
        for name, parameter in given.items():
            if parameter.get("required") and name not in asked:
                yield f"{path}: the parameter {name} is newly required"
        for code, response in before["responses"].items():
            if code.startswith("2") and code not in after["responses"]:
                yield f"{path}: no answer {code} any more"
            for kind in response.get("content", {}):
                if kind not in after["responses"].get(code, {}).get("content", {}):
                    yield f"{path}: no {kind} with {code} any more"
                    continue
                was, is_now = (
                    body["content"][kind].get("schema", {}) for body in (response, after["responses"][code])
                )
                yield from differences(f"{path} {code}", was, is_now, new["components"]["schemas"])
    for name, schema in old["components"]["schemas"].items():
        if name not in new["components"]["schemas"]:
            yield f"the schema {name} is gone"
        else:
            yield from differences(
                name, schema, new["components"]["schemas"][name], new["components"]["schemas"]
            )


def differences(where: str, old: Document, new: Document, schemas: Document) -> Iterator[str]:
    """The same for one schema; references are compared by name, and once each where they are defined. What
    had no name may have got one: `schemas` are the new ones."""
    if "$ref" in new and "$ref" not in old:
        new = schemas[new["$ref"].rsplit("/", 1)[-1]]
    if (old.get("$ref"), old.get("type")) != (new.get("$ref"), new.get("type")):
        yield f"{where}: was {_kind(old)}, is {_kind(new)}"
        return
    for name, field in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{where}.{name} is gone"
        else:
            yield from differences(f"{where}.{name}", field, new["properties"][name], schemas)
    for name in old.get("required", ()):
        if name in new.get("properties", {}) and name not in new.get("required", ()):
            yield f"{where}.{name} was always there, now it may be missing"
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict):
            if not isinstance(new.get(key), dict):
                yield f"{where}: {key} is gone"
            else:
                yield from differences(f"{where}[]", old[key], new[key], schemas)
    kinds = {json.dumps(_kind(one)) for one in old.get("anyOf", ())}
    if kinds != {json.dumps(_kind(one)) for one in new.get("anyOf", ())}:
        yield f"{where}: was one of {sorted(kinds)}, is not any more"
    if "enum" in old and not set(map(str, old["enum"])) <= set(map(str, new.get("enum", ()))):
        yield f"{where}: words of it are gone"


def _kind(schema: Document) -> Any:
    return (
        schema.get("$ref")
        or schema.get("type")
        or {key: schema[key] for key in ("anyOf", "enum") if key in schema}
    )


@pytest.mark.parametrize("version", VERSIONS)
async def test_no_answer_lost_a_field_or_changed_its_type(version: str, tmp_path: Path) -> None:
    old = json.loads((RELEASES / version / "openapi.json").read_text())
    async with site(tmp_path) as here:
        new = await here.get("/openapi.json")
    assert list(breaks(old, new)) == []


def test_the_comparison_sees_what_breaks_clients() -> None:
    """Each change to a copy of the document is named, a new field is not."""
    old = json.loads((RELEASES / "0.1.0" / "openapi.json").read_text())

    def changed(change: Any) -> list[str]:
        new = json.loads(json.dumps(old))
        change(new["paths"], new["components"]["schemas"])
        return list(breaks(old, new))

    assert changed(lambda paths, schemas: None) == []
    assert (
        changed(lambda paths, schemas: schemas["NodeAnswer"]["properties"].update(new={"type": "string"}))
        == []
    )
    assert changed(lambda paths, schemas: schemas["NodeAnswer"]["properties"].pop("hostname")) != []
    assert changed(
        lambda paths, schemas: schemas["NodeAnswer"]["properties"]["hostname"].update(type="integer")
    )
    assert changed(lambda paths, schemas: schemas["NodeAnswer"].update(required=[]))
    assert changed(lambda paths, schemas: paths.pop("/health-monitoring/summary"))
    assert changed(lambda paths, schemas: paths["/health-monitoring/nodes"]["get"]["parameters"].pop())
    assert changed(lambda paths, schemas: schemas.pop("AlertAnswer"))


# -- the database ------------------------------------------------------------------------------------------


def columns(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def common(path: Path, table: str, names: list[str]) -> set[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return set(db.execute(f"SELECT {', '.join(names)} FROM {table}"))


@pytest.mark.parametrize("version", VERSIONS)
async def test_its_database_opens_keeps_every_row_and_is_answered_from(version: str, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    old.write_bytes(gzip.decompress((RELEASES / version / "tsmon.db.gz").read_bytes()))
    state = tmp_path / "state"
    state.mkdir()
    (state / "tsmon.db").write_bytes(old.read_bytes())
    clock = Clock()
    async with serving(FakeSidecar(SimTailnet(clock)).application()) as url:
        # Nothing is retired by age: the fixture grows old.
        daemon = Daemon(
            settings(source=url, listen="127.0.0.1:0", retention="36500d", latency_retention="36500d"), state
        )
        await daemon.start()
        try:
            async with aiohttp.ClientSession(daemon.url) as session:
                for path in (
                    "summary",
                    "nodes?project_only=false",
                    "logs?per_page=200",
                    "alerts",
                    "history?project_only=false",
                ):
                    async with session.get(f"/health-monitoring/{path}") as answer:
                        assert answer.status == 200, (path, await answer.text())
                        assert await answer.json()
                async with session.get("/health-monitoring/logs?per_page=200") as answer:
                    logs = (await answer.json())["logs"]
                assert min(int(row["id"]) for row in logs) <= max(
                    row[0] for row in common(old, "events", ["id"])
                )
        finally:
            await daemon.stop()
    for table, key in (
        ("nodes", ["num", "id", "hostname"]),
        ("events", columns(old, "events")),
        ("spans", ["node", "state", "start"]),
        ("observed", ["scope", "start"]),
        ("alerts", ["id", "kind", "node"]),
        ("latency", columns(old, "latency")),
    ):
        names = [name for name in key if name in columns(old, table)]
        assert names, table
        lost = common(old, table, names) - common(state / "tsmon.db", table, names)
        assert not lost, (table, len(lost), next(iter(lost)))
