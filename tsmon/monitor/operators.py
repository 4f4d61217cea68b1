"""What operators change: acknowledging, importing, reloading. Each is one step."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tsmon.base.clock import Clock
from tsmon.config import Settings
from tsmon.monitor.alerts import Alert
from tsmon.monitor.batch import Batch, Write
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger, own_event
from tsmon.monitor.state import Event


class Operators:
    """Commands that change what is known; every one leaves an `operator` event."""

    def __init__(self, clock: Clock, known: Known, ledger: Ledger) -> None:
        self._clock = clock
        self._known = known
        self._ledger = ledger

    async def acknowledge(self, alert_id: int, author: str, reason: str = "") -> Alert | None:
        """An operator takes care of an alert until it ends; None when none of that id is open."""
        known = self._known
        async with self._ledger.lock:
            alert = known.rules.book.acknowledge(alert_id, author, self._clock.now())
            if alert is None:
                return None
            known.acknowledged(alert)
            words = f"{author} acknowledged {alert.kind} of {alert.hostname or 'the monitor'}"
            words += f": {reason}" if reason else ""
            changes = known.rules.book.take()
            event = self._event(words, action="ack", alert_id=str(alert_id), author=author, reason=reason)
            await self._ledger.commit(Batch(), [event, *changes.events], changes)
            return alert

    async def noted(self, words: str, keep: Write, **details: Any) -> None:
        """An operator noted something; `keep` stores it in the step's transaction."""
        async with self._ledger.lock:
            await self._ledger.commit(Batch(also=[keep]), [self._event(words, action="note", **details)])

    async def imported(self, first_seen: Mapping[str, float], words: str) -> None:
        """Another monitor's samples became history. `first_seen` (Unix seconds by node ID) counts where it is
        older than what tsmon saw itself."""
        known = self._known
        async with self._ledger.lock:
            nodes = dict(known.view.nodes)
            older = [
                node for id_, node in nodes.items() if first_seen.get(id_, node.first_seen) < node.first_seen
            ]
            changed = [msgspec.structs.replace(node, first_seen=first_seen[node.id]) for node in older]
            known.renew(nodes=nodes | {node.id: node for node in changed})
            await self._ledger.commit(Batch(nodes=changed), [self._event(words, action="import")])

    async def reload(self, settings: Settings) -> None:
        """Apply new settings: roles act at once."""
        known = self._known
        async with self._ledger.lock:
            changed = known.apply(settings)
            changes = known.rules.roles_changed(known.view, self._clock.now())
            event = self._event("the configuration was reloaded", action="reload")
            await self._ledger.commit(Batch(nodes=changed), [event, *changes.events], changes)

    def _event(self, words: str, **details: Any) -> Event:
        return own_event(self._clock.wall(), "operator", "ok", words, **details)
