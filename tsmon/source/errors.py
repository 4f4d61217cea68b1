"""What every source raises."""

from typing import Literal

import msgspec

SourceReason = Literal["source_unreachable", "source_timeout", "bad_document"]


class SourceError(Exception):
    """The source gave no answer that could be a status document; the text is one clean line."""

    def __init__(self, reason: SourceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""How msgspec refuses a text that is no JSON of the wanted form; the last for one nested too deeply."""
