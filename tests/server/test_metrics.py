"""/metrics: what it says of a tailnet, that promtool finds no fault, and that a real Prometheus takes it."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.site import PROD, Site, site
from tsmon.daemon.readiness import readiness
from tsmon.server.metrics import Scrape, _nodes


async def families(here: Site) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = await here.get("/metrics")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(rows: list[tuple[dict[str, str], float]], **labels: str) -> float:
    (found,) = [number for given, number in rows if labels.items() <= given.items()]
    return found


def _pinged(here: Site, name: str) -> bool:
    nodes = here.daemon.monitor.view.nodes.values()
    return any(node.hostname == name and node.reach.latency_ms is not None for node in nodes)


async def test_what_it_says(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as here:
        here.tailnet.off(PROD)
        await here.poll()
        await here.until(lambda: any(a.state == "firing" for a in here.daemon.monitor.alerts.values()))
        found = await families(here)
        online = found["tsmon_node_online"]
        assert value(online, hostname=PROD) == 0
        assert value(online, hostname="git", node_type="git", os="Linux") == 1
        assert value(found["tsmon_node_state"], hostname=PROD, state="offline") == 1
        assert value(found["tsmon_node_state"], hostname=PROD, state="online") == 0
        assert value(found["tsmon_nodes"], state="offline") == 1
        assert value(found["tsmon_critical_nodes"], state="online") == 2
        assert value(found["tsmon_alerts_firing"], kind="node_offline", severity="critical") == 1
        assert value(found["tsmon_alerts_firing"], kind="monitor_blind", severity="warning") == 0
        assert value(found["tsmon_blind"]) == 0
        assert "tsmon_blind_reason" not in found
        assert value(found["tsmon_polls_total"]) >= 2
        assert 0 < value(found["tsmon_node_uptime_ratio"], hostname="git", window="24h") <= 1
        assert value(found["tsmon_node_critical"], hostname="git") == 1
        assert value(found["tsmon_build_info"], version=readiness(here.daemon.parts).version) == 1
        assert "process_resident_memory_bytes" in found


async def test_an_unknown_state_has_no_online(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.tailnet.stop()
        await here.poll()
        found = await families(here)
        # Of the monitor's own machine it is known.
        assert [labels["hostname"] for labels, _ in found["tsmon_node_online"]] == ["monitor"]
        assert {labels["hostname"] for labels, _ in found["tsmon_node_state"]} == {"monitor"}
        assert value(found["tsmon_blind"]) == 1
        assert value(found["tsmon_blind_reason"], reason="tailscale_stopped") == 1


async def test_a_blind_monitor_exports_no_state_but_who_it_is(tmp_path: Path) -> None:
    """It has no vote among several; that a node is critical is a setting and stays."""
    async with site(tmp_path, monitor="oslo", reconnect_grace="0s") as here:
        sighted = await families(here)
        assert value(sighted["tsmon_node_state"], hostname="git", state="online") == 1
        here.tailnet.fault = "bad_gateway"
        await here.until(lambda: here.daemon.monitor.view.blind)
        found = await families(here)
        assert value(found["tsmon_blind"]) == 1
        assert "tsmon_node_online" not in found
        assert "tsmon_node_state" not in found
        assert "tsmon_node_latency_seconds" not in found
        assert value(found["tsmon_node_critical"], hostname="git") == 1
        assert found["tsmon_monitor_info"] == [({"monitor_name": "oslo", "tailnet_name": "example.com"}, 1.0)]
        assert sighted["tsmon_monitor_info"] == found["tsmon_monitor_info"]


async def test_a_node_that_is_not_online_has_no_latency(tmp_path: Path) -> None:
    """As on /nodes, and as in InfluxDB: one rule for all three."""
    async with site(tmp_path) as here:

        async def latencies() -> tuple[set[str], set[str], set[str]]:
            found = await families(here)
            nodes = await here.get("/health-monitoring/nodes?project_only=false")
            scraped = {labels["hostname"] for labels, _ in found.get("tsmon_node_latency_seconds", [])}
            paths = {labels["hostname"] for labels, _ in found.get("tsmon_node_path_info", [])}
            return scraped, paths, {node["hostname"] for node in nodes if node["latency_ms"] is not None}

        await here.until(lambda: _pinged(here, "git"))
        assert all("git" in names for names in await latencies())
        here.tailnet.off("git")
        await here.poll()
        assert all("git" not in names for names in await latencies())


async def test_the_nodes_may_be_left_out(tmp_path: Path) -> None:
    async with site(tmp_path, metrics__per_node="false") as here:
        found = await families(here)
        assert not [name for name in found if name.startswith("tsmon_node_")]
        assert value(found["tsmon_nodes"], state="online") == 5


async def test_two_machines_of_one_name_are_two_series(tmp_path: Path) -> None:
    async with site(tmp_path, exclude="[]") as here:
        here.tailnet.add("git.other.example", shared=True)
        here.tailnet.add("git", shared=True)
        await here.poll()
        text = await here.get("/metrics")
        lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        assert len(lines) == len(set(lines))


async def test_open_metrics_on_request(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with here.client.get(here.daemon.url + "/metrics", headers=headers) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")


async def test_the_nodes_are_told_once_for_as_long_as_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10,000 nodes that takes a second."""
    made = []

    def count(snapshot: Scrape) -> Iterator[Metric]:
        made.append(snapshot)
        return _nodes(snapshot)

    monkeypatch.setattr("tsmon.server.metrics._nodes", count)
    async with site(tmp_path) as here:
        assert value((await families(here))["tsmon_node_online"], hostname="git") == 1
        assert value((await families(here))["tsmon_node_online"], hostname="git") == 1
        assert len(made) == 1
        polls = value((await families(here))["tsmon_polls_total"])
        here.tailnet.off("git")
        await here.poll()
        found = await families(here)
        assert value(found["tsmon_node_online"], hostname="git") == 0
        assert value(found["tsmon_polls_total"]) > polls
        assert len(made) == 2


