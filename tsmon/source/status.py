"""The status document as typed structs, and the `Snapshot` made of a trusted one. Pure.

The format is Go's `ipnstate.Status` (tailscale 1.80 to 1.102): unknown fields are ignored, missing and null
ones take their default, a time in the year 1 means "none". Everything in it is hostile: names are
chosen by the owners of the machines.
"""

import ipaddress
import itertools
import re
import unicodedata
from collections.abc import Collection
from typing import Any

import msgspec

from tsmon.base.clock import parse_go_time
from tsmon.base.text import clean_text
from tsmon.source.errors import NOT_JSON
from tsmon.source.extras import TailscaleService, services_of

OS_LABELS = {"linux": "Linux", "macOS": "Darwin", "windows": "Windows", "": "unknown"}
"""The spelling of the InfluxDB tag `os` for what Tailscale says; any other name stays as it is."""

BACKEND_STATES = frozenset(
    ("NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running")
)

_STABLE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
_MOST_PEERS = 100_000
_MOST_VALUES = 5_000_000
_MOST_ENTRIES = 1_000
"""More peers than any tailnet that tsmon is for; values in the whole document (a peer has about sixty);
entries of one list of a peer. Reading a document costs many times its bytes where all its values are tiny."""
_MALFORMED_NAMED = 10  # how many malformed peers are named; all are counted


class BadDocument(ValueError):  # noqa: N818 (it bears the name of its reason)
    """The answer is not a status document; the text says why, cleaned and bounded."""


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a status document says of one node; all texts cleaned, times in Unix seconds."""

    id: str
    key: str = ""
    """The public node key, under which the peer map lists it; "" in what older versions stored."""
    hostname: str
    """Unique in the tailnet: safe for every log line, tag and label (letters, digits, `.`, `_`, `-`)."""
    dns_name: str
    os_hostname: str
    """What the machine calls itself: cleaned, but not unique."""
    ips: tuple[str, ...]
    os: str
    """One of `OS_LABELS`' values or Tailscale's own word."""
    tags: tuple[str, ...]
    user: str
    """Login name of the owner; `tagged-devices` for tagged nodes, "" when unknown."""
    shared: bool
    is_self: bool
    online: bool
    """What the control server says, nothing more."""
    expired: bool
    last_seen: float | None
    key_expiry: float | None
    created: float | None
    relay: str
    """Code of the node's home DERP region."""
    cur_addr: str
    peer_relay: str
    rx_bytes: int
    tx_bytes: int
    last_handshake: float | None
    active: bool
    exit_node: bool
    exit_node_option: bool
    routes: tuple[str, ...]
    """Subnets for which this node is the active router."""

    @property
    def ip(self) -> str | None:
        """The first IPv4 address, else the first IPv6 one, else None."""
        return next((ip for ip in self.ips if ":" not in ip), self.ips[0] if self.ips else None)

    @property
    def tagged(self) -> bool:
        return bool(self.tags)


class Tailnet(msgspec.Struct, frozen=True):
    name: str
    suffix: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded status document: what it says of trust, and the nodes it lists."""

    version: str
    tun: bool
    backend_state: str
    tailnet: Tailnet | None
    self_id: str
    """Stable ID of the monitor's own node, "" when logged out."""
    self_online: bool
    self_hostname: str
    self_ips: tuple[str, ...]
    nodes: dict[str, NodeFacts]
    """By stable ID, Self included, rows that are left out by `exclude` not."""
    excluded: int
    excluded_ids: frozenset[str] = frozenset()
    """Stable IDs of the rows that `exclude` leaves out."""
    duplicates: int
    malformed: int
    malformed_named: tuple[str, ...]
    """Up to ten malformed peers: "nodekey: reason"."""
    malformed_keys: tuple[str, ...] = ()
    """The keys of all malformed peers in the peer map."""
    services: tuple[TailscaleService, ...] = ()
    """The Tailscale Services that this machine may see."""
    noise: str
    """Text that stood before or after the JSON (a warning of the CLI), "" when there was none."""


