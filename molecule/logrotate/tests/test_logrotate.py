"""Rotation on real hosts: no line lost, none twice, names of their own, and limits that hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import Hosts, ask_loki, eventually, exposure, fetch, run_playbook, unique

LOGS = "/var/log/demo-app"
SLOW = "/var/log/slow/slow.log"
REQUESTS = """
import os, secrets, sys, time, urllib.request
while not os.path.exists(sys.argv[2]):
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    url = f"http://127.0.0.1:8000/trace/{sys.argv[1]}"
    urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()
    print(trace_id, flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


def on_each(hosts: Hosts, do: Callable[[Any], None]) -> None:
    """Do something on all hosts at once."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(do, host) for host in hosts]:
            done.result()


def names(host: Any, pattern: str) -> list[str]:
    return str(host.run(f"ls -1d {pattern}").stdout).split()


def inode(host: Any, path: str) -> str:
    return str(host.check_output(f"stat -c %i {path}"))


def said(host: Any) -> str:
    return str(host.check_output("journalctl --unit logstead-logrotate --output cat --no-pager"))


def run_unit(host: Any) -> None:
    host.check_output("systemctl start logstead-logrotate.service")


def append(host: Any, path: str, mark: str, first: int, count: int) -> None:
    """Append numbered lines of about 100 bytes, as a program would: the file is opened each time."""
    padding = "x" * 50
    host.check_output(f"seq -f '{mark} %06g {padding}' {first} {first + count - 1} >> {path}")


def texts_in_loki(host: Any, query: str) -> list[str]:
    data = ask_loki(host, "query_range", query=query, limit="5000", since="1h")
    return [text for stream in data["result"] for _, text in stream["values"]]


@pytest.fixture
def collector(hosts: Hosts) -> Iterator[None]:
    """Have Loki and Promtail running again after the test."""
    yield
    on_each(hosts, lambda host: host.check_output("systemctl start loki promtail"))


def test_the_timer_is_on_and_its_unit_is_shut_off(hosts: Hosts) -> None:
    for host in hosts:
        timer = host.service("logstead-logrotate.timer")
        assert timer.is_enabled
        assert timer.is_running
        assert exposure(host, "logstead-logrotate") <= 2.0
        run_unit(host)


def test_the_journal_keeps_to_its_limits(hosts: Hosts) -> None:
    for host in hosts:
        settings = host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
        assert {"SystemMaxUse=300M", "MaxRetentionSec=31day"} <= set(settings)
        limit = host.check_output("journalctl --unit systemd-journald --output cat | grep 'System Journal' | tail -n 1")
        assert "max 300" in limit


def test_five_rotations_under_load_lose_no_record_and_double_none(hosts: Hosts) -> None:
    def check(host: Any) -> None:
        mark, stop = unique("load"), f"/run/{unique('stop')}"
        process = host.check_output("systemctl show demo-app --property MainPID --value")
        before = names(host, f"{LOGS}/access.log-*")
        host.check_output(f"cat > /run/requests.py <<'END'\n{REQUESTS}\nEND")
        client = f"systemd-run --quiet --unit {mark} --property StandardOutput=file:/run/{mark} python3"
        host.check_output(f"{client} /run/requests.py {mark} {stop}; sleep 1")
        rotations = 0
        for _ in range(8):
            printed = host.check_output("logstead-logs run --force")
            rotations += f"rotated {LOGS}/access.log\n" in printed + "\n"
            if rotations == 5:
                break
        host.check_output(f"touch {stop}")
        eventually(lambda: host.run(f"systemctl is-active {mark}").rc != 0)
        sent = host.check_output(f"cat /run/{mark}").split()
        assert rotations == 5
        assert len(sent) > 100

        after = [name for name in names(host, f"{LOGS}/access.log-*") if name.removesuffix(".gz") not in before]
        assert len({name.removesuffix(".gz") for name in after}) >= 5
        assert [name.endswith(".gz") for name in sorted(after)] == [True] * (len(after) - 1) + [False]
        found = host.check_output(f"zcat -f {LOGS}/access.log {LOGS}/access.log-* | grep -F {mark}").splitlines()
        assert Counter(json.loads(line)["trace_id"] for line in found) == dict.fromkeys(sent, 1)

        query = f'{{job="fastapi"}} |= "{mark}" |= "status_code"'
        eventually(lambda: len(texts_in_loki(host, query)) >= len(sent))
        arrived = Counter(json.loads(text)["trace_id"] for text in texts_in_loki(host, query))
        assert arrived == dict.fromkeys(sent, 1)
        assert host.check_output("systemctl show demo-app --property MainPID --value") == process
        assert host.file(f"{LOGS}/access.log").mode == 0o640

    on_each(hosts, check)


@pytest.mark.usefixtures("collector")
def test_an_outage_of_loki_with_rotations_in_it_loses_no_line(hosts: Hosts) -> None:
    def check(host: Any) -> None:
        mark = unique("outage")
        query = f'{{job="slow"}} |= "{mark}"'
        append(host, SLOW, mark, 0, 1)
        eventually(lambda: texts_in_loki(host, query))
        host.check_output("systemctl stop loki")
        for n in range(4):
            append(host, SLOW, mark, 1 + 200 * n, 200)
            run_unit(host)
        assert f"held {SLOW}: promtail.service" in said(host)
        assert f"{SLOW}  " in host.check_output("logstead-logs status")
        host.check_output("systemctl start loki")
        eventually(lambda: fetch(host, "http://127.0.0.1:3101/ready")[0] == 200, seconds=60)
        eventually(lambda: len(texts_in_loki(host, query)) >= 801)
        numbers = Counter(int(text.split()[1]) for text in texts_in_loki(host, query))
        assert numbers == dict.fromkeys(range(801), 1)
        was = inode(host, SLOW)
        eventually(lambda: (run_unit(host), inode(host, SLOW))[1] != was)  # type: ignore[func-returns-value]
        assert f"{SLOW} is held no longer" in said(host)

    on_each(hosts, check)


@pytest.mark.usefixtures("collector")
def test_a_log_is_held_while_promtail_is_stopped_until_it_is_too_large(hosts: Hosts) -> None:
    def check(host: Any) -> None:
        mark = unique("stopped")
        append(host, SLOW, mark, 0, 1)
        host.check_output("systemctl stop promtail")
        was = inode(host, SLOW)

        # Not by size but by age: Debian 12's logrotate takes a refused log for a rotated one.
        status = "/var/lib/logstead-logrotate/status"
        host.check_output(f'sed -i \'s|^"{SLOW}" .*|"{SLOW}" 2020-11-1-1:0:0|\' {status}')
        run_unit(host)
        assert inode(host, SLOW) == was
        assert f'"{SLOW}" 2020-11-1-1:0:0' in host.check_output(f"grep --text slow {status}")
        shown = host.check_output("logstead-logs status")
        assert "held since" in shown
        assert "promtail.service isn't running" in shown

        append(host, SLOW, mark, 1, 15000)
        run_unit(host)
        assert inode(host, SLOW) != was
        assert f"rotated {SLOW}, lines may be lost: promtail.service isn't running, but its" in said(host)

    on_each(hosts, check)


def test_the_oldest_go_when_the_rotated_files_are_over_their_limit(hosts: Hosts) -> None:
    for host in hosts:
        files = [f"/var/log/toy/a.log-20200101-00000{n}" for n in range(5)]
        host.check_output(f"for name in {' '.join(files)}; do head -c 30000 /dev/zero > $name; done")
        host.check_output("ln -s /etc/hostname /var/log/toy/a.log-20190101-000000")
        host.check_output("head -c 70000 /dev/zero > /var/log/toy/a.log")
        run_unit(host)
        # 150,000 and the one of 70,000 that was rotated now, of which 102,400 may stay.
        (new,) = names(host, "/var/log/toy/a.log-20[3-9]*") or names(host, "/var/log/toy/a.log-202[1-9]*")
        assert names(host, "/var/log/toy/a.log-2020*") == files[4:]
        assert host.file(new).size == 70000
        assert f"removed {files[0]} (30000 bytes): those of rule toy have 220000 bytes" in said(host)
        # A link is no log.
        assert host.file("/etc/hostname").exists
        assert host.file("/var/log/toy/a.log-20190101-000000").is_symlink


def test_two_rules_for_one_log_are_refused_before_anything_is_changed(hosts: Hosts) -> None:
    (before,) = set(hosts.check_output("cat /etc/logstead/logrotate.conf"))
    rules = [{"name": "one", "paths": ["/var/log/x/*.log"]}, {"name": "two", "paths": ["/var/log/x/a?.log"]}]
    code, output = run_playbook("playbooks/logrotate.yml", logrotate_rules=rules)
    assert code != 0
    assert "Nothing was changed. /var/log/x/*.log of rule one and /var/log/x/a?.log of rule two" in " ".join(
        output.split()
    )

    foreign = "/etc/logrotate.d/foreign"
    hosts.check_output(f"printf '/var/log/other/*.log {LOGS}/*.log {{\\n  daily\\n}}\\n' > {foreign}")
    try:
        code, output = run_playbook("playbooks/logrotate.yml")
        assert code != 0
        assert f"{LOGS}/app.log of rule demo-app and {LOGS}/*.log in {foreign} are both" in " ".join(output.split())
    finally:
        hosts.check_output(f"rm {foreign}")

    code, output = run_playbook(
        "playbooks/logrotate.yml", logrotate_rules=[{"name": "odd", "paths": ["/var/log/y.log"], "mode": "09"}]
    )
    assert code != 0
    assert "logrotate refuses the rules" in output
    assert set(hosts.check_output("cat /etc/logstead/logrotate.conf")) == {before}
