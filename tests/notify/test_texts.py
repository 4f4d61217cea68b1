"""The words of messages: what a person woken at three understands at a glance."""

from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alerts import NOW, alert, view
from tsmon.monitor.alerts import ALERT_KINDS, Alert
from tsmon.monitor.state import Blind, View
from tsmon.notify.notice import Entry, Notice, Phase
from tsmon.notify.texts import Facts, Message, plain_message, write
from tsmon.source.status import clean_hostname


def told(
    *rows: tuple[Alert, Phase],
    kind: str = "alert",
    down: set[int] | None = None,
    blind: bool = False,
    **more: Any,
) -> Message | None:
    shown: View = view()
    if blind:
        shown = msgspec.structs.replace(
            shown, blind=Blind(reason="stopped", since=NOW - 30, message="it is stopped"), as_of=NOW - 40
        )
    others = more.pop("others", ())
    notice = Notice(
        key="k",
        kind=kind,  # type: ignore[arg-type]
        made_at=NOW,
        entries=tuple(Entry(found.id, phase, "pings are unanswered") for found, phase in rows),
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
        "how tsmon knows: pings are unanswered",
        "tsmon on rpi",
    ]


def test_what_else_is_down_is_said() -> None:
    found = told(
        (alert(), "fell"), others=[alert(2, hostname="git"), alert(3, hostname="dev", kind="node_flapping")]
    )
    assert found is not None
    assert "also down: dev, git" in found.text


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
            "CRITICAL: 1 node is down, 1 back again",
        ),
        ([(alert(1), "still"), (alert(2), "still")], "reminder", {}, "CRITICAL: 2 nodes are still down"),
        (
            [(alert(1), "still"), (over(2), "back")],
            "quiet_over",
            {},
            "CRITICAL: after maintenance or silence: 1 node is still down, 1 back",
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
