"""Loki by itself: it stores, answers, keeps what it has over a kill, and refuses bad settings."""

from __future__ import annotations

import json
import time
from typing import Any

import yaml
from support import LOKI, ask_loki, check_service, eventually, fetch, find_lines, find_sample, journal, unique


def push(host: Any, line: str, level: str = "INFO", *, seconds_ago: float = 0) -> int:
    """Push a line as a collector does; return the HTTP status."""
    stream = {"job": "probe", "level": level, "host": "h", "environment": "test", "service_name": "probe"}
    entry = [str(int((time.time() - seconds_ago) * 1e9)), line, {"trace_id": "ab" * 16}]
    body = json.dumps({"streams": [{"stream": stream, "values": [entry]}]})
    status, _ = fetch(host, f"{LOKI}/loki/api/v1/push", "--header", "Content-Type: application/json", "--data", body)
    return status


def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any) -> None:
    check_service(host, "loki")


def test_a_pushed_line_is_found_by_label_and_by_structured_metadata(host: Any) -> None:
    line = unique("pushed")
    assert push(host, line) == 204
    found = eventually(
        lambda: find_lines(host, f'{{job="probe"}} | trace_id="{"ab" * 16}" |= "{line}"'),
        otherwise=lambda: journal(host, "loki"),
    )
    assert [entry.text for entry in found] == [line]
    streams = ask_loki(host, "series", **{"match[]": '{job="probe"}'})
    assert all("trace_id" not in stream for stream in streams), "trace_id has become a label"


def test_a_line_survives_a_kill(host: Any) -> None:
    line = unique("survivor")
    assert push(host, line) == 204
    host.check_output("systemctl kill --signal SIGKILL loki.service")
    eventually(
        lambda: fetch(host, f"{LOKI}/ready") == (200, "ready\n"), otherwise=lambda: journal(host, "loki"), seconds=90
    )
    assert eventually(lambda: find_sample(host, f'sum(count_over_time({{job="probe"}} |= "{line}" [5m]))')) == 1


def test_retention_by_level_and_overrides_are_in_force(host: Any) -> None:
    _, body = fetch(host, f"{LOKI}/config")
    limits = yaml.safe_load(body)["limits_config"]
    assert limits["retention_period"] in ("1w", "7d", "168h")
    assert [(rule["selector"], rule["period"]) for rule in limits["retention_stream"]] == [('{level="DEBUG"}', "2d")]
    assert limits["max_query_lookback"] == limits["retention_period"]
    assert limits["max_query_series"] == 777


def test_a_line_too_old_or_from_tomorrow_is_refused_aloud(host: Any) -> None:
    assert push(host, unique("old"), seconds_ago=30 * 86400) == 400
    assert push(host, unique("early"), seconds_ago=-86400) == 400


def test_listens_on_the_loopback_interface_only(host: Any) -> None:
    assert host.socket("tcp://127.0.0.1:3101").is_listening
    listening = [
        line.split()[3] for line in host.check_output("ss --listening --tcp --numeric --no-header").splitlines()
    ]
    assert {address for address in listening if not address.endswith(":22")} == {"127.0.0.1:3101", "127.0.0.1:9096"}


def test_its_settings_are_closed_to_others_and_say_who_owns_them(host: Any) -> None:
    settings = host.file("/etc/loki/config.yml")
    assert (settings.user, settings.group, settings.mode) == ("root", "loki", 0o640)
    assert settings.content_string.startswith("# Managed by logstead")
    assert host.file("/etc/loki").mode == 0o750
