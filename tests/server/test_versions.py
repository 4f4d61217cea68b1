"""Tailscale versions by whois: asked rarely, never waited for long."""

import asyncio
from typing import Any

import pytest

from tests.support.facts import facts as facts_of
from tests.support.virtual import VirtualClock, virtual
from tsmon.classify import Classifier
from tsmon.config import load
from tsmon.monitor.state import Node
from tsmon.server.versions import Versions
from tsmon.source.errors import SourceError


def node(id_: str = "n1") -> Node:
    facts = facts_of("a", id=id_, ips=("100.64.0.9",))
    role = Classifier(load(None, {}, {})).role(facts)
    return Node(facts=facts, role=role, first_seen=0.0, state="online")


class Whois:
    """A scripted whois."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, address: str) -> Any:
        self.asked.append(address)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "hangs":
            await asyncio.Event().wait()
        return self.answer


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ({"Node": {"Hostinfo": {"IPNVersion": "1.80.2-tabc"}}}, "1.80.2-tabc"),
        ({"Node": {"Hostinfo": {"IPNVersion": "x" * 500}}}, "x" * 64),
        ({"Node": {"Hostinfo": {"IPNVersion": 5}}}, None),
        ({"Node": {"Hostinfo": []}}, None),
        ({"Node": None}, None),
        ({"text": "Machine: a"}, None),
        (None, None),
    ],
)
def test_whatever_whois_says(answer: Any, version: str | None) -> None:
    @virtual
    async def asking() -> None:
        assert await Versions(Whois(answer), VirtualClock()).of(node()) == version

    asking()


@virtual
async def test_an_answer_is_kept_for_ten_minutes() -> None:
    whois = Whois({"Node": {"Hostinfo": {"IPNVersion": "1.2.3"}}})
    versions = Versions(whois, VirtualClock())
    for _ in range(3):
        assert await versions.of(node()) == "1.2.3"
        await asyncio.sleep(299)
    assert whois.asked == ["100.64.0.9"]
    await versions.of(node())
    assert len(whois.asked) == 2


@virtual
async def test_a_source_that_hangs_or_fails_is_not_waited_for() -> None:
    for fault in ("hangs", SourceError("source_unreachable", "no")):
        clock, whois = VirtualClock(), Whois(fault)
        versions = Versions(whois, clock)
        begun = clock.mono()
        assert await versions.of(node()) is None
        assert await versions.of(node()) is None
        assert clock.mono() - begun <= 2
        assert len(whois.asked) == 1
        await asyncio.sleep(61)
        whois.answer = {"Node": {"Hostinfo": {"IPNVersion": "1.2.3"}}}
        assert await versions.of(node()) == "1.2.3"


@virtual
async def test_what_is_kept_is_bounded() -> None:
    versions = Versions(Whois(None), VirtualClock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsmon.server.versions._MOST", 3)
        for number in range(10):
            await versions.of(node(f"n{number}"))
    assert len(versions._known) <= 3
