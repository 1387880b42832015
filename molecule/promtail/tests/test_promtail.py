"""Promtail: every line that is written is found, once, with the labels of the contract.

Each test serves all hosts at once: it writes on every host before it looks for the lines of the first.
"""

from __future__ import annotations

import datetime
import json
import shlex
import time
from collections.abc import Iterable
from typing import Any

import pytest
from support import (
    LOKI,
    Hosts,
    Line,
    ask_loki,
    check_service,
    eventually,
    fetch,
    find_lines,
    find_sample,
    journal,
    process_of,
    unique,
)

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PROMTAIL = "http://127.0.0.1:9080"
# docs/sampling.md shows this query.
SCALED = (
    'sum by (level) (sum_over_time({{job="{job}"}} '
    "| label_format weight=`{{{{ if .sample_rate }}}}{{{{ divf 1 .sample_rate }}}}{{{{ else }}}}1{{{{ end }}}}` "
    "| unwrap weight [1h]))"
)


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    """All hosts, with folders of logs as packages make them: readable for the group adm."""
    every = Hosts()
    every.check_output("install -d -m 2750 -g adm /var/log/app /var/log/many /var/log/many/deep")
    return every


def append(hosts: Iterable[Any], path: str, text: str) -> None:
    """Append a line to a log of each host, which belongs to the group adm."""
    for host in hosts:
        host.check_output(f"printf '%s\\n' {shlex.quote(text)} >> {path}; chgrp adm {path}; chmod 0640 {path}")


def append_many(hosts: Iterable[Any], path: str, lines: list[str]) -> None:
    """Append more lines than a command line takes."""
    for host in hosts:
        for start in range(0, len(lines), 500):
            append([host], path, "\n".join(lines[start : start + 500]))


def found(hosts: Iterable[Any], query: str) -> list[Line]:
    """Wait for the one line of each host that matches, and return them."""
    every = []
    for host in hosts:
        lines = eventually(lambda: find_lines(host, query), otherwise=lambda: journal(host, "promtail", "loki"))
        assert len(lines) == 1, lines
        every += lines
    return every


def record(**fields: Any) -> str:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    return json.dumps({"timestamp": now, "level": "INFO", "message": unique("record"), **fields})


def test_runs_as_its_own_user_and_comes_back_at_boot(hosts: Hosts) -> None:
    for host in hosts:
        check_service(host, "promtail")


def test_can_read_logs_but_not_the_passwords(hosts: Hosts) -> None:
    groups = "SupplementaryGroups='adm systemd-journal'"
    run = f"systemd-run --pipe --wait --quiet --property User=promtail --property {groups}"
    append(hosts, "/var/log/app/app.log", record())
    for host in hosts:
        assert host.run(f"{run} head -c1 /var/log/app/app.log").rc == 0
        assert host.run(f"{run} head -c1 /etc/shadow").rc != 0
        process = process_of(host, "promtail")
        names = host.check_output(f"id -Gn promtail; grep -E '^(Uid|Gid|CapEff)' /proc/{process}/status")
        assert "root" not in names.split()
        assert "CapEff:\t0000000000000000" in names


