"""What `tsmon doctor` says of the control server's API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.support.control_api import (
    API_KEY,
    CLIENT_ID,
    CLIENT_SECRET,
    TOKEN,
    ScriptedControl,
    device,
    headscale_node,
    text_of,
)
from tests.support.world import settings
from tsmon.base.clock import Clock
from tsmon.cli.doctor.control_server import examine_control
from tsmon.cli.doctor.finding import Finding
from tsmon.demo.servers import serving
from tsmon.demo.tailnet import SimTailnet
from tsmon.source.status import Decoder, Snapshot

DAY = 86400.0
OAUTH = {"control__client_id": CLIENT_ID, "control__client_secret": CLIENT_SECRET}
HEADSCALE = {"control__kind": "headscale", "control__token": API_KEY}


def seen() -> Snapshot:
    """The monitor, which is `n000001CNTRL`, and one more."""
    tailnet = SimTailnet(Clock())
    tailnet.add("git")
    return Decoder().decode(tailnet.document())


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[ScriptedControl, str]]:
    script = ScriptedControl()
    own = seen().nodes["n000001CNTRL"].ips
    script.devices = [device("monitor", 1, addresses=own), device("git", 2), device("vault", 90)]
    async with serving(script.app()) as url:
        yield script, url


async def found(url: str, snapshot: Snapshot | None = None, **values: Any) -> list[Finding]:
    values = {"control__kind": "tailscale", "control__url": url} | values
    return await examine_control(settings(**values), snapshot)


async def test_not_configured() -> None:
    (finding,) = await examine_control(settings(), None)
    assert (finding.what, finding.level) == ("control", "skipped")


async def test_a_client_with_the_one_scope_is_all_right() -> None:
    async with scripted() as (_, url):
        listed, scopes = await found(url, seen(), **OAUTH)
    assert (listed.level, scopes.level) == ("ok", "ok")
    assert listed.says.endswith("lists 3 machines, of which this monitor sees 2")
    assert scopes.says == "the OAuth client may devices:core:read, and no more"


async def test_scopes_that_are_too_many_or_missing() -> None:
    async with scripted() as (script, url):
        script.scope = "devices:core auth_keys:read dns:read"
        _, more = await found(url, seen(), **OAUTH)
        assert more.level == "warning"
        assert (
            more.says
            == "the OAuth client may do more than tsmon needs: auth_keys:read, devices:core, dns:read"
        )
        assert more.remedy == "make one with devices:core:read only"
        script.scope = "devices:core:read"
        _, missing = await found(url, seen(), **OAUTH, control__keys="true")
        assert "lacks the scope api_access_tokens:read, auth_keys:read, oauth_keys:read" in missing.says
        script.scope = "all:read"
        _, more = await found(url, seen(), **OAUTH, control__keys="true")
        assert more.says == "the OAuth client may do more than tsmon needs: all:read"


async def test_an_access_token_may_do_more_than_is_needed_and_ends() -> None:
    async with scripted() as (script, url):
        soon = text_of(Clock().wall() + 5.5 * DAY)
        script.keys = [{"id": "kOwn111CNTRL", "keyType": "api", "expires": soon}]
        _, token, end = await found(url, seen(), control__token=TOKEN)
    assert (token.level, end.what, end.level) == ("warning", "credential", "warning")
    assert "an OAuth client with the scope devices:core:read is enough" in token.remedy
    assert end.says == "tsmon's own API access token kOwn111CNTRL expires in 5 d 11 h"


async def test_a_key_of_headscale() -> None:
    async with scripted() as (script, url):
        script.nodes = [headscale_node("monitor", 1, id="n000001CNTRL", ipAddresses=seen().self_ips)]
        later = text_of(Clock().wall() + 80 * DAY)
        script.api_keys = [{"id": "1", "prefix": "hskey-api-abcdefghijkl-***", "expiration": later}]
        listed, end = await found(url, seen(), **HEADSCALE)
    assert (listed.level, end.level) == ("ok", "ok")
    assert "expires in 79 d" in end.says


async def test_a_credential_that_is_refused() -> None:
    async with scripted() as (_, url):
        (finding,) = await found(url, seen(), **(HEADSCALE | {"control__token": "hskey-api-wrong-x"}))
    assert finding.level == "failed"
    assert "headscale apikeys create makes one" in finding.says
    assert "wrong" not in finding.says


async def test_another_tailnet() -> None:
    async with scripted() as (script, url):
        script.devices[0]["addresses"] = ["100.99.9.9"]
        finding = (await found(url, seen(), **OAUTH))[0]
        assert (finding.level, finding.remedy) == (
            "failed",
            "give a credential of this tailnet (control.token, control.url)",
        )
        assert (await found(url, None, **OAUTH))[0].level == "ok", "nobody can say"


async def test_rows_that_cannot_be_read_and_keys_that_are_refused() -> None:
    async with scripted() as (script, url):
        script.devices.append({"hostname": "no id"})
        refuse = web.json_response({"message": "no"}, status=403)
        script.answer = lambda request: refuse if request.path.endswith("/keys") else None
        listed, _, keys = await found(url, seen(), control__token=TOKEN, control__keys="true")
        assert listed.level == "warning"
        assert "1 that cannot be read: row 4" in listed.says
        assert (keys.what, keys.remedy) == ("credential", "add the scope, or set control.keys = false")
        assert "it needs the scope auth_keys:read" in keys.says


async def test_plain_http_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as (script, url):
        script.nodes = [headscale_node("monitor", 1)]
        assert [finding.level for finding in await found(url, None, **HEADSCALE)] == ["ok"]
        monkeypatch.setattr("tsmon.cli.doctor.control_server.is_loopback", lambda _: False)
        _, warning = await found(url, None, **HEADSCALE)
    assert (warning.level, warning.says) == ("warning", "the credential goes to 127.0.0.1 unencrypted")
