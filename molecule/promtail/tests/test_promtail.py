"""Promtail: every line that is written is found, once, with the labels of the contract."""

from __future__ import annotations

import datetime
import json
import shlex
from typing import Any

import pytest
from support import ask_loki, check_service, eventually, find_lines, find_sample, journal, unique

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def folders(host: Any) -> None:
    """Folders of logs as packages make them: readable for the group adm."""
    host.check_output("install -d -m 2750 -g adm /var/log/app /var/log/many /var/log/many/deep")


def append(host: Any, path: str, text: str) -> None:
    """Append a line to a log, which belongs to the group adm."""
    host.check_output(f"printf '%s\\n' {shlex.quote(text)} >> {path}; chgrp adm {path}; chmod 0640 {path}")


def found(host: Any, query: str) -> Any:
    """Wait for the one line that matches, and return it."""
    lines = eventually(lambda: find_lines(host, query), otherwise=lambda: journal(host, "promtail", "loki"))
    assert len(lines) == 1, lines
    return lines[0]


def record(**fields: Any) -> str:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    return json.dumps({"timestamp": now, "level": "INFO", "message": unique("record"), **fields})


def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any) -> None:
    check_service(host, "promtail")


def test_can_read_logs_but_not_the_passwords(host: Any) -> None:
    groups = "SupplementaryGroups='adm systemd-journal'"
    run = f"systemd-run --pipe --wait --quiet --property User=promtail --property {groups}"
    append(host, "/var/log/app/app.log", record())
    assert host.run(f"{run} head -c1 /var/log/app/app.log").rc == 0
    assert host.run(f"{run} head -c1 /etc/shadow").rc != 0
    process = host.check_output("systemctl show --property MainPID --value promtail.service")
    names = host.check_output(f"id -Gn promtail; grep -E '^(Uid|Gid|CapEff)' /proc/{process}/status")
    assert "root" not in names.split()
    assert "CapEff:\t0000000000000000" in names


def test_a_json_record_has_the_labels_and_ids_of_the_contract(host: Any) -> None:
    text = record(level="warn", trace_id=TRACE_ID, span_id=SPAN_ID, service_name="ignored: group vars say shop")
    append(host, "/var/log/app/app.log", text)
    line = found(host, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    host_name = host.check_output("hostname")
    expected = {"job": "app", "service_name": "shop", "level": "WARNING", "environment": "test", "host": host_name}
    assert {name: line.labels.get(name) for name in expected} == expected
    assert (line.labels["trace_id"], line.labels["span_id"]) == (TRACE_ID, SPAN_ID)
    assert line.text == text


def test_ids_are_never_labels(host: Any) -> None:
    text = record(trace_id=TRACE_ID, span_id=SPAN_ID)
    append(host, "/var/log/app/app.log", text)
    found(host, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    streams = ask_loki(host, "series", **{"match[]": '{job="app"}'})
    labels = set().union(*streams)
    assert labels <= {"job", "service_name", "level", "environment", "host"}


def test_a_record_keeps_its_own_time(host: Any) -> None:
    written = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=20)
    text = record(timestamp=written.isoformat().replace("+00:00", "Z"))
    append(host, "/var/log/app/app.log", text)
    found(host, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    recent = f'sum(count_over_time({{job="app"}} |= "{json.loads(text)["message"]}" [10m]))'
    assert find_sample(host, recent) == 0
    assert find_sample(host, recent.replace("10m", "30m")) == 1


@pytest.mark.parametrize(
    "text", ["no json at all", '{"level": "banana"}', '{"level": 7, "trace_id": "zz"}', "[]", '{"timestamp": "then"}']
)
def test_a_line_that_is_no_proper_record_is_found_all_the_same(host: Any, text: str) -> None:
    mark = unique("improper")
    append(
        host,
        "/var/log/app/app.log",
        f"{text} {mark}" if not text.startswith("{") else text[:-1] + f', "mark": "{mark}"}}',
    )
    line = found(host, f'{{job="app"}} |= "{mark}"')
    assert "level" not in line.labels
    assert "trace_id" not in line.labels


def test_a_plain_line_is_found_with_its_level(host: Any) -> None:
    mark = unique("plain")
    append(host, "/var/log/plain.log", f"2026-01-01 12:00:00 [error] 7#7: {mark}")
    append(host, "/var/log/plain.log", f"nothing to tell, {mark}")
    eventually(lambda: len(find_lines(host, f'{{job="plain"}} |= "{mark}"')) == 2)
    assert found(host, f'{{job="plain", service_name="plain-app", level="ERROR"}} |= "{mark}"')


def test_a_pattern_finds_new_files_in_new_folders_but_not_excluded_ones(host: Any) -> None:
    mark = unique("many")
    append(host, f"/var/log/many/deep/{mark}.old.log", record(message=mark))
    append(host, f"/var/log/many/deep/{mark}.log", record(message=mark))
    assert found(host, f'{{job="many"}} |= "{mark}"').labels["service_name"] == "many"


def test_the_journal_is_found_with_unit_level_and_identifier(host: Any) -> None:
    mark = unique("journal")
    host.check_output(f"systemd-run --wait --quiet --unit probe-unit logger -t probe -p user.err {mark}")
    line = found(host, f'{{job="systemd-journal", unit="probe-unit.service", level="ERROR"}} |= "{mark}"')
    assert line.labels["service_name"] == "probe-unit"
    assert line.labels["identifier"] == "probe"


def test_units_of_log_ins_do_not_multiply_the_streams(host: Any) -> None:
    host.check_output("logger from a log-in")
    eventually(lambda: find_lines(host, '{job="systemd-journal"} |= "from a log-in"'))
    units = ask_loki(host, "label/unit/values")
    assert not [unit for unit in units if unit.startswith(("session-", "user@1"))], units


def test_lines_written_while_loki_is_away_arrive_once_it_is_back(host: Any) -> None:
    marks = [unique("outage") for _ in range(50)]
    append(host, "/var/log/app/app.log", record(message=marks[0]))
    found(host, f'{{job="app"}} |= "{marks[0]}"')
    host.check_output("systemctl stop loki.service")
    try:
        append(host, "/var/log/app/app.log", "\n".join(record(message=mark) for mark in marks[1:]))
    finally:
        host.check_output("systemctl start loki.service")
    eventually(
        lambda: (
            {json.loads(line.text)["message"] for line in find_lines(host, '{job="app"} |= "outage-"')} == set(marks)
        ),
        seconds=60,
        otherwise=lambda: journal(host, "promtail"),
    )
