"""The JSON API over a real daemon on a free port, with a simulated tailnet behind a real sidecar."""

import asyncio
import contextlib
import csv
import gzip
import io
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

import tsmon.api
from tests.support.site import PROD, Site, site
from tsmon.config import load
from tsmon.history.store import StoreError
from tsmon.monitor.state import EVENT_TYPES
from tsmon.server.answers import (
    AlertsAnswer,
    CriticalEntry,
    HistoryAnswer,
    LatencyAnswer,
    LogsAnswer,
    NodeAnswer,
    NodeDetail,
    SummaryAnswer,
    UptimeAnswer,
)
from tsmon.server.waiting import WhoisLine
from tsmon.source.errors import SourceError


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as found:
        yield found


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/health-monitoring/summary", SummaryAnswer),
        ("/health-monitoring/nodes?project_only=false", list[NodeAnswer]),
        ("/health-monitoring/nodes/git", NodeDetail),
        ("/health-monitoring/critical", dict[str, CriticalEntry]),
        ("/health-monitoring/alerts?state=all", AlertsAnswer),
        ("/health-monitoring/logs", LogsAnswer),
        ("/health-monitoring/uptime/git?hours=48", UptimeAnswer),
        ("/health-monitoring/history?window=7d&buckets=7", HistoryAnswer),
        ("/health-monitoring/latency/git", LatencyAnswer),
    ],
)
async def test_every_answer_has_its_shape(here: Site, path: str, shape: Any) -> None:
    answer = await here.get(path)
    again = json.loads(msgspec.json.encode(msgspec.convert(answer, shape)))
    if shape is not HistoryAnswer:  # its nodes leave out what is all 100
        assert again == answer


async def test_nodes_are_filtered_sorted_and_paged(here: Site) -> None:
    base = "/health-monitoring/nodes"

    async def names(query: str) -> list[str]:
        return [node["hostname"] for node in await here.get(base + query)]

    assert await names("") == [PROD, "dev", "git"]
    assert await names("?project_only=false") == [PROD, "dev", "git", "alices-laptop", "monitor"]
    assert await names("?project_only=NO&q=LAP") == ["alices-laptop"]
    assert await names("?project_only=0&node_type=git") == ["git"]
    assert await names("?sort=-hostname") == ["git", "dev", PROD]
    assert await names("?limit=1&offset=1") == ["dev"]
    here.tailnet.change("dev", tags=["tag:x"])
    here.tailnet.off("git")
    await here.poll()
    assert await names("?tag=x") == ["dev"]
    assert await names("?tag=tag:x") == ["dev"]
    assert await names("?state=offline") == ["git"]
    assert await names("?sort=state") == ["git", PROD, "dev"]
    for sort in ("uptime", "latency", "last_seen", "-last_seen"):
        assert sorted(await names(f"?sort={sort}")) == sorted([PROD, "dev", "git"])
    assert await here.get(base + "?fields=hostname,state&q=git") == [{"hostname": "git", "state": "offline"}]
    async with here.client.get(here.daemon.url + base + "?project_only=false&limit=2") as response:
        assert response.headers["X-Total-Count"] == "5"


async def test_a_node_that_is_down(here: Site) -> None:
    here.tailnet.off(PROD)
    await here.poll()
    node = (await here.get("/health-monitoring/nodes"))[0]
    assert (node["online"], node["state"], node["reason"]) == (False, "offline", "control")
    assert (await here.get("/health-monitoring/summary"))["status"] == "critical"
    entry = (await here.get("/health-monitoring/critical"))["prod"]
    assert (entry["status"], entry["online"], entry["total"]) == ("offline", 0, 1)


async def test_blindness_is_null_not_false(here: Site) -> None:
    here.tailnet.backend_state = "Starting"
    here.tailnet.stop()
    await here.poll()
    summary = await here.get("/health-monitoring/summary")
    assert summary["blind"]["reason"] == "tailscale_stopped"
    assert summary["unknown_nodes"] == 4
    nodes = await here.get("/health-monitoring/nodes")
    assert [node["online"] for node in nodes] == [None, None, None]
    assert nodes[0]["last_state"] == "online"
    assert nodes[0]["reachable"] is None
    entry = (await here.get("/health-monitoring/critical"))["git"]
    assert entry["status"] == "unknown"