async def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("SKIPPED LOUDLY: no promtool (Debian: prometheus): the metrics were not checked by it")
    async with site(tmp_path, influx__url="http://127.0.0.1:1", influx__org="o") as here:
        text = await here.get("/metrics")
    run = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    # The process metrics are Prometheus' own client's.
    faults = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("process_")]
    assert faults == []


@pytest.mark.server
async def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("SKIPPED LOUDLY: no prometheus on PATH (Debian: prometheus): no server scraped it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with site(tmp_path) as here:
        config = tmp_path / "prometheus.yml"
        target = here.daemon.url.removeprefix("http://")
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: tsmon, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        process = await asyncio.create_subprocess_exec(
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            query = f"http://127.0.0.1:{port}/api/v1/query?query=tsmon_node_online"
            async with asyncio.timeout(30), aiohttp.ClientSession() as session:
                rows: list[object] = []
                while len(rows) < 5:
                    await asyncio.sleep(0.2)
                    try:
                        async with session.get(query) as response:
                            rows = json.loads(await response.read())["data"]["result"]
                    except (aiohttp.ClientError, ValueError, KeyError):
                        continue
            assert len(rows) == 5
        finally:
            process.terminate()
            await process.wait()


async def test_every_metric_is_documented_and_the_reverse(tmp_path: Path) -> None:
    documented = set(
        re.findall(r"^\| `(tsmon_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    toml = tmp_path / "tsmon.toml"
    toml.write_text('[[notify]]\nname = "hook"\nurl = "webhook+http://127.0.0.1:1/"\n')
    influx = {"influx__url": "http://127.0.0.1:1", "influx__org": "o"}
    control = {"control__kind": "headscale", "control__url": "http://127.0.0.1:1", "control__token": "t"}
    async with site(tmp_path, toml=toml, **influx, **control) as here:
        text = await here.get("/metrics")
    told = {re.sub(r"_total$", "", name) for name in re.findall(r"^# HELP (tsmon_\w+)", text, re.MULTILINE)}
    assert {re.sub(r"_total$", "", name) for name in documented} == told
