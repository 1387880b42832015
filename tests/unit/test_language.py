"""The language of the documents and the YAML: no phrase that CONTRIBUTING.md's glossary avoids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from glossary import GUIDE, checked_phrases, find_phrases, glossary_rows

REPOSITORY = Path(__file__).resolve().parents[2]
# Add a glob here to check more files. README.md of the roles is generated from their meta/.
GLOBS = ("*.md", "docs/**/*.md", "demo_app/*.md", "*.yml", "roles/**/*.yml", "playbooks/**/*.yml", "molecule/**/*.yml")
# In YAML, the texts that are written to hosts: rewording them would change units and rules there.
WRITTEN = re.compile(r"^(?:description| +systemd_app_description| +runbook): .*", re.MULTILINE)


def text_of(path: Path) -> str:
    """Return the text of a file that is checked."""
    return WRITTEN.sub("", path.read_text()) if path.suffix == ".yml" else path.read_text()


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
