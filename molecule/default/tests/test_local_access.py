"""A host with users who are not to be trusted: the components' ports are closed to them, and to nobody else."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

import pytest
from support import LOKI, eventually, fetch, find_lines, journal, run_playbook, unique

UNIT = "logstead-local-access"
API = f"{LOKI}/loki/api/v1"
OPEN, REFUSED, TIMED_OUT = 0, 7, 28  # curl's exit codes


def try_as(host: Any, user: str, url: str, *options: str) -> int:
    """Ask an address as a user of the host; return curl's exit code."""
    words = shlex.join(("curl", "--silent", "--output", "/dev/null", "--max-time", "10", *options, url))
    return int(host.run(f"runuser -u {user} -- {words}").rc)


def line_of(text: str) -> str:
    """Return the body of a push of one line."""
    return json.dumps({"streams": [{"stream": {"job": "forged"}, "values": [[str(time.time_ns()), text]]}]})


def push(text: str) -> tuple[str, ...]:
    """Return curl's options for a push of one line."""
    return ("--header", "Content-Type: application/json", "--data", line_of(text))


def test_a_local_user_can_neither_forge_read_nor_delete_lines(host: Any) -> None:
    line = unique("forged")
    assert try_as(host, "nobody", f"{API}/push", *push(line)) == REFUSED
    assert try_as(host, "nobody", f"{API}/query_range?query=%7Bjob%3D%22systemd-journal%22%7D") == REFUSED
    assert try_as(host, "nobody", f"{API}/delete?query=%7Bjob%3D%22fastapi%22%7D&start=0", "-X", "POST") == REFUSED
    assert try_as(host, "nobody", f"{LOKI}/config") == REFUSED
    # An app that is taken over is no better off than any other user.
    assert try_as(host, "demo-app", f"{API}/push", *push(line)) == REFUSED
    # Root may: the line that it pushes is the only one.
    assert try_as(host, "root", f"{API}/push", *push(f"{line} by root")) == OPEN
    lines = eventually(lambda: find_lines(host, f'{{job="forged"}} |= "{line}"'))
    assert [found.text for found in lines] == [f"{line} by root"]


def test_a_local_user_can_not_stop_loki(host: Any) -> None:
    process = host.check_output("systemctl show --property InvocationID --value loki.service")
    for path in ("/ingester/shutdown", "/flush", "/ingester/prepare_shutdown"):
        assert try_as(host, "nobody", LOKI + path) == REFUSED
        assert try_as(host, "nobody", LOKI + path, "--request", "POST") == REFUSED
    assert host.check_output("systemctl show --property InvocationID --value loki.service") == process
    assert fetch(host, f"{LOKI}/ready")[0] == 200


@pytest.mark.parametrize("port", [3101, 9096, 9080, 9090, 9093, 9100])
def test_no_port_of_a_component_answers_a_local_user(host: Any, port: int) -> None:
    for address in ("127.0.0.1", "[::ffff:127.0.0.1]"):
        connection = f"telnet://{address}:{port}", "--max-time", "0.3"
        assert try_as(host, "nobody", *connection) == REFUSED
        assert try_as(host, "root", *connection) == TIMED_OUT, "root has no connection either"


def test_every_component_is_reached_by_those_that_need_it(host: Any) -> None:
    for user, port in (("promtail", 3101), ("grafana", 3101), ("grafana", 9090), ("prometheus", 9100), ("loki", 9093)):
        assert try_as(host, user, f"http://127.0.0.1:{port}/") == OPEN, (user, port)


@pytest.mark.parametrize("url", ["http://127.0.0.1:3100/api/health", "http://127.0.0.1:8000/health"])
def test_what_has_a_login_and_the_app_are_open_to_everyone(host: Any, url: str) -> None:
    assert try_as(host, "nobody", url) == OPEN


def test_nobody_answers_in_the_place_of_a_component_that_is_down(host: Any) -> None:
    impostor = "systemd-run --quiet --unit impostor --uid nobody --property WorkingDirectory=/ python3 -m http.server"
    try:
        host.check_output("systemctl stop alertmanager.service")
        host.check_output(f"{impostor} 9093 --bind 127.0.0.1")
        eventually(lambda: ":9093" in host.check_output("ss -Hltn sport = :9093"))
        for user in ("root", "loki", "nobody"):
            assert try_as(host, user, "http://127.0.0.1:9093/", "--max-time", "2") != OPEN, user
    finally:
        host.run("systemctl stop impostor.service")
        host.check_output("systemctl start alertmanager.service")
    eventually(lambda: fetch(host, "http://127.0.0.1:9093/-/ready")[0] == 200)


def test_neither_a_reload_of_the_firewall_nor_a_restart_opens_a_port(host: Any) -> None:
    # Debian's /etc/nftables.conf begins with it.
    host.check_output("nft flush ruleset")
    assert try_as(host, "nobody", f"{LOKI}/ready") == REFUSED
    host.check_output(f"systemctl restart {UNIT}.service")
    assert try_as(host, "nobody", f"{LOKI}/ready") == REFUSED
    # It stops with its unit, so that whoever stops that knows what is open.
    host.check_output(f"systemctl stop {UNIT}.service")
    assert host.check_output("nft list tables") == ""
    assert try_as(host, "nobody", f"{LOKI}/ready") == OPEN
    host.check_output(f"systemctl start {UNIT}.service")
    assert try_as(host, "nobody", f"{LOKI}/ready") == REFUSED, journal(host, UNIT)


def test_a_user_who_is_named_may_connect(host: Any) -> None:
    try:
        code, output = run_playbook("playbooks/local_access.yml", platform_local_users=["games"])
        assert code == 0, output
        assert try_as(host, "games", f"{API}/labels") == OPEN
        assert try_as(host, "nobody", f"{API}/labels") == REFUSED
    finally:
        code, output = run_playbook("playbooks/local_access.yml")
    assert code == 0, output
    assert try_as(host, "games", f"{API}/labels") == REFUSED


def test_an_unknown_user_and_an_invalid_name_are_refused() -> None:
    code, output = run_playbook("playbooks/preflight.yml", platform_local_users=["ghost", "no body"])
    text = re.sub(r"\s+", " ", output)
    assert code == 2, output
    assert "platform_local_users has ghost, which the host doesn't have" in text
    assert "platform_local_users[2] is 'no body'" in text
