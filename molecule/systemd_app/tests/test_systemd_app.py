"""The shared mechanics, with a toy program: whole or not at all, and never the old service down for a bad new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import check_service, fetch, journal, name_of, run_playbook

CONVERGE = "molecule/systemd_app/converge.yml"
REMOVE = "molecule/systemd_app/remove.yml"
SHOWN = "find /etc /opt /usr/local /var/lib/toy /var/cache -newer /tmp/mark -not -path '*/.*' | sort"


def says(host: Any) -> str:
    """Return what the toy says."""
    return fetch(host, "http://127.0.0.1:8099/")[1]


def process(host: Any) -> str:
    """Return the process id of the toy, which changes with every restart."""
    return str(host.check_output("systemctl show --property MainPID --value toy.service"))


@pytest.fixture
def converged(host: Any) -> Iterator[Any]:
    """A host with the toy 1.0 saying hello, also after the test."""
    yield host
    code, output = run_playbook(CONVERGE, limit=name_of(host))
    assert code == 0, output


def converge_fails(host: Any, *words: str, **variables: Any) -> None:
    """Assert that a run fails with these words, and leaves the service and the host as they were."""
    before, ran = says(host), process(host)
    host.check_output("touch /tmp/mark")
    code, output = run_playbook(CONVERGE, limit=name_of(host), **variables)
    assert code == 2, output
    assert not [word for word in words if word not in output], output
    assert (says(host), process(host)) == (before, ran), journal(host, "toy")
    assert host.check_output(SHOWN + " -type f -o -type l").splitlines() == [], "something has changed on the host"


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


def test_an_upgrade_keeps_the_old_release_and_a_downgrade_needs_no_download(converged: Any) -> None:
    host = converged
    assert run_playbook(CONVERGE, limit=name_of(host), toy_version="2.0")[0] == 0
    assert says(host) == "toy 2.0 says hello"
    host.check_output("mv /srv/1.0 /srv/away")
    try:
        code, output = run_playbook(CONVERGE, limit=name_of(host), toy_version="1.0")
    finally:
        host.check_output("mv /srv/away /srv/1.0")
    assert code == 0, output
    assert says(host) == "toy 1.0 says hello"


def test_only_one_earlier_release_stays(converged: Any) -> None:
    host = converged
    for version in ("2.0", "3.0"):
        assert run_playbook(CONVERGE, limit=name_of(host), toy_version=version)[0] == 0
    assert host.check_output("ls /opt/toy").split() == ["2.0", "3.0", "current"]


def test_a_wrong_checksum_changes_nothing(host: Any) -> None:
    converge_fails(host, "is expected", "Nothing was changed", toy_version="2.0", toy_checksum="0" * 64)


def test_a_checksum_that_is_none_changes_nothing(host: Any) -> None:
    converge_fails(host, "is neither 64 hex digits nor the address", toy_version="2.0", toy_checksum="latest")


def test_a_version_without_a_checksum_changes_nothing(host: Any) -> None:
    sums = "file:///srv/toy.py"
    converge_fails(host, "lists no checksum for toy-linux-", toy_version="2.0", toy_checksum=sums)


def test_a_missing_version_changes_nothing(host: Any) -> None:
    converge_fails(host, "can't be reached", "platform_mirror_url", toy_version="9.9")


def test_a_pinned_checksum_that_changes_is_noticed_on_an_installed_release(host: Any) -> None:
    converge_fails(host, "is expected", toy_checksum="0" * 64)


def test_a_configuration_that_the_program_refuses_never_gets_there(host: Any) -> None:
    converge_fails(host, "toy.conf was refused by", "this configuration is bad", toy_text="bad")


def test_a_service_that_does_not_get_ready_fails_with_its_journal(converged: Any) -> None:
    code, output = run_playbook(CONVERGE, limit=name_of(converged), toy_text="hang")
    assert code == 2, output
    assert "toy.service is not ready after 5 s" in output
    assert "Its journal ends" in output


def test_a_change_of_settings_restarts_and_another_file_does_not(converged: Any) -> None:
    host = converged
    ran = process(host)
    host.check_output("echo changed > /etc/toy/read-at-once")
    assert run_playbook(CONVERGE, limit=name_of(host))[0] == 0
    assert process(host) == ran
    assert run_playbook(CONVERGE, limit=name_of(host), toy_text="goodbye")[0] == 0
    assert process(host) != ran
    assert says(host) == "toy 1.0 says goodbye"


def test_a_restart_that_an_interrupted_run_did_not_make_is_made_up_for(converged: Any) -> None:
    host = converged
    ran = process(host)
    # As after a run that ended between the files and the restart: the wanted text is there, the process is older.
    host.check_output("cp -a /etc/toy/toy.conf /etc/toy/new && mv /etc/toy/new /etc/toy/toy.conf")
    code, output = run_playbook(CONVERGE, limit=name_of(host))
    assert code == 0, output
    assert "changed=1" in output
    assert process(host) != ran


def test_a_service_stopped_or_disabled_by_hand_comes_back(converged: Any) -> None:
    host = converged
    host.check_output("systemctl disable --now toy.service")
    assert run_playbook(CONVERGE, limit=name_of(host))[0] == 0
    check_service(host, "toy")


def test_an_unfinished_release_is_cleared_away(converged: Any) -> None:
    host = converged
    host.check_output("mkdir -p /opt/toy/.unpack-x /opt/toy/2.0 && touch /opt/toy/2.0/half")
    code, output = run_playbook(CONVERGE, limit=name_of(host), toy_version="2.0")
    assert code == 0, output
    assert host.check_output("ls -A /opt/toy/2.0").split() == [".sha256", "toy"]
    assert not host.file("/opt/toy/.unpack-x").exists


def test_a_secret_is_neither_shown_nor_readable(converged: Any) -> None:
    host = converged
    code, output = run_playbook(CONVERGE, "--diff", "-vvv", limit=name_of(host), toy_secret="another-kept-secret")
    assert code == 0, output
    shown = [line for line in output.splitlines() if "another-kept-secret" in line or "a well-kept secret" in line]
    # What was given on the command line is no output of the roles.
    assert not [line for line in shown if "--extra-vars" not in line], shown
    assert host.file("/etc/toy/secret").mode == 0o640


def test_a_check_run_tells_the_truth_and_changes_nothing(host: Any) -> None:
    host.check_output("touch /tmp/mark")
    code, output = run_playbook(CONVERGE, "--check", "--diff", limit=name_of(host), toy_text="goodbye", toy_version="2.0")
    assert code == 0, output
    assert "-hello" in output
    assert "+goodbye" in output
    assert "changed=3" in output
    assert host.check_output(SHOWN) == ""
    assert says(host) == "toy 1.0 says hello"


def test_removal_keeps_the_data_unless_told_otherwise(converged: Any) -> None:
    host = converged
    host.check_output("echo data > /var/lib/toy/data")
    assert run_playbook(REMOVE, limit=name_of(host))[0] == 0
    assert not host.file("/opt/toy").exists
    assert not host.file("/etc/toy").exists
    assert not host.file("/etc/systemd/system/toy.service").exists
    assert host.file("/var/lib/toy/data").exists
    assert run_playbook(REMOVE, limit=name_of(host), toy_remove_data=True)[0] == 0
    assert not host.file("/var/lib/toy").exists
