"""A scriptable tailnet that answers as tailscaled does: status, pings, whois, notices of the bus."""

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from tsmon.base.clock import Clock
from tsmon.source.pings import Path

ZERO_TIME = "0001-01-01T00:00:00Z"
USERS = {1: "alice@example.com", 2: "bob@example.com", 3: "carol@example.net", 9: "tagged-devices"}

Fault = Literal["", "refused", "timeout", "garbage", "bad_gateway"]
Port = Literal["open", "failing", "refused", "silent"]
"""Of a machine: it answers, answers 503, nobody listens, or it takes the connection and says nothing."""


@dataclass
class SimNode:
    """One simulated machine, as the control server and the network see it."""

    id: str
    name: str
    """First label of its DNS name, or the whole name of a machine shared in."""
    ips: list[str]
    number: int = 0
    """The numeric ID, which the bus uses."""
    os: str = "linux"
    os_hostname: str = ""
    user: int = 1
    tags: list[str] = field(default_factory=list)
    online: bool = True
    """What control says."""
    alive: bool = True
    """It answers pings."""
    expired: bool = False
    key_expiry: float | None = None
    last_seen: float | None = None
    created: float = 0.0
    latency_ms: float = 12.0
    path: Path = "direct"
    relay: str = "fra"
    shared: bool = False
    sharee: bool = False
    exit_node_option: bool = False
    routes: list[str] = field(default_factory=list)
    """Prefixes for which it is the active router."""
    ports: dict[int, Port] = field(default_factory=dict)
    """Ports that are not in here refuse."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    malformed: bool = False
    renewals: int = 0
    """How often its key was renewed."""


@dataclass
class SimService:
    """One Tailscale Service and the machine that answers for it now."""

    ip: str
    ports: list[str]
    host: str


class SimTailnet:
    """The tailnet and the monitor's place in it; every change acts at once."""

    def __init__(self, clock: Clock, *, name: str = "example.com", suffix: str = "tail.example") -> None:
        self.clock = clock
        self.name = name
        self.suffix = suffix
        self.version = "1.102.3-tdemo"
        self.backend_state = "Running"
        self.tun = True
        self.control = True
        """The monitor's connection to the control server; while it is lost peers are frozen."""
        self.uplink = True
        """The monitor's own data plane; without it no ping is answered."""
        self.fault: Fault = ""
        """How the source itself fails."""
        self.hide_peers = False
        """An empty peer map, as after a lost network map."""
        self.services: dict[str, SimService] = {}
        """Tailscale Services, by name (`svc:web`)."""
        self.lock: list[str] | None = None
        """Names of the machines that wait for a signature; None: the tailnet has no lock."""
        self.can_dial = True
        """Ports of machines can be asked."""
        self.nodes: dict[str, SimNode] = {}
        self._other: tuple[str, str] | None = None
        self._frozen: dict[str, SimNode] | None = None
        self._rendered: dict[str, bytes] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._next = 1
        self.own = self.add("monitor", user=1)

    # -- the script ------------------------------------------------------------------------------------

    def add(self, name: str, *, notify: bool = True, **fields: Any) -> SimNode:
        """A machine joins."""
        number = self._next
        self._next += 1
        base = ipaddress.IPv4Address("100.64.0.0") + number
        node = SimNode(
            id=f"n{number:06d}CNTRL",
            name=name,
            ips=[str(base), f"fd7a:115c:a1e0::{number:x}"],
            number=number,
            created=self.clock.wall() if "created" not in fields else fields.pop("created"),
            **fields,
        )
        node.os_hostname = node.os_hostname or name.split(".", maxsplit=1)[0]
        self.nodes[node.id] = node
        if notify:
            self._tell(node.id)
        return node

    @property
    def other(self) -> tuple[str, str] | None:
        """Name and suffix of another tailnet whose profile is active; its machines have other keys."""
        return self._other

    @other.setter
    def other(self, names: tuple[str, str] | None) -> None:
        self._other = names
        self._rendered.clear()

    def rename(self, name: str, suffix: str) -> None:
        """The tailnet itself is called otherwise; its machines keep their keys."""
        self.name, self.suffix = name, suffix
        self._rendered.clear()
        self._tell("")

    def find(self, name: str) -> SimNode:
        return next(node for node in self.nodes.values() if node.name == name)

    def change(self, name: str, /, **fields: Any) -> None:
        """Anything about a machine."""
        node = self.find(name)
        for key, value in fields.items():
            setattr(node, key, value)
        self._tell(node.id)

    def off(self, *names: str) -> None:
        """Powered off, and control knows it."""
        for name in names:
            self.change(name, online=False, alive=False, last_seen=self.clock.wall())

    def on(self, *names: str) -> None:
        for name in names:
            self.change(name, online=True, alive=True, last_seen=None)

    def hang(self, *names: str) -> None:
        """Hung or unplugged: control still calls it online."""
        for name in names:
            self.change(name, alive=False)

    def remove(self, name: str) -> None:
        """Deleted by an admin."""
        id_ = self.find(name).id
        del self.nodes[id_]
        self._rendered.pop(id_, None)
        self._tell(id_)

    def stop(self) -> None:
        """`tailscale down` on the monitor."""
        self._freeze()
        self.backend_state = "Stopped"
        self._tell("")

    def start(self) -> None:
        """`tailscale up` on the monitor."""
        self.backend_state = "Running"
        self._thaw()

    def lose_control(self) -> None:
        self.control = False
        self._freeze()
        self._tell("")

    def regain_control(self) -> None:
        self.control = True
        self._thaw()

    def _freeze(self) -> None:
        """What the monitor's own tailscaled knows of the peers stays as it is."""
        if self._frozen is None:
            self._frozen = {id_: replace(node) for id_, node in self.nodes.items()}

    def _thaw(self) -> None:
        """The peers are heard of again, if nothing else keeps the monitor from control."""
        if self.control and self.backend_state == "Running":
            self._frozen = None
            self._rendered.clear()
        self._tell("")

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """`listener` gets the ID of each changed machine (or ""); returns how to stop listening."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, id_: str) -> None:
        self._rendered.pop(id_, None)
        for listener in list(self._listeners):
            listener(id_)

    # -- what it answers -------------------------------------------------------------------------------

    def document(self) -> bytes:
        """The status document, as `GET /localapi/v0/status` would give it."""
        no_map = self.backend_state in ("NoState", "NeedsLogin", "Starting")
        own = self._row(self.own)
        own["Online"] = self.control and self.backend_state == "Running"
        own["Relay"] = self.own.relay
        if self.services:
            own["CapMap"] = {f"services/{name[4:]}": [row] for name, row in self.service_rows().items()}
        if self.backend_state == "NeedsLogin":
            own["ID"], own["DNSName"] = "", ""
        name, suffix = self.other or (self.name, self.suffix)
        head = {
            "Version": self.version,
            "TUN": self.tun,
            "BackendState": self.backend_state,
            "HaveNodeKey": True,
            "AuthURL": "",
            "TailscaleIPs": self.own.ips,
            "Self": own,
            "Health": ["Tailscale is stopped."] if self.backend_state == "Stopped" else [],
            "MagicDNSSuffix": suffix,
            "CurrentTailnet": None
            if no_map
            else {"Name": name, "MagicDNSSuffix": suffix, "MagicDNSEnabled": True},
            "CertDomains": None,
            "ExtraRecords": None,
            "User": {str(id_): {"ID": id_, "LoginName": login} for id_, login in USERS.items()},
            "ClientVersion": None,
        }
        peers = b"null" if no_map else b"{" + b",".join(self._peers()) + b"}"
        return msgspec.json.encode(head)[:-1] + b',"Peer":' + peers + b"}"

    def _peers(self) -> list[bytes]:
        if self.hide_peers:
            return []
        nodes = self.nodes if self._frozen is None else self._frozen
        return [self._render(node) for id_, node in nodes.items() if id_ != self.own.id]

    def _render(self, node: SimNode) -> bytes:
        found = self._rendered.get(node.id) if self._frozen is None else None
        if found is None:
            row: dict[str, Any] = self._row(node)
            if node.malformed:
                row["TailscaleIPs"] = "not a list"
            found = msgspec.json.encode(self._node_key(node)) + b":" + msgspec.json.encode(row)
            if self._frozen is None:
                self._rendered[node.id] = found
        return found

    def _row(self, node: SimNode) -> dict[str, Any]:
        suffix = self.other[1] if self.other else self.suffix
        dns_name = f"{node.name}." if node.shared or "." in node.name else f"{node.name}.{suffix}."
        row: dict[str, Any] = {
            "ID": node.id,
            "NodeID": node.number,
            "PublicKey": self._node_key(node),
            "HostName": node.os_hostname,
            "DNSName": dns_name,
            "OS": node.os,
            "UserID": 9 if node.tags else node.user,
            "TailscaleIPs": node.ips,
            "AllowedIPs": [*(f"{ip}/{128 if ':' in ip else 32}" for ip in node.ips), *node.routes],
            "Addrs": None,
            "CurAddr": "192.0.2.7:41641" if node.path == "direct" and node.online else "",
            "Relay": node.relay,
            "PeerRelay": "192.0.2.9:40000:vni:1" if node.path == "peer_relay" else "",
            "RxBytes": node.rx_bytes,
            "TxBytes": node.tx_bytes,
            "Created": _go_time(node.created),
            "LastWrite": ZERO_TIME,
            "LastSeen": _go_time(node.last_seen),
            "LastHandshake": ZERO_TIME,
            "Online": node.online,
            "ExitNode": False,
            "ExitNodeOption": node.exit_node_option,
            "Active": False,
            "PeerAPIURL": [f"http://[{ip}]:61927" if ":" in ip else f"http://{ip}:61927" for ip in node.ips],
            "TaildropTarget": 9 if node.online else 5,
            "NoFileSharingReason": "",
            "InNetworkMap": True,
            "InMagicSock": True,
            "InEngine": False,
        }
        optional = {
            "Tags": node.tags,
            "PrimaryRoutes": node.routes,
            "ShareeNode": node.sharee,
            "Expired": node.expired,
            "KeyExpiry": _go_time(node.key_expiry) if node.key_expiry is not None else None,
        }
        return row | {key: value for key, value in optional.items() if value}

    def _node_key(self, node: SimNode) -> str:
        seed = f"{node.id}{node.renewals or ''}{self._other[0] if self._other else ''}"
        return "nodekey:" + hashlib.sha256(seed.encode()).hexdigest()

    def answers(self, ip: str) -> SimNode | None:
        """The machine at `ip` if a ping to it would be answered now."""
        node = self.at(ip)
        running = self.backend_state == "Running" and self.uplink
        return node if node is not None and node.alive and running and not node.expired else None

    def at(self, ip: str) -> SimNode | None:
        return next((node for node in self.nodes.values() if ip in node.ips), None)

    def ping_result(self, ip: str) -> dict[str, Any] | None:
        """The PingResult for `ip`; None when no answer ever comes."""
        node = self.at(ip)
        if node is None:
            return {"IP": ip, "Err": "no matching peer"}
        if self.backend_state != "Running":
            return {"IP": ip, "Err": "local tailscaled stopped"}
        if node.expired:
            return {"IP": ip, "Err": "peer's node key has expired"}
        if self.answers(ip) is None:
            return None
        result: dict[str, Any] = {"IP": ip, "NodeIP": ip, "NodeName": node.name}
        result["LatencySeconds"] = node.latency_ms / 1000
        if node.path == "direct":
            result["Endpoint"] = "192.0.2.7:41641"
        elif node.path == "peer_relay":
            result["PeerRelay"] = "192.0.2.9:40000:vni:1"
        else:
            result["DERPRegionID"], result["DERPRegionCode"] = 4, node.relay
        return result

    def service_rows(self) -> dict[str, dict[str, Any]]:
        """What the LocalAPI's `services` would give."""
        return {
            name: {"Name": name, "Addrs": [service.ip], "Ports": service.ports}
            for name, service in self.services.items()
        }

    def lock_status(self) -> dict[str, Any]:
        """What the LocalAPI's `tka/status` would give."""
        rows = [{"Name": f"{name}.{self.suffix}.", "StableID": f"nlocked-{name}"} for name in self.lock or ()]
        return {"Enabled": self.lock is not None, "FilteredPeers": rows or None}

    def port(self, ip: str, port: int) -> Port | None:
        """What the machine, or the Tailscale Service, at `ip` does with a connection; None: no answer."""
        host = next((service.host for service in self.services.values() if service.ip == ip), None)
        node = self.answers(self.find(host).ips[0] if host is not None else ip)
        return node.ports.get(port, "refused") if node is not None else None

    def whois(self, address: str) -> dict[str, Any] | None:
        """Who has an address (`ip` or `ip:port`)."""
        ip = address if address.count(":") != 1 else address.partition(":")[0]
        node = self.at(ip.removeprefix("[").partition("]")[0])
        if node is None:
            return None
        login = USERS[9 if node.tags else node.user]
        return {
            "Node": {"StableID": node.id, "Name": f"{node.name}.{self.suffix}.", "Tags": node.tags or None},
            "UserProfile": {"LoginName": login, "DisplayName": login.partition("@")[0]},
            "CapMap": None,
        }


def _go_time(wall: float | None) -> str:
    if wall is None:
        return ZERO_TIME
    return datetime.fromtimestamp(wall, UTC).isoformat().replace("+00:00", "Z")
