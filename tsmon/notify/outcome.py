"""What became of a message, and the health of a channel. Pure, time passed in."""

from typing import Any, NamedTuple

from tsmon.base.clock import Moment, rfc3339

FIRST_WAIT = 5.0
LONGEST_WAIT = 600.0
PARKED_WAIT = 3600.0
"""Seconds between two tries of a channel that refuses for good."""
FAILING_AFTER = 900.0
"""Seconds of failures after which the other channels are notified (rule 9.10)."""


class Outcome(NamedTuple):
    """What became of one try."""

    delivered: bool
    error: str = ""
    """One clean line without secrets."""
    refused: bool = False
    """Trying again changes nothing: somebody has to mend the settings first."""
    wait: float = 0.0
    """Seconds that the service asks to wait."""


DELIVERED = Outcome(True)


class ChannelHealth:
    """Whether a channel delivers, and when it may be tried again."""

    def __init__(self) -> None:
        self.last_success: float | None = None
        self.error = ""
        self.parked = False
        self.delivered = 0
        self.failed = 0
        """Tries since the start."""
        self.reported = False
        """The other channels were notified that it fails."""
        self._failing_since: float | None = None
        self._next_try = 0.0
        self._wait = FIRST_WAIT

    def note(self, outcome: Outcome, now: Moment) -> None:
        """One try ended so."""
        if outcome.delivered:
            self.delivered += 1
            self.last_success, self.error, self.parked, self.reported = now.wall, "", False, False
            self._failing_since, self._next_try, self._wait = None, 0.0, FIRST_WAIT
            return
        self.failed += 1
        self.error, self.parked = outcome.error, outcome.refused
        if self._failing_since is None:
            self._failing_since = now.mono
        wait = PARKED_WAIT if outcome.refused else max(self._wait, outcome.wait)
        self._next_try = now.mono + wait
        self._wait = min(3 * self._wait, LONGEST_WAIT)

    def pause(self, mono: float) -> float:
        """Seconds until the next try, 0 when it may be now."""
        return max(0.0, self._next_try - mono)

    def try_now(self) -> None:
        """An operator mended it."""
        self._next_try, self._wait = 0.0, FIRST_WAIT

    def is_worth_telling(self, mono: float) -> bool:
        """It fails for good, or for long, and nobody was notified yet."""
        if self.reported or self._failing_since is None:
            return False
        return self.parked or mono - self._failing_since >= FAILING_AFTER

    def readiness(self) -> dict[str, Any]:
        return {
            "last_success": rfc3339(self.last_success),
            "error": self.error or None,
            "parked": self.parked,
            "delivered": self.delivered,
            "failed": self.failed,
        }
