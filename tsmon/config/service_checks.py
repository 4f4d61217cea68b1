"""What a role's `checks` say: `tcp:22`, `http:8080/healthz`, `https:443/`. Pure."""

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import msgspec

from tsmon.config.values import ConfigError

_FORM = re.compile(r"(?P<scheme>tcp|https?):(?P<port>[0-9]{1,5})(?P<path>/[!-~]{0,500})?")
_STANDARD = {
    "ftp": 21,
    "ssh": 22,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "redis": 6379,
    "smtp": 25,
}
_MOST = 20
"""Checks of one role: each of them is asked of each node."""


class ServiceCheck(msgspec.Struct, frozen=True):
    """One port of a node that is asked over the tailnet."""

    scheme: Literal["tcp", "http", "https"]
    port: int
    """1 to 65535."""
    path: str = ""
    """Of a web check: begins with a slash."""

    def __str__(self) -> str:
        """As it is written in the configuration: what the check is called everywhere."""
        return f"{self.scheme}:{self.port}{self.path}"

    @property
    def web(self) -> bool:
        return self.scheme != "tcp"


def read_checks(texts: Sequence[str], where: str) -> tuple[ServiceCheck, ...]:
    """Raises ConfigError naming `where` and the nearest right form."""
    if len(texts) > _MOST:
        raise ConfigError(f"{where}: has more than {_MOST} checks")
    return tuple(dict.fromkeys(_read(text, where) for text in texts))


def _read(text: str, where: str) -> ServiceCheck:
    match = _FORM.fullmatch(text)
    port = int(match["port"]) if match else 0
    path = (match["path"] if match else None) or ""
    if match is None or not 1 <= port <= 65535 or (match["scheme"] == "tcp" and path):
        raise ConfigError(f"{where}: {text!r} cannot be asked; {_nearest(text)}")
    scheme = match["scheme"]
    return ServiceCheck(scheme, port, path if scheme == "tcp" else path or "/")  # type: ignore[arg-type]


def _nearest(text: str) -> str:
    """What may have been meant, in words."""
    parts = re.match(r"(?P<scheme>[A-Za-z]*)[:/]*(?P<port>[0-9]*)(?P<path>.*)", text.strip())
    given = parts.groupdict() if parts else {"scheme": "", "port": "", "path": ""}
    scheme = given["scheme"].lower()
    port = given["port"] or str({"http": 80, "https": 443, **_STANDARD}.get(scheme, ""))
    if port and not 1 <= int(port[:6]) <= 65535:
        return "ports go from 1 to 65535, as tcp:22"
    if scheme in ("http", "https") and port:
        path = quote(given["path"], safe="/?#[]@!$&'()*+,;=:%~")
        return f"did you mean {scheme}:{port}{path if path.startswith('/') else '/' + path}?"
    if port:
        return f"did you mean tcp:{port}?"
    return "it takes tcp:PORT, http:PORT/PATH or https:PORT/PATH"
