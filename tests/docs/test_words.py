"""Pages, docstrings and messages use the words of the field, and in the code one name means one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import DOCUMENTS, ROOT

STRANGE = re.compile(r"\b(?:told|rooms?|fares|anew|for\s+ever)\b", re.IGNORECASE)
"""Rather: notified or reported; module or package; works; again; always, until cancelled."""
MODULES = sorted((ROOT / "tsmon").rglob("*.py"))
WEB = sorted(path for path in (ROOT / "tsmon" / "web").iterdir() if path.suffix in (".js", ".css", ".html"))

SAME_FILE_NAMES = {
    "admin.py": "the admin socket: its server, and the command line's client of it",
    "control_server.py": "the demo's control server, and what `tsmon doctor` says of the real one",
    "client.py": "a client of the source, and one of tsmon's own API",
    "importing.py": "`tsmon import`: the command, the daemon's part, and the samples of InfluxDB",
    "incidents.py": "alerts joined by cause, and their answer",
    "loading.py": "what a start loads: settings, and history",
    "outbox.py": "the outbox, and what `tsmon doctor` says of it",
    "report.py": "the report: its sums, its answer, and `tsmon report`",
    "status.py": "the status document, and `tsmon status`",
    "tailnet.py": "the simulated tailnet, and what `tsmon doctor` says of the real one",
}
"""File names that two packages share: both are about the same subject, each at its own floor."""


def texts(path: Path) -> Iterator[str]:
    """Every docstring and every text that is more than a name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def of_the_project(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=of_the_project)
def test_no_strange_word_in_the_pages(path: Path) -> None:
    # Code is quoted as it is: a Matrix room is called `#room`.
    prose = re.sub(r"`[^`\n]*`", "", path.read_text())
    assert STRANGE.findall(prose) == []


def test_no_strange_word_in_docstrings_and_messages() -> None:
    found = [(of_the_project(path), text) for path in MODULES for text in texts(path) if STRANGE.search(text)]
    assert found == []


def test_no_strange_word_in_comments() -> None:
    lines = [(path, line) for path in MODULES for line in path.read_text().splitlines() if "#" in line]
    comments = [(of_the_project(path), line.partition("#")[2]) for path, line in lines]
    assert [(path, text) for path, text in comments if STRANGE.search(text)] == []


@pytest.mark.parametrize("path", WEB, ids=of_the_project)
def test_no_strange_word_in_the_dashboard(path: Path) -> None:
    assert STRANGE.findall(path.read_text()) == []


def test_nothing_refers_to_a_text_that_the_reader_has_not() -> None:
    """Code and tests name the numbers of docs/rules.md."""
    hidden = re.compile(r"\bthe\s+(?:mission|design)(?!-)\b", re.IGNORECASE)
    sources = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]
    found = [of_the_project(path) for path in [*sources, *WEB] if hidden.search(path.read_text())]
    assert found == []


def test_no_two_classes_share_a_name() -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].add(of_the_project(path))
    assert {name: sorted(places) for name, places in where.items() if len(places) > 1} == {}


def test_modules_that_share_a_file_name_are_about_one_subject() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        if not path.name.startswith("__"):
            where[path.name].append(of_the_project(path))
    shared = {name: places for name, places in where.items() if len(places) > 1}
    assert set(shared) == set(SAME_FILE_NAMES), shared


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {of_the_project(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
