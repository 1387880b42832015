"""manage.sh and what its playbooks are made of, without a host: which command is run, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.logstead.platform.plugins.modules import component_status as status
from ansible_collections.logstead.platform.plugins.plugin_utils.components import find_component

REPOSITORY = Path(__file__).parents[2]
VERBS = ["start", "stop", "restart", "status", "logs", "doctor", "clean"]
COMPONENTS = ["node-exporter", "alertmanager", "prometheus", "loki", "gateway", "promtail", "grafana", "demo-app"]
GROUPS = [component.replace("-", "_") for component in COMPONENTS]


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
        ([], "a verb is required"),
        (["burn"], "unknown verb burn; available: start stop"),
        (["start", "kafka"], "unknown component kafka; available: node-exporter alertmanager prometheus loki"),
        (["start", "loki", "grafana"], "unexpected argument grafana"),
        (["start", "-e", "moon"], "unknown environment moon; available: demo dev prod staging"),
        (["start", "-e", "../playbooks"], "unknown environment ../playbooks"),
        (["start", "-e", ""], "-e requires a value"),
        (["start", "-e"], "-e requires a value"),
        (["start", "-i", "/none"], "inventory /none does not exist"),
        (["start", "-i", "/", "-e", "dev"], "--env and --inventory are mutually exclusive"),
        (["start", "--yes"], "--yes is only valid with clean, not with start"),
        (["logs", "-n", "many"], "-n requires a positive integer, not many"),
        (["doctor", "loki"], "doctor takes no component (loki)"),
        (["start", "--fast"], "unknown option --fast"),
    ],
)
def test_what_makes_no_sense_is_refused(path_with_ansible: str, words: list[str], message: str) -> None:
    run = manage(path_with_ansible, *words)
    assert run.returncode == 64
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


def rendered(name: str, variables: dict[str, Any]) -> Any:
    """Return a variable as Ansible works it out."""
    templar = Templar(DataLoader(), trusted(variables))
    return templar.template(trusted(f"{{{{ {name} }}}}"))


def trusted(value: Any) -> Any:
    """Return a value whose texts may be templates, as those of files are."""
    if isinstance(value, dict):
        return {name: trusted(each) for name, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value


def test_clean_lists_all_that_the_role_removes() -> None:
    variables = yaml.safe_load((REPOSITORY / "roles/systemd_app/vars/main.yml").read_text())
    removed = {
        path
        for name in ("loki", "demo-app")
        for path in rendered("__systemd_app_removed_paths", {**variables, "systemd_app_name": name})
    }
    listed = [path for name in ("loki", "demo_app") for path in find_component(name).program_paths]
    assert {"/opt/loki", "/etc/systemd/system/demo-app.service"} <= removed
    assert (set(listed), len(listed)) == (removed, len(removed))


@pytest.fixture(scope="module")
def cleaner(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bool]:
    """What runs clean.yml, with roles that only say that they were called, and tells whether one was."""
    folder = tmp_path_factory.mktemp("clean")
    collection = folder / "collections/ansible_collections/logstead/platform"
    collection.mkdir(parents=True)
    (collection / "plugins").symlink_to(REPOSITORY / "plugins")
    for role in ("systemd_app", "logrotate"):
        tasks = collection / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        called = {"ansible.builtin.file": {"path": f"{folder}/called", "state": "touch", "mode": "0600"}}
        (tasks / "remove.yml").write_text(yaml.safe_dump([called]))
    (folder / "du").write_text("#!/bin/sh\nprintf '4K\\t/opt/loki\\n'\n")
    (folder / "du").chmod(0o755)
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"children": {"loki": {"hosts": {"here": host}}}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{folder}/collections",
        "ANSIBLE_LOCAL_TEMP": f"{folder}/tmp",
    }

    def clean(*arguments: str) -> bool:
        (folder / "called").unlink(missing_ok=True)
        command = ["ansible-playbook", "-i", f"{folder}/hosts.yml", f"{REPOSITORY}/playbooks/clean.yml"]
        run = subprocess.run(
            [*command, "-e", "ansible_become=false", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "PLAY RECAP" in run.stdout, run.stderr
        return (folder / "called").exists()

    return clean


def test_clean_removes_once_it_is_agreed(cleaner: Callable[..., bool]) -> None:
    assert cleaner("-e", "{clean_confirmed: true}")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--skip-tags", "always"],
        [
            "--start-at-task",
            "Remove each component",
            "-e",
            "{components: [{name: loki, data: [], programs: []}], clean_has_work: true}",
        ],
    ],
    ids=["nobody to ask", "without what always runs", "begun behind the question"],
)
def test_clean_removes_nothing_without_a_yes(cleaner: Callable[..., bool], arguments: list[str]) -> None:
    assert not cleaner(*arguments)


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
