#!/usr/bin/env python3
"""A tailscale command in front of a LocalAPI socket: `status --json`, `whois --json` and `debug localapi`,
with the streams and exit codes of the real one (1.102.3)."""

import http.client
import socket
import sys
from urllib.parse import quote


class Daemon(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("local-tailscaled.sock")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def call(path: str, method: str, target: str) -> tuple[int, bytes]:
    connection = Daemon(path)
    connection.request(method, target)
    response = connection.getresponse()
    return response.status, response.read()


def main(arguments: list[str]) -> int:
    path = arguments[0].removeprefix("--socket=")
    match arguments[1:]:
        case ["status", "--json", *rest]:
            code, body = call(path, "GET", "/localapi/v0/status" + ("?peers=false" if rest else ""))
        case ["whois", "--json", address]:
            code, body = call(path, "GET", f"/localapi/v0/whois?addr={quote(address)}")
            if code == 404:
                print("peer not found", file=sys.stderr)
                return 1
        case ["debug", "localapi", method, target]:
            print(f"# doing request {method} {target}", file=sys.stderr)
            code, body = call(path, method, target)
        case _:
            print("unknown command", file=sys.stderr)
            return 2
    sys.stdout.buffer.write(body)
    return int(code != 200)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        print(f"failed to connect to local tailscaled: {error}", file=sys.stderr)
        sys.exit(1)