async def test_a_node_is_found_by_name_id_and_after_its_removal(here: Site) -> None:
    git = here.tailnet.find("git")
    assert (await here.get(f"/health-monitoring/nodes/{git.id}"))["hostname"] == "git"
    here.tailnet.remove("git")
    here.daemon.monitor.view.nodes[git.id]
    await here.poll()
    here.daemon.clock.wall = lambda wall=here.daemon.clock.wall: wall() + 20  # type: ignore[method-assign,misc]
    await here.poll()
    gone = await here.get("/health-monitoring/nodes/git")
    assert (gone["id"], gone["online"], bool(gone["removed_at"])) == (git.id, None, True)
    assert gone["last_seen"] == gone["since"] == gone["removed_at"], "no longer seen from then on"
    assert (gone["last_state"], gone["latency_ms"], gone["version"]) == ("online", None, None)
    assert (await here.get("/health-monitoring/uptime/git"))["hostname"] == "git"
    assert (await here.get("/health-monitoring/critical"))["git"]["status"] == "missing"
    error = await here.get("/health-monitoring/nodes/nobody", 404)
    assert error["error"]["code"] == "not_found"


async def test_logs_page_by_page(here: Site) -> None:
    answer = await here.get("/health-monitoring/logs?per_page=2")
    assert answer["pagination"] == {
        "page": 1,
        "per_page": 2,
        "total_entries": 4,
        "total_pages": 2,
        "has_next": True,
        "has_prev": False,
    }
    ids = [int(entry["id"]) for entry in answer["logs"]]
    assert ids == sorted(ids, reverse=True)
    beyond = await here.get("/health-monitoring/logs?page=99")
    assert beyond["logs"] == []
    only = await here.get("/health-monitoring/logs?event_type=monitor_started&severity=ok")
    assert [entry["event_type"] for entry in only["logs"]] == ["monitor_started"]
    assert only["filters"]["event_type"] == "monitor_started"
    before = await here.get(f"/health-monitoring/logs?before={ids[0]}&event_type=all")
    assert before["pagination"]["total_entries"] == 3
    later = await here.get("/health-monitoring/logs?since=2099-01-01T00:00:00Z")
    assert later["summary"]["total"] == 0


async def test_the_log_as_csv_and_ndjson(here: Site) -> None:
    here.tailnet.add("=cmd|x", os_hostname="y")
    await here.poll()
    text = await here.get("/health-monitoring/logs", Accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[-1]["event_type"] == "monitor_started"
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    lines = await here.get("/health-monitoring/logs?event_type=node_online", Accept="application/x-ndjson")
    assert all(json.loads(line)["event_type"] == "node_online" for line in lines.splitlines())


async def test_an_export_is_compressed_and_has_an_etag(here: Site) -> None:
    url = here.daemon.url + "/health-monitoring/logs"
    headers = {"Accept": "text/csv", "Accept-Encoding": "gzip"}
    async with aiohttp.ClientSession(auto_decompress=False) as raw:
        async with raw.get(url, headers=headers) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await response.read()).startswith(b"id,timestamp,")
            etag = response.headers["ETag"]
        async with raw.get(url, headers={**headers, "If-None-Match": etag}) as response:
            assert response.status == 304
        async with raw.get(url + "?severity=ok", headers={**headers, "If-None-Match": etag}) as response:
            assert response.status == 200, "another filter is another content"
        async with raw.head(url, headers=headers) as response:
            assert (response.status, await response.read()) == (200, b"")
        here.tailnet.off("git")
        await here.poll()
        async with raw.get(url, headers={**headers, "If-None-Match": etag}) as response:
            assert response.status == 200, "the log has grown"


