"""The Grafana dashboards ask only for what tsmon writes, in queries that are right."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.boards import BOARDS, FLUX_OPTIONS, FOLDER, board, queries
from tests.support.flux import LSP, valid
from tests.support.influx2 import MISSING, post, real_influx
from tests.support.paths import ROOT
from tsmon.history.influx.points import event_lines_of, lines_of
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Event

METRICS = set(re.findall(r"^\| `(tsmon_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
SCHEMA = {
    "tailscale_health": {"online", "ip", "latency_ms"},
    "tailscale_event": {"message", "node_id"},
}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    panels = board(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_prometheus_dashboard_asks_for_metrics_that_there_are() -> None:
    for expr in queries("tailnet-prometheus", "expr"):
        names = set(re.findall(r"tsmon_\w+", expr))
        assert names
        assert names <= METRICS, expr


def test_promtool_takes_the_expressions(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("SKIPPED LOUDLY: no promtool (Debian: prometheus): no expression was checked by it")
    exprs = [re.sub(r"\$\w+", ".*", expr) for expr in queries("tailnet-prometheus", "expr")]
    made = {
        "groups": [
            {
                "name": "panels",
                "rules": [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(exprs)],
            }
        ]
    }
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump(made))
    run = subprocess.run(
        [promtool, "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_influxdb_dashboard_asks_for_fields_that_are_written() -> None:
    for flux in queries("tailnet-influxdb", "query"):
        (measurement,) = re.findall(r'r\._measurement == "(\w+)"', flux)
        (field,) = re.findall(r'r\._field == "(\w+)"', flux)
        assert field in SCHEMA[measurement]


def test_windows_are_no_shorter_than_the_samples_lie_apart() -> None:
    """Shorter ones would be empty, and the state timeline full of gaps."""
    for panel in board("tailnet-influxdb")["panels"]:
        if any("v.windowPeriod" in target["query"] for target in panel["targets"]):
            assert panel["interval"] == "5m", panel["title"]


@pytest.mark.skipif(not LSP, reason="SKIPPED LOUDLY: no TSMON_TEST_FLUX_LSP: no Flux was analysed")
def test_every_flux_of_the_dashboard_is_right() -> None:
    asked = [
        FLUX_OPTIONS + flux.replace("${bucket}", "analytics") for flux in queries("tailnet-influxdb", "query")
    ]
    assert valid(asked) == [True] * len(asked)


def test_every_flux_of_the_dashboard_finds_what_tsmon_writes(tmp_path: Path) -> None:
    now = int(time.time())
    samples = [
        Sample("git", "git", "Linux", 1, "100.64.0.1", 2.5),
        Sample("dev", "other", "Linux", 0, None, None),
    ]
    event = Event(
        id=7,
        timestamp=now - 600.0,
        recorded_at=now,
        event_type="node_offline",
        severity="critical",
        hostname="dev",
        message="dev is offline",
    )
    with real_influx(tmp_path) as real:
        if real is None:
            pytest.skip(MISSING)
        address = f"{real.url}/api/v2/{{}}?org={real.org}&bucket={real.bucket}"
        for precision, lines in (
            ("s", lines_of(now - 300, samples, {})),
            ("ns", event_lines_of([event], {})),
        ):
            post(f"{address.format('write')}&precision={precision}", "\n".join(lines), real.token)
        for flux in queries("tailnet-influxdb", "query"):
            text = FLUX_OPTIONS + flux.replace("${bucket}", real.bucket)
            answer = post(address.format("query"), text, real.token)
            assert "error" not in answer.partition("\n")[0], flux
            assert "dev" in answer or "2.5" in answer, flux


def test_provisioning_names_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.grafana.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    for source in mounts:
        assert source.startswith("tsmon_") or (ROOT / "docker" / source).exists()
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/tsmon.yml").read_text())["providers"]
    assert provider["options"]["path"] in mounts.values()
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/tsmon.yml").read_text())["datasources"]
    base = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())["services"]
    assert source["jsonData"]["organization"] == base["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_ORG"]
    assert source["url"] == base["tsmon"]["environment"]["TSMON_INFLUX_URL"]
