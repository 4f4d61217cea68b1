"""Words for people, and texts of strangers made harmless."""

import unicodedata


def clean_text(text: str, limit: int = 253) -> str:
    """`text` without control, format (RTL marks, zero-width), surrogate and private characters, at most
    `limit` characters: nothing in it can move a cursor, end a line or turn the reading direction."""
    text = text[: limit * 4]
    if text.isascii() and text.isprintable():
        return text[:limit]
    kept = (
        " " if unicodedata.category(c)[0] == "Z" else c for c in text if unicodedata.category(c)[0] != "C"
    )
    return "".join(kept).strip()[:limit]


def counted(number: int, word: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def length_words(seconds: float) -> str:
    """A length of time as people say it: `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    large, small, names = (
        (whole // 3600, whole % 3600 // 60, ("h", "min"))
        if whole < 86400
        else (whole // 86400, whole % 86400 // 3600, ("d", "h"))
    )
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")
