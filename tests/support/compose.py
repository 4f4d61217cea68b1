"""What Compose would make of the files in docker/."""

import re
from typing import Any

import yaml  # type: ignore[import-untyped] # no stubs in the lock

from tests.support.paths import ROOT

DOCKER = ROOT / "docker"


class Loader(yaml.SafeLoader):  # type: ignore[misc] # untyped
    """Knows Compose's own tag `!override`: a list that replaces instead of being added."""


class Override(list[Any]):
    pass


Loader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node)))


def merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and not isinstance(over, Override):
        return base + over
    return over


def fill(value: Any, environ: dict[str, str]) -> Any:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?words}` filled in."""

    def one(match: re.Match[str]) -> str:
        name, how, text = match.groups()
        found = environ.get(name, "")
        if not found and how == ":?":
            raise KeyError(f"{name}: {text}")
        return found or (text if how == ":-" else "")

    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", one, value)
    if isinstance(value, dict):
        return {key: fill(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, environ) for item in value]
    return value


def read(*names: str) -> Any:
    """The files laid over each other, in this order."""
    document: Any = {}
    for name in names:
        document = merge(document, yaml.load((DOCKER / name).read_text(), Loader))
    return document
