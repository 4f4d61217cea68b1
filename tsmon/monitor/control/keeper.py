"""Takes the answers of the control server into what is known: each is one step, one batch, one new view."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tsmon.base.clock import Clock, Moment
from tsmon.base.threads import off_loop
from tsmon.config import ControlSettings
from tsmon.monitor.batch import Batch
from tsmon.monitor.control.drift import Drift, Settled, drift_event, remembered, settle
from tsmon.monitor.control.inventory import (
    Inventory,
    StoredInventory,
    ephemeral_ids,
    routers_of,
    source_of,
)
from tsmon.monitor.known import Known
from tsmon.monitor.ledger import Ledger
from tsmon.monitor.state import View
from tsmon.source.control.devices import Credential, Device, Listing

OTHER_TAILNET = (
    "it does not list this monitor's own node: the credential is one of another tailnet (control.token,"
    " control.url)"
)


class InventoryKeeper:
    """The one place where the inventory changes. What is noted of drift outlives the process; nothing is
    noted while the monitor does not see (rule 1.5)."""

    def __init__(self, settings: ControlSettings, clock: Clock, known: Known, ledger: Ledger) -> None:
        self._settings = settings
        self._clock = clock
        self._known = known
        self._ledger = ledger
        self._before: Mapping[str, Device] | None = None
        """The last answer, while the next one may be compared with it."""

    async def answered(self, listing: Listing) -> bool:
        """One good answer. True when the next one should come soon: it decides what counts."""
        async with self._ledger.lock:
            now = self._clock.now()
            view = self._known.view_at(now.mono)
            inventory = self._inventory
            if _is_of_another(listing, view):
                await self._refuse(now)
                return False
            devices = _merged(inventory.devices, listing)
            before, self._before = self._before, devices
            changed = msgspec.structs.replace(
                inventory,
                devices=devices,
                as_of=now.wall,
                error="",
                asked=True,
                unreadable=listing.unreadable,
                unreadable_named=listing.unreadable_named,
                routers=routers_of(devices.values()),
                down=_down(before, devices),
            )
            if view.blind is not None or not self._known.trusted:
                self._before = None
                await self._commit(now, changed)
                return self._known.baseline is None
            return await self._note(now, changed, before)

    async def _refuse(self, now: Moment) -> None:
        """The answer is another tailnet's: nothing of it stays, nor of one before the first look."""
        self._before = None
        noted = self._known.baseline or {}
        inventory = msgspec.structs.replace(
            self._inventory,
            devices=noted,
            as_of=self._inventory.as_of if noted else None,
            routers=routers_of(noted.values()),
            down=frozenset(),
            asked=True,
            error=OTHER_TAILNET,
        )
        await self._commit(now, inventory)

    async def failed(self, words: str) -> None:
        """A question without a usable answer: the inventory is frozen."""
        async with self._ledger.lock:
            self._before = None
            await self._commit(
                self._clock.now(), msgspec.structs.replace(self._inventory, asked=True, error=words)
            )

    async def note_credentials(self, credentials: tuple[Credential, ...] | None) -> None:
        """The credentials and their ends; None: the server does not say."""
        async with self._ledger.lock:
            changed = msgspec.structs.replace(self._inventory, credentials=credentials)
            await self._commit(self._clock.now(), changed)

    @property
    def _inventory(self) -> Inventory:
        return self._known.view.inventory or Inventory(kind=self._settings.kind)

    async def _note(self, now: Moment, inventory: Inventory, before: Mapping[str, Device] | None) -> bool:
        """What changed since the last time it was noted; the first answer is what later ones are compared
        with, and says nothing."""
        baseline = self._known.baseline
        if baseline is None:
            await self._commit(now, inventory, Settled(dict(inventory.devices), [], is_waiting=False))
            return False
        devices = inventory.devices
        settled = await off_loop(lambda: settle(baseline, before, devices), len(devices))
        await self._commit(now, inventory, settled)
        return settled.is_waiting

    async def _commit(self, now: Moment, inventory: Inventory, settled: Settled | None = None) -> None:
        known = self._known
        fields: dict[str, Any] = {"inventory": inventory, "now": now.wall}
        batch, drifts = Batch(), list[Drift]()
        if settled is not None:
            old, drifts = known.baseline or {}, settled.drifts
            known.baseline = settled.baseline
            batch.devices = [
                device for id_, device in settled.baseline.items() if not _is_stored(old.get(id_), device)
            ]
            batch.dropped_devices = list((old.keys() | known.leftover) - settled.baseline.keys())
            known.leftover = frozenset()
            stored = StoredInventory(source=source_of(self._settings), as_of=inventory.as_of)
            batch.meta["control"] = msgspec.json.encode(stored).decode()
            # One that is gone stays marked as long as the view speaks of it: its removal is yet to be judged.
            gone = known.view.ephemeral & (known.view.nodes.keys() | known.view.removed.keys())
            fields["ephemeral"] = ephemeral_ids(inventory.devices.values()) | gone
        known.renew(**fields)
        view = known.view
        events = [
            event
            for drift in drifts
            if (event := drift_event(drift, view.nodes, view.removed, now.wall)) is not None
        ]
        ruled = known.rules.look_at_control(known.control_step(now, tuple(drifts)))
        await self._ledger.commit(batch, [*events, *ruled.events], ruled)


def _is_of_another(listing: Listing, view: View) -> bool:
    """The monitor's own node, which every control server lists to whoever may ask it, is missing. IDs of
    headscale are small numbers: of two tailnets they are the same, the addresses are not."""
    own = view.nodes.get(view.self_id)
    if own is None or view.blind is not None or listing.unreadable:
        return False
    device = listing.devices.get(own.id)
    return device is None or not set(device.ips) & set(own.facts.ips)


def _merged(before: Mapping[str, Device], listing: Listing) -> dict[str, Device]:
    """The answer, with what it does not say as it was known. While rows cannot be read, one that is missing
    may be one of them."""
    devices = {
        id_: remembered(before[id_], device) if id_ in before else device
        for id_, device in listing.devices.items()
    }
    if listing.unreadable:
        devices = {**{id_: device for id_, device in before.items() if id_ not in devices}, **devices}
    return devices


def _down(before: Mapping[str, Device] | None, devices: Mapping[str, Device]) -> frozenset[str]:
    """Disconnected in both answers: for some seconds after its start a control server calls everybody so."""
    return frozenset(
        id_
        for id_, device in devices.items()
        if device.online is False and before is not None and id_ in before and before[id_].online is False
    )


_VOLATILE: dict[str, Any] = {"online": None, "last_seen": None}


def _is_stored(before: Device | None, device: Device) -> bool:
    """Nothing changed that is worth a write: who is connected changes all the time."""
    return before is not None and (
        before is device
        or msgspec.structs.replace(before, **_VOLATILE) == msgspec.structs.replace(device, **_VOLATILE)
    )
