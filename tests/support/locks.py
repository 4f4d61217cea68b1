"""Whether the locks are complete: what pip would still have to resolve with them, for each Python and system.

`python -m tests.support.locks` says what is wrong. Requirements are read from the installed packages: what is
in a lock but not installed here (another system's) is not looked into.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

RUN, DEV, BUILD = "requirements.lock", "requirements-dev.lock", "requirements-build.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}


@dataclass(frozen=True)
class Lock:
    """A lock: each package with the one version that is installed where its marker holds."""

    name: str
    pins: tuple[Requirement, ...]
    text: str

    @classmethod
    def parse(cls, name: str, text: str) -> "Lock":
        pins = [re.sub(r"--hash=\S+", "", entry) for entry in _entries(text)]
        return cls(name, tuple(Requirement(pin.strip()) for pin in pins), text)

    def installs(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Name and version of each package there."""
        return {
            canonicalize_name(pin.name): _version(pin) for pin in self.pins if _applies(pin, environment, "")
        }


def read(name: str) -> Lock:
    """One of the three locks of this checkout."""
    return Lock.parse(name, (ROOT / name).read_text())


def roots(name: str) -> list[Requirement]:
    """What pyproject.toml asks of this lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    own = [*project["project"]["dependencies"], *extras["notify"]]
    build = [*project["build-system"]["requires"], *_group(project, "build")]
    wanted = {RUN: own, BUILD: build, DEV: [*own, *extras["mcp"], *_group(project, "dev")]}[name]
    return [Requirement(text) for text in wanted]


def unsatisfied(lock: Lock, wanted: Sequence[Requirement]) -> list[str]:
    """Every requirement, extras and markers considered, that the lock leaves open on a supported machine."""
    found = {
        f"{lock.name}: {problem}"
        for environment in _environments()
        for problem in _walk(lock.installs(environment), wanted, environment)
    }
    return sorted(found)


def unsound(lock: Lock) -> list[str]:
    """Pins without a version or a hash, and anything that names a place to download from."""
    found = [f"{lock.name}: {pin} is no exact version" for pin in lock.pins if not _version(pin)]
    bare = [entry for entry in _entries(lock.text) if "--hash=" not in entry]
    found += [f"{lock.name}: {entry} has no hash" for entry in bare]
    places = re.findall(
        r"^.*(?:://|--(?:extra-)?index-url|--find-links|--trusted-host).*$", lock.text, re.MULTILINE
    )
    return found + [f"{lock.name}: names a place: {line.strip()}" for line in places]


def disagreements(locks: Sequence[Lock]) -> list[str]:
    """Packages with more than one version: the locks are installed into one environment."""
    versions: dict[str, set[str]] = {}
    for lock in locks:
        for pin in lock.pins:
            versions.setdefault(canonicalize_name(pin.name), set()).add(_version(pin))
    return [f"{name}: {', '.join(sorted(found))}" for name, found in versions.items() if len(found) > 1]


def problems() -> list[str]:
    """All that is wrong with the locks of this checkout."""
    locks = [read(name) for name in (RUN, DEV, BUILD)]
    found = [problem for lock in locks for problem in unsound(lock) + unsatisfied(lock, roots(lock.name))]
    return found + disagreements(locks)


def _entries(text: str) -> list[str]:
    lines = re.sub(r"#.*", "", text).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _environments() -> Iterator[dict[str, str]]:
    for python in PYTHONS:
        for system, platform in SYSTEMS.items():
            yield {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "implementation_version": f"{python}.0",
                "platform_system": system,
                "sys_platform": platform,
                "platform_machine": "x86_64" if system == "Linux" else "arm64",
            }


def _walk(
    installed: Mapping[str, str], wanted: Sequence[Requirement], environment: Mapping[str, str]
) -> Iterator[str]:
    todo = [("tsmon", requirement) for requirement in wanted]
    seen: set[tuple[str, str]] = set()
    while todo:
        by, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if not _applies(requirement, environment, ""):
            continue
        if name not in installed:
            yield f"{by} needs {requirement}, which is not in it"
            continue
        if not requirement.specifier.contains(installed[name], prereleases=True):
            yield f"{by} needs {requirement}, it has {installed[name]}"
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [
                    (name, Requirement(str(needed).partition(";")[0]))
                    for needed in _requires(name)
                    if _applies(needed, environment, extra)
                ]


def _requires(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def _applies(requirement: Requirement, environment: Mapping[str, str], extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def _version(pin: Requirement) -> str:
    exact = [specifier.version for specifier in pin.specifier if specifier.operator == "=="]
    return exact[0] if len(exact) == 1 else ""


def _group(project: Mapping[str, Any], name: str) -> list[str]:
    found: list[str] = []
    for entry in project["dependency-groups"][name]:
        found += _group(project, entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


def main() -> int:
    """Print each problem; 1 when there is one."""
    found = problems()
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
