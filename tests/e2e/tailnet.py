"""A real tailnet on loopback: headscale and tailscaleds from PATH or `TSMON_E2E_BIN`."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("headscale", "tailscaled", "tailscale")
_SEARCH = os.pathsep.join(filter(None, (os.environ.get("TSMON_E2E_BIN"), os.environ.get("PATH"))))
MISSING = [name for name in PROGRAMS if shutil.which(name, path=_SEARCH) is None]

_CONFIG = """
server_url: http://{address}:{control}
listen_addr: {address}:{control}
metrics_listen_addr: 127.0.0.1:{metrics}
grpc_listen_addr: 127.0.0.1:{grpc}
noise: {{private_key_path: {dir}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server:
    enabled: true
    region_id: 999
    region_code: lab
    region_name: lab
    stun_listen_addr: {address}:{stun}
    private_key_path: {dir}/derp.key
    automatically_add_embedded_derp_region: true
    verify_clients: false
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {dir}/db.sqlite}}}}
dns: {{magic_dns: true, base_domain: tail.example, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {dir}/hs.sock
unix_socket_permission: "0770"
logtail: {{enabled: false}}
log: {{level: warn}}
policy: {{mode: file, path: {dir}/policy.json}}
"""
_POLICY = {
    "tagOwners": {"tag:server": ["alice@"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
}
ENVIRON = {
    "TS_DEBUG_USE_DERP_HTTP": "1",
    "TS_NO_LOGS_NO_SUPPORT": "true",
    "TS_DISABLE_PORTMAPPER": "1",
    "TS_ASSUME_NETWORK_UP_FOR_TEST": "1",
    "TS_PANIC_IF_HIT_MAIN_CONTROL": "1",
}


def program(name: str) -> str:
    return shutil.which(name, path=_SEARCH) or name


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class RealTailnet:
    """The control server, the nodes, and what can be done to them."""

    def __init__(
        self, directory: Path, address: str = "127.0.0.1", namespaces: Mapping[str, str] | None = None
    ) -> None:
        """`address` is the control server's. `namespaces` gives the network namespaces of `headscale` and of
        the nodes; a node in one has a TUN device, the others run in userspace mode."""
        self.dir = directory
        self._namespaces = dict(namespaces or {})
        self._address = address
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._control = 0
        self._key = ""

    @property
    def key(self) -> str:
        """An auth key for further machines."""
        return self._key

    @property
    def control_url(self) -> str:
        return f"http://{self._address}:{self._control}"

    def socket(self, name: str) -> Path:
        return self.dir / name / "s"

    async def headscale(self, *arguments: str) -> str:
        """What headscale's command line says; raises AssertionError when it fails."""
        code, words = await self._run(
            program("headscale"), "-c", str(self.dir / "config.yaml"), "--force", *arguments
        )
        assert code == 0, f"headscale {' '.join(arguments)}: {words}"
        return words

    async def cli(self, name: str, *arguments: str) -> str:
        """What the node's command line says; raises AssertionError when it fails."""
        code, words = await self._run(program("tailscale"), f"--socket={self.socket(name)}", *arguments)
        assert code == 0, f"tailscale {' '.join(arguments)} on {name}: {words}"
        return words

    async def _run(self, *command: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | ENVIRON
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        return process.returncode, out.decode()

    async def start(self, names: Sequence[str]) -> None:
        """Everything up, every node logged in."""
        control, metrics, grpc, stun = free_ports(4)
        text = _CONFIG.format(
            dir=self.dir, address=self._address, control=control, metrics=metrics, grpc=grpc, stun=stun
        )
        (self.dir / "config.yaml").write_text(text)
        (self.dir / "policy.json").write_text(json.dumps(_POLICY))
        self._control = control
        self.boot_headscale()
        async with asyncio.timeout(30):
            while not (self.dir / "hs.sock").exists():  # noqa: ASYNC110 (headscale makes it)
                await asyncio.sleep(0.05)
        await self.headscale("users", "create", "alice")
        user = json.loads(await self.headscale("users", "list", "-o", "json"))[0]["id"]
        made = await self.headscale("preauthkeys", "create", "--user", str(user), "--reusable")
        self._key = made.split()[-1]
        await asyncio.gather(*(self.join(name) for name in names))
        async with asyncio.timeout(20):
            while not await self._all_see(names[0], len(names) - 1):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def _all_see(self, name: str, peers: int) -> bool:
        """The node sees all the others online."""
        rows = (await self.status(name)).get("Peer") or {}
        return len(rows) == peers and all(row["Online"] for row in rows.values())

    async def join(self, name: str, *, userspace: bool | None = None) -> None:
        """Boot a node and log it in."""
        self.boot(name, userspace=userspace)
        async with asyncio.timeout(20):
            while not self.socket(name).exists():  # noqa: ASYNC110 (the daemon makes it)
                await asyncio.sleep(0.05)
        await self.up(name, f"--auth-key={self._key}", "--timeout=30s")

    async def up(self, name: str, *arguments: str) -> None:
        server = f"--login-server={self.control_url}"
        await self.cli(
            name, "up", server, f"--hostname={name}", "--accept-dns=false", "--netfilter-mode=off", *arguments
        )

    async def status(self, name: str) -> Any:
        """The node's status document, without what the command line says about it."""
        text = await self.cli(name, "status", "--json")
        return json.loads(text[text.index("{") : text.rindex("}") + 1])

    async def numbers(self) -> dict[str, str]:
        """The IDs of the nodes by the names that the control server gave them."""
        rows = json.loads(await self.headscale("nodes", "list", "-o", "json"))
        return {row["given_name"]: str(row["id"]) for row in rows}

    async def all_back(self, *names: str) -> None:
        """Wait until a control server that was just booted has these nodes online."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(AssertionError):  # it may not answer yet
                    rows = json.loads(await self.headscale("nodes", "list", "-o", "json"))
                    if {row["given_name"] for row in rows if row.get("online")} >= set(names):
                        return
                await asyncio.sleep(0.2)

    def boot_headscale(self) -> None:
        self._spawn("headscale", program("headscale"), "-c", str(self.dir / "config.yaml"), "serve")

    def boot(self, name: str, *, userspace: bool | None = None) -> None:
        """Start the node's tailscaled."""
        (self.dir / name).mkdir(exist_ok=True)
        if userspace is None:
            userspace = name not in self._namespaces
        self._spawn(
            name,
            program("tailscaled"),
            f"--tun={'userspace-networking' if userspace else 'tailscale0'}",
            f"--statedir={self.dir / name}",
            f"--socket={self.socket(name)}",
            "--port=0",
            "--no-logs-no-support",
        )

    def _spawn(self, name: str, *command: str) -> None:
        with (self.dir / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self.within(name), *command],
                stdout=log,
                stderr=log,
                env=os.environ | ENVIRON,
                start_new_session=True,
            )

    def within(self, name: str) -> list[str]:
        """What a command begins with to run where the node runs."""
        namespace = self._namespaces.get(name)
        return ["ip", "netns", "exec", namespace] if namespace else []

    def suspend(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        process = self._processes[name]
        process.kill()
        process.wait()

    async def terminate(self, name: str) -> None:
        """Stop it as a service manager does, and wait for its end."""
        process = self._processes[name]
        process.terminate()
        await asyncio.to_thread(process.wait, 30)

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@asynccontextmanager
async def real_tailnet(
    directory: Path,
    names: Sequence[str],
    address: str = "127.0.0.1",
    namespaces: Mapping[str, str] | None = None,
) -> AsyncIterator[RealTailnet]:
    tailnet = RealTailnet(directory, address, namespaces)
    try:
        await tailnet.start(names)
        yield tailnet
    finally:
        tailnet.stop()
