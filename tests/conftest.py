"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _default_log() -> Iterator[None]:
    """A test that sets the log up leaves nothing of it."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
