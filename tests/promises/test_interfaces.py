"""What other programs rely on, one test each: routes, fields, filters, schedules, log lines, schema, roles.

What is deeper than a sentence is in the tests of the package; here a glance shows that it is kept.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import document as status_document
from tests.support.documents import only, peer
from tests.support.paths import CHECKOUT
from tests.support.site import Site, site
from tests.support.virtual import virtual
from tests.support.world import running, settings
from tsmon.classify import Classifier
from tsmon.collector import Collector
from tsmon.history.influx import lines_of
from tsmon.monitor.samples import Sample

PROD = "chocolate-factory"
BASE = "/health-monitoring"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as found:
        yield found


# -- the house ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "tsmon/collector.py",
        "tsmon/api.py",
        "tsmon/classify.py",
        "tsmon/web/vpn.html",
        "docker/tailscale-http-server.sh",
        "docker/tailscale-sidecar.Dockerfile",
        "docker/tailscale-start.sh",
        "tests",
        "Dockerfile",
        "pyproject.toml",
        "README.md",
    ],
)
def test_these_files_stay_where_they_are(path: str) -> None:
    assert (CHECKOUT / path).exists()


# -- routes and fields -------------------------------------------------------------------------------------


async def test_summary_has_its_fields(here: Site) -> None:
    answer = await here.get(f"{BASE}/summary")
    assert set(answer) >= {
        "total_nodes",
        "online_nodes",
        "offline_nodes",
        "unknown_nodes",
        "excluded_nodes",
        "critical_nodes",
        "status",
        "blind",
        "active_alerts",
        "as_of",
        "source",
        "tailnet",
        "version",
        "demo",
    }
    assert set(answer["critical_nodes"]) == {"total", "online", "offline", "unknown", "health_percentage"}
    assert (answer["total_nodes"], answer["critical_nodes"]["health_percentage"]) == (5, 100.0)


async def test_nodes_is_an_array_with_its_fields(here: Site) -> None:
    answer = await here.get(f"{BASE}/nodes")
    assert isinstance(answer, list)
    first = {"hostname", "ip", "online", "node_type", "os", "last_seen", "uptime_24h"}
    assert all(set(node) >= first for node in answer)


async def test_project_only_is_the_default_and_shows_the_critical_nodes(here: Site) -> None:
    everyone = await here.get(f"{BASE}/nodes?project_only=false")
    project = await here.get(f"{BASE}/nodes")
    assert project == await here.get(f"{BASE}/nodes?project_only=true")
    assert {node["hostname"] for node in project} == {PROD, "git", "dev"}
    assert len(everyone) == 5


async def test_critical_has_git_dev_and_prod_always(here: Site) -> None:
    answer = await here.get(f"{BASE}/critical")
    assert list(answer) == ["git", "dev", "prod"]
    assert all(
        set(entry) == {"status", "online", "total", "was_filled", "nodes"} for entry in answer.values()
    )


async def test_critical_says_missing_when_no_node_fits(tmp_path: Path) -> None:
    async with site(tmp_path, "alices-laptop") as here:
        answer = await here.get(f"{BASE}/critical")
        assert {entry["status"] for entry in answer.values()} == {"missing"}
        assert (await here.get(f"{BASE}/summary"))["status"] == "healthy"


async def test_of_a_tailnet_that_was_never_seen_nothing_is_missing(tmp_path: Path) -> None:
    async with site(tmp_path, fault="refused") as here:
        answer = await here.get(f"{BASE}/critical")
        assert {entry["status"] for entry in answer.values()} == {"unknown"}


async def test_alerts_lists_what_fires(here: Site) -> None:
    answer = await here.get(f"{BASE}/alerts")
    assert set(answer) == {"alerts", "total", "as_of"}


async def test_logs_has_pages_filters_and_a_summary(here: Site) -> None:
    answer = await here.get(f"{BASE}/logs?page=1&severity=&event_type=")
    assert set(answer) == {"logs", "pagination", "filters", "summary"}
    assert answer["pagination"]["per_page"] == 20
    assert set(answer["summary"]) == {"total", "ok", "warning", "critical"}
    assert set(answer["logs"][0]) == {
        "id",
        "timestamp",
        "recorded_at",
        "event_type",
        "severity",
        "node_id",
        "hostname",
        "node_type",
        "message",
        "details",
    }


@pytest.mark.parametrize("severity", ["ok", "warning", "critical"])
async def test_logs_are_filtered_by_severity(here: Site, severity: str) -> None:
    logs = (await here.get(f"{BASE}/logs?severity={severity}"))["logs"]
    assert all(entry["severity"] == severity for entry in logs)


@pytest.mark.parametrize("kind", ["health_check", "node_online", "node_offline", "alert", "all"])
async def test_logs_are_filtered_by_event_type(here: Site, kind: str) -> None:
    logs = (await here.get(f"{BASE}/logs?event_type={kind}"))["logs"]
    assert kind == "all" or all(entry["event_type"] == kind for entry in logs)


async def test_errors_have_one_shape(here: Site) -> None:
    for path, status in (("/logs?page=0", 400), ("/nodes/nobody", 404)):
        assert set((await here.get(BASE + path, status))["error"]) == {"code", "message"}


# -- schedules ---------------------------------------------------------------------------------------------


def test_the_jobs_keep_their_names() -> None:
    for name in ("collect_health_metrics", "check_critical_nodes", "log_health_status"):
        assert callable(getattr(Collector, name))


def test_the_default_intervals() -> None:
    chosen = settings()
    assert (chosen.collect_interval, chosen.check_interval, chosen.report_interval) == (300, 120, 3600)


@virtual
async def test_health_metrics_are_collected_every_5_minutes_on_the_grid(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(901)
        assert [grid - world.clock.start for grid, _ in world.samples] == [300, 600, 900]
        assert all(grid % 300 == 0 for grid, _ in world.samples)


@virtual
async def test_critical_nodes_are_checked_every_2_minutes(tmp_path: Path) -> None:
    """An ERROR line per production node that is down, a WARNING per other critical one, at every run."""
    async with running(tmp_path) as world:
        await world.run(20)
        world.tailnet.off(PROD, "git", "dev")
        await world.run(365)
        lines = [line for line in world.lines if line["event"] == "critical_node_offline"]
        levels = {(line["hostname"], line["level"]) for line in lines}
        assert levels == {(PROD, "error"), ("git", "warning"), ("dev", "warning")}
        assert len(lines) == 9


@virtual
async def test_the_health_status_is_reported_every_hour(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(3 * 3600 + 1)
        reports = [line for line in world.lines if line["event"] == "health_report"]
        assert len(reports) == 4
        assert (reports[0]["online"], reports[0]["total"]) == (5, 5)
        assert reports[0]["critical_health_percentage"] == 100.0
        nodes = [line["hostname"] for line in world.lines if line["event"] == "health_report_node"]
        assert nodes == [PROD, "dev", "git"] * 4


# -- the schema --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "line"),
    [
        (
            Sample("git", "git", "Linux", 1, "100.64.0.2", 12.5),
            (
                "tailscale_health,hostname=git,node_type=git,os=Linux"
                ' ip="100.64.0.2",latency_ms=12.5,online=1i 1790000100'
            ),
        ),
        (
            Sample("mac", "other", "Darwin", 0, "fd7a::1", None),
            'tailscale_health,hostname=mac,node_type=other,os=Darwin ip="fd7a::1",online=0i 1790000100',
        ),
        (
            Sample("x", "production", "unknown", 1, None, 3),
            "tailscale_health,hostname=x,node_type=production,os=unknown latency_ms=3,online=1i 1790000100",
        ),
    ],
)
def test_a_sample_in_line_protocol(sample: Sample, line: str) -> None:
    assert lines_of(1790000100.0, [sample], {}) == [line]


def test_the_bucket_is_analytics() -> None:
    assert settings().influx.bucket == "analytics"


# -- classification ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostname", "node_type", "critical"),
    [
        ("git", "git", True),
        ("git01", "git", True),
        ("my-git-server", "git", True),
        ("digital-frame", "other", False),
        ("dev", "development", True),
        ("dev2", "development", True),
        ("chocolate-factory-dev", "development", True),
        ("device-3", "other", False),
        (PROD, "production", True),
        ("chocolate-factory-1", "production", True),
        ("chocolate-factory-prod", "production", True),
        ("Chocolate-Factory", "production", True),
        ("alices-laptop", "other", False),
    ],
)
def test_nodes_are_classified_by_the_words_of_their_hostname(
    hostname: str, node_type: str, critical: bool
) -> None:
    facts = only(status_document(peer("n1", hostname)))
    role = Classifier(settings()).role(facts)
    assert (role.node_type, role.critical) == (node_type, critical)


# -- truth -------------------------------------------------------------------------------------------------


@virtual
async def test_events_are_stored_when_they_happen_and_survive_restarts(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.run(20)
        world.tailnet.off("git")
        await world.run(20)
        before = await stored(world)
        await world.restart(after=100)
        await world.run(20)
        assert (await stored(world))[: len(before)] == before


async def stored(world: Any) -> list[Any]:
    rows: list[Any] = await world.store.read(
        lambda db: db.execute("SELECT id, event_type, timestamp FROM events ORDER BY id").fetchall()
    )
    return rows


async def test_what_cannot_be_seen_is_unknown_not_down(here: Site) -> None:
    here.tailnet.stop()
    await here.poll()
    summary = await here.get(f"{BASE}/summary")
    assert (summary["status"], summary["offline_nodes"]) == ("unknown", 1)
    assert summary["unknown_nodes"] == 4
    nodes = await here.get(f"{BASE}/nodes")
    assert {node["online"] for node in nodes} == {None}
