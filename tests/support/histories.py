"""Histories of one node, made up, on whole seconds."""

from hypothesis import strategies as st

from tsmon.history.uptime import Span

History = tuple[list[Span], list[tuple[int, int]], int]
"""Spans, observed stretches, first seen."""

LENGTH = 240


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Spans of a node that arrives, changes, is removed and returns; observed stretches; first seen."""
    cuts = sorted(draw(st.sets(st.integers(0, LENGTH), min_size=1, max_size=12)))
    spans = []
    for start, end in zip(cuts, [*cuts[1:], LENGTH + 50], strict=True):
        state = draw(st.sampled_from(["online", "offline", "unknown", None]))
        if state is not None:
            spans.append(Span(state, float(start), float(end)))
    marks = sorted(draw(st.lists(st.integers(0, LENGTH), max_size=12)))
    observed = [(a, b) for a, b in zip(marks[::2], marks[1::2], strict=False)]
    return spans, observed, cuts[0]
