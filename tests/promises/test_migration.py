"""The table of docs/migration.md against a running tsmon."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.site import site

TEXT = (ROOT / "docs" / "migration.md").read_text()
ROWS = re.findall(r"^\| `(/health-monitoring/\w+)` \| (object|array): (.*?) \| (.*) \|$", TEXT, re.MULTILINE)


def test_the_five_routes_are_in_the_table() -> None:
    assert {path.rpartition("/")[2] for path, *_ in ROWS} == {
        "summary",
        "nodes",
        "critical",
        "alerts",
        "logs",
    }


@pytest.mark.parametrize(("path", "shape", "names", "_"), ROWS, ids=[row[0] for row in ROWS])
async def test_a_route_has_the_told_shape_and_fields(
    tmp_path: Path, path: str, shape: str, names: str, _: str
) -> None:
    async with site(tmp_path) as found:
        answer = await found.get(path)
        assert isinstance(answer, dict if shape == "object" else list)
        one = answer if isinstance(answer, dict) else answer[0]
        fields = re.findall(r"`(\w+)`", names)
        assert fields
        assert [name for name in fields if name not in one] == []


async def test_what_readers_must_mind_is_so(tmp_path: Path) -> None:
    async with site(tmp_path) as found:
        summary = await found.get("/health-monitoring/summary")
        assert "health_percentage" in summary["critical_nodes"]
        assert "unknown_nodes" in summary
        nodes = await found.get("/health-monitoring/nodes")
        every = await found.get("/health-monitoring/nodes?project_only=false")
        assert {node["hostname"] for node in nodes} < {node["hostname"] for node in every}
        assert "Linux" in {node["os"] for node in every}
        critical = await found.get("/health-monitoring/critical")
        assert all("nodes" in entry and "status" in entry for entry in critical.values())
        logs = await found.get("/health-monitoring/logs")
        assert {entry["severity"] for entry in logs["logs"]} <= {"ok", "warning", "critical"}
        assert all(isinstance(entry["id"], str) for entry in logs["logs"])
        for wrong in ("logs?severity=info", "logs?severity=error", "nodes?colour=red"):
            error = await found.get(f"/health-monitoring/{wrong}", status=400)
            assert set(error["error"]) == {"code", "message"}
        assert (await found.get("/health-monitoring/alerts?state=all"))["total"] == 0
