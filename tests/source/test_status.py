"""The status document: real documents decoded exactly, hostile and broken ones survived."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import DOCUMENTS, document, only, peer
from tests.support.paths import FIXTURES, SNAPSHOTS
from tsmon.base.text import clean_text
from tsmon.monitor.sight import document_reason
from tsmon.source.status import BadDocument, Decoder, Snapshot, clean_hostname

SNAPSHOT = SNAPSHOTS / "status.json"


def decode(name: str) -> Snapshot:
    return Decoder().decode((FIXTURES / name).read_bytes())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_real_documents_decode_exactly(name: str) -> None:
    """Against the committed snapshot, field by field."""
    expected = json.loads(SNAPSHOT.read_text())[name]
    assert json.loads(msgspec.json.encode(decode(name))) == expected


def test_every_real_document_has_a_snapshot() -> None:
    assert sorted(json.loads(SNAPSHOT.read_text())) == DOCUMENTS


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("all-online.json", ""),
        ("git-killed-offline.json", ""),
        ("peer-suspended-180s.json", ""),
        ("control-paused-peers-frozen.json", "control_lost"),
        ("control-down.json", "control_lost"),
        ("control-resumed.json", ""),
        ("monitor-stopped.json", "tailscale_stopped"),
        ("monitor-stopped.cli.json", "tailscale_stopped"),
        ("needs-login-authurl.json", "logged_out"),
        ("logged-out.json", "logged_out"),
    ],
)
def test_real_documents_are_trusted_or_not(name: str, reason: str) -> None:
    assert document_reason(decode(name), frozenset())[0] == reason


def by_name(name: str) -> dict[str, Any]:
    return {node.hostname: node for node in decode(name).nodes.values()}


def test_what_was_true_in_the_real_documents() -> None:
    assert not by_name("git-killed-offline.json")["git"].online
    assert by_name("git-killed-offline.json")["git"].last_seen is None
    assert by_name("git-back.json")["git"].online
    assert not by_name("dev-down.json")["chocolate-factory-dev"].online
    assert by_name("control-paused-peers-frozen.json")["alices-laptop"].online
    assert not by_name("control-resumed.json")["alices-laptop"].online
    assert by_name("peer-suspended-180s.json")["git"].online
    expired = by_name("peer-expired.json")["bobs-phone"]
    assert expired.expired
    assert expired.online
    assert expired.key_expiry is not None
    renamed = by_name("peer-renamed.json")["build-box"]
    assert renamed.id == by_name("all-online.json")["alices-laptop"].id
    assert renamed.os_hostname == "alices-laptop"
    tagged = by_name("peer-tagged.json")["chocolate-factory-dev"]
    assert tagged.tags == ("tag:server",)
    assert tagged.user == "tagged-devices"
    assert by_name("tagged-node.json")["db"].tags
    router = by_name("peer-routes-exit-node.json")["git"]
    assert router.routes
    assert router.exit_node_option
    twice = by_name("same-hostname-twice.json")
    assert twice["git"].os_hostname == twice["git-1"].os_hostname == "git"
    assert "ci-runner" in by_name("ephemeral-there.json")
    assert "ci-runner" not in by_name("ephemeral-gone.json")
    assert "build-box" not in by_name("peer-deleted.json")
    assert decode("all-online.json").nodes.keys() == decode("all-online.cli.json").nodes.keys()


def test_nulls_and_missing_fields() -> None:
    node = only(
        document({"ID": "n1", "HostName": "x", "InNetworkMap": True, "TailscaleIPs": None, "Tags": None})
    )
    assert (node.ips, node.tags, node.ip, node.os, node.user) == ((), (), None, "unknown", "")
    assert not node.online
    assert Decoder().decode(document(Peer=None, User=None)).nodes.keys() == {"self"}


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+09:18", None),
        ("", None),
        ("2026-11-23T09:33:19.091540774Z", 1795426399.091540),
        ("2026-11-23T10:33:19+01:00", 1795426399.0),
    ],
)
def test_times(text: str, wall: float | None) -> None:
    node = only(document(peer(LastSeen=text)))
    assert node.last_seen == (None if wall is None else pytest.approx(wall, abs=1e-3))


@pytest.mark.parametrize(
    "bad",
    [
        {"TailscaleIPs": "100.64.0.1"},
        {"TailscaleIPs": ["not an address"]},
        {"Online": "yes"},
        {"LastSeen": "yesterday"},
        {"ID": "x" * 100},
        {"ID": "a b\n"},
        {"RxBytes": 1e300},
        {"Tags": [1]},
    ],
)
def test_a_malformed_peer_costs_that_peer_only(bad: dict[str, Any]) -> None:
    snapshot = Decoder().decode(document(peer("n1", "git"), peer("n2", "bad") | bad))
    assert {node.hostname for node in snapshot.nodes.values()} == {"monitor", "git"}
    assert snapshot.malformed == 1
    assert len(snapshot.malformed_named) == 1


def test_rows_that_are_no_nodes_are_left_out() -> None:
    snapshot = Decoder().decode(
        document(
            peer(""),
            peer("n2", InNetworkMap=False),
            peer("n3", "se-got", DNSName="se-got-wg-101.mullvad.ts.net."),
            peer("n4", "exit", Tags=["tag:mullvad-exit-node"]),
            peer("n5", "funnel-ingress-node", ShareeNode=True, DNSName=""),
            peer("n6", "theirs", ShareeNode=True),
            peer("n7", "git"),
        )
    )
    assert {node.hostname for node in snapshot.nodes.values()} == {"monitor", "git"}
    assert snapshot.excluded == 4
    everything = Decoder(exclude=()).decode(document(peer("n6", "theirs", ShareeNode=True)))
    assert len(everything.nodes) == 2


def test_of_two_rows_with_one_id_the_online_one_wins() -> None:
    for rows in (("off", "on"), ("on", "off")):
        peers = [peer("n1", name, Online=name == "on") for name in rows]
        snapshot = Decoder().decode(document(*peers))
        assert snapshot.duplicates == 1
        assert snapshot.nodes["n1"].hostname == "on"


def test_two_nodes_with_one_name_are_told_apart() -> None:
    raw = document(peer("n1", "x", DNSName="", Created="2026-01-02T00:00:00Z"), peer("n2", "x", DNSName=""))
    names = {id_: node.hostname for id_, node in Decoder().decode(raw).nodes.items()}
    assert names == {"self": "monitor", "n2": "x", "n1": "x-n1"}


def test_a_clash_never_ends_in_another() -> None:
    """Even when the name that would tell them apart is taken."""
    rows = [peer("n1", "x", DNSName=""), peer("n2", "x", DNSName=""), peer("n3", "x-n2", DNSName="")]
    names = [node.hostname for node in Decoder().decode(document(*rows)).nodes.values()]
    assert len(set(names)) == len(names)


def test_shared_in_machines_have_their_whole_name() -> None:
    node = only(document(peer("n1", "db", DNSName="db.tail9.ts.net.")))
    assert (node.shared, node.hostname) == (True, "db.tail9.ts.net")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"failed to connect to local tailscaled", "no JSON"),
        (b"<html>502</html>", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "no JSON"),
        (b'{"a": 1}', "not a status document"),
        (b'{"BackendState": 5, "Self": {}}', "not a status document"),
        (b'{"BackendState": "Running", "Self": null}', "not a status document"),
        (b'{"error": "x"}', "not a status document"),
        (b"{" * 100_000, "no JSON"),
        (b"\xff\xfe{}", "not a status document"),
    ],
)
def test_what_is_no_status_document(raw: bytes, words: str) -> None:
    with pytest.raises(BadDocument, match=words):
        Decoder().decode(raw)


def test_truncated_documents_are_refused() -> None:
    raw = (FIXTURES / "all-online.json").read_bytes()
    for length in range(1, len(raw) - 2, 97):
        with pytest.raises(BadDocument):
            Decoder().decode(raw[:length])


def test_warnings_of_the_command_line_are_cut_off_and_kept() -> None:
    raw = b"Warning: client version != server\n" + document(peer()) + b"\ntail of it"
    snapshot = Decoder().decode(raw)
    assert snapshot.noise == "Warning: client version != server tail of it"
    assert len(snapshot.nodes) == 2


def test_unchanged_rows_are_the_same_objects() -> None:
    decoder = Decoder()
    first = decoder.decode(document(peer("n1"), peer("n2", "b")))
    second = decoder.decode(document(peer("n1"), peer("n2", "b", Online=False)))
    assert second.nodes["n1"] is first.nodes["n1"]
    assert second.nodes["n2"] is not first.nodes["n2"]


def test_a_changed_owner_is_seen_although_the_row_is_the_same() -> None:
    decoder = Decoder()
    decoder.decode(document(peer()))
    renamed = decoder.decode(document(peer(), User={"1": {"LoginName": "bob"}}))
    assert renamed.nodes["n1"].user == "bob"


HOSTILE = st.text(max_size=300) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "a\x1b[2J\x1b]0;owned\x07",
        "\u202egnp.exe",
        "x" * 100_000,
        "a\nb,c=d e=f",
        '"; drop(bucket: "x")',
        "${r}",
        "\u200b\u2066",
        "\x00",
    ]
)


@given(HOSTILE, HOSTILE)
def test_hostile_names_become_harmless(os_hostname: str, dns_name: str) -> None:
    encoded = json.dumps(os_hostname), json.dumps(dns_name)
    if any("\\ud" in text for text in encoded):
        return  # lone surrogates are no JSON text
    snapshot = Decoder().decode(document(peer("n1", "x", HostName=os_hostname, DNSName=dns_name)))
    node = snapshot.nodes["n1"]
    assert 1 <= len(node.hostname) <= 253
    assert all(char.isalnum() or char in "._-" or not char.isascii() for char in node.hostname)
    assert node.hostname.isprintable()
    assert not set(node.hostname) & set("<>\"'&;,= \n\r\t\\${}()`")


@given(st.text(max_size=500), st.integers(1, 300))
def test_clean_text_is_printable_and_bounded(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert cleaned.isprintable()


@given(st.text(max_size=300))
def test_cleaning_a_hostname_twice_changes_nothing(text: str) -> None:
    once = clean_hostname(text)
    assert clean_hostname(once) == once


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with pytest.raises(BadDocument) as caught:
        Decoder().decode(raw)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "times"),
    [('"%d":{}', 4_000_000), ('"%d":{}', 200_000), ('"a"', 6_000_000)],
    ids=["4,000,000 empty peers", "200,000 empty peers", "6,000,000 tags"],
)
def test_a_document_of_tiny_values_is_refused_at_once(text: str, times: int) -> None:
    """47 MB of empty peers took 35 s and 1.5 GB."""
    values = ",".join(text % n for n in range(times)) if "%d" in text else ",".join([text] * times)
    peers = (values if "%d" in text else f'"1":{{"Tags":[{values}]}}').encode()
    raw = document().replace(b'"Peer": {}', b'"Peer": {' + peers + b"}")
    assert len(raw) > 1_000_000
    begun = time.process_time()
    with pytest.raises(BadDocument, match="more"):
        Decoder().decode(raw)
    assert time.process_time() - begun < 2


def test_a_list_of_thousands_of_entries_costs_its_peer_only() -> None:
    found = Decoder().decode(document(peer("n1"), peer("n2", "dev", Tags=["tag:x"] * 2000)))
    assert (found.malformed, "n1" in found.nodes, "n2" in found.nodes) == (1, True, False)
