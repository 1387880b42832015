"""Who owns a folder of logs gains nothing by it: nothing of others is read, sent, shown, changed or held up.

The tests build on one another: a folder is prepared by its owner, and then everything is run that looks into it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from support import Hosts, eventually, fetch, find_lines, journal, run_playbook, unique

FOLDER, ODD = "/var/log/hostile", "/var/log/odd"  # the second isn't rotated: it would take long to compress a hole
AS_OWNER = "setpriv --reuid=demo-app --regid=demo-app --clear-groups"
ROOTS, ADMS = "/root/hostile-secret", "/var/log/hostile-secret.log"
ESCAPES = r"\033[2J\033]0;title\007\233"
MARK, ESCAPED = unique("secret"), unique("escaped")

PREPARE = f"""
cd {FOLDER}
ln -s {ROOTS} root.log
ln -s {ADMS} adm.log
ln -s ../hostile-secret.log relative.log
ln -s /etc/promtail/config.yml config.log
ln -s /var/log/journal/$(cat /etc/machine-id)/system.journal journal.log
ln -s /proc/self/environ process.log
ln -s /etc folder.log
echo "a log whose rotated file is a link" > blocked.log
ln -s {ADMS} blocked.log-20200101-000000
mkfifo good.log-20200102-000000
truncate --size 40G {ODD}/hole.log
mkfifo {ODD}/pipe.log
ln {ADMS} hard.log && echo "a hard link was made"
printf 'forged\\n' > "$(printf 'new\\nline \\033[2J.log')"
printf 'other bytes\\n' > "$(printf 'bytes\\377.log')"
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """All hosts, with a folder of which a user makes the worst."""
    every = Hosts()
    secrets = f"echo {MARK} > {ROOTS}; chmod 0600 {ROOTS}; echo {MARK} > {ADMS}; chmod 0640 {ADMS}; chgrp adm {ADMS}"
    every.check_output(f"{secrets}; logger {MARK}-in-the-journal")
    # Promtail would have most of the machine's memory, and a hole would take long to fill it.
    every.check_output("systemctl set-property --runtime promtail.service MemoryMax=200M")
    every.check_output(f"install -d -o demo-app -g adm -m 2750 {FOLDER} {ODD}; install -d -m 0700 /var/log/closed")
    for host in every:
        made = host.check_output(f"{AS_OWNER} sh -c {shlex.quote(PREPARE)} 2>&1")
        assert "Operation not permitted" in made, "the kernel allows hard links to files of others"
    yield every
    every.check_output(
        f"rm -rf {FOLDER} {ODD} /var/log/closed {ROOTS} {ADMS} /var/log/toy/b.log* "
        "/run/systemd/system.control/promtail.service.d"
    )
    every.check_output("systemctl daemon-reload; systemctl restart promtail.service")


def arrive(hosts: Hosts, job: str, path: str, owner: str) -> None:
    """Write a line to a log of each host, and wait until Loki has it."""
    mark = unique(job)
    for host in hosts:
        host.check_output(f"{owner} sh -c 'umask 022; echo {mark} >> {path}'")
    for host in hosts:
        lines = eventually(
            lambda: find_lines(host, f'{{job="{job}"}} |= "{mark}"'),
            seconds=60,
            otherwise=lambda: journal(host, "promtail"),
        )
        # A line of a log without times may count twice where Promtail is killed, as a hole in a file has it.
        assert all(line.text.endswith(mark) for line in lines)


def check_nothing_leaked(host: Any) -> None:
    """Assert that Loki has nothing of the files that only others may read."""
    leaked = find_lines(host, f'{{job=~".+", job!="systemd-journal"}} |~ "{MARK}|external_labels|root:x:0|LPKSHHRH"')
    assert not leaked, leaked[:3]


