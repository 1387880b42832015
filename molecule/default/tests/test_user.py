"""A user's folder: an inventory outside the checkout, the installed collection, and a component of the user's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import REPOSITORY, eventually, journal, samples

NAME = "default-debian12"
GROUPS = ("loki", "promtail", "grafana", "demo_app", "prometheus", "alertmanager", "node_exporter")
TOY = REPOSITORY / "molecule/default/files/toy"
Play = Callable[..., tuple[int, str]]


def run(folder: Path, *command: str) -> tuple[int, str]:
    """Run a command in a folder; return the exit code and all that it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_PRIVATE_KEY_FILE": f"{os.environ['LOGSTEAD_CACHE']}/ssh/id_ed25519", "NO_COLOR": "1"}
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )
    return result.returncode, result.stdout


def install(user: Path, source: Path) -> None:
    """Build the collection of a checkout, and install it for a user, as from Galaxy or a release's page."""
    code, output = run(source, "ansible-galaxy", "collection", "build", "--force", "--output-path", str(user / "dist"))
    assert code == 0, output
    (archive,) = (user / "dist").glob("*.tar.gz")
    words = ("ansible-galaxy", "collection", "install", "--force", "-p", str(user / "collections"))
    code, output = run(user, *words, str(archive))
    assert code == 0, output
    archive.unlink()


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with an inventory, an ansible.cfg and the installed collection, and nothing else."""
    folder = tmp_path_factory.mktemp("user")
    # What group_vars/dev of the checkout chooses, so that a run from here changes nothing.
    chosen = yaml.safe_load((REPOSITORY / "group_vars/dev/main.yml").read_text())
    scenario = yaml.safe_load((REPOSITORY / "molecule/default/inventory/hosts.yml").read_text())
    own = scenario["all"]["children"]["dev"]["hosts"][NAME]
    host = {
        "ansible_host": "10.89.77.61",
        "ansible_user": "root",
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        **{name: value for name, value in own.items() if name.startswith("platform_")},
        "platform_runtime": os.environ.get("RUNTIME") or "systemd",
        **chosen,
    }
    groups = {group: {"hosts": {NAME: None}} for group in GROUPS}
    inventory = {"all": {"children": {"dev": {"hosts": {NAME: host}}, **groups}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (folder / "ansible.cfg").write_text(
        "[defaults]\ncollections_path = collections\nroles_path = roles\ninventory = inventory.yml\n"
        "[ssh_connection]\npipelining = true\n"
    )
    install(folder, REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def play(user: Path) -> Play:
    """What runs a playbook in the user's folder."""
    return lambda playbook, *words, **variables: run(
        user, "ansible-playbook", playbook, *words, "--extra-vars", json.dumps(variables)
    )


def changes(output: str) -> int:
    """Return how many tasks have changed something, as the recap says."""
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def test_the_installed_collection_does_what_the_checkout_does(play: Play) -> None:
    code, output = play("logstead.platform.site")
    assert code == 0, output
    assert changes(output) == 0, output
    code, output = play("logstead.platform.status")
    assert code == 0, output
    assert re.search(r"loki +running", output)


def test_the_doctor_works_with_an_inventory_of_ones_own(play: Play) -> None:
    code, output = play("logstead.platform.doctor")
    assert code == 0, output
    assert "every step that was taken works" in output


