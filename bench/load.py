"""A client that does nothing but ask, in a process of its own: `bench.load URL SECONDS CONNECTIONS`.

Prints requests a second and the 99th percentile in milliseconds as JSON. Each connection asks anew when it
has the whole answer; nothing is decoded.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

_CHUNK = 1 << 18


async def _ask(host: str, port: int, request: bytes, until: float, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK)
    while time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode("latin-1").partition("\r")[0])
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, _CHUNK)))
        times.append(time.perf_counter() - begun)
    writer.close()


async def ask(url: str, seconds: float, connections: int) -> dict[str, float]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept-Encoding: identity\r\n\r\n".encode()
    times: list[float] = []
    begun = time.perf_counter()
    until = begun + seconds
    await asyncio.gather(*(_ask(host, port, request, until, times) for _ in range(connections)))
    took = time.perf_counter() - begun
    times.sort()
    return {"per_second": len(times) / took, "p99_ms": 1000 * times[int(0.99 * len(times))]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
