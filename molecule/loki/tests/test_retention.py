"""Loki deletes what is too old, by level, and what it is told to; nobody shortens a period by accident."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

import pytest
from support import LOKI, Hosts, ask_loki, eventually, fetch, journal, run_playbook, unique

CONVERGE = "molecule/loki/converge.yml"
DAY = 86400
KEPT = ("/etc/loki", "/opt/loki", "/etc/systemd/system/loki.service")


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    return Hosts()


@dataclass(frozen=True)
class Old:
    """A line of the past, in a stream of its own."""

    text: str
    level: str
    time_ms: int

    def push(self, host: Any) -> None:
        """Send the line, as a collector does."""
        stream = {"job": "old", "level": self.level, "service_name": self.text}
        body = json.dumps({"streams": [{"stream": stream, "values": [[f"{self.time_ms}000000", self.text]]}]})
        header = "Content-Type: application/json"
        assert fetch(host, f"{LOKI}/loki/api/v1/push", "--header", header, "--data", body)[0] == 204

    def is_on_disk(self, host: Any) -> bool:
        """Tell whether there is a chunk that begins at the line's time; the name of a chunk's file says so."""
        names = host.check_output("find /var/lib/loki/chunks/fake -type f -printf '%f\\n' 2>/dev/null || true").split()
        return any(base64.b64decode(name).decode().startswith(f"{self.time_ms:x}:") for name in names)

    def is_found(self, host: Any) -> bool:
        """Tell whether a query shows the line."""
        query = f'{{job="old"}} |= "{self.text}"'
        start, end = (str(int((self.time_ms / 1000 + seconds) * 1e9)) for seconds in (-60, 60))
        result = ask_loki(host, "query_range", query=query, start=start, end=end)["result"]
        return bool(result)


def wait_until_ready(host: Any) -> None:
    eventually(
        lambda: fetch(host, f"{LOKI}/ready") == (200, "ready\n"), seconds=90, otherwise=lambda: journal(host, "loki")
    )


@pytest.fixture(scope="module", autouse=True)
def old_lines(hosts: Hosts) -> dict[str, Old]:
    """Lines of three days ago and of thirty hours ago, on disk; Loki has begun to look for what is too old."""
    now = int(time.time() * 1000)
    lines = {
        "debug": Old(unique("old-debug"), "DEBUG", now - 3 * DAY * 1000),
        "error": Old(unique("old-error"), "ERROR", now - 3 * DAY * 1000 + 7),
        "young debug": Old(unique("young-debug"), "DEBUG", now - 30 * 3600 * 1000),
    }
    for host in hosts:
        for line in lines.values():
            line.push(host)
        # What a query of long ago shows is what has been written to disk.
        assert fetch(host, f"{LOKI}/flush", "--request", "POST")[0] == 204
        for line in lines.values():
            assert eventually(lambda: line.is_found(host)), line
    hosts.check_output("systemctl restart loki.service")
    for host in hosts:
        wait_until_ready(host)
        assert [line for line in lines.values() if not line.is_on_disk(host)] == []
    return lines


def words(output: str) -> str:
    return re.sub(r"\s+", " ", output)


# --- Shortening -------------------------------------------------------------------------------------------------------


def state(host: Any) -> str:
    return str(host.check_output(f"find {' '.join(KEPT)} -printf '%p %m %u %g %s %T@ %l\\n' | sort"))


# The unit tests hold each against the module alone; here, both are in one run.
SHORTER = {"test_retention": "3d", "test_retention_by_level": {"DEBUG": "1d"}}


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check"])
def test_a_shorter_period_is_refused_before_anything_changes(hosts: Hosts, mode: list[str]) -> None:
    before = hosts.ask(state)
    code, output = run_playbook(CONVERGE, *mode, **SHORTER)
    assert code == 2, output
    assert "other 7d -> 3d (all other lines that are older than 3d)" in words(output), output
    assert "DEBUG 2d -> 1d (DEBUG lines that are older than 1d)" in words(output), output
    assert "Nothing was changed" in words(output), output
    assert "-e loki_retention_shortening_confirmed=true" in words(output), output
    assert hosts.ask(state) == before


def test_a_longer_period_is_remembered_and_going_back_needs_a_yes(hosts: Hosts) -> None:
    code, output = run_playbook(CONVERGE, test_retention_by_level={"DEBUG": "2d", "ERROR": "30d"})
    assert code == 0, output
    record = hosts.check_output("grep -v '^#' /etc/loki/retention.json")
    assert [json.loads(text) for text in record] == [{"other": 168, "DEBUG": 48, "ERROR": 720}] * len(record)
    code, output = run_playbook(CONVERGE)
    assert code == 2, output
    assert "ERROR 30d -> 7d (ERROR lines that are older than 7d)" in words(output), output
    code, output = run_playbook(CONVERGE, loki_retention_shortening_confirmed=True)
    assert code == 0, output
    code, output = run_playbook(CONVERGE)
    assert code == 0, output
    assert "changed=0" in output, output


# --- Deletion of given lines ------------------------------------------------------------------------------------------


def requests_of(host: Any) -> dict[str, str]:
    """Return the delete requests' status by id."""
    entries = json.loads(fetch(host, f"{LOKI}/loki/api/v1/delete")[1])
    return {entry["request_id"]: entry["status"] for entry in entries or []}


