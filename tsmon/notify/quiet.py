"""When messages are held back: maintenance windows (configured) and silences (given by command). Pure."""

from collections.abc import Iterable

from tsmon.config import MaintenanceSettings
from tsmon.config.windows import window_end
from tsmon.monitor.alerts import Alert, Silence
from tsmon.monitor.selection import Selector, selector_of
from tsmon.monitor.state import Node


class Quiet:
    """Everything that holds messages back (rule 9.7)."""

    def __init__(self, windows: Iterable[MaintenanceSettings] = (), silences: Iterable[Silence] = ()) -> None:
        self.silences: dict[int, Silence] = {silence.id: silence for silence in silences}
        self._selectors = {silence.id: selector_of(silence) for silence in self.silences.values()}
        self._windows: list[tuple[MaintenanceSettings, Selector]] = []
        self.configure(windows)

    def configure(self, windows: Iterable[MaintenanceSettings]) -> None:
        """The maintenance windows of the (changed) settings."""
        self._windows = [(window, selector_of(window)) for window in windows]

    def add(self, silence: Silence) -> None:
        self.silences[silence.id] = silence
        self._selectors[silence.id] = selector_of(silence)

    def remove(self, silence_id: int) -> Silence | None:
        """None when there is none of that id."""
        self._selectors.pop(silence_id, None)
        return self.silences.pop(silence_id, None)

    def take_expired(self, now: float) -> list[Silence]:
        """The silences that ended before `now` (Unix seconds); they are forgotten."""
        expired = [silence for silence in self.silences.values() if silence.ends <= now]
        for silence in expired:
            self.remove(silence.id)
        return expired

    def until(self, alert: Alert, node: Node | None, now: float) -> float | None:
        """Unix seconds until which the messages of `alert` are held back, None when they are not. `node` is
        the alert's node, None for an alert about tsmon itself."""
        ends: list[float] = []
        for silence in self.silences.values():
            hit = silence.alert == alert.id if silence.alert is not None else self._selects(silence, node)
            if hit and silence.created <= now < silence.ends:
                ends.append(silence.ends)
        for window, selector in self._windows:
            end = window_end(window, now) if selector.selects(node) else None
            if end is not None:
                ends.append(end)
        return max(ends, default=None)

    def _selects(self, silence: Silence, node: Node | None) -> bool:
        return self._selectors[silence.id].selects(node)
