"""What a node is for: hostname, tags, OS and owner -> role (section 5 of docs/rules.md). Pure."""

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Literal

import msgspec

from tsmon.config import RoleSettings, Settings
from tsmon.config.service_checks import ServiceCheck, read_checks
from tsmon.source.status import OS_LABELS, NodeFacts

NodeType = Literal["production", "development", "git", "other"]
Severity = Literal["ok", "warning", "critical"]


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is for and how it alerts."""

    name: str
    node_type: NodeType
    key: str
    """The role's key in `/critical`; "" for a role that is not critical."""
    critical: bool
    alert: Literal["none", "warning", "critical"]
    offline_after: float
    """Seconds of observed offline time before an outage alerts."""
    ping: bool
    key_expiry_steps: tuple[float, ...]
    """Seconds before the key's expiry at which an alert is sent, in falling order."""
    checks: tuple[ServiceCheck, ...] = ()
    may_ping: bool = True
    """False where the configuration says `ping = false`: not even a router is pinged then (rule 13.5)."""


class Classifier:
    """Maps a node to its role: the user's `[[roles]]` first, then the default table, first match wins."""

    def __init__(self, settings: Settings) -> None:
        self._rules = [(_conditions_of(rule), _role_of(rule, settings)) for rule in settings.roles]
        self._project = settings.project_name.casefold()
        defaults = {
            "git": ("git", "git", "warning"),
            "dev": ("development", "dev", "warning"),
            "prod": ("production", "prod", "critical"),
            "server": ("other", "", "warning"),
            "device": ("other", "", "none"),
        }
        self._defaults = {
            name: Role(
                name=name,
                node_type=node_type,  # type: ignore[arg-type]
                key=key,
                critical=bool(key),
                alert=alert,  # type: ignore[arg-type]
                offline_after=settings.offline_after,
                ping=bool(key),
                key_expiry_steps=settings.key_expiry_steps,
            )
            for name, (node_type, key, alert) in defaults.items()
        }
        self._has_table = settings.default_roles

    @property
    def critical_keys(self) -> dict[str, NodeType]:
        """Every key of `/critical` with its node type: the default table's and the user's."""
        table = self._defaults.values() if self._has_table else ()
        roles = [*table, *(role for _, role in self._rules)]
        return {role.key: role.node_type for role in roles if role.critical}

    def role(self, facts: NodeFacts) -> Role:
        """The role of a node. A machine shared in from another tailnet is a `device` whatever its name."""
        for conditions, role in self._rules:
            if conditions.hold(facts):
                return role
        if self._has_table and not facts.shared:
            name = self._critical_name(facts.hostname)
            if name:
                return self._defaults[name]
        return self._defaults["server" if facts.tags and not facts.shared else "device"]

    def _critical_name(self, hostname: str) -> str:
        words = _words(hostname)
        if "git" in words:
            return "git"
        if "dev" in words:
            return "dev"
        return "prod" if self._project and self._project in hostname.casefold() else ""


def _words(hostname: str) -> set[str]:
    """The words of a hostname, split at anything that is no letter or digit, trailing digits left out."""
    return {word.rstrip("0123456789") for word in re.split(r"[\W_]+", hostname.casefold()) if word}


def _role_of(rule: RoleSettings, settings: Settings) -> Role:
    steps = settings.key_expiry_steps if rule.key_expiry_steps is None else rule.key_expiry_steps
    return Role(
        name=rule.name,
        node_type=rule.node_type,
        key=(rule.key or rule.name) if rule.critical else "",
        critical=rule.critical,
        alert=rule.alert,
        offline_after=settings.offline_after if rule.offline_after is None else rule.offline_after,
        ping=rule.critical if rule.ping is None else rule.ping,
        key_expiry_steps=steps,
        checks=read_checks(rule.checks, "checks"),
        may_ping=rule.ping is not False,
    )


def _conditions_of(rule: RoleSettings) -> "Conditions":
    return Conditions(hosts=rule.hosts, tags=rule.tags, os=rule.os, users=rule.users)


class Conditions:
    """Shell globs over the facts of a node, case ignored, made ready: a tailnet of 10,000 nodes is classified
    at once. All the kinds that are given must match; without any everything does."""

    def __init__(
        self,
        *,
        hosts: Iterable[str] = (),
        tags: Iterable[str] = (),
        os: Iterable[str] = (),
        users: Iterable[str] = (),
    ) -> None:
        self._hosts = glob_pattern(hosts)
        self._tags = glob_pattern(tags)
        # Both spellings of an OS count: Tailscale's own (macOS) and the one that tsmon shows (Darwin).
        self._os = glob_pattern(_OS_NAMES.get(name.casefold(), name) for name in os)
        self._users = glob_pattern(users)

    @property
    def are_none(self) -> bool:
        return not (self._hosts or self._tags or self._os or self._users)

    def hold(self, facts: NodeFacts) -> bool:
        """All conditions that were given hold."""
        return (
            _fits(self._hosts, (facts.hostname,))
            and _fits(self._tags, facts.tags)
            and _fits(self._os, (facts.os,))
            and _fits(self._users, (facts.user,))
        )


_OS_NAMES = {name.casefold(): label for name, label in OS_LABELS.items() if name}


def glob_pattern(globs: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for all the globs, to be matched with case-folded texts; None when there are none."""
    texts = [translate(glob.casefold()) for glob in globs]
    return re.compile("|".join(texts)) if texts else None


def _fits(pattern: re.Pattern[str] | None, values: Iterable[str]) -> bool:
    return pattern is None or any(pattern.match(value.casefold()) for value in values)