def test_a_json_record_has_the_labels_and_ids_of_the_contract(hosts: Hosts) -> None:
    text = record(level="warn", trace_id=TRACE_ID, span_id=SPAN_ID, service_name="ignored: group vars say shop")
    append(hosts, "/var/log/app/app.log", text)
    lines = found(hosts, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    for line, name in zip(lines, hosts.check_output("hostname")):
        expected = {"job": "app", "service_name": "shop", "level": "WARNING", "environment": "test", "host": name}
        assert {name: line.labels.get(name) for name in expected} == expected
        assert (line.labels["trace_id"], line.labels["span_id"]) == (TRACE_ID, SPAN_ID)
        assert line.text == text


def test_ids_are_never_labels(hosts: Hosts) -> None:
    text = record(trace_id=TRACE_ID, span_id=SPAN_ID)
    append(hosts, "/var/log/app/app.log", text)
    found(hosts, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    for host in hosts:
        streams = ask_loki(host, "series", **{"match[]": '{job="app"}'})
        assert set().union(*streams) <= {"job", "service_name", "level", "environment", "host"}


def test_a_record_keeps_its_own_time(hosts: Hosts) -> None:
    written = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=20)
    text = record(timestamp=written.isoformat().replace("+00:00", "Z"))
    append(hosts, "/var/log/app/app.log", text)
    found(hosts, f'{{job="app"}} |= "{json.loads(text)["message"]}"')
    recent = f'sum(count_over_time({{job="app"}} |= "{json.loads(text)["message"]}" [10m]))'
    for host in hosts:
        assert find_sample(host, recent) == 0
        assert find_sample(host, recent.replace("10m", "30m")) == 1


@pytest.mark.parametrize(
    "text", ["no json at all", '{"level": "banana"}', '{"level": 70, "trace_id": "zz"}', "[]", '{"timestamp": "then"}']
)
def test_a_line_that_is_no_proper_record_is_found_all_the_same(hosts: Hosts, text: str) -> None:
    mark = unique("improper")
    marked = f"{text} {mark}" if not text.startswith("{") else text[:-1] + f', "mark": "{mark}"}}'
    append(hosts, "/var/log/app/app.log", marked)
    for line in found(hosts, f'{{job="app"}} |= "{mark}"'):
        assert "level" not in line.labels
        assert "trace_id" not in line.labels


def test_a_plain_line_is_found_with_its_level(hosts: Hosts) -> None:
    mark = unique("plain")
    now = datetime.datetime.now(datetime.timezone.utc)
    append(hosts, "/var/log/plain.log", f"{now:%Y-%m-%d %H:%M:%SZ} nothing to tell, {mark}")
    append(hosts, "/var/log/plain.log", f"{now:%Y-%m-%d %H:%M:%SZ} [error] 7#7: {mark}\nand more")
    for host in hosts:
        eventually(lambda: len(find_lines(host, f'{{job="plain"}} |= "{mark}"')) == 2)
    (line, *_) = found(hosts, f'{{job="plain", service_name="plain-app", level="ERROR"}} |= "{mark}"')
    assert line.text.endswith("\nand more")


def test_lines_in_the_formats_of_other_software_have_their_own_time_level_and_metadata(hosts: Hosts) -> None:
    mark = unique("formats")
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=20)
    india = then.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    trace = f'Traceback (most recent call last):\n  File "{mark}.py", line 17\nValueError: no'
    node = {"time": int(then.timestamp() * 1000), "severity": 50, "msg": mark, "traceId": TRACE_ID}
    for host in hosts:
        local = host.check_output(f"date -d @{int(then.timestamp())} '+%Y-%m-%d %H:%M:%S'")
        append([host], "/var/log/app/python.txt", f"{local},678 ERROR billing: {mark}\n{trace}")
    append(hosts, "/var/log/app/zoned.txt", f"{india:%Y-%m-%d %H:%M:%S} WARNING {mark}")
    append(hosts, "/var/log/app/node.txt", json.dumps(node))
    request = f'203.0.113.7 - - [{then:%d/%b/%Y:%H:%M:%S +0000}] "GET /{mark}?ERROR HTTP/1.1" 404 1 "-" "-"'
    append(hosts, "/var/log/app/nginx.txt", request)
    levels = {"python": "ERROR", "zoned": "WARNING", "node": "ERROR", "nginx": None}
    lines = {job: found(hosts, f'{{job="{job}"}} |= "{mark}"') for job in levels}
    for job, level in levels.items():
        assert {line.labels.get("level") for line in lines[job]} == {level}
        recent = f'sum(count_over_time({{job="{job}"}} |= "{mark}" [15m]))'
        for host in hosts:
            assert (find_sample(host, recent), find_sample(host, recent.replace("15m", "25m"))) == (0, 1), job
    assert all(line.text.endswith(trace) for line in lines["python"])
    assert {line.labels.get("trace_id") for line in lines["node"]} == {TRACE_ID}
    assert {(line.labels.get("method"), line.labels.get("status_code")) for line in lines["nginx"]} == {("GET", "404")}


def test_a_pattern_finds_new_files_in_new_folders_but_not_excluded_ones(hosts: Hosts) -> None:
    mark = unique("many")
    append(hosts, f"/var/log/many/deep/{mark}.old.log", record(message=mark))
    append(hosts, f"/var/log/many/deep/{mark}.log", record(message=mark))
    assert {line.labels["service_name"] for line in found(hosts, f'{{job="many"}} |= "{mark}"')} == {"many"}


def test_the_journal_is_found_with_unit_level_and_identifier(hosts: Hosts) -> None:
    mark = unique("journal")
    # The unit writes by itself: a program such as logger may have ended before the journal has asked for its unit.
    as_probe = "--property SyslogIdentifier=probe --property SyslogLevel=err"
    hosts.check_output(f"systemd-run --wait --quiet --unit probe-unit {as_probe} echo {mark}")
    for line in found(hosts, f'{{job="systemd-journal", unit="probe-unit.service", level="ERROR"}} |= "{mark}"'):
        assert line.labels["service_name"] == "probe-unit"
        assert line.labels["identifier"] == "probe"