class _Peer(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(default="", name="ID")
    public_key: str = ""
    host_name: str = ""
    dns_name: str = msgspec.field(default="", name="DNSName")
    os: str = msgspec.field(default="", name="OS")
    user_id: int = msgspec.field(default=0, name="UserID")
    tailscale_ips: list[str] | None = msgspec.field(default=None, name="TailscaleIPs")
    tags: list[str] | None = None
    primary_routes: list[str] | None = None
    cur_addr: str = ""
    relay: str = ""
    peer_relay: str = ""
    rx_bytes: int = 0
    tx_bytes: int = 0
    created: str = ""
    last_seen: str = ""
    last_handshake: str = ""
    online: bool = False
    active: bool = False
    exit_node: bool = False
    exit_node_option: bool = False
    in_network_map: bool = False
    sharee_node: bool = False
    expired: bool = False
    key_expiry: str | None = None


class _Self(_Peer, rename="pascal"):
    cap_map: dict[str, Any] | None = None


class _CurrentTailnet(msgspec.Struct, rename="pascal"):
    name: str = ""
    magic_dns_suffix: str = msgspec.field(default="", name="MagicDNSSuffix")


class _User(msgspec.Struct, rename="pascal"):
    login_name: str = ""


class _Envelope(msgspec.Struct, rename="pascal"):
    backend_state: str
    self: _Self
    version: str = ""
    tun: bool = msgspec.field(default=True, name="TUN")
    current_tailnet: _CurrentTailnet | None = None
    peer: dict[str, msgspec.Raw] | None = None
    user: dict[str, _User] | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_peer = msgspec.json.Decoder(_Peer).decode


class Decoder:
    """Decodes one status document after the other and remembers the rows: a row that did not change
    since the last document costs a hash, not a decoding. Not thread-safe: one document at a time."""

    def __init__(self, exclude: Collection[str] = ("sharee", "funnel", "mullvad")) -> None:
        self._exclude = frozenset(exclude)
        self._rows: dict[str, tuple[int, _Peer | str]] = {}
        self._facts: dict[str, tuple[_Peer, str, str, NodeFacts]] = {}

    def decode(self, raw: bytes) -> Snapshot:
        """Decode `raw`, peer by peer. Raises BadDocument when it is no status document; a malformed peer
        is dropped, counted and named. Runs a while with 10,000 peers: call it in a thread."""
        envelope, noise = _read_envelope(raw)
        suffix = envelope.current_tailnet.magic_dns_suffix.strip(".") if envelope.current_tailnet else ""
        rows, malformed = self._read_rows(envelope.peer or {})
        kept: dict[str, _Peer] = {}
        left_out: set[str] = set()
        excluded = duplicates = 0
        own = envelope.self
        for row in rows:
            if not row.id or not row.in_network_map or row.id == own.id:
                continue
            if _kind(row) in self._exclude:
                excluded += 1
                left_out.add(row.id)
                continue
            twin = kept.get(row.id)
            duplicates += twin is not None
            if twin is None or row.online > twin.online:
                kept[row.id] = row
        if own.id:
            kept[own.id] = own
        users = {key: clean_text(user.login_name) for key, user in (envelope.user or {}).items()}
        nodes = self._facts_of(kept, own, suffix, users, malformed)
        self._facts = {id_: entry for id_, entry in self._facts.items() if id_ in nodes}
        return Snapshot(
            version=clean_text(envelope.version, 64),
            tun=envelope.tun,
            backend_state=envelope.backend_state,
            tailnet=Tailnet(clean_text(envelope.current_tailnet.name), clean_text(suffix))
            if envelope.current_tailnet
            else None,
            self_id=own.id if own.id in nodes else "",
            self_online=own.online,
            self_hostname=nodes[own.id].hostname if own.id in nodes else clean_hostname(own.host_name),
            self_ips=nodes[own.id].ips if own.id in nodes else (),
            nodes=nodes,
            excluded=excluded,
            excluded_ids=frozenset(left_out - nodes.keys()),
            duplicates=duplicates,
            malformed=len(malformed),
            malformed_named=tuple(itertools.islice(malformed.values(), _MALFORMED_NAMED)),
            malformed_keys=tuple(malformed),
            services=services_of(own.cap_map),
            noise=noise,
        )

    def _read_rows(self, peers: dict[str, msgspec.Raw]) -> tuple[list[_Peer], dict[str, str]]:
        """The rows, and why the others cannot be read, by their key in the peer map."""
        rows: list[_Peer] = []
        malformed: dict[str, str] = {}
        remembered: dict[str, tuple[int, _Peer | str]] = {}
        for key, raw in peers.items():
            digest = hash(bytes(raw))
            known = self._rows.get(key)
            if known is None or known[0] != digest:
                try:
                    row = _decode_peer(raw)
                    row.public_key = key
                    known = (digest, row)
                except NOT_JSON as error:
                    known = (digest, f"{clean_text(key, 24)}: {clean_text(str(error), 120)}")
            remembered[key] = known
            if isinstance(known[1], str):
                malformed[key] = known[1]
            else:
                rows.append(known[1])
        self._rows = remembered
        return rows, malformed

    def _facts_of(
        self,
        kept: dict[str, _Peer],
        own: _Peer,
        suffix: str,
        users: dict[str, str],
        malformed: dict[str, str],
    ) -> dict[str, NodeFacts]:
        nodes: dict[str, NodeFacts] = {}
        names: dict[str, str] = {}
        # The one that was there first keeps a name that two would bear.
        for id_, row in sorted(kept.items(), key=lambda item: (item[1].created, item[0])):
            user = users.get(str(row.user_id), "")
            known = self._facts.get(id_)
            if known is not None and known[0] is row and known[1] == user and known[2] == suffix:
                facts = known[3]
            else:
                try:
                    facts = _facts(row, user, suffix, is_self=row is own)
                except ValueError as error:
                    malformed[row.public_key] = f"{clean_text(id_, 24)}: {clean_text(str(error), 120)}"
                    continue
                self._facts[id_] = (row, user, suffix, facts)
            hostname = facts.hostname
            while names.setdefault(hostname, id_) != id_:
                hostname = f"{hostname}-{clean_hostname(id_)}"
            nodes[id_] = (
                facts if hostname == facts.hostname else msgspec.structs.replace(facts, hostname=hostname)
            )
        return nodes


def _read_envelope(raw: bytes) -> tuple[_Envelope, str]:
    if not raw.strip():
        raise BadDocument("the answer is empty")
    start, end = raw.find(b"{"), raw.rfind(b"}") + 1
    if start < 0 or end <= start:
        raise BadDocument(f"the answer is no JSON: {_excerpt(raw)}")
    if raw.count(b",") > _MOST_VALUES or raw.count(b"{") > 10 * _MOST_PEERS:
        raise BadDocument("the document holds more values than any tailnet has")
    try:
        envelope = _decode_envelope(raw[start:end] if (start, end) != (0, len(raw)) else raw)
    except msgspec.ValidationError as error:
        raise BadDocument(f"not a status document: {clean_text(str(error), 120)}") from None
    except NOT_JSON as error:
        raise BadDocument(f"the answer is no JSON ({clean_text(str(error), 80)}): {_excerpt(raw)}") from None
    if len(envelope.peer or ()) > _MOST_PEERS:
        raise BadDocument(f"the document lists more than {_MOST_PEERS} peers")
    noise = (raw[:start] + b" " + raw[end:]).strip()
    return envelope, _excerpt(noise) if noise else ""


def _excerpt(raw: bytes) -> str:
    return clean_text(raw[:400].decode("utf-8", "replace"), 120)


def _kind(row: _Peer) -> str:
    """Which of the `exclude` words a row falls under, "" for a machine."""
    tags = row.tags or []
    if row.dns_name.endswith(".mullvad.ts.net.") or "tag:mullvad-exit-node" in tags:
        return "mullvad"
    if row.sharee_node:
        return "funnel" if row.host_name == "funnel-ingress-node" or "tag:ingress" in tags else "sharee"
    return ""


def _facts(row: _Peer, user: str, suffix: str, *, is_self: bool) -> NodeFacts:
    """Raises ValueError naming the field that is malformed."""
    if not is_stable_id(row.id):
        raise ValueError(f"ID {clean_text(row.id, 24)!r} is no stable node ID")
    for field, entries in (
        ("TailscaleIPs", row.tailscale_ips),
        ("Tags", row.tags),
        ("PrimaryRoutes", row.primary_routes),
    ):
        if entries and len(entries) > _MOST_ENTRIES:
            raise ValueError(f"{field} holds more than {_MOST_ENTRIES} entries")
    dns_name = clean_hostname(row.dns_name.strip("."), 253)
    shared = bool(dns_name and suffix and not is_self) and not dns_name.endswith(
        "." + clean_hostname(suffix, 253)
    )
    os_hostname = clean_hostname(row.host_name)
    hostname = (dns_name if shared else dns_name.split(".", 1)[0]) if dns_name else os_hostname
    return NodeFacts(
        id=row.id,
        key=clean_text(row.public_key, 128),
        hostname=hostname or f"node-{clean_hostname(row.id)}",
        dns_name=dns_name,
        os_hostname=os_hostname,
        ips=tuple(_address(text) for text in row.tailscale_ips or ()),
        os=OS_LABELS.get(row.os, clean_text(row.os, 32) or "unknown"),
        tags=tuple(sorted(clean_text(tag, 64) for tag in row.tags or ())),
        user=user,
        shared=shared,
        is_self=is_self,
        online=row.online,
        expired=row.expired,
        last_seen=_time(row.last_seen, "LastSeen"),
        key_expiry=_time(row.key_expiry or "", "KeyExpiry"),
        created=_time(row.created, "Created"),
        relay=clean_text(row.relay, 32),
        cur_addr=clean_text(row.cur_addr, 64),
        peer_relay=clean_text(row.peer_relay, 64),
        rx_bytes=row.rx_bytes,
        tx_bytes=row.tx_bytes,
        last_handshake=_time(row.last_handshake, "LastHandshake"),
        active=row.active,
        exit_node=row.exit_node,
        exit_node_option=row.exit_node_option,
        routes=tuple(clean_text(route, 64) for route in row.primary_routes or ()),
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"TailscaleIPs: {clean_text(text, 48)!r} is no address") from None


def _time(text: str, field: str) -> float | None:
    """Raises ValueError naming the field."""
    try:
        return parse_go_time(text)
    except ValueError:
        raise ValueError(f"{field}: {clean_text(text, 40)!r} is no time") from None


def is_stable_id(text: str) -> bool:
    """`text` can be the stable ID of a node: it is safe in paths, lines and labels."""
    return _STABLE_ID.match(text) is not None


def clean_hostname(text: str, limit: int = 63) -> str:
    """`text` as a name that is safe everywhere: letters and digits of any script, `.`, `_`, `-`; each run of
    anything else becomes one `-`. "" when nothing is left."""
    text = text[: limit * 4]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", clean_text(text, limit * 4))
    return re.sub(r"[^\w.-]+", "-", text)[:limit].strip("-.")
