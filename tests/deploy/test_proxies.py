"""The examples of docs/deployment.md: the proxies' configurations in front of a running tsmon, by the real
programs; the Kubernetes manifest as far as it can be judged without a cluster."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped] # no stubs in the lock

from tests.support.paths import ROOT
from tests.support.sidecar_proxy import free_port
from tests.support.site import Site, site
from tsmon.config import load_all

TEXT = (ROOT / "docs" / "deployment.md").read_text()
MANIFEST = ROOT / "packaging" / "kubernetes" / "tsmon.yaml"
NAME = "www.example.org"


def block(language: str) -> str:
    """The example in that language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def nginx_config(directory: Path, port: int, target: str) -> str:
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    inner = block("nginx").replace("http://127.0.0.1:8000", target)
    return (
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n"
        f"server {{ listen 127.0.0.1:{port}; server_name {NAME};\n{inner} }} }}\n"
    )


def caddy_config(directory: Path, port: int, target: str) -> str:
    inner = block("caddyfile").replace("127.0.0.1:8000", target.removeprefix("http://"))
    options = (
        f"{{\n admin off\n auto_https off\n storage file_system {directory}\n default_bind 127.0.0.1\n}}\n"
    )
    return options + inner.replace(f"{NAME} {{", f"http://{NAME}:{port} {{")


def nginx_arguments(file: Path, directory: Path) -> list[str]:
    return ["-p", str(directory), "-c", str(file)]


def caddy_arguments(file: Path, _: Path) -> list[str]:
    return ["run", "--adapter", "caddyfile", "--config", str(file)]


COMMANDS = {"nginx": (nginx_config, nginx_arguments), "caddy": (caddy_config, caddy_arguments)}


@asynccontextmanager
async def proxy(name: str, directory: Path, target: str) -> AsyncIterator[str]:
    """The address of a proxy that runs with the example."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"SKIPPED LOUDLY: no {name} on this machine: its example was not run")
    port = free_port()
    config, arguments = COMMANDS[name]
    file = directory / f"{name}.conf"
    file.write_text(config(directory, port, target))
    with (directory / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments(file, directory),
            env={"HOME": str(directory), "PATH": "/usr/bin"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.returncode is None, (directory / "stderr").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def ask(site: Site, url: str) -> tuple[int, str]:
    async with site.client.get(url, headers={"Host": NAME}, allow_redirects=False) as response:
        return response.status, response.headers.get("Location", "") or (await response.read()).decode(
            errors="replace"
        )


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_proxy_hands_everything_on_below_the_path(name: str, tmp_path: Path) -> None:
    async with (
        site(tmp_path, public_url=f"https://{NAME}/tsmon") as found,
        proxy(name, tmp_path, found.daemon.url) as url,
    ):
        status, location = await ask(found, f"{url}/tsmon")
        assert (status // 100, location.endswith("/tsmon/vpn")) == (3, True)
        status, page = await ask(found, f"{url}/tsmon/vpn")
        assert status == 200
        files = re.findall(r'(?:src|href)="(web/[^"]+)"', page)
        assert files
        for file in files:
            assert (await ask(found, f"{url}/tsmon/{file}"))[0] == 200, file
        assert (await ask(found, f"{url}/tsmon/health-monitoring/summary"))[0] == 200
        assert (await ask(found, f"{url}/tsmon/healthz"))[0] == 200
        stream = f"{url}/tsmon/health-monitoring/stream"
        async with asyncio.timeout(10), found.client.get(stream, headers={"Host": NAME}) as response:
            assert response.status == 200
            first = b""
            while b"event: snapshot" not in first:
                first += await response.content.readany()


async def test_a_proxy_that_hides_the_name_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with site(tmp_path, public_url=f"https://{NAME}/tsmon") as found, aiohttp.ClientSession() as client:
        url = f"{found.daemon.url}/tsmon/health-monitoring/summary"
        async with client.get(url, headers={"Host": "other.example.org"}) as response:
            assert response.status == 421
            assert "allowed_hosts" in await response.text()


def documents() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def test_the_manifest_is_one_pod_without_privileges() -> None:
    found = documents()
    assert set(found) == {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"}
    deployment = found["Deployment"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == found["Service"]["spec"]["selector"]
    pod = deployment["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    claim = next(v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] == "state")
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_manifest_holds_settings_that_tsmon_takes(tmp_path: Path) -> None:
    [tailscale, tsmon] = documents()["Deployment"]["spec"]["template"]["spec"]["containers"]
    environment = {row["name"]: row["value"] for row in tsmon["env"]}
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    environment["TSMON_AUTH_TOKEN_FILE"] = str(token)
    loaded = load_all(None, environment, {})
    assert not loaded.warnings
    assert loaded.settings.auth.mode == "token"
    assert "tsmon.tsmon.svc" in loaded.settings.allowed_hosts
    names = {row["name"]: row.get("value") for row in tailscale["env"]}
    assert loaded.settings.source.reveal() == f"unix://{names['TS_SOCKET']}"
    assert not loaded.settings.auth.trusted_networks, "a userspace node hands the tailnet to loopback"
    compose = (ROOT / "docker" / "tailscale-sidecar.Dockerfile").read_text()
    assert f"TAILSCALE={tailscale['image']}\n" in compose
    [port] = tsmon["ports"]
    assert f"0.0.0.0:{port['containerPort']}" == loaded.settings.listen
