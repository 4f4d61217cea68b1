"""Channels that are no longer configured: what they were notified of, for when they come back (rule 9.18)."""

from collections.abc import Iterable, Mapping

import msgspec

from tsmon.monitor.batch import Batch
from tsmon.notify.desk import Kept, Row
from tsmon.notify.line import give_up, meta_key
from tsmon.notify.stored import decoded


class Away:
    """By name; a channel that comes back within a day hears of the end of what it was notified of. What it
    had not been sent yet is old news, and given up."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._writes = Batch()

    @property
    def alerts(self) -> set[int]:
        """Alerts whose records are needed."""
        return {id_ for kept in self._kept.values() for id_ in kept.notified}

    def leave(self, name: str, text: str | None, rows: Iterable[Row], wall: float) -> None:
        """The channel is not in the settings (any more): `text` is what it kept, `rows` what waited."""
        self._writes.also += [give_up(row, "the channel was taken out") for row in rows]
        kept = decoded(text, Kept) if _is_of_messages(text) else None
        if kept is None:
            return
        if kept.left is None:
            kept = Kept(notified=kept.notified, left=wall)
            self._writes.meta[meta_key(name)] = msgspec.json.encode(kept).decode()
        self._kept[name] = kept

    def come_back(self, names: Iterable[str]) -> dict[str, str]:
        """What those of these names kept, that had left."""
        back = [name for name in names if name in self._kept]
        return {name: msgspec.json.encode(self._kept.pop(name)).decode() for name in back}

    def store(self, batch: Batch) -> None:
        """With the next step."""
        batch.also += self._writes.also
        batch.meta |= self._writes.meta
        self._writes = Batch()


def start_without(
    kept: Mapping[str, str], waiting: Mapping[str, list[Row]], here: Iterable[str], wall: float
) -> Away:
    """After a start: the channels that the last run knew and the settings do not."""
    away = Away()
    for name in sorted({*kept, *waiting} - set(here)):
        away.leave(name, kept.get(name), waiting.get(name, ()), wall)
    return away


def _is_of_messages(text: str | None) -> bool:
    """Alertmanager's states outlive it there: its channel goes on where it was."""
    return text is not None and "groups" in (decoded(text, dict) or {})
