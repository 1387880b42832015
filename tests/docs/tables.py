"""Tables in Markdown, and where they stand in a document."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

Marks = tuple[str, str]


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows of a table, of which the second one is the rule below its head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(document: Path, marks: Marks, table: str) -> str:
    """Return a document with a fresh table between its marks."""
    begin, end = map(re.escape, marks)
    text = document.read_text()
    return re.sub(f"{begin}.*?{end}", lambda _: marks[0] + table + marks[1], text, count=1, flags=re.DOTALL)


def write_table(document: Path, marks: Marks, table: str) -> None:
    """Write a fresh table between a document's marks; exit if it has lost them."""
    if not all(mark in document.read_text() for mark in marks):
        sys.exit(f"{document} has lost the marks that the table stands between")
    document.write_text(with_table(document, marks, table))
