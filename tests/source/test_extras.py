"""What tailscaled says beside nodes, as it is and as nobody should send it; why control is lost."""

import json
from typing import Any

import pytest
from aiohttp import web

from tsmon.demo.servers import serving
from tsmon.source import diagnosis
from tsmon.source.diagnosis import diagnose, has_route, health_path
from tsmon.source.extras import MOST_PORTS, TailscaleService, read_lock, read_services, services_of


def row(name: str = "svc:web", **values: Any) -> dict[str, Any]:
    return {"Name": name, "Addrs": ["100.100.0.1", "fd7a::1"], "Ports": ["tcp:443"], **values}


def said(*rows: dict[str, Any]) -> tuple[TailscaleService, ...] | None:
    return read_services(json.dumps({str(n): one for n, one in enumerate(rows)}).encode())


def test_services_of_the_local_api_and_of_the_document_are_read_alike() -> None:
    expected = (TailscaleService("svc:web", ("100.100.0.1", "fd7a::1"), (443,)),)
    assert said(row()) == expected
    assert services_of({"services/web": [row()], "https": None}) == expected
    assert expected[0].ip == "100.100.0.1"
    assert read_services(b"{}") == ()
    assert services_of(None) == ()


@pytest.mark.parametrize(
    ("ports", "read"),
    [
        (["tcp:443", "tcp:443", "80"], (443, 80)),
        (["tcp:8000-8002"], (8000, 8001, 8002)),
        (["*"], ()),
        (["tcp:*"], ()),
        (["udp:53", "17:53", "icmp:*"], ()),
        (["tcp:0", "tcp:70000", "tcp:9-1", "tcp:", ""], ()),
        (None, ()),
    ],
)
def test_ports(ports: list[str] | None, read: tuple[int, ...]) -> None:
    (service,) = said(row(Ports=ports)) or ()
    assert service.ports == read


def test_a_range_of_all_ports_is_bounded() -> None:
    (service,) = said(row(Ports=["tcp:0-65535", "tcp:1-65535"])) or ()
    assert len(service.ports) == MOST_PORTS


@pytest.mark.parametrize(
    "bad",
    [
        row("web"),
        row("svc:" + "x" * 64),
        row("svc:a b"),
        row("svc:\u202ex"),
        row(Addrs=["not an address"]),
    ],
)
def test_a_service_that_is_none_is_left_out(bad: dict[str, Any]) -> None:
    assert said(bad, row()) == said(row())


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"a": 1}', b"[" * 100_000, b"\xff"])
def test_another_answer_is_none(body: bytes) -> None:
    assert read_services(body) is None
    assert read_lock(body) is None


def test_whom_the_lock_keeps_out() -> None:
    peers = [{"Name": "b.tail.example.", "StableID": "n2"}, {"Name": "", "StableID": "n1"}, {"Name": "x"}]
    found = read_lock(json.dumps({"Enabled": True, "FilteredPeers": peers}).encode())
    assert found is not None
    assert [(one.id, one.hostname) for one in found] == [("n2", "b"), ("n1", "n1")]
    assert read_lock(b'{"Enabled": true, "FilteredPeers": null}') == ()
    assert read_lock(b'{"Enabled": false}') is None


# -- why control is lost -----------------------------------------------------------------------------------


async def _fine(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _ill(_: web.Request) -> web.Response:
    return web.Response(status=502)


async def test_what_is_found_out_about_a_lost_control_server() -> None:
    app = web.Application()
    app.router.add_get("/health", _fine)
    app.router.add_get("/ill/health", _ill)
    async with serving(app) as url:
        nobody = "http://127.0.0.1:1"
        assert await diagnose(url, other=nobody) == "control_answers"
        assert await diagnose(url + "/ill", other=url + "/health") == "control_silent"
        assert await diagnose(nobody, other=url + "/health") == "control_silent"
        assert await diagnose(nobody, other=nobody) == "nothing_answers"
        assert await diagnose("no url at all", other=nobody) == "nothing_answers"
        assert await diagnose(None) == "unknown"


async def test_without_a_route_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_NO_ROUTE", ())
    assert not has_route()
    assert await diagnose("http://127.0.0.1:1", other="http://127.0.0.1:1") == "no_network"


def test_each_control_server_is_asked_what_it_answers_to_everybody() -> None:
    assert health_path("https://controlplane.tailscale.com") == "/key?v=142"
    assert health_path("https://headscale.example.com") == "/health"
    assert health_path("https://tailscale.com.example.com") == "/health"
