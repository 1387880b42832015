"""A run that selects no host or no task of the platform fails, in one sentence that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
VERBS = ("start", "stop", "restart", "status", "logs", "doctor", "clean")
OURS, OTHERS = "ours.yml", "others.yml"
Runner = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """What runs a command in a folder with inventories of two hosts, without waiting for one of them."""
    hosts = {name: {"ansible_host": "127.0.0.1", "ansible_port": 9} for name in ("one", "bastion")}
    own = {"all": {"hosts": hosts, "children": {"loki": {"hosts": {"one": None}}}}}
    (tmp_path / OURS).write_text(yaml.safe_dump(own))
    (tmp_path / OTHERS).write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": {"lokki": {"hosts": hosts}}}}))
    (tmp_path / "own.yml").write_text("- import_playbook: logstead.platform.site\n")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
    }

    def runner(*command: str) -> tuple[int, str]:
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return result.returncode, re.sub(r"\s+", " ", result.stdout)

    return runner


SITE = ("ansible-playbook", "logstead.platform.site")
CHECKOUT = ("ansible-playbook", str(REPOSITORY / "site.yml"))
STOP = ("ansible-playbook", "logstead.platform.stop")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((*SITE, "-i", "nowhere"), "nowhere does not exist: give the path of yours with -i."),
        ((*CHECKOUT, "-i", "nowhere"), "nowhere does not exist: give the path of yours with -i."),
        ((*SITE, "-i", OURS, "-i", "nowhere"), "nowhere does not exist: give the path of yours with -i."),
        ((*SITE, "-i", OTHERS), "and its group lokki is unknown."),
        ((*CHECKOUT, "-i", "one,"), "put each host in the groups of the components that it is to run."),
        (("ansible-playbook", "own.yml", "-i", OTHERS), "no host of the inventory is in a group of the platform"),
        ((*SITE, "-i", OURS, "--limit", "bastion"), "--limit bastion selects no host of a group of the platform"),
        ((*SITE, "-i", OURS, "--tags", "lokki"), "no task has the tag lokki of --tags; available: node_exporter,"),
        ((*CHECKOUT, "-i", OURS, "--tags", "loki,lokki"), "no task has the tag lokki of --tags"),
        ((*SITE, "-i", OURS, "--tags", "loki", "--skip-tags", "loki"), "skips all that --tags selects"),
        ((*SITE, "-i", OURS, "--skip-tags", "always"), "--skip-tags always would skip the preflight: leave it out."),
        (("ansible-playbook", "own.yml", "-i", OURS, "--skip-tags", "all"), "would skip the preflight"),
        ((*STOP, "-i", OURS, "-e", "component=grafana"), "the inventory has no host of the group grafana: put a host"),
        ((*STOP, "-i", OURS, "-e", "component=loki", "-l", "bastion"), "selects no host of the group loki: limit the"),
        ((*STOP, "-i", OURS, "-e", "component=kafka"), "unknown component kafka; the components are node-exporter,"),
        ((*STOP, "-i", OURS, "--tags", "loki"), "no task has the tag loki of --tags; this playbook has none"),
        (("ansible-playbook", "logstead.platform.delete_lines", "-i", OTHERS), "no host of the inventory is in"),
        *(
            ((str(REPOSITORY / "manage.sh"), verb, "-i", OTHERS), "no host of the inventory is in a group of the")
            for verb in VERBS
        ),
    ],
    ids=lambda value: " ".join(value).replace(f"{REPOSITORY}/", "") if isinstance(value, tuple) else "",
)
def test_a_run_that_selects_nothing_fails_and_says_what_to_do(run: Runner, command: tuple[str, ...], said: str) -> None:
    code, output = run(*command)
    assert said in output
    assert code == 4, output
    assert "PLAY [" not in output


def test_ansible_itself_refuses_a_limit_that_matches_no_host(run: Runner) -> None:
    code, output = run(*SITE, "-i", OURS, "--limit", "none")
    assert "leaves us with no hosts to target" in output
    assert code == 1, output


@pytest.mark.parametrize(
    "arguments",
    [
        ("logstead.platform.site", "-i", OURS, "--tags", "loki"),
        ("logstead.platform.site", "-i", OURS, "--limit", "one", "--skip-tags", "grafana"),
        ("own.yml", "-i", OURS, "--tags", "something-of-the-users"),
        ("logstead.platform.status", "-i", OURS, "-e", "component=loki"),
        ("logstead.platform.delete_lines", "-i", OURS),
    ],
    ids=" ".join,
)
def test_what_selects_something_is_run(run: Runner, arguments: tuple[str, ...]) -> None:
    code, output = run("ansible-playbook", *arguments, "--list-hosts")
    assert code == 0, output
    assert re.search(r"hosts \([12]\): ", output), output


def test_the_syntax_is_checked_without_an_inventory(run: Runner) -> None:
    code, output = run(*SITE, "-i", "one,", "--syntax-check")
    assert code == 0, output


def test_the_help_and_the_document_have_the_same_exit_codes(run: Runner) -> None:
    _, usage = run(str(REPOSITORY / "manage.sh"), "--help")
    from_help = re.findall(r" (\d+) [a-z]", usage.split("Exit codes:")[1])
    table = (REPOSITORY / "docs/troubleshooting.md").read_text().split("| code | meaning |")[1].split("\n## ")[0]
    assert from_help == re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert {"0", "1", "2", "4", "64"} <= set(from_help)
