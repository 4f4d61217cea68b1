"""Fixtures of all tests."""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# A busy machine is no fault: nothing that hypothesis tries has a deadline.
hypothesis.settings.register_profile("tsmon", deadline=None)
hypothesis.settings.load_profile("tsmon")

# A shell gives its background jobs an ignored SIGINT, nohup an ignored SIGHUP, and both are inherited: a
# command that a test interrupts would never end, and no shell script can trap them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

UNMEASURED = ("slow", "server", "e2e", "browser", "deploy")
"""Marks of tests that run without the tracer of coverage: it makes them several times as long, and most of
what they look at is another process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(mark) for mark in UNMEASURED):
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def _default_log() -> Iterator[None]:
    """A test that sets the log up leaves nothing of it."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
