"""What is read of a ping's answer."""

import pytest

from tsmon.source.pings import read_ping, read_text_ping


@pytest.mark.parametrize("seconds", ["-1", "1e300", "-1e-9", "1e9"])
def test_a_latency_that_no_ping_has_is_none(seconds: str) -> None:
    ping = read_ping(f'{{"LatencySeconds": {seconds}, "Endpoint": "1.2.3.4:5"}}'.encode())
    assert ping is not None
    assert (ping.outcome, ping.latency_ms) == ("answered", None)


@pytest.mark.parametrize("number", ["9" * 400, "99999999"])
def test_a_latency_in_words_that_no_ping_has_is_none(number: str) -> None:
    ping = read_text_ping(f"pong from git (100.64.0.9) via DERP(fra) in {number}s\n")
    assert (ping.outcome, ping.latency_ms, ping.relay) == ("answered", None, "fra")
