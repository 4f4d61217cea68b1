"""What every source raises."""

from typing import Literal

SourceReason = Literal["source_unreachable", "source_timeout", "bad_document"]


class SourceError(Exception):
    """The source gave no answer that could be a status document; the text is one clean line."""

    def __init__(self, reason: SourceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
