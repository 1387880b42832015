"""manage.sh and what its playbooks are made of, without a host: which command is run, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.modules import component_status as status

REPOSITORY = Path(__file__).parents[2]
VERBS = ["start", "stop", "restart", "status", "logs", "doctor", "clean"]
COMPONENTS = ["loki", "gateway", "promtail", "grafana", "demo-app", "prometheus", "alertmanager", "node-exporter"]


@pytest.fixture
def path_with_ansible(tmp_path: Path) -> str:
    """A PATH whose ansible-playbook only says where and how it was called."""
    program = tmp_path / "ansible-playbook"
    program.write_text('#!/bin/sh\npwd\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def manage(path: str, *words: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "manage.sh"), *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


def command_of(path: str, *words: str, cwd: str = "/") -> list[str]:
    """Return the arguments that ansible-playbook gets, having checked that it runs at the repository's root."""
    run = manage(path, *words, cwd=cwd)
    assert run.returncode == 0, run.stderr
    folder, *arguments = run.stdout.splitlines()
    assert folder == str(REPOSITORY)
    return arguments


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_runs_the_playbook_of_its_name(path_with_ansible: str, verb: str) -> None:
    assert command_of(path_with_ansible, verb) == ["--inventory", "inventories/dev", f"playbooks/{verb}.yml"]
    assert (REPOSITORY / "playbooks" / f"{verb}.yml").is_file()


@pytest.mark.parametrize("component", [*COMPONENTS, "demo_app"])
def test_a_component_may_be_named(path_with_ansible: str, component: str) -> None:
    expected = ["--extra-vars", f"component={component.replace('_', '-')}"]
    assert command_of(path_with_ansible, "stop", component)[3:] == expected


@pytest.mark.parametrize("environment", ["dev", "staging", "prod", "demo"])
def test_an_environment_is_a_folder_of_inventories(path_with_ansible: str, environment: str) -> None:
    assert command_of(path_with_ansible, "status", "-e", environment)[1] == f"inventories/{environment}"


def test_options_may_stand_anywhere_and_the_rest_goes_to_ansible(path_with_ansible: str) -> None:
    words = ["-l", "web 1", "logs", "-n", "5", "loki", "--", "-e", "a=b", "--check"]
    expected = ["--limit", "web 1", "--extra-vars", "logs_lines=5", "--extra-vars", "component=loki"]
    assert command_of(path_with_ansible, *words)[3:] == [*expected, "-e", "a=b", "--check"]


def test_inventories_are_found_from_where_the_user_is(path_with_ansible: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").touch()
    arguments = command_of(path_with_ansible, "status", "-i", "hosts.yml", "-i", str(tmp_path), cwd=str(tmp_path))
    assert arguments[:4] == ["--inventory", str(tmp_path / "hosts.yml"), "--inventory", str(tmp_path)]


def test_clean_is_told_what_it_may(path_with_ansible: str) -> None:
    arguments = command_of(path_with_ansible, "clean", "--yes", "--with-data")
    assert arguments[3:] == ["--extra-vars", "{clean_confirmed: true}", "--extra-vars", "{clean_data: true}"]


def test_it_may_be_called_through_a_link(path_with_ansible: str, tmp_path: Path) -> None:
    (tmp_path / "manage").symlink_to(REPOSITORY / "manage.sh")
    run = subprocess.run(
        [tmp_path / "manage", "status"], env={**os.environ, "PATH": path_with_ansible}, capture_output=True, check=True
    )
    assert run.stdout.decode().splitlines()[0] == str(REPOSITORY)


def test_help_names_every_verb_and_component(path_with_ansible: str) -> None:
    run = manage(path_with_ansible, "-h")
    assert run.returncode == 0
    assert all(re.search(rf"^  {verb} ", run.stdout, re.MULTILINE) for verb in VERBS)
    assert ", ".join(COMPONENTS) in run.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to do"),
        (["burn"], "unknown verb burn; there are: start stop"),
        (["start", "kafka"], "unknown component kafka; there are: loki gateway promtail grafana demo-app"),
        (["start", "loki", "grafana"], "not also grafana"),
        (["start", "-e", "moon"], "unknown environment moon; there are: demo dev prod staging"),
        (["start", "-e", "../playbooks"], "unknown environment ../playbooks"),
        (["start", "-e", ""], "-e needs a value"),
        (["start", "-e"], "-e needs a value"),
        (["start", "-i", "/none"], "there is no inventory /none"),
        (["start", "-i", "/", "-e", "dev"], "not both"),
        (["start", "--yes"], "--yes is an option of clean, not of start"),
        (["logs", "-n", "many"], "-n needs a number, not many"),
        (["doctor", "loki"], "doctor looks at the whole way"),
        (["start", "--fast"], "unknown option --fast"),
    ],
)
def test_what_makes_no_sense_is_refused(path_with_ansible: str, words: list[str], message: str) -> None:
    run = manage(path_with_ansible, *words)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stdout == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_is_clean() -> None:
    subprocess.run(["shellcheck", REPOSITORY / "manage.sh"], check=True)


