"""Where things are in the checkout."""

import os
from pathlib import Path

import tsmon

ROOT = Path(__file__).parents[2]
CHECKOUT = Path(os.environ.get("TSMON_TEST_CHECKOUT", ROOT))
"""With tsmon/ in it: `make wheel` tests where there is none, so that the wheel is imported."""
PACKAGE = Path(tsmon.__file__).parent
"""The tsmon that is tested: the checkout's, or an installed one."""
FIXTURES = ROOT / "tests" / "fixtures" / "tailscale"
RELEASES = ROOT / "tests" / "fixtures" / "releases"
SNAPSHOTS = ROOT / "tests" / "snapshots"
SUPPORT = ROOT / "tests" / "support"
DOCUMENTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
"""Every page that a reader gets."""
