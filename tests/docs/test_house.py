"""docs/architecture.md shows the house as it is: its names, its order, its files."""

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser

import pytest

from tests.support.paths import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
TABLE = re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", PAGE, re.MULTILINE)


def test_the_page_has_the_names_at_the_top_of_tsmon() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.stem != "py"}
    assert sorted(TABLE) == sorted(found)
    assert len(TABLE) == 14


def floors() -> list[list[str]]:
    """Import-linter's contract: from the top down, the names of each floor."""
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter")
    layers = contracts["importlinter:contract:floors"]["layers"]
    return [re.findall(r"tsmon\.(\w+)", floor) for floor in layers.strip().splitlines()]


def test_the_page_has_the_order_that_is_checked() -> None:
    order = [name for floor in floors() for name in sorted(floor, key=TABLE.index)]
    assert order == [name for name in TABLE if name != "web"]


@pytest.mark.parametrize("name", [name for name in TABLE if (PACKAGE / name / "__init__.py").exists()])
def test_every_package_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))


def named_files() -> Iterator[str]:
    """Everything on the page that is written as a path of the house."""
    for text in re.findall(r"`([\w/]+(?:\.py|/))`", PAGE):
        if not text.startswith(("tests/", "tsmon/")):
            yield text


def test_the_files_that_the_page_names_are_there() -> None:
    assert [name for name in named_files() if not (PACKAGE / name).exists()] == []


def test_the_classes_and_functions_that_the_page_names_are_there() -> None:
    defined: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = {part.name for part in ast.iter_child_nodes(node) if hasattr(part, "name")}
                defined.setdefault(node.name, set()).update(inner)
    named = re.findall(r"`([A-Z]\w+)(?:\.(\w+))?`", PAGE) + re.findall(r"`(_?[a-z]\w+)`() in", PAGE)
    missing = [
        f"{name}.{part}"
        for name, part in named
        if name not in defined or (part and part not in defined[name])
    ]
    assert named
    assert missing == []