@pytest.mark.parametrize(
    ("inventory", "said"),
    [
        ({"all": {"hosts": {NAME: None}}}, "no host of the inventory is in a group of the platform"),
        (
            {"all": {"children": {"loki": {"hosts": {NAME: None}}, "promtial": {"hosts": {NAME: None}}}}},
            "the group promtial, which is unknown; did you mean promtail?",
        ),
        (
            {"all": {"children": {"loki": {"hosts": {NAME: {"logrotate_rules": []}}}}}},
            "logrotate_rules is no longer read: give each log of platform_logs its rotation",
        ),
        (
            {
                "all": {
                    "hosts": {
                        NAME: {"platform_logs_a": {"x": {"path": "/x"}}, "platform_logs_b": {"x": {"path": "/y"}}}
                    },
                    "children": {"promtail": {"hosts": {NAME: None}}},
                }
            },
            "both have x, and differ",
        ),
    ],
    ids=["no group of ours", "misspelt group", "old name", "one log claimed twice"],
)
def test_bad_input_is_named(user: Path, host: Any, inventory: dict[str, Any], said: str) -> None:
    own = yaml.safe_load((user / "inventory.yml").read_text())["all"]["children"]["dev"]["hosts"][NAME]
    connection = {name: value for name, value in own.items() if name.startswith("ansible_")}
    inventory = {"all": {**inventory["all"], "vars": {**connection, "platform_environment": "dev"}}}
    (user / "bad.yml").write_text(yaml.safe_dump(inventory))
    before = host.check_output("find /etc /opt -xdev -printf '%p %s %T@\\n' | sort | sha256sum")
    code, output = run(user, "ansible-playbook", "logstead.platform.site", "-i", "bad.yml")
    text = re.sub(r"\s+", " ", output)
    # A run without a host of the platform ends before its first play.
    assert code == (4 if "no host of the inventory" in said else 2), output
    assert said in text, output
    assert host.check_output("find /etc /opt -xdev -printf '%p %s %T@\\n' | sort | sha256sum") == before


def test_a_component_of_ones_own_is_installed_run_scraped_and_removed(user: Path, play: Play, host: Any) -> None:
    """It has a role with a record, a group in the inventory, and one line in site.yml."""
    shutil.copytree(TOY, user / "roles/toy")
    inventory = yaml.safe_load((user / "inventory.yml").read_text())
    inventory["all"]["children"]["toy"] = {"hosts": {NAME: None}}
    (user / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (user / "site.yml").write_text(
        "- import_playbook: logstead.platform.site\n- {hosts: toy, become: true, gather_facts: false, roles: [toy]}\n"
    )
    code, output = play("site.yml", toy_http_port="three")
    assert code == 2, output
    assert "toy_http_port" in output
    assert not host.file("/etc/toy").exists, "the preflight knows the component's specification"

    code, output = play("site.yml")
    assert code == 0, output
    up = 'up{job="toy"} == 1'
    assert eventually(lambda: samples(host, up), seconds=60, otherwise=lambda: journal(host, "toy", "prometheus"))

    for verb, state in (("status", "running"), ("stop", "stopped"), ("start", "running"), ("restart", "running")):
        started = host.check_output("systemctl show --property ExecMainStartTimestampMonotonic --value toy.service")
        code, output = play(f"logstead.platform.{verb}", component="toy")
        assert code == 0, output
        _, output = play("logstead.platform.status", component="toy")
        assert re.search(rf"toy +{state}", output), output
        again = host.check_output("systemctl show --property ExecMainStartTimestampMonotonic --value toy.service")
        assert (started != again) == (verb in ("start", "restart"))

    code, output = play("logstead.platform.clean", component="toy", clean_confirmed=True, clean_data=True)
    assert code == 0, output
    assert not [path for path in ("/etc/toy", "/var/lib/toy") if host.file(path).exists]
    assert not host.service("toy").is_running
    assert host.service("loki").is_running


def test_an_update_changes_only_what_has_changed_and_nothing_of_the_users(
    user: Path, play: Play, host: Any, tmp_path: Path
) -> None:
    """The next version has a raised number and one other default."""
    own = {path: path.read_bytes() for path in user.iterdir() if path.is_file()}
    checkout = tmp_path / "next"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in names:
        source = REPOSITORY / name
        if name and source.is_file() and not name.startswith(("collections/", "tests/", "molecule/")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, checkout / name, follow_symlinks=False)
    for name, old, new in (
        ("galaxy.yml", "version: 1.0.0", "version: 1.0.1"),
        ("roles/node_exporter/defaults/main.yml", "node_exporter_memory_max: 128M", "node_exporter_memory_max: 160M"),
    ):
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new))
    install(user, checkout)
    code, output = play("logstead.platform.site", "--diff")
    assert code == 0, output
    added = re.findall(r"^\s*\+([^+].*)$", output, re.MULTILINE)
    assert [line.strip() for line in added] == ["MemoryMax=160M"], output
    assert host.check_output("systemctl show --property MemoryMax --value node-exporter.service") == str(160 << 20)
    assert {path: path.read_bytes() for path in user.iterdir() if path.is_file()} == own
