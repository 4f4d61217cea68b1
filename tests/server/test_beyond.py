"""/services, /routes and their metrics, over a monitor that runs."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.site import Site, site
from tsmon.demo.tailnet import SimService, SimTailnet

TOML = """
services = true
service_interval = "1s"
[[roles]]
name = "db"
hosts = ["db"]
checks = ["tcp:5432", "http:8080/"]
"""


def furnish(tailnet: SimTailnet) -> None:
    tailnet.add("db", ports={5432: "open", 8080: "failing"})
    tailnet.add("router", routes=["10.0.0.0/24"])
    tailnet.add("exit", exit_node_option=True)
    tailnet.services["svc:wiki"] = SimService("100.100.0.10", ["tcp:443"], "db")
    tailnet.lock = ["newcomer"]


async def answer(here: Site, path: str) -> Any:
    return await here.get(f"/health-monitoring/{path}")


async def settled(here: Site) -> list[dict[str, Any]]:
    """The services, once each is what it is."""
    for _ in range(200):
        rows: list[dict[str, Any]] = (await answer(here, "services"))["services"]
        if rows and all(row["state"] != "unknown" for row in rows):
            return rows
        await asyncio.sleep(0.1)
    raise AssertionError(rows)


async def test_services_and_routes(tmp_path: Path) -> None:
    toml = tmp_path / "tsmon.toml"
    toml.write_text(TOML)
    async with site(tmp_path, toml=toml, furnish=furnish, over_socket=True) as here:
        rows = await settled(here)
        assert [(row["hostname"], row["check"], row["state"]) for row in rows] == [
            ("svc:wiki", "tcp:443", "refused"),
            ("db", "http:8080/", "bad_answer"),
            ("db", "tcp:5432", "ok"),
        ]
        one = await answer(here, "services?node=db&buckets=4")
        assert len(one["bounds"]) == 5
        assert all(len(row["bars"]["states"]) == 4 for row in one["services"])
        assert [len(row["outages"]) for row in one["services"]] == [1, 0]
        assert (await answer(here, "services?state=ok"))["services"][0]["check"] == "tcp:5432"
        assert (await answer(here, "services?node=nobody"))["services"] == []
        (db,) = await answer(here, "nodes?project_only=false&q=db")
        assert db["services"] == {"ok": 1, "down": 1, "unknown": 0}

        report = await answer(here, "report?time_zone=UTC")
        found = {f"{row['hostname']} {row['check']}": row for row in report["services"]}
        assert found.keys() == {"db http:8080/", "db tcp:5432", "svc:wiki tcp:443"}
        assert found["db http:8080/"]["outages"] == 1
        assert found["db http:8080/"]["outage_list"][0]["end"] is None
        assert found["db tcp:5432"]["offline_s"] == 0
        assert found["svc:wiki tcp:443"]["node_id"] is None
        assert "db http:8080/" in await here.get("/health-monitoring/report?format=text")
        assert "db tcp:5432" in await here.get("/health-monitoring/report?format=html")
        assert (await answer(here, "report?role=other"))["services"] == []

        routes = await answer(here, "routes")
        assert [(row["prefix"], row["router"], row["standbys"]) for row in routes["routes"]] == [
            ("10.0.0.0/24", "router", None)
        ]
        assert routes["exit_nodes"] == [{"hostname": "exit", "online": True}]

        await here.until(lambda: here.daemon.monitor.view.locked_out)
        assert (await answer(here, "routes"))["locked_out"] == [
            {"node_id": "nlocked-newcomer", "hostname": "newcomer"}
        ]

        metrics = await here.get("/metrics")
        assert 'tsmon_service_up{check="tcp:443",hostname="svc:wiki",node_type="service"} 0.0' in metrics
        assert "tsmon_locked_out_nodes 1.0" in metrics
        assert 'tsmon_service_up{check="tcp:5432",hostname="db",node_type="other"} 1.0' in metrics
        assert 'tsmon_service_up{check="http:8080/",hostname="db",node_type="other"} 0.0' in metrics
        assert 'tsmon_service_latency_seconds{check="tcp:5432",hostname="db",node_type="other"}' in metrics
        assert 'tsmon_route_up{prefix="10.0.0.0/24"} 1.0' in metrics
        assert "tsmon_exit_nodes_online 1.0" in metrics


async def test_a_sidecar_cannot_ask_and_that_is_said(tmp_path: Path) -> None:
    toml = tmp_path / "tsmon.toml"
    toml.write_text(TOML)
    async with site(tmp_path, toml=toml, furnish=furnish) as here:
        await here.until(lambda: here.daemon.monitor.view.cannot_ask)
        found = await answer(here, "services")
        assert found["can_check"] is False
        assert "the sidecar dials for nobody" in found["why_not"]
        assert {row["state"] for row in found["services"]} == {"unknown"}
        ready = await here.get("/readyz")
        assert any("no port can be asked" in warning for warning in ready["warnings"])


async def test_a_window_beyond_the_retention_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        found = await here.get("/health-monitoring/services?window=9999d", status=400)
        assert "window" in found["error"]["message"]
