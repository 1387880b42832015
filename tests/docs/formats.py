"""Write the table of docs/formats.md from the formats that come with the platform."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.logstead.platform.plugins.plugin_utils.formats import (  # noqa: E402 - from the collection
    Row,
    default_formats,
    fields_of,
)

from tests.docs.tables import markdown_table, with_table, write_table  # noqa: E402 - from the repository's root

DOCUMENT = REPOSITORY / "docs/formats.md"
MARKS = ("<!-- made by `make docs` from formats.yml: begin -->\n", "<!-- end -->\n")
LONGEST_SAMPLE = 110


def sample_of(row: Row) -> str:
    """Return the first line of a row's sample, shortened, as code in a table."""
    line = str(row["sample"]).split("\n")[0].replace("|", "\\|")
    return f"`{line if len(line) <= LONGEST_SAMPLE else line[:LONGEST_SAMPLE] + '…'}`"


def line_of(name: str, row: Row) -> list[str]:
    """Return the cells of a format."""
    fields = fields_of(row)
    has_level = bool(fields & {"level", "level_in_any_case", "priority", "line"}) or bool(row.get("container"))
    return [
        f"`{name}`",
        f"{row['about']}: {sample_of(row)}",
        "yes" if row.get("first_line") else "",
        "its own" if row.get("layouts") else "of reading",
        "yes" if has_level else "",
        ", ".join(f"`{field}`" for field in row.get("metadata") or []),
    ]


def table() -> str:
    """Return the table in Markdown."""
    lines = [["format", "software and sample", "joins lines", "time", "level", "structured metadata"], ["---"] * 6]
    lines += [line_of(name, row) for name, row in sorted(default_formats().items())]
    return markdown_table(lines)


def document() -> str:
    """Return the document with a fresh table in it."""
    return with_table(DOCUMENT, MARKS, table())


if __name__ == "__main__":
    write_table(DOCUMENT, MARKS, table())
