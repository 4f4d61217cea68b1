"""Samples and events as line protocol: the exact schema, and that no text can break out of its place."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.influx_server import Point, read_line
from tsmon.base.retry import seconds_to_wait
from tsmon.base.text import clean_text
from tsmon.history.influx.points import MOST_BYTES, MOST_LINES, event_lines_of, lines_of, pack, unpack
from tsmon.history.influx.verdicts import MOST_PATIENCE, Action, bad_lines, judge
from tsmon.monitor.samples import Sample, ServiceSample
from tsmon.monitor.state import Event
from tsmon.source.status import clean_hostname

HOSTILE = st.text(st.characters(codec="utf-8"), max_size=60) | st.lists(
    st.sampled_from(["\\", ",", "=", " ", '"', "'", "\n", "\r", "\u2028", "#", "x", "é", "\ufeff"]),
    max_size=12,
).map("".join)


def event(**values: Any) -> Event:
    given: dict[str, Any] = {
        "id": 7,
        "timestamp": 1_790_000_000.25,
        "recorded_at": 1_790_000_000.25,
        "event_type": "node_offline",
        "severity": "critical",
        "node_id": "n1",
        "hostname": "git",
        "node_type": "git",
        "message": "git is offline",
    }
    return Event(**(given | values))


def test_the_schema_of_a_sample() -> None:
    [full, bare] = lines_of(
        300.0,
        [
            Sample("git", "git", "Linux", 1, "100.64.0.2", 2.0),
            Sample("dev", "development", "", 0, None, None),
        ],
        {},
    )
    tags = {"hostname": "git", "node_type": "git", "os": "Linux"}
    fields: dict[str, int | float | str] = {"online": 1, "ip": "100.64.0.2", "latency_ms": 2.0}
    assert read_line(full) == Point("tailscale_health", tags, fields, 300)
    assert "online=1i" in full
    assert isinstance(read_line(full).fields["latency_ms"], float)
    assert read_line(bare).tags["os"] == "unknown", "a tag left out would begin another series"
    assert read_line(bare).fields == {"online": 0}


def test_a_checked_port_is_a_point_of_its_own_measurement() -> None:
    samples = [
        ServiceSample("db", "other", "http:8080/a b,c=d", 1, 2.5),
        ServiceSample("svc:web", "service", "tcp:443", 0, None),
    ]
    [up, down] = map(read_line, lines_of(300.0, samples, {"site": "home"}))
    assert up.measurement == down.measurement == "tailscale_service"
    assert up.tags == {
        "hostname": "db",
        "node_type": "other",
        "check": "http:8080/a b,c=d",
        "site": "home",
    }
    assert up.fields == {"up": 1, "latency_ms": 2.5}
    assert down.fields == {"up": 0}


def test_the_schema_of_an_event() -> None:
    """Two of one node in one second are two points."""
    [first, second] = event_lines_of([event(), event(id=8, message='says "no"')], {"monitor": "here"})
    tags = {
        "type": "node_offline",
        "severity": "critical",
        "hostname": "git",
        "node_type": "git",
        "monitor": "here",
    }
    fields = {"message": "git is offline", "node_id": "n1"}
    assert read_line(first) == Point("tailscale_event", tags, fields, 1_790_000_000_000_000_007)
    assert read_line(second).time == 1_790_000_000_000_000_008
    assert read_line(second).fields["message"] == 'says "no"'
    [nobody] = event_lines_of([event(node_id=None, hostname=None, node_type=None)], {})
    assert read_line(nobody).tags["hostname"] == read_line(nobody).tags["node_type"] == "none"
    assert "node_id" not in read_line(nobody).fields


def test_extra_tags() -> None:
    extra = {"monitor": "here", "site": 'h=ö, "m"\\', "rack": ""}
    [line] = lines_of(300.0, [Sample("git", "git", "Linux", 1, None, None)], extra)
    assert read_line(line).tags == {
        "hostname": "git",
        "node_type": "git",
        "os": "Linux",
        "monitor": "here",
        "site": 'h=ö, "m"/',
    }


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_breaks_the_line_of_a_sample(name: str, system: str, site: str) -> None:
    hostname, os_name = clean_hostname(name) or "x", clean_text(system, 32)
    [line] = lines_of(300.0, [Sample(hostname, "other", os_name, 1, "100.64.0.1", 1.0)], {"site": site})
    assert len(line.split("\n")) == 1
    point = read_line(line)
    assert (point.measurement, point.time) == ("tailscale_health", 300)
    assert point.tags["hostname"] == hostname
    assert point.tags["os"] == (os_name.replace("\\", "/") or "unknown")
    assert set(point.tags) <= {"hostname", "node_type", "os", "site"}
    assert point.fields == {"online": 1, "ip": "100.64.0.1", "latency_ms": 1.0}


@given(HOSTILE, HOSTILE)
def test_no_text_breaks_the_line_of_an_event(message: str, name: str) -> None:
    hostname = clean_hostname(name) or None
    [line] = event_lines_of([event(message=message, hostname=hostname)], {})
    assert len(line.split("\n")) == 1
    point = read_line(line)
    assert point.tags["hostname"] == (hostname or "none")
    assert point.fields == {"message": " ".join(message.splitlines()), "node_id": "n1"}
    assert point.time == 1_790_000_000_000_000_007


@given(st.lists(st.integers(1, 400_000), max_size=20))
def test_requests_are_bounded_and_lose_nothing(sizes: list[int]) -> None:
    lines = [chr(ord("a") + n) * size for n, size in enumerate(sizes)]
    parts = [unpack(packed.payload) for packed in pack(lines)]
    assert [line for part in parts for line in part] == lines
    assert all(sum(map(len, part)) + len(part) <= MOST_BYTES + 1 for part in parts)


def test_requests_hold_5000_lines_at_most() -> None:
    assert [packed.lines for packed in pack(["a"] * 12_000)] == [MOST_LINES, MOST_LINES, 2_000]


def test_retry_after_in_seconds_or_as_a_date() -> None:
    now = 1_445_412_480.0  # 2015-10-21T07:28:00Z
    for text, seconds in {
        None: 0,
        "": 0,
        "7": 7,
        "99999": 600,
        "9" * 400: 600,
        "-5": 0,
        "٣": 0,
        "soon": 0,
        "Wed, 21 Oct 2015 07:28:30 GMT": 30,
        "Wed, 21 Oct 2015 07:27:00 GMT": 0,
        "Wed, 21 Oct 2099 07:28:00 GMT": 600,
    }.items():
        assert seconds_to_wait(text, now, MOST_PATIENCE) == seconds, text


@given(st.integers(100, 599), HOSTILE, st.none() | HOSTILE, st.none() | HOSTILE)
def test_any_answer_has_a_verdict(status: int, reason: str, message: str | None, retry: str | None) -> None:
    verdict = judge(status, reason, message, retry, 0.0)
    assert (verdict.action is Action.DONE) == (status in (201, 204))
    assert len(verdict.words.splitlines()) <= 1
    assert verdict.words.isprintable()
    assert 0 <= verdict.wait <= 600


def test_lines_that_an_answer_names() -> None:
    """Quotes in a line or a reason do not matter, nor what was never sent."""
    lines = ["a,h=x' v=1i 1", "b,h=it's': v=1i 1", "c v=1i 1"]
    message = "\n".join(f"unable to parse '{line}': it's bad': really" for line in [*lines[:2], "never sent"])
    assert bad_lines(message, lines) == {
        lines[0]: "it's bad': really",
        lines[1]: "it's bad': really",
    }
    assert bad_lines("unable to parse 'c v=1i 1'", lines) == {}
    assert bad_lines("unable to parse '" + "': " * 100_000, lines) == {}
    assert bad_lines("unable to parse 'x': y", []) == {}
