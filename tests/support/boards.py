"""The shipped Grafana dashboards, read as Grafana reads them."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.paths import ROOT

FOLDER = ROOT / "packaging" / "grafana"
BOARDS = sorted(path.stem for path in FOLDER.glob("*.json"))
FLUX_OPTIONS = """option v = {timeRangeStart: -1h, timeRangeStop: now(), windowPeriod: 1m}
"""


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def queries(name: str, key: str) -> Iterator[str]:
    """What the panels and annotations ask; `key` is `expr` or `query`."""
    for panel in board(name)["panels"]:
        for target in panel["targets"]:
            yield target[key]
    for note in board(name)["annotations"]["list"]:
        yield note[key] if key in note else note["target"][key]


def filled(text: str, **values: str) -> str:
    """With the dashboard's variables in place."""
    for name, value in values.items():
        for form in (f"${{{name}:regex}}", f"${{{name}}}", f"${name}"):
            text = text.replace(form, value)
    return text
