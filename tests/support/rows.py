"""Rows for the store, made up."""

from typing import Any

from tests.support.paths import FIXTURES
from tsmon.classify import Classifier
from tsmon.config import Settings
from tsmon.history.store import Store
from tsmon.monitor.state import Event, Node
from tsmon.source.status import Decoder

FIXTURE = FIXTURES / "all-online.json"


def nodes(first_seen: float = 100.0) -> list[Node]:
    classifier = Classifier(Settings())
    found = Decoder().decode(FIXTURE.read_bytes()).nodes.values()
    return [
        Node(
            facts=facts, role=classifier.role(facts), first_seen=first_seen, state="online", since=first_seen
        )
        for facts in found
    ]


def event(id_: int, **fields: Any) -> Event:
    base: dict[str, Any] = {
        "id": id_,
        "timestamp": float(id_),
        "recorded_at": float(id_),
        "event_type": "node_offline",
        "severity": "warning",
        "message": f"event {id_}",
    }
    return Event(**(base | fields))


async def count(store: Store, table: str) -> int:
    return await store.read(lambda db: int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))
