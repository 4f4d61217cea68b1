"""The scoreboard of scripted tailnets: nothing false, nothing missed, few messages."""

from pathlib import Path

import pytest

from bench.scenarios import SCRIPTS, play_one
from tests.support.virtual import run_virtual

MESSAGES = {
    "the peer map empty for one poll": 0,
    "the peer map empty for good: the nodes are gone": 1,
    "10 preview machines of prod's role come and go": 0,
    # The outage, and InfluxDB's own alert.
    "InfluxDB away for a day, one node off meanwhile": 4,
    # tsmon is blind, then sees that one has died.
    "control lost 10 min, the peers frozen, one dies meanwhile": 4,
}
LONG = [pytest.mark.slow]
PLAYED = [
    pytest.param(name, marks=LONG if options.get("days") or "1,000" in name else [], id=name)
    for name, (_, options) in SCRIPTS.items()
    if not options.get("long")
]


@pytest.mark.parametrize("name", PLAYED)
def test_what_people_would_have_been_told(name: str, tmp_path: Path) -> None:
    score = run_virtual(play_one(name, tmp_path))
    assert (score.false_downs, score.false_recoveries, score.missed) == (0, 0, 0)
    if "random" not in name:
        # Per cause one message and one recovery; an update would be a third.
        assert score.messages == MESSAGES.get(score.name, 2)
    # One poll per change (30 s in the random day); a hung node shows at the third missed ping.
    poll = 30 if "random" in name else 15
    assert score.uptime_error_s <= (75 if "hung" in name or "hangs" in name else poll)
