"""What a control server's API raises."""

from typing import Literal

ControlFault = Literal[
    "unreachable", "timeout", "unauthorized", "forbidden", "not_found", "throttled", "bad_answer"
]


class ControlError(Exception):
    """There is no usable answer; the text is one clean line with the remedy, and never a secret."""

    def __init__(self, fault: ControlFault, message: str, wait: float = 0.0) -> None:
        """`wait`: seconds for which the server asks to be left alone."""
        super().__init__(message)
        self.fault = fault
        self.wait = wait
