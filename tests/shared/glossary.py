"""The glossary of CONTRIBUTING.md, and the phrases in a text that it avoids."""

from __future__ import annotations

import re
from collections.abc import Iterator

from support import REPOSITORY

GUIDE = REPOSITORY / "CONTRIBUTING.md"
GLOSSARY = re.compile(r"<!-- glossary: begin -->\n(.*?)<!-- glossary: end -->", re.DOTALL)
# Code, which includes quoted output.
CODE = re.compile(r"^ *```.*?^ *```|`[^`]+`", re.MULTILINE | re.DOTALL)


def glossary_rows() -> list[list[str]]:
    """Return the cells of the glossary: preferred term, phrases to avoid, note."""
    (table,) = GLOSSARY.findall(GUIDE.read_text())
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return rows[2:]


def checked_phrases() -> dict[str, str]:
    """Return the preferred term of each phrase that is checked."""
    rows = [(preferred, avoid) for preferred, avoid, note in glossary_rows() if re.match(r"checked\b", note)]
    return {phrase: preferred for preferred, avoid in rows for phrase in re.findall(r"`([^`]+)`", avoid)}


def blank(match: re.Match[str]) -> str:
    """Return a match without its text but with its lines, so that line numbers stay correct."""
    return "\n" * match[0].count("\n") or " "


def find_phrases(text: str) -> Iterator[str]:
    """Yield the line, the phrase and its replacement for each avoided phrase in a text's prose."""
    prose = CODE.sub(blank, GLOSSARY.sub(blank, text))
    for phrase, preferred in checked_phrases().items():
        words = r"[\s#>]+".join(re.escape(word) for word in phrase.split())  # a phrase may continue on the next line
        for match in re.finditer(rf"(?<![\w-]){words}(?![\w-])", prose, re.IGNORECASE):
            yield f"{prose.count(chr(10), 0, match.start()) + 1}: '{phrase}', better: {preferred}"
