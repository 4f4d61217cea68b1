"""A badge for a page elsewhere: a node's state and uptime as a small SVG. Pure."""

from html import escape

from tsmon.base.text import clean_text

_COLOURS = {"online": "#2e7d32", "offline": "#c62828", "unknown": "#5f6368"}
_LETTER = 6.6
"""Width of a letter in pixels, about: the text is fitted to its field."""
_LONGEST = 63


def badge(hostname: str, state: str, uptime: float | None) -> bytes:
    """`uptime` of the last 24 h, 0 to 100, None: nothing was observed. The name is cleaned and escaped."""
    name = clean_text(hostname, _LONGEST)
    words = state if uptime is None else f"{state} · {uptime:g} %"
    left, right = (round(len(text) * _LETTER) + 12 for text in (name, words))
    label = escape(f"{name}: {words}")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}"
 width="{left + right}" height="20">
<title>{label}</title>
<rect width="{left + right}" height="20" rx="3" fill="#3c4043"/>
<rect x="{left}" width="{right}" height="20" rx="3" fill="{_COLOURS[state]}"/>
<rect x="{left}" width="4" height="20" fill="{_COLOURS[state]}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="6" y="14" textLength="{left - 12}" lengthAdjust="spacingAndGlyphs">{escape(name)}</text>
<text x="{left + 6}" y="14" textLength="{right - 12}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>
</g>
</svg>
""".encode()
