"""The fleet's dashboards: their queries are asked of real servers, which hold what several tsmon say."""

import asyncio
import re
import shutil
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.boards import FLUX_OPTIONS, board, filled, queries
from tests.support.flux import LSP, valid
from tests.support.influx2 import MISSING, post, real_influx
from tests.support.paths import ROOT
from tests.support.servers import prom_query, started
from tests.support.sidecar_proxy import free_port
from tests.support.site import Site, site
from tsmon.history.influx.points import event_lines_of, lines_of
from tsmon.monitor.samples import Sample
from tsmon.monitor.state import Event

RULES = ROOT / "packaging" / "prometheus" / "tsmon.rules.yml"
METRICS = set(re.findall(r"^\| `(tsmon_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
_PROMETHEUS = "fleet-prometheus"
_INFLUX = "fleet-influxdb"


def test_the_prometheus_dashboard_asks_for_what_there_is() -> None:
    records = {
        rule["record"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"] if "record" in rule
    }
    for expr in queries(_PROMETHEUS, "expr"):
        assert set(re.findall(r"\btsmon_\w+", expr)) <= METRICS, expr
        assert set(re.findall(r"\btsmon:[\w:]+\w", expr)) <= records, expr


@pytest.mark.server
async def test_every_query_finds_what_two_monitors_say(tmp_path: Path) -> None:
    """Two tsmon differ on git; a third is blind. Asked of a real Prometheus with the shipped rules."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("SKIPPED LOUDLY: no prometheus (Debian: prometheus): no query of the fleet's was asked")
    async with AsyncExitStack() as stack:
        sites: dict[str, Site] = {}
        for name in ("oslo", "berlin", "rome"):
            (tmp_path / name).mkdir()
            sites[name] = await stack.enter_async_context(
                site(
                    tmp_path / name,
                    "git",
                    "dev",
                    monitor=name,
                    influx__url="http://127.0.0.1:1",
                    influx__org="o",
                )
            )
        sites["berlin"].tailnet.off("git")
        sites["rome"].tailnet.stop()
        for here in sites.values():
            await here.poll()
        server, url = _prometheus(program, tmp_path, sites)
        await stack.enter_async_context(server)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        partial, seen = 'tsmon:node:state{state="partial"}', "count(tsmon:monitor:sees) == 3"
        async with asyncio.timeout(30):
            while not (await prom_query(client, url, partial) and await prom_query(client, url, seen)):  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.2)
        states = await prom_query(client, url, "tsmon:node:state")
        assert {(row["metric"]["hostname"], row["metric"]["state"]) for row in states} == {
            ("git", "partial"),
            ("dev", "online"),
            ("monitor", "online"),
        }
        seeing = await prom_query(client, url, "tsmon:monitor:sees")
        assert {row["metric"]["monitor"]: row["value"][1] for row in seeing} == {
            "oslo": "1",
            "berlin": "1",
            "rome": "0",
        }
        for panel in board(_PROMETHEUS)["panels"]:
            expr = filled(panel["targets"][0]["expr"], tailnet=".*", monitor=".*", hostname=".*")
            rows = await prom_query(client, url, expr)
            # Nothing waits for InfluxDB yet: the first sample is due on the grid.
            assert rows or "outbox" in expr, panel["title"]


def _prometheus(
    program: str, directory: Path, sites: dict[str, Site]
) -> tuple[AbstractAsyncContextManager[None], str]:
    """One that scrapes all sites each second, and its URL."""
    targets = [
        {"targets": [here.daemon.url.removeprefix("http://")], "labels": {"tailnet": "home", "monitor": name}}
        for name, here in sites.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "tsmon", "static_configs": targets}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    return started(command, f"{url}/-/ready", directory / "prometheus.log"), url


@pytest.mark.skipif(not LSP, reason="SKIPPED LOUDLY: no TSMON_TEST_FLUX_LSP: no Flux was analysed")
def test_every_flux_is_right() -> None:
    asked = [
        FLUX_OPTIONS + filled(flux, bucket="analytics", monitor="(oslo|berlin)")
        for flux in queries(_INFLUX, "query")
    ]
    assert valid(asked) == [True] * len(asked)


def test_every_flux_finds_what_two_monitors_write(tmp_path: Path) -> None:
    """The monitor is a tag of `influx.tags`; one that was not chosen, or that has none, is left out."""
    grid = int(time.time()) // 300 * 300 - 300
    found = {"oslo": 1, "berlin": 0, "rome": 1}
    with real_influx(tmp_path) as real:
        if real is None:
            pytest.skip(MISSING)
        address = f"{real.url}/api/v2/{{}}?org={real.org}&bucket={real.bucket}"
        for name, online in found.items():
            samples = [Sample("git", "git", "Linux", online, "100.64.0.1", 2.5 if online else None)]
            event = Event(
                id=7,
                timestamp=grid + 1.0,
                recorded_at=grid + 1.0,
                event_type="node_offline",
                severity="critical",
                hostname="git",
                message=f"{name} says that git is offline",
            )
            tags = {"monitor": name}
            post(
                f"{address.format('write')}&precision=s", "\n".join(lines_of(grid, samples, tags)), real.token
            )
            lines = event_lines_of([event], tags)
            post(f"{address.format('write')}&precision=ns", "\n".join(lines), real.token)
        answers = {}
        for title, flux in _titled():
            text = FLUX_OPTIONS + filled(flux, bucket=real.bucket, monitor="(oslo|berlin)")
            answers[title] = post(address.format("query"), text, real.token)
            assert "error" not in answers[title].partition("\n")[0], (title, answers[title])
            assert "rome" not in answers[title], title
            assert len(answers[title].strip().splitlines()) > 1, title
        (variable,) = [v["query"] for v in board(_INFLUX)["templating"]["list"] if v["name"] == "monitor"]
        names = post(address.format("query"), filled(variable, bucket=real.bucket), real.token)
    assert all(name in names for name in found)
    (apart,) = [text for title, text in answers.items() if title.startswith("Disagreement")]
    assert [row.split(",")[-1] for row in apart.split()[1:]].count("1") == 1
    (shared,) = [text for title, text in answers.items() if "share" in title]
    assert ",0.5" in shared


def _titled() -> list[tuple[str, str]]:
    found = [(panel["title"], panel["targets"][0]["query"]) for panel in board(_INFLUX)["panels"]]
    return found + [(note["name"], note["target"]["query"]) for note in board(_INFLUX)["annotations"]["list"]]
