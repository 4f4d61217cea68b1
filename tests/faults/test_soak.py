"""Days on end in virtual time: what tsmon counts, keeps and takes of the machine.

`TSMON_TEST_SOAK_DAYS` says how many (a tenth of one in the ordinary run, three in CI: that is what memory and
retention need to show), `TSMON_TEST_SOAK_NODES` how large the tailnet is (1,000; 250 in CI).
"""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

DAYS = os.environ.get("TSMON_TEST_SOAK_DAYS", "0.1")
NODES = os.environ.get("TSMON_TEST_SOAK_NODES", "1000")


@pytest.mark.slow
def test_nothing_is_lost_late_or_growing() -> None:
    # A process of its own: its memory is measured.
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--days", DAYS, "--nodes", NODES, "--json"],
        check=False,  # what is amiss is in its output
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
    )
    assert done.stdout, done.stderr
    played = json.loads(done.stdout)
    assert played["faults"] == []
    assert played["offs"] > 0
    assert played["messages"] > 0
    if float(DAYS) >= 3:
        assert played["blinds"] > 0
        assert len(played["memory_mib"]) > 5
