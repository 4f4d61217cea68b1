"""Facts of a node, made up."""

from typing import Any

from tsmon.source.status import NodeFacts


def facts(hostname: str, **values: Any) -> NodeFacts:
    plain: dict[str, Any] = {
        "id": "n1",
        "dns_name": f"{hostname}.example.ts.net",
        "os_hostname": hostname,
        "ips": ("100.64.0.1",),
        "os": "Linux",
        "tags": (),
        "user": "alice@example.com",
        "shared": False,
        "is_self": False,
        "online": True,
        "expired": False,
        "last_seen": None,
        "key_expiry": None,
        "created": None,
        "relay": "",
        "cur_addr": "",
        "peer_relay": "",
        "rx_bytes": 0,
        "tx_bytes": 0,
        "last_handshake": None,
        "active": False,
        "exit_node": False,
        "exit_node_option": False,
        "routes": (),
    }
    return NodeFacts(hostname=hostname, **(plain | values))
