"""docs/rules.md: its numbers are in order, and every rule that is named is there."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.support.paths import PACKAGE, ROOT

RULES = (ROOT / "docs" / "rules.md").read_text()
TIMELINES = (ROOT / "docs" / "timelines.md").read_text()
NUMBER = r"\d+\.\d+"
NAMED = re.compile(rf"\b[Rr]ules?\s+({NUMBER}(?:(?:, | and | to ){NUMBER})*)")


def numbers() -> list[tuple[int, int]]:
    """Of the rules, in their order on the page."""
    found = re.findall(r"^- \*\*(\d+)\.(\d+)\b", RULES, re.MULTILINE)
    return [(int(section), int(number)) for section, number in found]


def texts() -> Iterator[Path]:
    """Whatever may name a rule."""
    for folder in (PACKAGE, *(ROOT / name for name in ("tests", "docs", "bench", "packaging"))):
        for path in folder.rglob("*"):
            if path.suffix in (".py", ".md", ".js", ".html", ".yml", ".toml"):
                yield path
    yield from ROOT.glob("*.md")


def test_sections_and_rules_are_numbered_one_after_the_other() -> None:
    sections = [int(number) for number in re.findall(r"^## (\d+)\. ", RULES, re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    by_section = {key: [n for _, n in rules] for key, rules in groupby(numbers(), lambda rule: rule[0])}
    assert list(by_section) == sections
    assert by_section == {key: list(range(1, len(found) + 1)) for key, found in by_section.items()}


def test_every_rule_that_is_named_is_there() -> None:
    known = {f"{section}.{number}" for section, number in numbers()}
    named = {
        f"{path.relative_to(ROOT)}: {number}": number
        for path in texts()
        for mention in NAMED.findall(path.read_text())
        for number in re.findall(NUMBER, mention)
    }
    assert named
    assert [place for place, number in named.items() if number not in known] == []
    inside = re.findall(NUMBER, " ".join(re.findall(rf"\(((?:{NUMBER}(?:, )?)+)\)", RULES)))
    assert set(inside) <= known


def test_the_files_that_the_rules_name_are_there() -> None:
    lines = re.findall(r"^Code: (.*(?:\n[^\n]+)*)", RULES, re.MULTILINE)
    named = [name for line in lines for name in re.findall(r"`([\w/.]+)`", line)]
    assert len(named) > 10
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_timeline_has_its_test_and_every_test_its_timeline() -> None:
    rows = [int(row) for row in re.findall(r"^\| (\d+) \|", TIMELINES, re.MULTILINE)]
    assert rows == list(range(1, len(rows) + 1))
    known = {f"{section}.{number}" for section, number in numbers()}
    last_column = re.findall(r"\| ([\d., ]+) \|$", TIMELINES, re.MULTILINE)
    assert len(last_column) == len(rows)
    assert set(re.findall(NUMBER, " ".join(last_column))) <= known
    played = {
        int(row)
        for path in (ROOT / "tests" / "promises").glob("test_timelines*.py")
        for row in re.findall(r"^async def test_row_(\d+)_", path.read_text(), re.MULTILINE)
    }
    assert played == set(rows)
