"""All documents: links with their anchors, commands and TOML in code blocks, the doctor's lines."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from tests.support.paths import DOCUMENTS, PACKAGE, ROOT
from tsmon.cli import main

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ *(?:\$ )?(?:sudo )?tsmon ([^\n#|>&;]+)", re.MULTILINE)
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def prose(path: Path) -> str:
    return BLOCK.sub("", path.read_text())


def code(path: Path) -> str:
    """The text of the fenced and of the indented code blocks."""
    fenced = "".join(text for _, text in BLOCK.findall(path.read_text()))
    return fenced + "".join(re.findall(r"^    .*\n", prose(path), re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """Those that a forge makes of the headings."""
    heads = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.strip().replace(" ", "-") for head in plain}


@each_document
def test_links_and_their_anchors_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        inside = ROOT in file.resolve().parents
        if not file.exists() or not inside or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        names = re.findall(r"\]\(([^)#\s]+)", path.read_text())
        todo += [(path.parent / name).resolve() for name in names if "://" not in name]
    assert [path.name for path in DOCUMENTS if path not in reached] == []


@each_document
def test_commands_are_understood(path: Path) -> None:
    """Each `tsmon …` of a code block with its arguments; nothing of it is run."""
    wrong = []
    for text in COMMAND.findall(code(path)):
        words = shlex.split(text.strip().removesuffix("\\"))
        if "…" in text:
            continue
        try:
            context = click.Context(main)
            command: click.Command | None = main
            while isinstance(command, click.Group) and words:
                command = command.get_command(context, words.pop(0))
            assert command is not None, "no such command"
            command.make_context("tsmon", words)
        except (click.ClickException, AssertionError) as error:
            wrong.append(f"tsmon {text.strip()}: {error}")
    assert wrong == []


@each_document
def test_toml_is_toml(path: Path) -> None:
    for language, text in BLOCK.findall(path.read_text()):
        if language == "toml":
            tomllib.loads(text)


def test_every_line_of_the_doctor_is_explained() -> None:
    told = set(
        re.findall(r"^\| `([a-z ]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    )
    found = set()
    for file in (PACKAGE / "cli" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                assert isinstance(node.args[0], ast.Constant), file
                found.add(node.args[0].value)
    assert told == found