def test_units_of_log_ins_do_not_multiply_the_streams(hosts: Hosts) -> None:
    hosts.check_output("logger from a log-in")
    for host in hosts:
        eventually(lambda: find_lines(host, '{job="systemd-journal"} |= "from a log-in"'))
        units = ask_loki(host, "label/unit/values")
        assert not [unit for unit in units if unit.startswith(("session-", "user@1"))], units


# --- Sampling and rate limits -----------------------------------------------------------------------------------------

LINES = 2000


def counts(host: Any, query: str) -> dict[str, float]:
    """Return the values of a query by level; lines without one are under an empty name."""
    result = ask_loki(host, "query", query=query)["result"]
    return {entry["metric"].get("level", ""): float(entry["value"][1]) for entry in result}


def test_a_share_of_lines_is_kept_and_counts_can_be_scaled_back_and_nothing_else_is_sampled(hosts: Hosts) -> None:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "none")
    append_many(hosts, "/var/log/app/sampled.log", [record(level=level) for level in levels * LINES])
    append(hosts, "/var/log/app/sampled.log", record(level="CRITICAL"))
    by_level = 'sum by (level) (count_over_time({job="sampled"}[1h]))'
    for host in hosts:
        eventually(lambda: counts(host, by_level).get("CRITICAL") == 1, seconds=60)
        eventually(lambda: counts(host, by_level).get("") == LINES, seconds=60)
        arrived = counts(host, by_level)
        assert {level: arrived[level] for level in ("WARNING", "ERROR", "")} == dict.fromkeys(
            ("WARNING", "ERROR", ""), LINES
        )
        # Five standard deviations and more.
        assert 120 < arrived["DEBUG"] < 280, arrived
        assert 880 < arrived["INFO"] < 1120, arrived
        scaled = counts(host, SCALED.format(job="sampled"))
        expected = {**arrived, "DEBUG": arrived["DEBUG"] * 10, "INFO": arrived["INFO"] * 2}
        assert scaled == pytest.approx(expected)
        rates = {line.labels.get("sample_rate") for line in find_lines(host, '{job="sampled", level="DEBUG"}')}
        assert rates == {"0.1"}
        assert not find_lines(host, '{job="sampled", level="ERROR"} | sample_rate != ""')
        dropped = fetch(host, f"{PROMTAIL}/metrics")[1]
        assert 'logentry_dropped_lines_total{reason="sampling_stage"}' in dropped


def test_the_journal_is_sampled_as_well(hosts: Hosts) -> None:
    mark = unique("chatter")
    query = f'{{job="systemd-journal", level="DEBUG"}} |= "{mark}"'
    hosts.check_output(f"seq --format '{mark} %g' 400 | systemd-cat -t probe -p debug")
    for host in hosts:
        eventually(lambda: len(find_lines(host, query)) > 100)
    hosts.check_output(f"logger -p user.err {mark} end")
    for host in hosts:
        eventually(lambda: find_lines(host, f'{{job="systemd-journal", level="ERROR"}} |= "{mark} end"'))
        kept = find_lines(host, query)
        assert 100 < len(kept) < 300
        assert {line.labels["sample_rate"] for line in kept} == {"0.5"}


def test_a_rate_limit_delays_lines_and_drops_none(hosts: Hosts) -> None:
    marks = [unique("slow") for _ in range(110)]
    before = time.monotonic()
    append_many(hosts, "/var/log/app/slow.log", [record(message=mark) for mark in marks])
    for host in hosts:
        eventually(lambda: len(find_lines(host, '{job="slow"}')) >= len(marks), seconds=60)
        # 10 at once, then 20 in a second.
        assert time.monotonic() - before >= 5
        assert sorted(line.record["message"] for line in find_lines(host, '{job="slow"}')) == sorted(marks)


# --- An outage --------------------------------------------------------------------------------------------------------


def test_lines_written_while_loki_is_away_arrive_once_it_is_back(hosts: Hosts) -> None:
    marks = [unique("outage") for _ in range(50)]
    append(hosts, "/var/log/app/app.log", record(message=marks[0]))
    found(hosts, f'{{job="app"}} |= "{marks[0]}"')
    hosts.check_output("systemctl stop loki.service")
    try:
        append_many(hosts, "/var/log/app/app.log", [record(message=mark) for mark in marks[1:]])
    finally:
        hosts.check_output("systemctl start loki.service")
    for host in hosts:
        eventually(lambda: fetch(host, f"{LOKI}/loki/api/v1/labels")[0] == 200, otherwise=lambda: journal(host, "loki"))
        eventually(
            lambda: {line.record["message"] for line in find_lines(host, '{job="app"} |= "outage-"')} == set(marks),
            seconds=60,
            otherwise=lambda: journal(host, "promtail"),
        )
