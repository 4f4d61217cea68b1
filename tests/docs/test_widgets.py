"""docs/widgets.md: every path that a snippet names is in what a running tsmon answers, seeing and blind."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.paths import ROOT
from tests.support.site import Site, site
from tsmon.cli import main

PAGE = (ROOT / "docs" / "widgets.md").read_text()
BLOCKS = re.findall(r"^```\w+\n# ([\w-]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def snippets(tool: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == tool]
    assert found
    return found


def at(answer: Any, path: str) -> Any:
    """What stands at a path of names and dots; of a list's first row. Raises KeyError."""
    for name in path.split("."):
        answer = (answer[0] if isinstance(answer, list) else answer)[name]
    return answer


async def ask(here: Site, url: str) -> Any:
    parts = urlsplit(url)
    assert parts.netloc == "tsmon:8000"
    return await here.get(f"{parts.path}?{parts.query}" if parts.query else parts.path, Host=parts.netloc)


@pytest.fixture(params=["seeing", "blind"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """One that sees, and one that is blind."""
    async with site(tmp_path, reconnect_grace="0s", allowed_hosts="tsmon") as found:
        if request.param == "blind":
            found.tailnet.fault = "bad_gateway"
            await found.until(lambda: found.daemon.monitor.view.blind)
        yield found


def is_blind(here: Site) -> bool:
    return here.daemon.monitor.view.blind is not None


def homepage() -> Iterator[tuple[str, list[str]]]:
    for text in snippets("homepage"):
        for group in yaml.safe_load(text):
            for service in next(iter(group.values())):
                widget = next(iter(service.values()))["widget"]
                assert widget["type"] == "customapi"
                yield widget["url"], [row["field"] for row in widget["mappings"]]


async def test_homepage(here: Site) -> None:
    for url, fields in homepage():
        answer = await ask(here, url)
        values = {field: at(answer, field) for field in fields}
        state = values.get("status", values.get("state"))
        assert (state == "unknown") == is_blind(here)


async def test_glance(here: Site) -> None:
    asked = set()
    for text in snippets("glance"):
        for widget in yaml.safe_load(text):
            assert widget["type"] == "custom-api"
            answer = await ask(here, widget["url"])
            for kind, path in re.findall(r'\.(String|Int|Array) "([^"]*)"', widget["template"]):
                if path == "blind.message" and not is_blind(here):
                    assert at(answer, "blind") is None
                    continue
                value = at(answer, path) if path else answer
                assert isinstance(value, {"String": str, "Int": int, "Array": list}[kind]), path
                asked.add(path)
            if "eq (.JSON.String" in widget["template"]:
                assert (answer["status"] == "unknown") == is_blind(here)
    assert {"status", "critical_nodes.online", "hostname", "state"} <= asked


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # untyped
    """Home Assistant's own tags are text."""


_Loader.add_constructor("!secret", lambda loader, node: loader.construct_scalar(node))


async def test_home_assistant_is_unavailable_while_blind_never_off(here: Site) -> None:
    (text,) = snippets("home-assistant")
    found = yaml.load(text, _Loader)
    states: dict[str, str] = {}
    attributes: dict[str, list[str]] = {}
    for resource in found["rest"]:
        answer = await ask(here, resource["resource"])
        for sensor in resource["sensor"]:
            (path,) = re.findall(r"^\{\{ value_json\.([\w.]+) \}\}$", sensor["value_template"])
            entity = "sensor." + sensor["name"].lower().replace(" ", "_")
            states[entity] = at(answer, path)
            attributes[entity] = sensor["json_attributes"]
            assert set(attributes[entity]) <= set(answer)
    derived = [entity for kind in found["template"] for rows in kind.values() for entity in rows]
    assert len(derived) == 2
    for entity in derived:
        ((source, words),) = re.findall(
            r"^\{\{ states\('([\w.]+)'\) in \[(.*)\] \}\}$", entity["availability"]
        )
        available = states[source] in re.findall(r"'(\w+)'", words)
        assert available == (not is_blind(here)), entity["name"]
        for other, name in re.findall(r"state_attr\('([\w.]+)', '(\w+)'\)", entity["state"]):
            assert name in attributes[other]
        for other, word in re.findall(r"states\('([\w.]+)'\) == '(\w+)'", entity["state"]):
            assert is_blind(here) or states[other] == word


async def test_badges(here: Site) -> None:
    (url,) = re.findall(r'<img src="(http://tsmon[^"]+)"', PAGE)
    drawn = await here.get(urlsplit(url).path)
    assert drawn.startswith("<svg")
    assert ("unknown" in drawn) == is_blind(here)


def plugins() -> list[list[str]]:
    """The command lines of `tsmon check`, macros filled in."""
    lines = []
    for tool in ("nagios", "checkmk"):
        for text in snippets(tool):
            lines += re.findall(r"/usr/local/bin/(tsmon check .*)", text)
    found = [shlex.split(line.replace("$ARG1$", "git")) for line in lines]
    (icinga,) = snippets("icinga")
    for option, macro in re.findall(r'"(--[\w-]+)" = (\{ set_if|"\$)', icinga):
        found.append(["tsmon", "check", option, *([] if "set_if" in macro else ["git"])])
    assert len(found) >= 6
    return found


@pytest.mark.parametrize("words", plugins(), ids=" ".join)
def test_the_plugins_options_are_understood(words: list[str]) -> None:
    command = main.get_command(click.Context(main), words[1])
    assert command is not None
    command.make_context("tsmon", words[2:])
