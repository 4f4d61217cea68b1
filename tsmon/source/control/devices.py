"""Machines and credentials as control servers know them: one form for all kinds. All texts are cleaned, times
are Unix seconds; None is "the server does not say"."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tsmon.base.clock import parse_go_time
from tsmon.base.text import clean_text
from tsmon.source.errors import NOT_JSON
from tsmon.source.status import clean_hostname, is_stable_id

MOST_ROWS = 100_000
"""More machines than any tailnet that tsmon is for."""
SMALL = 200_000
"""Bytes below which an answer is read in the event loop."""
_MOST_ENTRIES = 1_000
_NAMED = 10  # how many unreadable rows are named; all are counted


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine of the tailnet, whether this monitor sees it or not."""

    id: str
    """The stable ID: the same as in the status document."""
    hostname: str
    """The first label of its DNS name, the whole name of a machine shared in: safe everywhere."""
    dns_name: str = ""
    ips: tuple[str, ...] = ()
    os: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    version: str = ""
    """Of Tailscale on it."""
    update_available: bool | None = None
    created: float | None = None
    expires: float | None = None
    """When its node key expires; None: never, or not said."""
    expired: bool = False
    """Its node key was past its end when this was read."""
    expiry_disabled: bool | None = None
    online: bool | None = None
    """Connected to the control server."""
    last_seen: float | None = None
    approved: bool | None = None
    """False: it waits for an administrator."""
    external: bool = False
    """Shared in from another tailnet."""
    ephemeral: bool | None = None
    locked_out: str = ""
    """Why the tailnet lock keeps it out."""
    routes_advertised: tuple[str, ...] | None = None
    routes_approved: tuple[str, ...] | None = None

    @property
    def routes_pending(self) -> tuple[str, ...]:
        """Advertised, and waiting for an approval."""
        if self.routes_advertised is None or self.routes_approved is None:
            return ()
        return tuple(route for route in self.routes_advertised if route not in self.routes_approved)

    @property
    def routes_usable(self) -> tuple[str, ...]:
        """Advertised and approved: it routes them, or stands by."""
        approved = self.routes_approved or ()
        return tuple(route for route in self.routes_advertised or () if route in approved)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One answer about all machines."""

    devices: dict[str, Device]
    """By stable ID."""
    unreadable: int = 0
    unreadable_named: tuple[str, ...] = ()
    """Up to ten rows that could not be read, and why."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """Something that opens the control server or the tailnet to whoever has it."""

    id: str
    kind: str
    """For people: `API access token`, `OAuth client`, `auth key`, `API key`, `pre-auth key`."""
    description: str = ""
    created: float | None = None
    expires: float | None = None
    """None: never, or not said."""
    own: bool = False
    """tsmon itself uses it."""
    scopes: tuple[str, ...] | None = None


Row = msgspec.Raw


def read_rows(rows: Sequence[Row], read: Callable[[Row], Device]) -> Listing:
    """The listing of raw rows: one that cannot be read costs itself only. Rows beyond `MOST_ROWS` count as
    unreadable."""
    devices: dict[str, Device] = {}
    bad: list[str] = []
    beyond = max(0, len(rows) - MOST_ROWS)
    for number, row in enumerate(rows[:MOST_ROWS]):
        try:
            device = read(row)
        except (ValueError, *NOT_JSON) as error:
            bad.append(f"row {number + 1}: {clean_text(str(error), 120)}")
            continue
        devices[device.id] = device
    return Listing(devices=devices, unreadable=len(bad) + beyond, unreadable_named=tuple(bad[:_NAMED]))


def stable_id(text: str) -> str:
    """Raises ValueError for what is none."""
    if not is_stable_id(text):
        raise ValueError(f"{clean_text(text, 24)!r} is no stable node ID")
    return text


def names(name: str, os_hostname: str, id_: str, *, whole: bool = False) -> tuple[str, str]:
    """Hostname and DNS name of a machine, as the status document's reader makes them."""
    dns_name = clean_hostname(name.strip("."), 253)
    first = dns_name if whole else dns_name.split(".", 1)[0]
    return first or clean_hostname(os_hostname) or f"node-{clean_hostname(id_)}", dns_name


def addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Raises ValueError for what is no address."""
    return tuple(str(ipaddress.ip_address(text)) for text in bounded(texts))


def routes(texts: Iterable[str] | None) -> tuple[str, ...] | None:
    """Sorted prefixes. Raises ValueError for what is none."""
    if texts is None:
        return None
    return tuple(sorted(str(ipaddress.ip_network(text, strict=False)) for text in bounded(texts)))


def tags(texts: Iterable[str] | None) -> tuple[str, ...]:
    """Sorted, cleaned."""
    return tuple(sorted(clean_text(text, 64) for text in bounded(texts or ())))


def bounded(texts: Iterable[str]) -> list[str]:
    """The entries of a list of a row. Raises ValueError when there are too many."""
    found = list(texts)
    if len(found) > _MOST_ENTRIES:
        raise ValueError(f"a list holds more than {_MOST_ENTRIES} entries")
    return found


def moment(text: str | None, field: str) -> float | None:
    """A time; None for none. Raises ValueError naming the field."""
    try:
        return parse_go_time(text or "")
    except ValueError:
        raise ValueError(f"{field}: {clean_text(text or '', 40)!r} is no time") from None


def lenient_moment(text: str | None) -> float | None:
    """A time; None also where nobody can read it."""
    try:
        return parse_go_time(text or "")
    except ValueError:
        return None
