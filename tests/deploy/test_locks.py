"""The locks are complete; a lock that is not is found."""

import pytest
from packaging.requirements import Requirement

from tests.support import locks
from tests.support.locks import BUILD, DEV, RUN, Lock


def test_nothing_is_left_to_resolve() -> None:
    assert locks.problems() == []


@pytest.mark.parametrize("gone", ["multidict", "yarl", "pyyaml", "frozenlist"])
def test_a_missing_package_is_found(gone: str) -> None:
    found = locks.unsatisfied(_without(locks.read(RUN), gone), locks.roots(RUN))
    assert found
    assert all(f"needs {gone}" in problem.lower() for problem in found)


def test_a_package_that_only_an_extra_asks_for_is_found() -> None:
    found = locks.unsatisfied(_without(locks.read(RUN), "aiocsv"), locks.roots(RUN))
    assert found == ["requirements.lock: influxdb-client needs aiocsv>=1.2.2, which is not in it"]


def test_a_version_that_is_too_old_is_found() -> None:
    lock = Lock.parse(RUN, "click==8.0 --hash=sha256:00\n")
    assert locks.unsatisfied(lock, [Requirement("click>=8.1")]) == [
        "requirements.lock: tsmon needs click>=8.1, it has 8.0"
    ]


def test_a_package_that_one_system_lacks_is_found() -> None:
    lock = Lock.parse(RUN, "tzdata==2026.1 ; sys_platform == 'darwin' --hash=sha256:00\n")
    assert locks.unsatisfied(lock, [Requirement("tzdata")])
    assert not locks.unsatisfied(lock, [Requirement("tzdata; sys_platform == 'darwin'")])
    assert not locks.unsatisfied(lock, [Requirement("tzdata; python_version < '3.11'")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("click==8.1 \\\n    --hash=sha256:00\nrich==14\n", "rich==14 has no hash"),
        ("click>=8.1 --hash=sha256:00\n", "click>=8.1 is no exact version"),
        ("click==8.1 --hash=sha256:00\n# from https://mirror.example/simple\n", "names a place"),
        ("click==8.1 --hash=sha256:00\n# --find-links wheels\n", "names a place"),
    ],
)
def test_an_unsound_lock_is_found(text: str, said: str) -> None:
    assert [said in problem for problem in locks.unsound(Lock.parse(RUN, text))] == [True]


def test_locks_that_disagree_are_found() -> None:
    build, dev = (Lock.parse(name, f"pluggy=={n} --hash=sha256:00\n") for n, name in ((1, BUILD), (2, DEV)))
    assert locks.disagreements([build, dev]) == ["pluggy: 1, 2"]
    assert locks.disagreements([build, build]) == []


def _without(lock: Lock, name: str) -> Lock:
    return Lock(lock.name, tuple(pin for pin in lock.pins if pin.name != name), lock.text)
