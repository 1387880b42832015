"""The shared mechanics, with a toy program: whole or not at all, and never the old service down for a bad new one.

How each bad release or file is refused is in tests/unit/; here are the cases that need systemd and a real run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import Hosts, check_service, fetch, journal, run_playbook

CONVERGE = "molecule/systemd_app/converge.yml"
REMOVE = "molecule/systemd_app/remove.yml"
PLACES = "/etc /opt /usr/local /var/lib/toy /var/lib/logstead /var/cache"
SHOWN = f"find {PLACES} -newer /tmp/mark -not -path '*/.*' -not -type d"

# A systemctl that writes down what it is asked.
WATCH = r"""printf '#!/bin/sh\necho "$*" >> /tmp/asked; exec /usr/bin/was "$@"\n' > /usr/bin/systemctl
chmod 755 /usr/bin/systemctl"""


def says(host: Any) -> str:
    """Return what the toy says."""
    return fetch(host, "http://127.0.0.1:8099/")[1]


def process(host: Any) -> str:
    """Return the process id of the toy, which changes with every restart."""
    return str(host.check_output("systemctl show --property MainPID --value toy.service"))


def converge(*arguments: str, **variables: Any) -> str:
    """Run the role on all hosts, and return what the run printed."""
    code, output = run_playbook(CONVERGE, *arguments, **variables)
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    """All hosts of the scenario."""
    return Hosts()


@pytest.fixture
def restored(hosts: Hosts) -> Iterator[Hosts]:
    """Hosts that get the toy 1.0 saying hello again after the test."""
    yield hosts
    converge()


def test_runs_as_its_own_user_shut_off_from_the_host(host: Any) -> None:
    check_service(host, "toy")
    assert says(host) == "toy 1.0 says hello"


def test_every_file_says_who_owns_it(host: Any) -> None:
    for path in ("/etc/systemd/system/toy.service", "/etc/sysusers.d/toy.conf", "/etc/tmpfiles.d/toy.conf"):
        assert host.file(path).content_string.startswith("# Managed by logstead"), path


def test_unit_settings_are_merged_and_lists_give_a_line_each(host: Any) -> None:
    unit = host.file("/etc/systemd/system/toy.service").content_string
    assert "Environment=A=1\nEnvironment=B=2\n" in unit
    assert "MemoryDenyWriteExecute=false\n" in unit
    assert unit.index("[Unit]") < unit.index("[Service]") < unit.index("[Install]\nWantedBy=multi-user.target")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"toy_version": "2.0", "toy_checksum": "0" * 64}, "is expected"),
        ({"toy_text": "bad"}, "this configuration is bad"),
    ],
    ids=["wrong checksum", "configuration that the program refuses"],
)
def test_what_is_refused_leaves_the_old_service_running(hosts: Hosts, variables: dict[str, str], words: str) -> None:
    hosts.check_output("touch /tmp/mark")
    before = hosts.ask(says), hosts.ask(process)
    code, output = run_playbook(CONVERGE, **variables)
    assert code == 2, output
    assert output.count(words) >= len(list(hosts)), output
    assert (hosts.ask(says), hosts.ask(process)) == before
    assert not any(hosts.check_output(SHOWN)), "something has changed on a host"


@pytest.mark.usefixtures("restored")
def test_a_service_that_does_not_get_ready_fails_with_its_journal() -> None:
    code, output = run_playbook(CONVERGE, toy_text="hang")
    assert code == 2, output
    assert "toy.service is not ready after 5 s" in output
    assert "Its journal ends" in output


def test_a_release_that_does_not_become_ready_leaves_the_database_as_it_was(restored: Hosts) -> None:
    before = restored.check_output("cat /var/lib/toy/toy.db")
    code, output = run_playbook(CONVERGE, toy_version="2.0", toy_text="hang")
    assert code == 2, output
    assert output.count("What ran before was put back and runs again") >= len(list(restored)), output
    assert set(restored.ask(says)) == {"toy 1.0 says hello"}
    assert restored.check_output("cat /var/lib/toy/toy.db") == [f"{text}\n1.0" for text in before]
    copies = "/var/lib/logstead/databases/toy.service"
    assert restored.check_output(f"cat {copies}/1.0-*/toy.db") == before
    assert set(restored.check_output(f"stat --format '%U %a' {copies}")) == {"root 700"}


def test_an_upgrade_keeps_one_earlier_release_to_which_the_way_back_is_short(restored: Hosts) -> None:
    converge(toy_version="2.0")
    converge(toy_version="3.0")
    assert set(restored.ask(says)) == {"toy 3.0 says hello"}
    assert {tuple(names.split()) for names in restored.check_output("ls /opt/toy")} == {("2.0", "3.0", "current")}
    restored.check_output("mv /srv/2.0 /srv/away")
    try:
        converge(toy_version="2.0")
    finally:
        restored.check_output("mv /srv/away /srv/2.0")
    assert set(restored.ask(says)) == {"toy 2.0 says hello"}


def test_a_change_of_settings_restarts_and_one_of_another_file_does_not(restored: Hosts) -> None:
    ran = restored.ask(process)
    restored.check_output("echo changed > /etc/toy/read-at-once")
    converge()
    assert restored.ask(process) == ran
    converge(toy_text="goodbye")
    assert not set(restored.ask(process)) & set(ran)
    assert set(restored.ask(says)) == {"toy 1.0 says goodbye"}


def test_what_an_interrupted_run_left_undone_is_done_by_the_next(restored: Hosts) -> None:
    ran = restored.ask(process)
    # The wanted text is there, and the process has not loaded it: the run ended between the files and the restart.
    restored.check_output("printf again > /etc/toy/toy.conf")
    # It ended while it unpacked.
    restored.check_output("rm -rf /opt/toy/2.0; mkdir -p /opt/toy/.unpack-x /opt/toy/2.0 && touch /opt/toy/2.0/half")
    converge(toy_text="again")
    assert not set(restored.ask(process)) & set(ran)
    converge(toy_version="2.0")
    assert {tuple(names.split()) for names in restored.check_output("ls -A /opt/toy/2.0")} == {(".sha256", "toy")}
    assert not any(restored.check_output("find /opt/toy -name '.unpack-*'"))


def test_a_file_that_is_reloaded_leaves_the_process_alone(restored: Hosts) -> None:
    ran = restored.ask(process)
    converge(toy_greeting="sings")
    assert set(restored.ask(says)) == {"toy 1.0 sings hello"}
    # The run ended between the file and the reload.
    restored.check_output("printf whispers > /etc/toy/greeting")
    converge(toy_greeting="whispers")
    assert set(restored.ask(says)) == {"toy 1.0 whispers hello"}
    code, output = run_playbook(CONVERGE, toy_greeting="mumbles")
    assert code == 2, output
    assert output.count("toy.service refuses its new files") >= len(list(restored)), output
    assert set(restored.ask(says)) == {"toy 1.0 whispers hello"}
    assert set(restored.check_output("cat /etc/toy/greeting")) == {"whispers"}
    assert restored.ask(process) == ran


def test_an_unchanged_run_calls_no_module_but_the_one_that_looks(hosts: Hosts) -> None:
    converge()
    hosts.check_output(f"mv /usr/bin/systemctl /usr/bin/was; rm -f /tmp/asked; {WATCH}")
    try:
        converge()
        converge("--check")
    finally:
        hosts.check_output("mv /usr/bin/was /usr/bin/systemctl")
    # Its version, and one look at all units; twice.
    for asked in hosts.check_output("cat /tmp/asked"):
        assert [line.split()[0] for line in asked.splitlines()] == ["--version", "show"] * 2


def test_a_clock_that_is_wrong_restarts_nothing(restored: Hosts) -> None:
    ran = restored.ask(process)
    # What was put in place seems to be younger than the process that has read it.
    restored.check_output("chmod u+x /etc/toy/toy.conf; chmod u-x /etc/toy/toy.conf")
    converge()
    assert restored.ask(process) == ran


def test_a_service_stopped_and_disabled_by_hand_comes_back(hosts: Hosts) -> None:
    hosts.check_output("systemctl disable --now toy.service")
    converge()
    for host in hosts:
        check_service(host, "toy")


def test_a_secret_is_neither_shown_nor_readable(restored: Hosts) -> None:
    output = converge("--diff", "-vvv", toy_secret="another-kept-secret")
    shown = [line for line in output.splitlines() if "another-kept-secret" in line or "a well-kept secret" in line]
    # What was given on the command line is no output of the roles.
    assert not [line for line in shown if "--extra-vars" not in line], shown
    assert {host.file("/etc/toy/secret").mode for host in restored} == {0o640}


def test_a_check_run_tells_the_truth_and_changes_nothing(hosts: Hosts) -> None:
    hosts.check_output("touch /tmp/mark")
    output = converge("--check", "--diff", toy_text="goodbye", toy_version="2.0")
    assert "-hello" in output
    assert "+goodbye" in output
    assert output.count("changed=2") == len(list(hosts))
    assert not any(hosts.check_output(SHOWN))
    assert set(hosts.ask(says)) == {"toy 1.0 says hello"}, hosts.ask(lambda host: journal(host, "toy"))


# Last: the hosts are thrown away, so nothing is installed again.
def test_removal_keeps_the_data_unless_told_otherwise(hosts: Hosts) -> None:
    hosts.check_output("echo data > /var/lib/toy/data")
    assert run_playbook(REMOVE)[0] == 0
    for host in hosts:
        assert host.run("ls -d /opt/toy /etc/toy /etc/systemd/system/toy.service /var/lib/logstead/toy.*").stdout == ""
        assert host.file("/var/lib/toy/data").exists
    assert run_playbook(REMOVE, toy_remove_data=True)[0] == 0
    assert not any(host.file("/var/lib/toy").exists for host in hosts)
