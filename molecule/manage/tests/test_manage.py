"""manage.sh on a real host that runs the whole platform; its Grafana may be the stand-in of tests/grafana_standin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import REPOSITORY, eventually

# Tests that don't ask the host themselves would otherwise come last, after it has lost what it had.
pytestmark = pytest.mark.usefixtures("host")

UNITS = ("loki", "promtail", "grafana", "demo-app")
APP_LOG = "/var/log/demo-app/app.log"
DATASOURCES = "/etc/grafana/provisioning/datasources/logstead.yaml"


def manage(*words: str) -> tuple[int, str]:
    """Run manage.sh from another folder and without a terminal; return the exit code and all that it printed."""
    inventories = [word for path in os.environ["ANSIBLE_INVENTORY"].split(",") for word in ("-i", path)]
    verb, *rest = words
    run = subprocess.run(
        [REPOSITORY / "manage.sh", verb, *inventories, *rest],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    return run.returncode, run.stdout


def states(host: Any) -> list[str]:
    return str(host.run("systemctl is-active " + " ".join(UNITS)).stdout).split()


def shown(host: Any, name: str) -> dict[str, int]:
    """Return a numeric property of each unit, in the order of the numbers."""
    values = host.check_output(f"systemctl show --property {name} --value {' '.join(UNITS)}").split()
    return dict(sorted(zip(UNITS, map(int, values)), key=lambda pair: pair[1]))


@contextmanager
def broken(host: Any, breaks: str, mends: str) -> Iterator[None]:
    """Have something broken for a while; afterwards everything answers again."""

    def answers(*urls: str) -> None:
        eventually(lambda: host.run(" && ".join(f"curl -sf {url}" for url in urls)).rc == 0)

    host.check_output(breaks)
    try:
        answers("127.0.0.1:3100/api/health")
        yield
    finally:
        host.check_output(mends)
        answers("127.0.0.1:3101/ready", "127.0.0.1:3100/api/health", "127.0.0.1:8000/health")


def test_a_stopped_platform_is_told_of_and_started_in_order(host: Any) -> None:
    code, printed = manage("stop")
    assert code == 0, printed
    assert states(host) == ["inactive"] * 4
    code, printed = manage("status")
    assert code != 0
    assert "loki is stopped; promtail is stopped; grafana is stopped; demo-app is stopped" in printed
    code, printed = manage("start")
    assert code == 0, printed
    assert states(host) == ["active"] * 4
    assert list(shown(host, "ExecMainStartTimestampMonotonic")) == list(UNITS)


def test_one_component_is_restarted_alone(host: Any) -> None:
    before = shown(host, "MainPID")
    code, printed = manage("restart", "demo_app")
    assert code == 0, printed
    after = shown(host, "MainPID")
    assert [unit for unit in UNITS if before[unit] != after[unit]] == ["demo-app"]


def test_logs_are_readable() -> None:
    code, printed = manage("logs", "demo-app", "--lines", "20")
    assert code == 0
    assert "Started demo-app.service" in printed
    assert f"==> {APP_LOG} <==\n" in printed
    assert '        {"timestamp": "20' in printed  # a record as it is in the file, on a line of its own
    assert "==> journal of loki" not in printed


def test_doctor_follows_a_line_to_grafana_and_shows_no_password() -> None:
    code, printed = manage("doctor", "--", "-vvv")
    assert code == 0, printed
    assert "admin123" not in printed
    assert "doctor: every step that was taken works." in printed
    assert "http.access  GET /trace/{item_id} 200" in printed


@pytest.mark.parametrize(
    ("step", "cause", "breaks", "mends"),
    [
        ("1 of 4", "demo-app.service is inactive", "systemctl stop demo-app", "systemctl start demo-app"),
        (
            "2 of 4",
            f"Promtail may not read {APP_LOG}",
            f"chown root:root {APP_LOG}; chmod 0600 {APP_LOG}",
            f"chown demo-app:adm {APP_LOG}; chmod 0640 {APP_LOG}",
        ),
        ("2 of 4", "promtail.service is inactive", "systemctl stop promtail", "systemctl start promtail"),
        (
            "2 of 4",
            "Promtail can't reach Loki at http://127.0.0.1:3101",
            "systemctl stop loki",
            "systemctl start loki promtail",
        ),
        (
            "4 of 4",
            "Grafana's data source Loki can't ask Loki at http://127.0.0.1:1",
            f"sed -i.was 's/127.0.0.1:3101/127.0.0.1:1/' {DATASOURCES}; systemctl restart grafana",
            f"mv {DATASOURCES}.was {DATASOURCES}; chgrp grafana {DATASOURCES}; systemctl restart grafana",
        ),
    ],
    ids=["app stopped", "log unreadable", "Promtail stopped", "Loki stopped", "datasource broken"],
)
def test_doctor_names_the_first_step_that_fails(host: Any, step: str, cause: str, breaks: str, mends: str) -> None:
    with broken(host, breaks, mends):
        code, printed = manage("doctor")
    assert code != 0, printed
    assert f"doctor: step {step} (" in printed
    assert f"failed on manage-debian13: {cause}" in printed
    assert "What to do: " in printed


# From here on, the host loses what it has.


def test_clean_asks_and_without_a_terminal_refuses(host: Any) -> None:
    code, printed = manage("clean")
    assert code != 0
    assert "Nothing was removed" in printed
    assert "--yes" in printed
    assert states(host) == ["active"] * 4


def test_clean_removes_what_is_ours_and_keeps_the_data(host: Any) -> None:
    code, printed = manage("clean", "--yes")
    assert code == 0, printed
    ours = [
        path.format(unit)
        for unit in UNITS
        for path in (
            "/etc/systemd/system/{}.service",
            "/etc/sysusers.d/{}.conf",
            "/etc/tmpfiles.d/{}.conf",
            "/etc/{}",
            "/opt/{}",
        )
    ]
    assert [path for path in ours if f"  {path}\n" not in printed] == []
    assert host.run(f"ls -d {' '.join(ours)}").stdout == ""
    assert host.run("ls /etc/systemd/system/logstead-*").stdout == host.check_output("nft list tables") == ""
    host.check_output(f"ls -d {' '.join(f'/var/lib/{unit}' for unit in UNITS)} {APP_LOG} /var/lib/loki/wal")
    assert states(host) == ["inactive"] * 4


def test_clean_again_changes_nothing() -> None:
    code, printed = manage("clean", "--yes")
    assert code == 0
    assert "Nothing to remove" in printed
    assert "changed=0" in printed


def test_data_goes_only_when_it_is_asked_for(host: Any) -> None:
    code, printed = manage("clean", "loki", "--yes", "--with-data")
    assert code == 0, printed
    assert host.run("ls -d /var/lib/loki").stdout == ""
    host.check_output("ls -d /var/lib/promtail /var/lib/grafana /var/log/demo-app")
