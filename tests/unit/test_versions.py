"""Versions: the document is generated, `make versions` tells what has ended, and the preflight warns."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.plugin_utils import versions
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES, defaults_of

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.docs import versions as script  # noqa: E402 - from the repository's root

TODAY = date(2026, 11, 26)


def software(name: str) -> versions.Software:
    return next(each for each in versions.load_software() if each["name"] == name)


def test_the_document_is_what_make_docs_writes() -> None:
    assert script.DOCUMENT.read_text() == script.document(), "docs/versions.md is stale: run `make docs`"


def test_every_version_of_a_role_is_in_the_data() -> None:
    pinned = {name for role in ROLES.iterdir() for name in defaults_of(role) if name.endswith("_version")}
    assert {each["variable"] for each in versions.load_software() if "variable" in each} == pinned


def test_the_table_has_what_the_roles_pin() -> None:
    rows = dict(line.split(" | ")[:2] for line in script.DOCUMENT.read_text().splitlines() if " | " in line)
    for each in versions.load_software():
        if "variable" in each:
            assert rows[f"| {each['name']}"] == str(defaults_of(ROLES / each["variable"][:-8])[each["variable"]])


def test_what_is_pinned_was_supported_on_the_day_of_the_check() -> None:
    checked = yaml.safe_load(versions.DATA.read_text())["checked"]
    assert script.problems(checked) == []
    # Only `make versions` fails because of today's date.
    for problem in script.problems(datetime.now(tz=timezone.utc).date()):
        warnings.warn(problem, stacklevel=1)


def test_make_versions_fails_once_a_line_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    (ended,) = (text for text in script.problems(date(2027, 5, 25)) if text.startswith("Grafana"))
    assert ended.startswith("Grafana 12.4.11 is past its end of support, 2027-05-24: pin a supported line")
    assert not any(text.startswith(("Grafana", "Promtail")) for text in script.problems(date(2027, 5, 24)))
    # An accepted one counts again when its time is over.
    assert any(text.startswith("Promtail") for text in script.problems(date(2027, 7, 1)))
    monkeypatch.setattr(versions, "default_of", lambda name: "12.4.3" if name == "grafana_version" else "0")
    assert any(text.startswith("Grafana 12.4.3 has CVE-2026-42129") for text in script.problems(TODAY))


def test_the_command_prints_the_problems_and_exits_accordingly(tmp_path: Path) -> None:
    late = tmp_path / "late.py"
    late.write_text(
        "import datetime, runpy, sys\n"
        "class Late(datetime.datetime):\n"
        "    now = classmethod(lambda *_, **__: datetime.datetime(2099, 1, 1))\n"
        "sys.path.insert(0, 'collections')\n"
        "import ansible_collections.logstead.platform.plugins.plugin_utils.versions\n"
        "datetime.datetime = Late\n"
        f"sys.argv = ['versions.py', 'check']\nrunpy.run_path({str(script.__file__)!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, late], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Grafana 12.4.11 is past its end of support" in result.stderr


@pytest.mark.parametrize(
    ("version", "end"),
    [("12.3.0", date(2026, 8, 19)), ("12.3.11+security-01", date(2026, 8, 19)), ("12.40.1", None), ("14.0.0", None)],
)
def test_a_line_is_told_by_whole_numbers(version: str, end: date | None) -> None:
    assert versions.end_of_support(software("Grafana"), version) == end


@pytest.mark.parametrize(
    ("version", "vulnerable"),
    [("12.4.3", True), ("12.4.11", False), ("13.0.1", True), ("13.2.2", False), ("9.0", False)],
)
def test_a_vulnerability_is_told_by_ranges_with_both_ends(version: str, vulnerable: bool) -> None:
    assert bool(versions.holes_of(software("Grafana"), version)) == vulnerable


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, []),
        ({"grafana_version": "12.4.11", "loki_version": "3.7.8"}, []),
        (
            {"grafana_version": "12.3.0"},
            ["its support ended on 2026-08-19", "CVE-2026-42129", "The default is 12.4.11"],
        ),
        ({"grafana_version": "12.4.2"}, ["CVE-2026-42129"]),
        ({"grafana_version": "13.2.3", "loki_version": "3.7.9"}, []),
        ({"loki_version": "3.5.7"}, ["its support ended on 2026-03-26", "CVE-2026-21726"]),
        ({"promtail_version": "3.5.11"}, []),
        ({"grafana_version": "nightly", "loki_version": ""}, []),
    ],
)
def test_the_preflight_warns_about_a_version_of_the_users(variables: dict[str, Any], said: list[str]) -> None:
    found = list(versions.override_warnings(variables, TODAY))
    assert len(found) == bool(said)
    assert all(text in found[0] for text in said)


def test_a_run_shows_the_warnings_of_the_preflight(tmp_path: Path) -> None:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    ours = {"one": {**local, "grafana_version": "12.3.0"}}
    inventory = {"all": {"children": {"grafana": {"hosts": ours}, "promtial": {"hosts": {"two": local}}}}}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"logstead.platform.preflight_check": None}]}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    result = subprocess.run(
        ["ansible-playbook", "-i", "inventory.yml", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"), "COLUMNS": "1000"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    assert "one: grafana_version is 12.3.0: its support ended on 2026-08-19" in output
    assert "two: the host is in the group promtial, which is unknown; did you mean promtail?" in output
    assert "two                        : ok=1 " in output
