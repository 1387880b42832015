"""Promtail's positions: the two programs on the hosts that read them read the same, whatever is in the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from roles.logrotate.files import logstead_logs
from roles.promtail.files import promtail_resume

Reader = Callable[[Path], "dict[str, str] | None"]
READERS = [logstead_logs.read_positions, promtail_resume.read_positions]
LONG = "/" + "x" * 140

# What each file says; None is what isn't Promtail's.
FILES: dict[str, tuple[bytes, dict[str, str] | None]] = {
    "none yet": (b"positions: {}\n", {}),
    "nothing behind the head": (b"positions:\n", {}),
    "a quoted number": (b'positions:\n  /a.log: "12"\n', {"/a.log": "12"}),
    "a number in single quotes": (b"positions:\n  /a.log: '12'\n", {"/a.log": "12"}),
    "a bare number": (b"positions:\n  /a.log: 12\n", {"/a.log": "12"}),
    "no value": (b'positions:\n  /a.log: ""\n', {"/a.log": ""}),
    "a text for a number": (b'positions:\n  /a.log: "many"\n', {"/a.log": "many"}),
    "a cursor of the journal": (b"positions:\n  cursor-journal: s=1;i=2;b=3\n", {"cursor-journal": "s=1;i=2;b=3"}),
    "quoted keys": (
        b'positions:\n  \'/it\'\'s: b\': "1"\n  "/b\\"\\t\\x01\\e\\u00e9": "2"\n',
        {"/it's: b": "1", '/b"\t\x01\x1b\u00e9': "2"},
    ),
    "a long key": (f'positions:\n  ? {LONG}\n  : "7"\n  /b: "8"\n'.encode(), {LONG: "7", "/b": "8"}),
    "an empty file": (b"", None),
    "NUL bytes": (b"\0" * 200, None),
    "NUL bytes behind the head": (b"positions:\n" + b"\0" * 200, None),
    "cut within a value": (b'positions:\n  /a: "5', None),
    "cut behind a long key": (f"positions:\n  ? {LONG}\n".encode(), None),
    "two long keys": (f'positions:\n  ? {LONG}\n  ? {LONG}\n  : "7"\n'.encode(), None),
    "no YAML": (b"positions:\n  /a\n", None),
    "no UTF-8": (b"positions:\n\xff", None),
    "another head": (b'offsets:\n  /a: "5"\n', None),
    "a list": (b'positions:\n  - /a: "5"\n', None),
    "a number for all": (b"positions: 5\n", None),
    "a list for a number": (b"positions:\n  /a: [5]\n", None),
    "a mapping for a number": (b"positions:\n  /a:\n    b: 5\n", None),
    "another indent": (b'positions:\n    /a: "5"\n', None),
}


@pytest.mark.parametrize("read", READERS, ids=["logstead_logs", "promtail_resume"])
@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_both_programs_read_positions_alike(
    tmp_path: Path, read: Reader, content: bytes, expected: dict[str, str] | None
) -> None:
    path = tmp_path / "positions.yaml"
    path.write_bytes(content)
    assert read(path) == expected


@pytest.mark.parametrize("read", READERS, ids=["logstead_logs", "promtail_resume"])
def test_a_file_that_is_not_there_is_no_fault_and_one_that_cannot_be_read_is(tmp_path: Path, read: Reader) -> None:
    assert read(tmp_path / "positions.yaml") == {}
    assert read(tmp_path) is None


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_what_is_read_is_what_yaml_says(content: bytes, expected: dict[str, str] | None) -> None:
    if expected is not None:
        positions = yaml.load(content, yaml.BaseLoader)["positions"] or {}  # noqa: S506 - it makes nothing but texts
        assert positions == expected


@pytest.mark.parametrize(
    ("value", "offset"),
    [("12", 12), ("0", 0), ("", None), ("many", None), ("-1", None), ("1.5", None), ("\u00b2", None)],
)
def test_only_a_number_is_an_offset(value: str, offset: int | None) -> None:
    assert logstead_logs.position_of(Path("/a.log"), {"/a.log": value}) == offset
