"""A real tailnet on loopback: headscale and userspace tailscaleds from PATH or `TSMON_E2E_BIN`."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

NAMES = ("monitor", "git", "chocolate-factory", "chocolate-factory-dev")
PROGRAMS = ("headscale", "tailscaled", "tailscale")
_SEARCH = os.pathsep.join(filter(None, (os.environ.get("TSMON_E2E_BIN"), os.environ.get("PATH"))))
MISSING = [name for name in PROGRAMS if shutil.which(name, path=_SEARCH) is None]

_CONFIG = """
server_url: http://127.0.0.1:{control}
listen_addr: 127.0.0.1:{control}
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
    stun_listen_addr: 127.0.0.1:{stun}
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
"""
_ENVIRON = {
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

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._control = 0

    def socket(self, name: str) -> Path:
        return self.dir / name / "s"

    async def headscale(self, *arguments: str) -> str:
        return await self._run(program("headscale"), "-c", str(self.dir / "config.yaml"), *arguments)

    async def cli(self, name: str, *arguments: str) -> str:
        return await self._run(program("tailscale"), f"--socket={self.socket(name)}", *arguments)

    async def _run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | _ENVIRON
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        return out.decode()

    async def start(self) -> None:
        """Everything up, every node logged in."""
        control, metrics, grpc, stun = free_ports(4)
        text = _CONFIG.format(dir=self.dir, control=control, metrics=metrics, grpc=grpc, stun=stun)
        (self.dir / "config.yaml").write_text(text)
        self._control = control
        self._spawn("headscale", program("headscale"), "-c", str(self.dir / "config.yaml"), "serve")
        async with asyncio.timeout(30):
            while "created" not in await self.headscale("users", "create", "alice"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # the server is starting
        user = json.loads(await self.headscale("users", "list", "-o", "json"))[0]["id"]
        made = await self.headscale("preauthkeys", "create", "--user", str(user), "--reusable")
        key = made.split()[-1]
        for name in NAMES:
            self.boot(name)
            async with asyncio.timeout(20):
                while not self.socket(name).exists():  # noqa: ASYNC110 (the daemon makes it)
                    await asyncio.sleep(0.05)
            await self.up(name, f"--auth-key={key}", "--timeout=30s")

    async def up(self, name: str, *arguments: str) -> None:
        server = f"--login-server=http://127.0.0.1:{self._control}"
        await self.cli(name, "up", server, f"--hostname={name}", "--accept-dns=false", *arguments)

    def boot(self, name: str) -> None:
        """Start the node's tailscaled."""
        (self.dir / name).mkdir(exist_ok=True)
        self._spawn(
            name,
            program("tailscaled"),
            "--tun=userspace-networking",
            f"--statedir={self.dir / name}",
            f"--socket={self.socket(name)}",
            "--port=0",
            "--no-logs-no-support",
        )

    def _spawn(self, name: str, *command: str) -> None:
        log = (self.dir / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | _ENVIRON, start_new_session=True
        )
        log.close()

    def signal(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self._processes[name].wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@asynccontextmanager
async def real_tailnet(directory: Path) -> AsyncIterator[RealTailnet]:
    tailnet = RealTailnet(directory)
    try:
        await tailnet.start()
        yield tailnet
    finally:
        tailnet.stop()