def test_deletion_is_refused_without_a_yes(hosts: Hosts) -> None:
    host = next(iter(hosts))  # the first of the group is the one that the playbook asks
    before = requests_of(host)
    code, output = run_playbook("playbooks/delete_lines.yml", delete_query='{job="old"}', delete_start="0")
    assert code == 2, output
    assert "Nothing was deleted: the answer was not yes" in words(output), output
    code, output = run_playbook("playbooks/delete_lines.yml", delete_query='{job="old"}', delete_confirmed=True)
    assert code == 2, output
    assert "Give delete_query and delete_start" in words(output), output
    assert requests_of(host) == before


def test_a_deleted_line_no_longer_shows_and_its_neighbour_does_and_a_request_can_be_taken_back(hosts: Hosts) -> None:
    host = next(iter(hosts))  # the first of the group is the one that the playbook asks
    now = int(time.time() * 1000)
    gone, stays = Old(unique("alice"), "INFO", now - 30_000), Old(unique("bob"), "INFO", now - 30_000)
    for line in (gone, stays):
        line.push(host)
        eventually(lambda: line.is_found(host))
    code, output = run_playbook(
        "playbooks/delete_lines.yml",
        delete_query=f'{{job="old"}} |= "{gone.text}"',
        delete_start=str(now // 1000 - 3600),
        delete_confirmed=True,
    )
    assert code == 0, output
    (request,) = re.findall(r"Request (\w+) is received", output)
    assert requests_of(host)[request] == "received"
    # Loki's parts ask for the list of requests every five minutes, and when they start.
    host.check_output("systemctl restart loki.service")
    wait_until_ready(host)
    eventually(lambda: not gone.is_found(host) and stays.is_found(host))
    code, output = run_playbook("playbooks/delete_lines.yml", delete_cancel=request)
    assert code == 0, output
    assert f"Request {request} is taken back." in output
    assert request not in requests_of(host)
    host.check_output("systemctl restart loki.service")
    wait_until_ready(host)
    eventually(lambda: gone.is_found(host))


# --- Last: it has had the most time -----------------------------------------------------------------------------------


def test_debug_lines_leave_the_disk_while_errors_of_the_same_time_stay(hosts: Hosts, old_lines: dict[str, Old]) -> None:
    for host in hosts:
        eventually(
            lambda: not old_lines["debug"].is_on_disk(host),
            seconds=120,
            otherwise=lambda: journal(host, "loki"),
        )
        # The disk counts: for a while, queries may be answered from what Loki has cached.
        assert [name for name, line in old_lines.items() if line.is_on_disk(host)] == ["error", "young debug"]
        assert old_lines["error"].is_found(host)
