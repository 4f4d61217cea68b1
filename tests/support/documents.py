"""Status documents, recorded and made up."""

import json
from typing import Any

from tests.support.paths import FIXTURES
from tsmon.source.status import Decoder

OTHER = ("ping", "whois")


DOCUMENTS = sorted(path.name for path in FIXTURES.glob("*.json") if not path.name.startswith(OTHER))


def document(*peers: dict[str, Any], **head: Any) -> bytes:
    """A status document of a running monitor with these peers."""
    own = {
        "ID": "self",
        "HostName": "monitor",
        "DNSName": "monitor.t.example.",
        "Online": True,
        "InNetworkMap": True,
    }
    found: dict[str, Any] = {
        "Version": "1.102.3",
        "TUN": True,
        "BackendState": "Running",
        "Self": own,
        "CurrentTailnet": {"Name": "t", "MagicDNSSuffix": "t.example"},
        "Peer": {f"nodekey:{n}": peer for n, peer in enumerate(peers)},
        "User": {"1": {"LoginName": "alice"}},
    }
    return json.dumps(found | head).encode()


def peer(id_: str = "n1", name: str = "git", **fields: Any) -> dict[str, Any]:
    base = {
        "ID": id_,
        "HostName": name,
        "DNSName": f"{name}.t.example.",
        "OS": "linux",
        "UserID": 1,
        "TailscaleIPs": ["100.64.0.9"],
        "Online": True,
        "InNetworkMap": True,
    }
    return base | fields


def only(raw: bytes) -> Any:
    """The one peer of a document."""
    nodes = [node for node in Decoder().decode(raw).nodes.values() if not node.is_self]
    assert len(nodes) == 1
    return nodes[0]
