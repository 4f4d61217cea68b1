"""Where things are in the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "tailscale"
RELEASES = ROOT / "tests" / "fixtures" / "releases"
SNAPSHOTS = ROOT / "tests" / "snapshots"
SUPPORT = ROOT / "tests" / "support"