# --- clean can't be reached by accident ---


def read(path: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = yaml.safe_load(path.read_text())
    return content


def test_no_playbook_leads_to_clean() -> None:
    playbooks = [REPOSITORY / "site.yml", *(REPOSITORY / "playbooks").glob("*.yml")]
    imported = [play.get("import_playbook", "") for path in playbooks for play in read(path)]
    assert not [name for name in imported if "clean" in name]


def test_clean_has_no_tag_that_could_leave_its_question_out() -> None:
    assert "tags" not in [key for play in read(REPOSITORY / "playbooks/clean.yml") for key in play]
    for play in read(REPOSITORY / "playbooks/clean.yml"):
        assert not [task for task in play["tasks"] if "tags" in task]
        assert play["tasks"][-1]["when"][0] == "clean_is_agreed or ansible_check_mode"


def test_clean_lists_all_that_the_role_removes() -> None:
    removed = yaml.safe_load((REPOSITORY / "roles/systemd_app/vars/main.yml").read_text())[
        "__systemd_app_removed_paths"
    ]
    variables = yaml.safe_load((REPOSITORY / "roles/systemd_app/vars/main.yml").read_text())
    paths = []
    for path in removed:
        name = re.fullmatch(r"\{\{ (\w+) \}\}", path)
        paths.append((variables[name[1]] if name else path).replace("systemd_app_name", "name"))
    (play,) = read(REPOSITORY / "playbooks/clean.yml")
    for path in paths:
        assert path in play["vars"]["clean_program_paths"]
    assert play["vars"]["clean_program_paths"].count("/etc/") + 3 == len(paths)


# --- status ---

RUNNING = {"LoadState": "loaded", "ActiveState": "active"}


@pytest.mark.parametrize(
    ("shown", "ready", "state"),
    [
        (RUNNING, True, "running"),
        (RUNNING, False, "not ready"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, False, "not installed"),
        ({"LoadState": "loaded", "ActiveState": "inactive"}, False, "stopped"),
        ({"LoadState": "loaded", "ActiveState": "failed", "Result": "exit-code"}, False, "failed (exit-code)"),
        ({"ActiveState": "activating", "NRestarts": "4", "Result": "oom-kill"}, False, "restarting (try 4: oom-kill)"),
        ({}, False, "unknown"),
    ],
)
def test_states_are_words(shown: dict[str, str], ready: bool, state: str) -> None:
    assert status.state_of(shown, ready) == state
    assert bool(status.problems_of([("x", state)])) == (state != "running")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("[not set]", "-"),
        ("", "-"),
        (str(2**64 - 1), "-"),
        ("512", "512 B"),
        (70 * 2**20, "70 MiB"),
        (2**31, "2.0 GiB"),
    ],
)
def test_sizes_are_for_people(number: str | int, text: str) -> None:
    assert status.human_size(number) == text


def test_columns_are_aligned() -> None:
    assert status.table_of([("A", "STATE", "X"), ("longer", "b", "c")]) == "A       STATE  X\nlonger  b      c"


def test_the_version_is_where_current_points_to(tmp_path: Path) -> None:
    (tmp_path / "loki").mkdir()
    (tmp_path / "loki" / "current").symlink_to("3.7.8")
    assert status.version_of("loki", str(tmp_path)) == "3.7.8"
    assert status.version_of("none", str(tmp_path)) == "-"


def test_disk_use_counts_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10000)
    assert status.disk_use([str(tmp_path), "/none"]) >= 10000
