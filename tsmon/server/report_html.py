"""The report as one HTML page without assets and scripts: to read, to mail and to print. Pure."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from itertools import groupby

from tsmon.base.text import length_words
from tsmon.server.report_answers import ReportAnswer
from tsmon.server.report_words import (
    FIGURES,
    figures,
    heading,
    moment,
    name,
    remarks,
    service_figures,
    why,
    worst_outages,
)

_MOST_NODES = 2000
_MOST_OUTAGES = 500
_WIDTH = 186
"""Of the picture of one node's days, in pixels."""
_DAYS = {
    "o": ("online", 6),
    "m": ("partly offline", 11),
    "x": ("offline", 16),
    "p": ("offline as planned", 11),
    "u": ("not seen", 2),
    "-": ("not there", 0),
}
"""Letter of a day -> what it means, and how high its bar is: the picture needs no colours."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --back: #fff; --dim: #57606a; --line: #d0d7de;
  --o: #2da44e; --m: #bf8700; --x: #cf222e; --p: #0969da; --u: #8c959f; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --dim: #9198a1;
  --line: #3d444d; --o: #3fb950; --m: #d29922; --x: #f85149; --p: #4493f8; --u: #656c76; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back);
  margin: 0 auto; padding: 1.5rem; max-width: 80rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; } thead th { color: var(--dim); }
td.n, th.n { text-align: right; white-space: nowrap; }
td.why, th[scope=row] { overflow-wrap: anywhere; }
svg { display: block; } .o { fill: var(--o); } .m { fill: var(--m); } .x { fill: var(--x); }
.p { fill: var(--p); } .u { fill: var(--u); }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; }
li { display: flex; gap: .4rem; align-items: center; }
@media print { @page { margin: 1.5cm; } body { padding: 0; max-width: none; font-size: 9pt;
  print-color-adjust: exact; } :root { color-scheme: light; --text: #000; --back: #fff; --dim: #444;
  --line: #bbb; } .wide { overflow: visible; } thead { display: table-header-group; }
  tr, li { break-inside: avoid; } h2 { break-after: avoid; } nav { display: none; } }
"""

POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: nothing but its own style."""


def report_html(answer: ReportAnswer, csv_link: str = "") -> bytes:
    """The page; `csv_link` is where the same report is CSV, "" leaves the link out."""
    title = f"Report of the tailnet, {heading(answer)}"
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>Report of the tailnet</h1><p>{escape(heading(answer))}</p>",
        *(f"<p>{escape(text)}</p>" for text in remarks(answer)),
        f'<p class="dim">As of {escape(moment(answer.as_of, answer))}.</p>',
    ]
    if csv_link:
        parts.append(f'<nav><a href="{escape(csv_link)}">The same as CSV</a></nav>')
    parts.append("<h2>Roles</h2>")
    parts += _table(
        ("role", "nodes", *FIGURES), 1, ((name(r.role), str(r.nodes), *figures(r)) for r in answer.roles)
    )
    if answer.services:
        parts.append("<h2>Services</h2>")
        parts += _table(
            ("service", "uptime", "seen", "offline", "outages"),
            1,
            (service_figures(service) for service in answer.services[:_MOST_NODES]),
        )
        parts.append(_more(len(answer.services), _MOST_NODES, "services"))
    parts.append("<h2>Nodes</h2>")
    parts += _nodes(answer)
    parts += _outages(answer)
    parts.append("</main></body></html>\n")
    return "".join(parts).encode()


def _nodes(answer: ReportAnswer) -> Iterable[str]:
    head = (_cell("th", text, number=n > 1) for n, text in enumerate(("node", "role", *FIGURES)))
    yield '<div class="wide" tabindex="0" role="region" aria-label="Nodes"><table><thead><tr>'
    yield "".join(head) + '<th scope="col">days</th></tr></thead><tbody>'
    for node in answer.nodes[:_MOST_NODES]:
        gone = " (removed)" if node.removed else ""
        yield f'<tr><th scope="row">{escape(name(node.hostname) + gone)}</th>'
        yield f"<td>{escape(name(node.role))}</td>"
        yield "".join(_cell("td", text, number=True) for text in figures(node))
        yield f"<td>{_picture(node.days)}</td></tr>"
    yield "</tbody></table></div>"
    yield _more(len(answer.nodes), _MOST_NODES, "nodes")
    yield "<ul>"
    for letter, (words, high) in _DAYS.items():
        if high:
            bar = f'<svg width="6" height="16" aria-hidden="true">{_bar(letter, 0, 6)}</svg>'
            yield f"<li>{bar}{words}</li>"
    yield "</ul>"


def _outages(answer: ReportAnswer) -> Iterable[str]:
    worst, total = worst_outages(answer, _MOST_OUTAGES)
    if not worst:
        yield "<h2>Outages</h2><p>None.</p>"
        return
    yield "<h2>Outages</h2>"
    yield from _table(
        ("node", "begin", "end", "length", "why"),
        9,
        (
            (
                name(node.hostname),
                moment(outage.start, answer),
                moment(outage.end, answer) if outage.end else "lasts",
                length_words(outage.duration_s),
                why(outage),
            )
            for node, outage in worst
        ),
    )
    yield _more(total, _MOST_OUTAGES, "outages")


def _picture(days: str) -> str:
    """The days as bars, runs of like days as one."""
    step = _WIDTH / max(1, len(days))
    words, bars, at = [], [], 0
    for letter, run in groupby(days):
        count = len(list(run))
        bars.append(_bar(letter, at * step, count * step))
        at += count
    for letter, (meaning, _) in _DAYS.items():
        count = days.count(letter)
        if count:
            words.append(f"{count} {'day' if count == 1 else 'days'} {meaning}")
    label = ", ".join(words)
    return f'<svg role="img" aria-label="{label}" width="{_WIDTH}" height="16">{"".join(bars)}</svg>'


def _bar(letter: str, x: float, width: float) -> str:
    high = _DAYS[letter][1]
    if not high:
        return ""
    return f'<rect class="{letter}" x="{x:.4g}" y="{16 - high}" width="{width:.4g}" height="{high}"/>'


def _table(head: Sequence[str], numbers_from: int, rows: Iterable[Sequence[str]]) -> Iterable[str]:
    label = f'aria-label="{head[0]}s"'
    yield f'<div class="wide" tabindex="0" role="region" {label}><table><thead><tr>'
    yield "".join(_cell("th", text, number=n >= numbers_from) for n, text in enumerate(head))
    yield "</tr></thead><tbody>"
    for first, *rest in rows:
        cells = (_cell("td", text, number=n >= numbers_from) for n, text in enumerate(rest, 1))
        yield f'<tr><th scope="row">{escape(first)}</th>{"".join(cells)}</tr>'
    yield "</tbody></table></div>"


def _cell(tag: str, text: str, *, number: bool) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    kind = ' class="n"' if number else ""
    return f"<{tag}{scope}{kind}>{escape(text)}</{tag}>"


def _more(total: int, shown: int, what: str) -> str:
    words = f"and {total - shown:,} more {what} (all nodes are in the CSV, all outages in the JSON)"
    return f"<p>{words}</p>" if total > shown else ""
