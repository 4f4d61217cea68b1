"""The pages use the words of the field: some that tsmon once used for its own things stay out."""

import re
from pathlib import Path

import pytest

from tests.support.paths import DOCUMENTS, ROOT

STRANGE = re.compile(r"\b(?:told|rooms?|fares|anew|for\s+ever)\b", re.IGNORECASE)
"""Rather: notified or reported; module or package; works; again; always."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_strange_word_in_the_pages(path: Path) -> None:
    # Code is quoted as it is: a Matrix room is called `#room`.
    prose = re.sub(r"`[^`\n]*`", "", path.read_text())
    assert STRANGE.findall(prose) == []
