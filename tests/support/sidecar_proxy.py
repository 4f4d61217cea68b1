"""The real sidecar for tests: socat and docker/tailscale-http-server.sh in front of a CLI double."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import ROOT, SUPPORT

SCRIPT = ROOT / "docker" / "tailscale-http-server.sh"
DOUBLE = SUPPORT / "sidecar_cli_double.sh"


class Answer(NamedTuple):
    """One HTTP answer, taken apart strictly: CRLF, a length that fits, a closed connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error answer."""
        return str(self.json["error"]["code"])


def parse(raw: bytes, *, head: bool | None = False) -> Answer:
    """Raises AssertionError for what is no clean HTTP/1.1 answer; `head` None: with its body or without."""
    top, separator, body = raw.partition(b"\r\n\r\n")
    assert separator, f"no complete head: {raw[:300]!r}"
    lines = top.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines), raw[:300]
    version, status, _ = lines[0].decode("ascii").split(" ", 2)
    assert version == "HTTP/1.1"
    headers = {}
    for line in lines[1:]:
        name, value = line.decode("ascii").split(": ", 1)
        headers[name.lower()] = value
    assert headers["connection"] == "close"
    length = int(headers["content-length"])
    assert len(body) in {True: [0], False: [length], None: [0, length]}[head]
    return Answer(int(status), headers, body)


class Proxy:
    """A running sidecar; `say` scripts its CLI, `calls` tells what the CLI was asked."""

    def __init__(self, port: int, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.directory = directory
        self.process = process

    def say(self, command: str, **files: str) -> None:
        """What `status`, `whois` or `debug` does from now on: `out`, `err`, `code`, `hang`, `stubborn`."""
        for kind in ("out", "err", "code", "hang", "stubborn"):
            path = self.directory / "cli" / f"{command}.{kind}"
            path.unlink(missing_ok=True)
            if kind in files:
                path.write_text(files[kind])

    @property
    def calls(self) -> list[str]:
        path = self.directory / "cli" / "calls"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    @property
    def leftovers(self) -> list[Path]:
        """Temporary files that no request holds any more, once all are answered: the listener's directory of
        places stays, empty."""
        found = [entry for entry in (self.directory / "tmp").rglob("*") if entry.parent.name != "tmp"]
        return [*found, *sorted((self.directory / "tmp").iterdir())[1:]]

    async def raw(self, request: bytes, *, seconds: float = 15.0, shut: bool = False) -> bytes:
        """Everything the sidecar says to these bytes; `shut` closes the sending side first."""
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                with contextlib.suppress(ConnectionError):
                    writer.write(request)
                    await writer.drain()
                    if shut:
                        writer.write_eof()
                answer = b""
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(1 << 20):
                        answer += data
                return answer
            finally:
                writer.close()

    async def ask(self, path: str, *, method: str = "GET", seconds: float = 15.0, **headers: str) -> Answer:
        """`headers` beside Host; `Host=""` leaves it out."""
        lines = {"Host": f"127.0.0.1:{self.port}", **headers}
        head = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in lines.items() if text)
        raw = await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"), seconds=seconds)
        return parse(raw, head=method == "HEAD")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def shell_path(shell: str, directory: Path) -> str:
    """A PATH on which `sh` is `shell`; with busybox all the tools are its own, as in the official image."""
    tools = directory / "bin"
    tools.mkdir()
    found = shutil.which(shell)
    assert found
    if shell == "busybox":
        for applet in subprocess.run(
            [found, "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            (tools / applet).symlink_to(found)
        socat = shutil.which("socat")
        assert socat
        (tools / "socat").symlink_to(socat)
        return str(tools)
    (tools / "sh").symlink_to(found)
    return f"{tools}:{os.environ['PATH']}"


@asynccontextmanager
async def sidecar(shell: str, directory: Path, script: Path = SCRIPT, **environ: str) -> AsyncIterator[Proxy]:
    """The sidecar on a free port, its handler run by `shell` (dash, busybox); ended with all its children."""
    for name in ("cli", "tmp", "cwd"):
        (directory / name).mkdir()
    port = free_port()
    environment = {
        "PATH": shell_path(shell, directory),
        "TMPDIR": str(directory / "tmp"),
        "TSMON_TEST_CLI": str(directory / "cli"),
        "TAILSCALE_BIN": str(DOUBLE),
        "TSMON_SIDECAR_PORT": str(port),
        **environ,
    }
    with (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(  # noqa: ASYNC220 (takes milliseconds)
            [str(directory / "bin" / "sh"), str(script)],
            env=environment,
            cwd=directory / "cwd",
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    assert process.poll() is None, (directory / "stderr").read_text()
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                break
        yield Proxy(port, directory, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
