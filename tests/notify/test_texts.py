"""The words of messages: what a person woken at three understands at a glance."""

import re
from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alerts import NOW, alert, seen, view
from tests.support.paths import ROOT
from tsmon.monitor.alerts import ALERT_KINDS, Alert
from tsmon.monitor.state import Blind, View
from tsmon.notify.details import Facts, runbook_of
from tsmon.notify.notice import Entry, Notice, Phase
from tsmon.notify.texts import Message, plain_message, write
from tsmon.source.status import clean_hostname


def told(
    *rows: tuple[Alert, Phase],
    kind: str = "alert",
    down: set[int] | None = None,
    blind: bool = False,
    **more: Any,
) -> Message | None:
    others = more.pop("others", ())
    shown: View = seen(*(found for found, _ in rows), *others)
    if blind:
        shown = msgspec.structs.replace(
            shown, blind=Blind(reason="stopped", since=NOW - 30, message="it is stopped"), as_of=NOW - 40
        )
    notice = Notice(
        key="k",
        kind=kind,  # type: ignore[arg-type]
        made_at=NOW,
        entries=tuple(Entry(found.id, phase) for found, phase in rows),
        **more,
    )
    alerts = {found.id: found for found, _ in rows} | {found.id: found for found in others}
    known = down if down is not None else set(alerts)
    facts = Facts(alerts, known, (), shown, NOW, zone=UTC, signature="tsmon on rpi")
    return write(notice, facts)


def over(id_: int = 1, **fields: Any) -> Alert:
    return alert(id_, state="resolved", resolved_at=NOW, cause="recovered", **fields)


def test_one_outage() -> None:
    found = told((alert(), "fell"))
    assert found is not None
    assert found.title == "CRITICAL: chocolate-factory is offline"
    assert found.text.splitlines() == [
        "since 14:10 UTC (3 min)",
        "how tsmon knows: the control plane calls it offline",
        "take care of it: tsmon ack 1",
        "what to do: docs/alerting.md#node_offline",
        "tsmon on rpi",
    ]


def test_what_else_is_down_is_said() -> None:
    found = told(
        (alert(), "fell"),
        others=[
            alert(2, hostname="git"),
            alert(3, hostname="dev", kind="node_flapping"),
            alert(4, hostname="c", kind="node_detached"),
            alert(5, hostname="d", kind="key_expiring"),
        ],
    )
    assert found is not None
    assert "also down: dev, git" in found.text.splitlines()


def test_a_flapping_node_that_is_up_just_now_is_not_called_down() -> None:
    flapping = alert(3, hostname="dev", kind="node_flapping")
    up = msgspec.structs.replace(seen(flapping).nodes["n3"], state="online", reason=None)
    shown = msgspec.structs.replace(seen(alert()), nodes=seen(alert()).nodes | {"n3": up})
    alerts = {1: alert(), 3: flapping}
    notice = Notice(key="k", kind="alert", made_at=NOW, entries=(Entry(1, "fell"),))
    found = write(notice, Facts(alerts, (), (), shown, NOW, zone=UTC))
    assert found is not None
    assert "also down" not in found.text


def test_what_left_is_not_called_back_in_a_crowd() -> None:
    gone = [
        (alert(n, hostname=f"r{n}", state="resolved", resolved_at=NOW, cause="removed"), "back")
        for n in range(15)
    ]
    found = told(*gone, kind="recovery")  # type: ignore[arg-type]
    assert found is not None
    assert found.title == "INFO: 15 nodes were removed from the tailnet"
    assert found.lines[0].startswith("15 nodes were removed from the tailnet: r0, ")
    assert "back" not in found.text


def test_a_message_leads_home() -> None:
    rows = [(alert(17), "fell"), (alert(18, hostname="git"), "fell")]
    alerts = {found.id: found for found, _ in rows}
    shown = seen(*alerts.values())
    for ids, end in (((17,), "?node=chocolate-factory"), ((17, 18), "?incident=17")):
        notice = Notice(key="k", kind="alert", made_at=NOW, entries=tuple(Entry(id_, "fell") for id_ in ids))
        found = write(notice, Facts(alerts, (), (), shown, NOW, link="https://t.example/vpn"))
        assert found is not None
        assert found.link == f"https://t.example/vpn{end}"
        assert f"take care of it: tsmon ack {' '.join(map(str, ids))}" in found.lines


@pytest.mark.parametrize("kind", ALERT_KINDS)
def test_every_kind_has_its_section_in_the_runbook(kind: str) -> None:
    name, _, anchor = runbook_of(kind).partition("#")
    heads = re.findall(r"^### `(\w+)`", (ROOT / name).read_text(), re.MULTILINE)
    assert anchor in heads


def test_an_outage_over_before_it_was_told_has_both_times() -> None:
    found = told((over(), "fell"))
    assert found is not None
    assert found.title == "OK: chocolate-factory is back online"
    assert found.lines[0].startswith("from ")
    assert found.down == frozenset()


