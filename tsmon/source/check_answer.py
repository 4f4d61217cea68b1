"""What asking a port of a node gives, whichever way it is asked."""

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from tsmon.config.service_checks import ServiceCheck

CheckOutcome = Literal["ok", "refused", "no_answer", "bad_answer", "unknown"]
CHECK_TIMEOUT = 5.0
"""Seconds that one check may take."""


class CheckAnswer(msgspec.Struct, frozen=True):
    """What asking one port gave."""

    outcome: CheckOutcome
    """`unknown`: it could not be asked."""
    latency_ms: float | None = None
    """Until the connection stood, of a web check until the answer's head was there; of `ok` only."""
    detail: str = ""
    """What was seen, in words; cleaned and bounded."""
    lives: bool = False
    """The connection stood, or was refused: whoever has the address lives."""


Asker = Callable[[ServiceCheck, str, str], Awaitable[CheckAnswer]]
"""Asks a check of the node at an address; the last text is the name that its certificate must be for. At most
`CHECK_TIMEOUT` seconds; every failure is an outcome."""


class CannotAskError(Exception):
    """Ports of nodes cannot be asked from here, or this one not; nothing follows from it for the node. The
    text says why, and the remedy."""