def test_lines_of_all_other_logs_arrive_and_nothing_that_a_link_leads_to(hosts: Hosts) -> None:
    arrive(hosts, "hostile", f"{FOLDER}/good.log", AS_OWNER)
    arrive(hosts, "slow", "/var/log/slow/slow.log", "")
    # A link that is made while Promtail runs, in place of a file that it has open, is not followed either.
    for host in hosts:
        host.check_output(f"{AS_OWNER} sh -c 'echo x > {FOLDER}/late.log'")
        eventually(lambda: find_lines(host, '{job="hostile"} |= "x"'))
        host.check_output(f"{AS_OWNER} ln -sf {ADMS} {FOLDER}/late.log; echo {MARK} >> {ADMS}")
    arrive(hosts, "hostile", f"{FOLDER}/good.log", AS_OWNER)
    for host in hosts:
        check_nothing_leaked(host)


def test_a_start_names_what_it_leaves_out_and_resumes_the_others(hosts: Hosts) -> None:
    hosts.check_output("systemctl restart promtail.service")
    arrive(hosts, "hostile", f"{FOLDER}/good.log", AS_OWNER)
    arrive(hosts, "slow", "/var/log/slow/slow.log", "")
    for host in hosts:
        check_nothing_leaked(host)
        said = host.check_output("journalctl --unit promtail --output cat --no-pager --since -10min")
        for path in (f"{FOLDER}/adm.log", f"{FOLDER}/config.log", f"{FOLDER}/journal.log", f"{ODD}/pipe.log"):
            assert f"{path} is left out: " in said
        assert f"{ODD}/hole.log: 42949672960 bytes are skipped" in said
        assert r"ff.log is left out, with what is in it: its name is not UTF-8" in said
        assert "/var/log/closed is left out, with what is in it: Permission denied" in said
        assert "lines may be lost" not in said
        # The hole isn't read again and again: the process stays.
        assert fetch(host, "http://127.0.0.1:9080/ready")[1].startswith("Ready")
        process = host.check_output("systemctl show promtail --property MainPID --value")
        arrive([host], "slow", "/var/log/slow/slow.log", "")  # type: ignore[arg-type]
        assert host.check_output("systemctl show promtail --property MainPID --value") == process


def test_rotation_goes_on(hosts: Hosts) -> None:
    for host in hosts:
        host.check_output(f"head -c 70000 /dev/zero > /var/log/toy/b.log; head -c 2000 /dev/zero >> {FOLDER}/good.log")
        for _ in range(2):  # what was rotated first is compressed by the second run
            host.check_output(f"timeout 60 logstead-logs run; head -c 2000 /dev/zero >> {FOLDER}/good.log")
        assert host.run("ls /var/log/toy/b.log-2*").rc == 0
        assert len(host.check_output(f"ls {FOLDER}/good.log-2*").split()) >= 2
        assert host.file(f"{FOLDER}/good.log-20200102-000000").exists is False
        assert host.file(ADMS).group == "adm"
        assert MARK in host.file(ADMS).content_string
        said = host.check_output("logstead-logs status")
        assert "\x1b" not in said
    arrive(hosts, "hostile", f"{FOLDER}/good.log", AS_OWNER)


def test_logs_prints_nothing_of_others_and_nothing_that_moves_a_terminal(hosts: Hosts) -> None:
    error = "/var/log/demo-app/error.log"
    for host in hosts:
        host.check_output(f"{AS_OWNER} touch {error}; mv {error} {error}.kept")
        host.check_output(f"{AS_OWNER} ln -s {ROOTS} {error}")
        host.check_output(f"{AS_OWNER} sh -c 'printf \"{ESCAPES}{ESCAPED}\\n\" >> /var/log/demo-app/app.log'")
    try:
        code, printed = run_playbook("playbooks/logs.yml", component="demo-app")
        assert code == 0, printed
        assert f"{error}: a symbolic link, which is not followed" in printed
        assert MARK not in printed
        assert r"\x1b[2J\x1b]0;title\x07" in printed
        assert ESCAPED in printed
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)
    finally:
        hosts.check_output(f"rm -f {error}; mv {error}.kept {error}; sed -i '/{ESCAPED}/d' /var/log/demo-app/app.log")
