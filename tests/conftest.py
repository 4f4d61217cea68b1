"""Fixtures of all tests."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# A busy machine is no fault: nothing that hypothesis tries has a deadline.
hypothesis.settings.register_profile("tsmon", deadline=None)
hypothesis.settings.load_profile("tsmon")


@pytest.fixture(autouse=True)
def _default_log() -> Iterator[None]:
    """A test that sets the log up leaves nothing of it."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
