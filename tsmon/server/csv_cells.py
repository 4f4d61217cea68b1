"""Cells of CSV that no spreadsheet takes for a formula. Pure."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A cell that begins so is a formula to some spreadsheet, in East Asian ones also in full width."""


def cell(value: str | float | None) -> str:
    """The text of a cell; "" of None."""
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) else text
