"""The documents say what is there: commands, routes of the README, links."""

import re
from pathlib import Path

import pytest

from tests.support.paths import DOCUMENTS, ROOT
from tsmon.cli import COMMANDS


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [name for name in COMMANDS if f"| `tsmon {name}`" not in text]


def test_every_command_of_the_readme_is_there() -> None:
    told = re.findall(r"^\| `tsmon (\w+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert not [name for name in told if name not in COMMANDS]


def test_every_route_of_the_api_has_an_example_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    names = ["summary", "nodes", "nodes/git", "critical", "alerts", "logs", "uptime", "history", "latency"]
    names += ["whois", "stream"]
    assert not [name for name in names if f"/health-monitoring/{name}" not in text]
    assert "/healthz" in text
    assert "/readyz" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (path.parent / target).exists()]


def test_every_make_target_is_documented_and_the_other_way_round() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):.* ## ", makefile, re.MULTILINE))
    pages = "".join((ROOT / page).read_text() for page in ("README.md", "CONTRIBUTING.md"))
    assert set(re.findall(r"(?:^    |`)make ([a-z0-9-]+)", pages, re.MULTILINE)) == targets
