"""Roles: the default table word by word, and the user's own before it (rules 5.1 to 5.3)."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.facts import facts
from tests.support.paths import ROOT
from tsmon.classify import Classifier
from tsmon.config import RoleSettings, Settings, load

DOCS = ROOT / "docs" / "configuration.md"


def role_name(hostname: str, settings: Settings | None = None, **values: Any) -> str:
    return Classifier(settings or Settings()).role(facts(hostname, **values)).name


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("git", "git"),
        ("GIT", "git"),
        ("git01", "git"),
        ("my-git-mirror", "git"),
        ("my_git", "git"),
        ("git.example", "git"),
        ("git-dev", "git"),
        ("chocolate-factory-git", "git"),
        ("dev", "dev"),
        ("dev2", "dev"),
        ("Dev-Box", "dev"),
        ("chocolate-factory-dev", "dev"),
        ("chocolate-factory", "prod"),
        ("Chocolate-Factory", "prod"),
        ("chocolate-factory-1", "prod"),
        ("chocolate-factory-prod", "prod"),
        ("old-chocolate-factory2", "prod"),
        ("chocolate-factory-devices", "prod"),
        ("digital-frame", "device"),
        ("device-3", "device"),
        ("gitlab", "device"),
        ("devon", "device"),
        ("2git", "device"),
        ("chocolate", "device"),
        ("alices-laptop", "device"),
    ],
)
def test_the_default_table(hostname: str, name: str) -> None:
    assert role_name(hostname) == name


def test_tags_make_a_server_but_no_critical_node() -> None:
    assert role_name("web", tags=("tag:web",)) == "server"
    assert role_name("git", tags=("tag:web",)) == "git"


def test_what_the_default_roles_ask_for() -> None:
    classifier = Classifier(Settings(offline_after=7.0, key_expiry_steps=(5.0,)))
    expected = {
        "git": ("git", "git", True, "warning", True),
        "dev": ("development", "dev", True, "warning", True),
        "chocolate-factory": ("production", "prod", True, "critical", True),
        "phone": ("other", "", False, "none", False),
    }
    for hostname, wanted in expected.items():
        role = classifier.role(facts(hostname))
        assert (role.node_type, role.key, role.critical, role.alert, role.ping) == wanted
        assert (role.offline_after, role.key_expiry_steps) == (7.0, (5.0,))
    server = classifier.role(facts("web", tags=("tag:web",)))
    assert (server.node_type, server.critical, server.alert) == ("other", False, "warning")
    assert classifier.critical_keys == {"git": "git", "dev": "development", "prod": "production"}


def test_a_machine_shared_in_is_a_device_unless_a_rule_says_otherwise() -> None:
    shared: dict[str, Any] = {"shared": True, "tags": ("tag:x",)}
    assert role_name("git.other.ts.net", **shared) == "device"
    rule = RoleSettings(name="theirs", hosts=("git.other.ts.net",))
    assert role_name("git.other.ts.net", Settings(roles=(rule,)), **shared) == "theirs"


def test_another_project() -> None:
    assert role_name("the-bakery-9", Settings(project_name="Bakery")) == "prod"
    assert role_name("chocolate-factory", Settings(project_name="bakery")) == "device"
    assert role_name("anything", Settings(project_name="")) == "device"


def test_without_the_default_roles_only_the_rules_make_critical_nodes() -> None:
    rule = RoleSettings(name="db", hosts=("db*",), critical=True, node_type="production", key="data")
    settings = Settings(default_roles=False, roles=(rule,))
    assert [role_name(name, settings) for name in ("git", "chocolate-factory", "db1")] == [
        "device",
        "device",
        "db",
    ]
    assert role_name("web", settings, tags=("tag:x",)) == "server"
    assert Classifier(settings).critical_keys == {"data": "production"}


def test_left_out_means_the_contracts_defaults() -> None:
    role = Classifier(Settings(roles=(RoleSettings(name="r"),), offline_after=9.0)).role(facts("git"))
    assert (role.name, role.node_type, role.key, role.critical) == ("r", "other", "", False)
    assert (role.alert, role.ping, role.offline_after) == ("warning", False, 9.0)
    assert role.key_expiry_steps == Settings().key_expiry_steps
    critical = Classifier(Settings(roles=(RoleSettings(name="r", critical=True),))).role(facts("git"))
    assert (critical.key, critical.ping) == ("r", True)


def test_what_a_rule_says_beats_the_global_settings() -> None:
    rule = RoleSettings(
        name="r", critical=True, ping=False, offline_after=1.0, key_expiry_steps=(), alert="none"
    )
    role = Classifier(Settings(roles=(rule,))).role(facts("git"))
    assert (role.ping, role.offline_after, role.key_expiry_steps, role.alert) == (False, 1.0, (), "none")


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (RoleSettings(name="r", hosts=("WEB?",)), True),
        (RoleSettings(name="r", hosts=("web",)), False),
        (RoleSettings(name="r", hosts=("x", "web*")), True),
        (RoleSettings(name="r", tags=("tag:S*",)), True),
        (RoleSettings(name="r", tags=("tag:x",)), False),
        (RoleSettings(name="r", os=("macos",)), True),
        (RoleSettings(name="r", os=("DARWIN",)), True),
        (RoleSettings(name="r", os=("linux",)), False),
        (RoleSettings(name="r", users=("*@example.com",)), True),
        (RoleSettings(name="r", users=("bob@*",)), False),
        (RoleSettings(name="r", hosts=("web*",), tags=("tag:server",), os=("darwin",)), True),
        (RoleSettings(name="r", hosts=("web*",), tags=("tag:server",), os=("windows",)), False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(rule: RoleSettings, fits: bool) -> None:
    name = role_name("web1", Settings(roles=(rule,)), tags=("tag:a", "tag:server"), os="Darwin")
    assert (name == "r") == fits


def test_the_first_rule_that_matches_holds() -> None:
    rules = (RoleSettings(name="one", hosts=("git*",)), RoleSettings(name="two", hosts=("*",)))
    settings = Settings(roles=rules)
    assert [role_name(name, settings) for name in ("git1", "x")] == ["one", "two"]


def test_the_bare_substrings_of_the_docs(tmp_path: Path) -> None:
    """docs/configuration.md shows a table for those who want substrings: it does what it says."""
    block = next(part for part in DOCS.read_text("utf-8").split("```") if "*git*" in part)
    file = tmp_path / "tsmon.toml"
    file.write_text(block.removeprefix("toml"))
    settings = load(file, {}, {})
    names = ("digital-frame", "device-3", "chocolate-factory-1", "my-chocolate-factory", "laptop")
    assert [role_name(name, settings) for name in names] == ["git", "dev", "prod", "prod", "device"]
    assert Classifier(settings).critical_keys == {"git": "git", "dev": "development", "prod": "production"}
    assert Classifier(settings).role(facts("digital-frame")).node_type == "git"


@given(st.text(max_size=80), st.text(max_size=20), st.lists(st.text(max_size=20), max_size=3))
def test_every_name_has_exactly_one_role(hostname: str, glob: str, tags: list[str]) -> None:
    settings = Settings(roles=(RoleSettings(name="mine", hosts=(glob,)),))
    name = role_name(hostname, settings, tags=tuple(tags))
    assert name in {"mine", "git", "dev", "prod", "server", "device"}
    if name == "git":
        assert "git" in hostname.casefold()
    if name == "prod":
        assert "chocolate-factory" in hostname.casefold()
