"""Priorities in the journal: each line of tsmon's begins with its own, nowhere else does one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tsmon.base.journal import is_journal, with_priority


@pytest.mark.parametrize(
    ("level", "mark"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2), ("odd", 6)]
)
def test_each_line_carries_it(level: str, mark: int) -> None:
    assert with_priority("a\nb", level) == f"<{mark}>a\n<{mark}>b"


def test_the_journal_is_the_stream_that_is_named() -> None:
    reading, writing = os.pipe()
    try:
        found = os.fstat(writing)
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(writing, named)
        assert not is_journal(writing, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(writing, {})
        assert not is_journal(1 << 20, named)
    finally:
        os.close(reading)
        os.close(writing)


PROGRAM = """
import logging, sys
from tsmon.config import LogSettings
from tsmon.daemon.logging import configure
import structlog
configure(LogSettings(format=sys.argv[1]))
log = structlog.get_logger()
log.info("quiet")
log.warning("loud")
log.error("worse", text="line one\\nline two")
try:
    raise ValueError("x")
except ValueError:
    log.error("fell", exc_info=True)
logging.getLogger("library").warning("theirs")
"""


def lines(kind: str, *, journal: bool) -> list[str]:
    reading, writing = os.pipe()
    found = os.fstat(writing)
    environ = os.environ | ({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else {})
    subprocess.run([sys.executable, "-c", PROGRAM, kind], stderr=writing, env=environ, cwd=ROOT, check=True)
    os.close(writing)
    with os.fdopen(reading) as stream:
        return stream.read().splitlines()


@pytest.mark.parametrize("kind", ["json", "text"])
def test_the_whole_log_in_the_journal_and_elsewhere(kind: str) -> None:
    seen = lines(kind, journal=True)
    marks = [line[:3] for line in seen]
    assert marks[:3] == ["<6>", "<4>", "<3>"]
    assert set(marks[3:-1]) == {"<3>"}, "a traceback, each line of it"
    assert seen[-1] == "<4>WARNING library: theirs"
    assert not any(line.startswith("<") for line in lines(kind, journal=False))


def test_a_wrong_configuration_is_an_error_there_and_has_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "tsmon.toml").write_text("nonsense = 1\n")
    reading, writing = os.pipe()
    found = os.fstat(writing)
    run = subprocess.run(
        [sys.executable, "-m", "tsmon", "run", "--config", str(tmp_path / "tsmon.toml")],
        env=os.environ | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
        stderr=writing,
        cwd=ROOT,
        check=False,
    )
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read().startswith("<3>tsmon: ")
    assert run.returncode == 78
