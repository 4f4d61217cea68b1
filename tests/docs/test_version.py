"""The version stands in one place, and everybody reads it there."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from tests.support.paths import PACKAGE, ROOT
from tsmon import __version__
from tsmon.cli import main

HOME = PACKAGE / "__init__.py"


def builders() -> Iterator[Path]:
    """The files that build or ship something."""
    yield from (ROOT / name for name in ("pyproject.toml", "Makefile", "Dockerfile", ".ci/run"))
    for folder in (ROOT / "docker", ROOT / "packaging", PACKAGE):
        yield from (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def test_the_command_says_it() -> None:
    assert CliRunner().invoke(main, ["version"]).output == f"tsmon {__version__}\n"


def test_packaging_reads_it_where_it_stands() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["hatch"]["version"] == {"path": "tsmon/__init__.py"}
    # A plain text: hatchling reads the line, it does not run the file.
    assert re.search(rf'^__version__ = "{re.escape(__version__)}"$', HOME.read_text(), re.MULTILINE)


def test_it_stands_nowhere_else() -> None:
    number = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    named = [path for path in builders() if number.search(path.read_text(errors="replace"))]
    assert named == [HOME]
