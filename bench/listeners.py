"""Clients of the live stream, in a process of their own: `bench.listeners URL COUNT`.

Prints a line when all are connected, and one each time all of them have had an event: when the last one had
it (seconds of the monotonic clock, which processes of a machine share).
"""

import asyncio
import sys
import time
from urllib.parse import urlsplit


async def listen(url: str, count: int) -> None:
    parts = urlsplit(url)
    connected = asyncio.Semaphore(0)
    heard: asyncio.Queue[float] = asyncio.Queue()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        connected.release()
        while line := await reader.readline():
            if line.startswith(b"event: event"):
                heard.put_nowait(time.monotonic())

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    for _ in tasks:
        await connected.acquire()
    print("connected", flush=True)
    while True:
        times = [await heard.get() for _ in tasks]
        print(max(times), flush=True)


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], int(sys.argv[2])))