async def test_a_store_that_cannot_be_read_refuses_an_export(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise StoreError("tsmon.db: the disk reports an I/O error")

    monkeypatch.setattr(here.daemon.store, "read", refuse)
    for accept in ("application/json", "text/csv"):
        error = await here.get("/health-monitoring/logs", 503, Accept=accept)
        assert error["error"]["code"] == "storage_unavailable"


async def test_an_export_that_breaks_off_never_looks_whole(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmon.history.log._CHUNK", 2)
    read, calls = here.daemon.store.read, 0

    async def fail_later(work: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise StoreError("tsmon.db: the disk reports an I/O error")
        return await read(work, *rest)

    monkeypatch.setattr(here.daemon.store, "read", fail_later)
    host, port = here.daemon.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /health-monitoring/logs HTTP/1.1\r\nHost: {host}\r\nAccept: text/csv\r\n\r\n".encode())
    received = b""
    try:
        while chunk := await asyncio.wait_for(reader.read(65536), 5):
            received += chunk
    except ConnectionResetError:
        pass
    writer.close()
    assert received.count(b"HTTP/1.1") == 1, "no second answer within the first"
    assert b"id,timestamp" in received
    assert not received.endswith(b"0\r\n\r\n"), "the end of a chunked body"


async def test_states_are_told_while_the_history_cannot_be_read(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise StoreError("tsmon.db: the disk reports an I/O error")

    figures = here.daemon.api.figures
    with monkeypatch.context() as broken:
        broken.setattr(here.daemon.store, "read", refuse)
        here.tailnet.off("git")
        await here.poll()
        figures._fresh_until = float("-inf")
        nodes = await here.get("/health-monitoring/nodes")
        assert [node["state"] for node in nodes] == ["online", "online", "offline"]
        assert {node["uptime_24h"] for node in nodes} == {None}
        assert (await here.get("/health-monitoring/critical"))["git"]["status"] == "offline"
        await here.get("/health-monitoring/uptime/git", 503)
    figures._fresh_until = float("-inf")
    assert (await here.get("/health-monitoring/nodes"))[0]["uptime_24h"] is not None


async def test_a_node_that_could_not_be_stored_has_no_uptime(here: Site) -> None:
    await here.daemon.store.write(lambda db: db.execute("DELETE FROM nodes WHERE hostname = 'git'") and None)
    answer = await here.get("/health-monitoring/uptime/git")
    assert (answer["uptime_percentage"], answer["coverage"], answer["outages"]) == (None, None, 0)


async def test_uptime_and_history_within_the_retention(here: Site) -> None:
    await here.get("/health-monitoring/uptime/git?hours=9600")
    error = await here.get("/health-monitoring/uptime/git?hours=9601", 400)
    assert "retention" in error["error"]["message"]
    await here.get("/health-monitoring/history?window=401d", 400)
    bars = await here.get("/health-monitoring/history?window=1h&buckets=4&project_only=true")
    assert len(bars["bounds"]) == 5
    assert {node["hostname"] for node in bars["nodes"]} == {PROD, "dev", "git"}
    assert all(len(node["states"]) == 4 for node in bars["nodes"])


async def test_whois(here: Site) -> None:
    ip = here.tailnet.find("git").ips[0]
    assert (await here.get(f"/health-monitoring/whois/{ip}"))["UserProfile"][
        "LoginName"
    ] == "alice@example.com"
    await here.get("/health-monitoring/whois/100.64.200.1", 404)
    await here.get("/health-monitoring/whois/--help", 400)
    here.tailnet.fault = "refused"
    await here.get("/health-monitoring/whois/nonsense", 400)


async def test_alerts_by_state(tmp_path: Path) -> None:
    async with site(tmp_path, offline_after="0s") as here:
        here.tailnet.off(PROD, "git")
        await here.poll()
        await here.until(
            lambda: len([a for a in here.daemon.monitor.alerts.values() if a.state == "firing"]) == 2
        )
        answer = await here.get("/health-monitoring/alerts")
        assert [alert["hostname"] for alert in answer["alerts"]] == [PROD, "git"]
        assert answer["total"] == 2
        assert (await here.get("/health-monitoring/alerts?severity=critical"))["total"] == 1
        assert (await here.get("/health-monitoring/alerts?kind=node_flapping"))["total"] == 0
        assert (await here.get("/health-monitoring/alerts?hostname=git&limit=1"))["total"] == 1
        node = (await here.get("/health-monitoring/nodes?q=git"))[0]
        assert node["alert"] == answer["alerts"][1]["id"]
        assert (await here.get("/health-monitoring/nodes/git"))["current_alert"]["id"] == node["alert"]
        here.tailnet.on(PROD, "git")
        await here.poll()
        await here.until(lambda: not here.daemon.monitor.alerts)
        assert (await here.get("/health-monitoring/alerts"))["total"] == 0
        resolved = await here.get("/health-monitoring/alerts?state=resolved")
        assert {alert["cause"] for alert in resolved["alerts"]} == {"recovered"}


# -- the protocol ------------------------------------------------------------------------------------------

BAD = [
    ("nodes?foo=1", "foo"),
    ("nodes?project_only=maybe", "project_only takes true or false"),
    ("nodes?limit=0", "limit takes a whole number from 1 to 10000"),
    ("nodes?limit=x", "limit"),
    ("nodes?limit=1&limit=2", "more than once"),
    ("nodes?sort=colour", "sort takes one of hostname"),
    ("nodes?fields=hostname,secret", "fields takes names"),
    ("nodes?q=" + "x" * 300, "q takes a text"),
    ("logs?page=0", "page takes"),
    ("logs?page=-1", "page takes"),
    ("logs?per_page=201", "per_page"),
    ("logs?severity=loud", "severity takes one of ok, warning, critical"),
    ("logs?event_type=party", "event_type"),
    ("logs?since=yesterday", "since takes a time"),
    ("history?buckets=401", "buckets"),
    ("history?window=1", "window takes a duration"),
    ("history?window=0s", "window"),
    ("uptime/git?hours=0", "hours"),
    ("alerts?state=odd", "state takes one of firing"),
    ("summary?x=1", "there are: none"),
    ("latency/git?window=abc", "window"),
]


@pytest.mark.parametrize(("path", "words"), BAD)
async def test_bad_parameters_are_named(here: Site, path: str, words: str) -> None:
    error = (await here.get("/health-monitoring/" + path, 400))["error"]
    assert error["code"] == "bad_parameter"
    assert words in error["message"]


async def test_an_address_with_a_zone_is_no_address(here: Site) -> None:
    for text in ("fe80::1%25eth0", "100.64.0.1%250", "::1%25--help"):
        error = await here.get(f"/health-monitoring/whois/{text}", 400)
        assert error["error"]["message"] == "ip takes an IPv4 or IPv6 address"


@pytest.mark.parametrize(("reason", "status"), [("source_unreachable", 502), ("source_timeout", 504)])
async def test_a_failing_source_is_a_gateway_error(
    here: Site, monkeypatch: pytest.MonkeyPatch, reason: Any, status: int
) -> None:
    async def fail(_: str) -> Any:
        raise SourceError(reason, "http://127.0.0.1: gives no answer")

    monkeypatch.setattr(here.daemon.api, "_whois", WhoisLine(fail))
    error = (await here.get("/health-monitoring/whois/100.64.0.2", status))["error"]
    assert error == {"code": reason, "message": "http://127.0.0.1: gives no answer"}


async def test_a_failure_of_tsmon_itself_shows_nothing_of_it(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("token=very-secret")

    monkeypatch.setattr(here.daemon.api._probes, "_readiness", broken)
    error = (await here.get("/readyz", 500))["error"]
    assert error == {"code": "internal", "message": "tsmon failed to answer; its log says why"}


async def test_errors_have_one_shape_and_headers(here: Site) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("POST", "/health-monitoring/summary", 405),
        ("DELETE", "/health-monitoring/nodes/git", 405),
        ("PUT", "/vpn", 405),
    ]:
        async with here.client.request(method, here.daemon.url + path) as response:
            assert response.status == status
            body = await response.json()
            assert set(body["error"]) == {"code", "message"}
            assert "trusted-types" in response.headers["Content-Security-Policy"]
            if status == 405:
                assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_an_expectation_changes_nothing(here: Site) -> None:
    for expected in ("100-continue", "nonsense"):
        summary = await here.get("/health-monitoring/summary", Expect=expected)
        assert summary["total_nodes"] == 5


async def test_etag_head_and_gzip(here: Site) -> None:
    url = here.daemon.url + "/health-monitoring/critical"
    async with here.client.get(url) as response:
        etag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
        body = await response.read()
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with here.client.get(url, headers={"If-None-Match": f'W/{etag}, "x"'}) as response:
        # The view may have moved on between the two requests.
        assert response.status == 304 or response.headers["ETag"] != etag
        if response.status == 304:
            assert await response.read() == b""
    async with here.client.head(url) as response:
        assert (response.status, await response.read()) == (200, b"")
    async with (
        aiohttp.ClientSession(auto_decompress=False) as raw,
        raw.get(url, headers={"Accept-Encoding": "gzip"}) as response,
    ):
        assert json.loads(gzip.decompress(await response.read())).keys() == json.loads(body).keys()
    async with here.client.get(url, headers={"Accept-Encoding": "gzip;q=0"}) as response:
        assert "Content-Encoding" not in response.headers


async def test_an_unchanged_answer_is_not_sent_again(here: Site) -> None:
    url = here.daemon.url + "/health-monitoring/alerts?state=resolved&limit=5"
    here.daemon.collector._source = None  # type: ignore[assignment]  # no poll moves the view any more
    async with here.client.get(url) as response:
        etag = response.headers["ETag"]
    async with here.client.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304


async def test_healthz_and_readyz(here: Site) -> None:
    assert await here.get("/healthz") == {"status": "ok"}
    ready = await here.get("/readyz")
    assert ready["ready"] is True
    assert ready["source"]["kind"] == "sidecar"
    assert ready["storage"] == {"error": None, "waiting": 0, "report": None, "bad_rows": {}}
    here.daemon.parts.loops._loops["poll"].patience = -1.0
    assert await here.get("/healthz", 503) == {"status": "stuck", "loop": "poll"}


async def test_a_malformed_peer_is_named_in_readyz(here: Site) -> None:
    here.tailnet.change("dev", malformed=True)
    await here.poll()
    source = (await here.get("/readyz"))["source"]
    assert source["malformed_peers"] == 1
    assert "TailscaleIPs" in source["malformed"][0]


async def test_the_dashboard_and_its_files(here: Site) -> None:
    page = await here.get("/vpn?state=offline&anything=goes")
    assert "<html" in page
    async with here.client.get(here.daemon.url + "/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "vpn")
    for path in ("/web/nothing.js", "/web/..%2fapi.py", "/web/%2e%2e/api.py", "/web/vpn.py"):
        async with here.client.get(here.daemon.url + path) as response:
            assert response.status == 404


async def test_a_path_prefix(tmp_path: Path) -> None:
    async with site(tmp_path, public_url="https://proxy.example/tsmon/") as here:
        for path, location in (("/tsmon", "tsmon/vpn"), ("/tsmon/", "vpn")):
            async with here.client.get(here.daemon.url + path, allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (302, location)
        await here.get("/tsmon/web/vpn.css")
        for path in ("/other/vpn", "/other/health-monitoring/summary", "/tsmon/tsmon/vpn", "/tsmonx"):
            assert (await here.get(path, 404))["error"]["code"] == "not_found"
        assert (await here.get("/tsmon/health-monitoring/summary"))["total_nodes"] == 5
        assert "<html" in await here.get("/tsmon/vpn")
        assert (await here.get("/health-monitoring/summary", Host="proxy.example"))["total_nodes"] == 5


def test_all_event_types_are_the_designs() -> None:
    assert len(set(EVENT_TYPES)) == 20


# -- a large tailnet ---------------------------------------------------------------------------------------


async def test_answers_about_many_nodes_are_made_once_and_off_the_loop(tmp_path: Path) -> None:
    names = [f"node-{n}" for n in range(600)]
    roles = tmp_path / "tsmon.toml"
    roles.write_text('[[roles]]\nname = "fleet"\nhosts = ["node-*"]\ncritical = true\nping = false\n')
    async with site(tmp_path, *names) as here:
        source = here.daemon.settings.source.reveal()
        here.daemon.reloading.reread = lambda: load(roles, {}, {"source": source})
        await here.daemon.reload()
        made: list[str] = []

        def watch(name: str) -> None:
            real = getattr(tsmon.api, name)

            def spied(*args: Any) -> Any:
                made.append(f"{name} in {threading.current_thread().name}")
                return real(*args)

            monkeypatch.setattr(tsmon.api, name, spied)

        with pytest.MonkeyPatch.context() as monkeypatch:
            watch("nodes_body")
            watch("critical_body")
            here.daemon.collector._source = None  # type: ignore[assignment]  # no poll moves the view
            await here.daemon.api.figures.get()
            paths = ["/health-monitoring/nodes"] * 5 + ["/health-monitoring/critical"] * 5
            answers = await asyncio.gather(*[here.get(path) for path in paths])
        assert all(len(nodes) == 600 for nodes in answers[:5])
        assert all(len(entries["fleet"]["nodes"]) == 600 for entries in answers[5:])
        assert sorted(entry.split()[0] for entry in made) == ["critical_body", "nodes_body"]
        assert all("MainThread" not in entry for entry in made)
        bars = await here.get("/health-monitoring/history?buckets=2")
        assert len(bars["nodes"]) == 601


async def test_a_reload_changes_the_path_prefix(tmp_path: Path) -> None:
    file = tmp_path / "tsmon.toml"
    file.write_text('public_url = "https://proxy.example/new"\n')
    async with site(tmp_path, public_url="https://proxy.example/old") as here:
        await here.get("/old/health-monitoring/summary")
        source = here.daemon.settings.source.reveal()
        here.daemon.reloading.reread = lambda: load(file, {}, {"source": source})
        await here.daemon.reload()
        await here.get("/new/health-monitoring/summary")
        await here.get("/old/health-monitoring/summary", 404)


async def test_an_export_of_the_admin_socket_breaks_off_alike(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It streams through the same middleware: no error is written into the rows."""
    read, calls = here.daemon.store.read, 0

    async def fail_later(work: Any, *rest: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StoreError("tsmon.db: the disk reports an I/O error")
        return await read(work, *rest, **named)

    monkeypatch.setattr(here.daemon.store, "read", fail_later)
    reader, writer = await asyncio.open_unix_connection(here.daemon.state_dir / "admin.sock")
    writer.write(b"GET /export?table=events HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := await asyncio.wait_for(reader.read(65536), 5):
            received += chunk
    writer.close()
    assert received.count(b"HTTP/1.1") == 1
    assert b"monitor_started" in received
    assert b"storage_unavailable" not in received
