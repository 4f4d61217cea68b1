"""Which alerts a channel, a maintenance window or a silence is about. Pure."""

from collections.abc import Iterable

from tsmon.classify import Conditions, glob_pattern
from tsmon.config import MaintenanceSettings
from tsmon.monitor.alerts import Silence
from tsmon.monitor.state import Node


class Selector:
    """Shell globs, case ignored; all the kinds that are given must match. Without any it selects everything,
    the alerts about tsmon itself too; with one it selects nodes only."""

    def __init__(
        self,
        *,
        hosts: Iterable[str] = (),
        tags: Iterable[str] = (),
        os: Iterable[str] = (),
        users: Iterable[str] = (),
        roles: Iterable[str] = (),
    ) -> None:
        self._conditions = Conditions(hosts=hosts, tags=tags, os=os, users=users)
        self._roles = glob_pattern(roles)

    @property
    def selects_all(self) -> bool:
        return self._conditions.are_none and self._roles is None

    def selects(self, node: Node | None) -> bool:
        """`node` None: an alert about tsmon itself, or about a node that is no longer known."""
        if node is None:
            return self.selects_all
        role_fits = self._roles is None or self._roles.match(node.role.name.casefold()) is not None
        return role_fits and self._conditions.hold(node.facts)


def selector_of(given: MaintenanceSettings | Silence) -> Selector:
    """What a maintenance window or a silence selects."""
    return Selector(hosts=given.hosts, tags=given.tags, os=given.os, users=given.users, roles=given.roles)