@pytest.mark.parametrize(
    ("rows", "kind", "more", "title"),
    [
        (
            [(over(), "back")],
            "recovery",
            {"standing": 2},
            "OK: chocolate-factory is back online, 2 still down",
        ),
        ([(over(1), "back"), (over(2, hostname="b"), "back")], "recovery", {}, "OK: 2 nodes are back"),
        (
            [(alert(1), "fell"), (alert(2, hostname="b"), "fell")],
            "update",
            {"cause": "tag:x"},
            "CRITICAL: 2 more nodes are down (tag:x)",
        ),
        (
            [(alert(1), "fell"), (over(2, hostname="b"), "fell")],
            "alert",
            {},
            "CRITICAL: chocolate-factory is offline, b is back online",
        ),
        ([(alert(1), "still"), (alert(2), "still")], "reminder", {}, "CRITICAL: 2 nodes are still down"),
        (
            [(alert(1), "still"), (over(2, hostname="b"), "back")],
            "quiet_over",
            {},
            "CRITICAL: after maintenance or silence: chocolate-factory is still offline, b is back online",
        ),
        (
            [(alert(n, hostname=f"b{n}", kind="key_expiring", step=259200.0), "fell") for n in range(20)],
            "alert",
            {},
            "CRITICAL: 20 keys expire within 3 days",
        ),
        (
            [(over(n, hostname=f"b{n}", kind="key_expiring"), "back") for n in range(10)],
            "recovery",
            {"standing": 10},
            "OK: 10 keys were renewed, 10 not renewed",
        ),
        (
            [
                (alert(1), "fell"),
                (alert(2, hostname="b"), "fell"),
                (alert(3, hostname="c", kind="node_detached"), "fell"),
                (alert(4, hostname="d", kind="node_flapping"), "fell"),
            ],
            "alert",
            {},
            "CRITICAL: 2 nodes are down, c is off the control plane, but answers pings, d is flapping",
        ),
    ],
)
def test_titles(rows: list[tuple[Alert, Phase]], kind: str, more: dict[str, Any], title: str) -> None:
    found = told(*rows, kind=kind, **more)
    assert found is not None
    assert found.title == title


def test_the_removed_are_no_recovery() -> None:
    gone = alert(state="resolved", resolved_at=NOW, cause="removed")
    found = told((gone, "back"), kind="recovery")
    assert found is not None
    assert found.title == "INFO: chocolate-factory was removed from the tailnet"
    both = told(
        (gone, "back"),
        (alert(2, state="resolved", resolved_at=NOW, cause="removed"), "back"),
        kind="recovery",
    )
    assert both is not None
    assert both.title == "INFO: 2 nodes were removed from the tailnet"


def test_what_another_alert_absorbed_or_nobody_was_told_of_is_not_said() -> None:
    assert told((alert(untold=True, state="resolved", resolved_at=NOW), "fell")) is None
    assert told((over(), "back"), kind="recovery", down=set()) is None


def test_while_blind_the_time_of_sight_is_named() -> None:
    found = told((alert(), "fell"), blind=True)
    assert found is not None
    assert "tsmon itself is blind since" in found.text


@pytest.mark.parametrize("kind", ALERT_KINDS)
@pytest.mark.parametrize("state", ["firing", "resolved"])
def test_every_kind_has_words(kind: str, state: str) -> None:
    node = not kind.startswith(("monitor_", "storage_"))
    fields: dict[str, Any] = {"kind": kind, "key_expiry": NOW + 86400, "message": "because"}
    if not node:
        fields |= {"node_id": None, "hostname": None, "node_type": None, "subject": "embedded"}
    end: dict[str, Any] = {"state": "resolved", "resolved_at": NOW, "cause": "recovered"}
    found = told((alert(**(fields | (end if state == "resolved" else {}))), "fell"))
    assert found is not None
    assert found.title.startswith("OK: " if state == "resolved" else "CRITICAL: ")
    assert "None" not in found.title + found.text


def test_five_hundred_are_counted_and_few_are_named() -> None:
    found = told(*[(alert(n, hostname=f"node-{n:03}"), "fell") for n in range(500)], cause="tag:rack-a")
    assert found is not None
    assert found.title == "CRITICAL: 500 nodes are down (tag:rack-a)"
    assert "and 488 more" in found.text
    assert len(found.text) < 600


@given(st.text(max_size=80))
def test_no_name_is_markup(name: str) -> None:
    hostname = clean_hostname(name) or "x"
    found = told((alert(1, hostname=hostname), "fell"), (alert(2, hostname="b"), "fell"))
    assert found is not None
    lines = found.markdown.splitlines()
    assert len(lines) == len(found.lines), "no name begins a line"
    for line in lines:
        assert line.startswith("- ")
        rest = line[2:]
        for at, char in enumerate(rest):
            if char in "`*_[]<>#!|~@":
                assert rest[at - 1] == "\\", f"{char} is not escaped"


def test_a_test_message_says_who_sent_it() -> None:
    notice = Notice(key="k", kind="test", made_at=NOW, title="tsmon test message", words="It works.")
    found = plain_message(
        notice, Facts({}, (), (), view(), NOW, signature="tsmon on rpi", link="https://t.example/vpn")
    )
    assert found.text == "It works.\ntsmon on rpi\nhttps://t.example/vpn"
    assert found.markdown.endswith("[Dashboard](https://t.example/vpn)")
    assert found.severity == "ok"
