"""The language of the documents and the YAML: no phrase that CONTRIBUTING.md's glossary avoids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "CONTRIBUTING.md"
# Add a glob here to check more files. README.md of the roles is generated from their meta/.
GLOBS = ("*.md", "docs/**/*.md", "demo_app/*.md", "*.yml", "roles/**/*.yml", "playbooks/**/*.yml", "molecule/**/*.yml")
GLOSSARY = re.compile(r"<!-- glossary: begin -->\n(.*?)<!-- glossary: end -->", re.DOTALL)
# Code, which includes quoted output.
CODE = re.compile(r"^ *```.*?^ *```|`[^`]+`", re.MULTILINE | re.DOTALL)
# In YAML, the texts that are written to hosts: rewording them would change units and rules there.
WRITTEN = re.compile(r"^(?:description| +systemd_app_description| +runbook): .*", re.MULTILINE)


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


def text_of(path: Path) -> str:
    """Return the text of a file that is checked."""
    return WRITTEN.sub("", path.read_text()) if path.suffix == ".yml" else path.read_text()


def find_phrases(text: str) -> Iterator[str]:
    """Yield the line, the phrase and its replacement for each avoided phrase in a text's prose."""
    prose = CODE.sub(blank, GLOSSARY.sub(blank, text))
    for phrase, preferred in checked_phrases().items():
        words = r"[\s#>]+".join(re.escape(word) for word in phrase.split())  # a phrase may continue on the next line
        for match in re.finditer(rf"(?<![\w-]){words}(?![\w-])", prose, re.IGNORECASE):
            yield f"{prose.count(chr(10), 0, match.start()) + 1}: '{phrase}', better: {preferred}"


def test_the_glossary_has_complete_rows_and_phrases_to_check() -> None:
    assert all(len(row) == 3 and row[0] and row[1] for row in glossary_rows())
    assert len(checked_phrases()) >= 20


def test_the_documents_and_the_yaml_have_no_phrase_that_the_glossary_avoids() -> None:
    paths = sorted({path for pattern in GLOBS for path in REPOSITORY.glob(pattern)})
    assert {GUIDE, REPOSITORY / "roles/loki/tasks/main.yml", REPOSITORY / "playbooks/clean.yml"} <= set(paths)
    found = [f"{path.relative_to(REPOSITORY)}:{hit}" for path in paths for hit in find_phrases(text_of(path))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("The image can't be had.", ["1: 'be had'"]),
        ("First line.\n\nWho is\ntold?", ["3: 'who is told'"]),
        ("# What is asked\n# for.", ["1: 'asked for'"]),
        ("The message is `asked for`.\n\n```text\nlog-in\n```\n", []),
        ("Catalog-in and let inside.", []),
    ],
)
def test_phrases_are_found_across_lines_and_not_in_code(text: str, hits: list[str]) -> None:
    assert [hit.split(", better")[0] for hit in find_phrases(text)] == hits


def test_only_texts_that_are_written_to_hosts_are_left_out_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("description: log-in\n# log-in\n  description: log-in\n    runbook: log-in\n- name: log-in\n")
    assert [hit.split(":")[0] for hit in find_phrases(text_of(path))] == ["2", "3", "5"]
