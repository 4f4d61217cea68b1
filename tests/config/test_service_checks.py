"""What a role's `checks` say, and what is said of those that cannot be asked."""

from pathlib import Path

import pytest

from tests.support.world import settings
from tsmon.config import ConfigError
from tsmon.config.service_checks import ServiceCheck, read_checks


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("tcp:22", ServiceCheck("tcp", 22)),
        ("http:8080/healthz?full=1", ServiceCheck("http", 8080, "/healthz?full=1")),
        ("https:443", ServiceCheck("https", 443, "/")),
        ("tcp:65535", ServiceCheck("tcp", 65535)),
    ],
)
def test_a_check(text: str, check: ServiceCheck) -> None:
    assert read_checks([text, text], "checks") == (check,)
    assert read_checks([str(check)], "checks") == (check,)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("tcp:70000", "ports go from 1 to 65535, as tcp:22"),
        ("tcp:0", "ports go from 1 to 65535, as tcp:22"),
        ("ftp:21", "did you mean tcp:21?"),
        ("ssh", "did you mean tcp:22?"),
        ("postgres://db", "did you mean tcp:5432?"),
        ("http:80health", "did you mean http:80/health?"),
        ("https://443/", "did you mean https:443/?"),
        ("tcp:22/path", "did you mean tcp:22?"),
        ("http:80/a b", "did you mean http:80/a%20b?"),
        ("", "it takes tcp:PORT"),
        ("tcp:22\n", "did you mean tcp:22?"),
    ],
)
def test_what_cannot_be_asked_is_named_with_the_nearest_right_form(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_checks([text], "roles[0].checks")
    assert "roles[0].checks" in str(raised.value)
    assert remedy in str(raised.value)


def test_a_bad_check_is_named_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "tsmon.toml"
    path.write_text('[[roles]]\nname = "db"\nchecks = ["tcp:22", "ftp:21"]\n')
    with pytest.raises(ConfigError, match=r"checks.*'ftp:21' cannot be asked; did you mean tcp:21\?"):
        settings(path)


def test_there_are_not_more_checks_than_anybody_asks() -> None:
    with pytest.raises(ConfigError, match="more than 20"):
        read_checks([f"tcp:{port}" for port in range(1, 22)], "checks")
