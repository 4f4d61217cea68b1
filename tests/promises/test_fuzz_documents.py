"""A structure-aware mutator over real documents: no exception, no false outage, no event of an unchanged one.

`TSMON_TEST_DOCUMENTS` says how many documents (10,000 in the ordinary run, 100,000 in CI).
"""

import copy
import os
import random
from typing import Any

import msgspec
import pytest

from tests.support.documents import DOCUMENTS
from tests.support.paths import FIXTURES
from tests.support.world import settings
from tsmon.base.clock import Moment
from tsmon.classify import Classifier
from tsmon.monitor.changes import Look, compare
from tsmon.monitor.reach import Pings
from tsmon.monitor.sight import Sight
from tsmon.monitor.state import Node
from tsmon.source.status import BadDocument, Decoder

COUNT = int(os.environ.get("TSMON_TEST_DOCUMENTS", "10000"))
NOW = 1_790_000_000.0
POISON: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 1e308, "", " ", "\x00", "a" * 5000, "0001-01-01T00:00:00Z",
    "9999-99-99",
    "<script>", "=1+1", "ＡＢＣ", "\u202e", [], [None], ["100.64.0.1"], {}, {"ID": "x"}, "100.64.0.300", "n1",
]  # fmt: skip
ROLE_OF = Classifier(settings()).role


def base_documents() -> list[dict[str, Any]]:
    found = [msgspec.json.decode((FIXTURES / name).read_bytes()) for name in DOCUMENTS]
    return [document for document in found if isinstance(document, dict) and document.get("Peer")]


BASE = base_documents()


def mutate(document: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], set[str], bool]:
    """A document with some things changed; the keys of the peers that were touched, and whether anything
    outside the peers was."""
    changed = copy.deepcopy(document)
    touched: set[str] = set()
    head = False
    for _ in range(chance.choice([1, 1, 2, 3, 6])):
        peers = changed.get("Peer")
        if isinstance(peers, dict) and peers and chance.random() < 0.75:
            key = chance.choice(sorted(peers))
            touched.add(key)
            how = chance.random()
            if how < 0.1:
                del peers[key]
            elif how < 0.2:
                peers[key] = chance.choice(POISON)
            elif isinstance(peers[key], dict) and peers[key]:
                _spoil(peers[key], chance)
            continue
        head = True
        part = changed.get("Self") if chance.random() < 0.4 else changed
        if isinstance(part, dict) and part:
            _spoil(part, chance)
    return changed, touched, head


def _spoil(part: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(sorted(part.keys() - {"Peer"}) or [""])
    if name not in part:
        return
    how = chance.random()
    if how < 0.25:
        del part[name]
    elif how < 0.35:
        part[chance.choice(["", "ID", "Online", "x" * 300, "\u202e"])] = chance.choice(POISON)
    elif isinstance(part[name], dict) and part[name] and how < 0.6:
        _spoil(part[name], chance)
    elif isinstance(part[name], list) and how < 0.6:
        part[name] = [*part[name], chance.choice(POISON)]
    else:
        part[name] = chance.choice(POISON)


def known(document: dict[str, Any]) -> dict[str, Node]:
    """The nodes of the document as tsmon knows them a poll later."""
    snapshot = Decoder().decode(msgspec.json.encode(document))
    look = Look(snapshot=snapshot, now=Moment(NOW, 0.0), role_of=ROLE_OF, pings=Pings(), first=True)
    return compare({}, {}, look).nodes


@pytest.mark.slow
def test_mutated_documents_invent_nothing() -> None:
    chance = random.Random(11)
    before = [known(document) for document in BASE]
    ids = [{key: peer["ID"] for key, peer in document["Peer"].items()} for document in BASE]
    read = refused = distrusted = 0
    for n in range(COUNT):
        at = n % len(BASE)
        changed, touched, head = mutate(BASE[at], chance)
        try:
            snapshot = Decoder().decode(msgspec.json.encode(changed))
        except BadDocument:
            refused += 1
            continue
        read += 1
        sight = Sight(
            started=Moment(NOW, 0.0),
            reconnect_grace=0.0,
            poll_interval=15.0,
            source_timeout=10.0,
            tailnet=Decoder().decode(msgspec.json.encode(BASE[at])).tailnet,
            peers=frozenset(before[at]) - {BASE[at]["Self"]["ID"]},
            last_trusted=NOW,
            blind_since=None,
        )
        verdict = sight.judge(snapshot, Moment(NOW + 15, 15.0))
        if not verdict.trusted:
            distrusted += 1
            continue
        look = Look(snapshot=snapshot, now=Moment(NOW + 15, 15.0), role_of=ROLE_OF, pings=Pings())
        changes = compare(before[at], {}, look)
        mutated = {ids[at].get(key) for key in touched}
        for event in changes.events:
            if event.node_id in mutated or event.node_id not in before[at]:
                continue
            # A head that was touched may rename or re-own anybody (MagicDNS suffix, users, Self), but nobody
            # goes down or disappears by it.
            assert head, f"document {n}: {event.event_type} of {event.hostname}, which was not touched"
            own = event.node_id == BASE[at]["Self"]["ID"]
            assert own or event.event_type == "node_changed", f"document {n}: {event.event_type}"
    print(f"{COUNT} documents: {read} read, {refused} refused, {distrusted} not trusted")
    assert read > COUNT / 4
    assert refused
    assert distrusted
