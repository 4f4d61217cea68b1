"""What a fleet costs: `python -m bench.fleet [--nodes 10000] [--monitors 5] [--interval 60] [--rounds 3]`.

A tsmon over a simulated tailnet is scraped by a real Prometheus (on PATH) as so many monitors with the
shipped rules. It prints the size of a scrape, the series, and what Prometheus needs for them.
"""

import argparse
import asyncio
import gzip
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.servers import prom_query, started
from tests.support.sidecar_proxy import free_port
from tsmon.base.clock import Clock
from tsmon.config import load
from tsmon.daemon.daemon import Daemon
from tsmon.demo.source import SimSource
from tsmon.demo.tailnet import SimTailnet

RULES = ROOT / "packaging" / "prometheus" / "tsmon.rules.yml"


def configuration(address: str, monitors: int, interval: int) -> dict[str, Any]:
    targets = [
        {"targets": [address], "labels": {"tailnet": "home", "monitor": f"monitor-{n}"}}
        for n in range(monitors)
    ]
    return {
        "global": {
            "scrape_interval": f"{interval}s",
            "scrape_timeout": f"{interval - 1}s",
            "evaluation_interval": f"{interval}s",
        },
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "tsmon", "static_configs": targets}],
    }


async def own_figures(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Prometheus' own metrics, those without labels and the sums of the others."""
    async with client.get(f"{url}/metrics") as response:
        text = await response.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def measure(chosen: argparse.Namespace, directory: Path, program: str) -> dict[str, Any]:
    nodes, monitors, rounds = chosen.nodes, chosen.monitors, chosen.rounds
    tailnet = SimTailnet(Clock())
    for name in ("git", "dev", "chocolate-factory"):
        tailnet.add(name)
    for n in range(nodes - 4):
        tailnet.add(f"node-{n:05d}", notify=False, tags=["tag:server"])
    settings = load(None, {}, {"listen": "127.0.0.1:0"})
    daemon = Daemon(settings, directory / "state", source=SimSource(tailnet))
    await daemon.start()
    address = daemon.url.removeprefix("http://")
    url = f"http://127.0.0.1:{free_port()}"
    (directory / "prometheus.yml").write_text(
        yaml.safe_dump(configuration(address, monitors, chosen.interval))
    )
    command = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    async with (
        aiohttp.ClientSession() as client,
        started(command, f"{url}/-/ready", directory / "prometheus.log"),
    ):
        while not daemon.collector.polls:  # noqa: ASYNC110 (a benchmark may look)
            await asyncio.sleep(0.05)
        await asyncio.sleep(rounds * chosen.interval)
        tailnet.off("node-00000")
        await daemon.collector.poll()
        used = time.process_time()
        async with client.get(f"{daemon.url}/metrics") as response:
            body = await response.read()
        made = time.process_time() - used
        used = time.process_time()
        async with client.get(f"{daemon.url}/metrics") as response:
            await response.read()
        again = time.process_time() - used
        scrape = await prom_query(client, url, "max(scrape_duration_seconds)")
        samples = await prom_query(client, url, "sum(scrape_samples_scraped)")
        own = await own_figures(client, url)
        recorded = await prom_query(client, url, 'count({__name__=~"tsmon:.*"})')
        disk = sum(path.stat().st_size for path in (directory / "tsdb").rglob("*") if path.is_file())
        result = {
            "nodes": nodes,
            "monitors": monitors,
            "scrape_mib": round(len(body) / (1 << 20), 1),
            "scrape_gzip_mib": round(len(gzip.compress(body, 6)) / (1 << 20), 2),
            "series_per_monitor": sum(1 for line in body.splitlines() if line and not line.startswith(b"#")),
            "cpu_s_scrape_changed": round(made, 2),
            "cpu_s_scrape_unchanged": round(again, 2),
            "slowest_scrape_s": round(float(scrape[0]["value"][1]), 2),
            "samples_per_round": int(float(samples[0]["value"][1])),
            "recorded_series": int(float(recorded[0]["value"][1])),
            "head_series": int(own["prometheus_tsdb_head_series"]),
            "samples_appended": int(own["prometheus_tsdb_head_samples_appended_total"]),
            "rules_last_s": round(own["prometheus_rule_group_last_duration_seconds"], 2),
            "prometheus_cpu_s_per_round": round(own["process_cpu_seconds_total"] / rounds, 1),
            "prometheus_rss_mib": round(own["process_resident_memory_bytes"] / (1 << 20)),
            "wal_mib": round(disk / (1 << 20), 1),
            "bytes_per_sample_in_wal": round(disk / own["prometheus_tsdb_head_samples_appended_total"], 2),
        }
    await daemon.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--monitors", type=int, default=5)
    parser.add_argument("--interval", type=int, default=60, help="seconds between scrapes")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        parser.error("no prometheus on PATH (Debian: prometheus)")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as directory:
        found = measure(chosen, Path(directory), program)
        print(json.dumps(asyncio.run(found), indent=1))


main()
