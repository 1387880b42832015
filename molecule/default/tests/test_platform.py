"""The whole platform on one host: what its users do with it, through every part of it."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import pytest
from support import (
    PROMETHEUS,
    ask_prometheus,
    check_no_secret_is_readable,
    check_service,
    eventually,
    fetch,
    find_lines,
    find_sample,
    journal,
    power_cycle,
    run_playbook,
    samples,
    unique,
)

APP = "http://127.0.0.1:8000"
GRAFANA = "http://127.0.0.1:3100"
LOG_IN = ("--user", "admin:admin123")
UNITS = (
    "loki",
    "promtail",
    "grafana",
    "demo-app",
    "prometheus",
    "alertmanager",
    "node-exporter",
    "logstead-local-access",
)
JOBS = {"loki", "promtail", "grafana", "demo_app", "prometheus", "alertmanager", "node"}
CONTRACT = ("timestamp", "level", "logger_name", "message", "service_name", "trace_id", "span_id")
REQUEST = {"method": str, "endpoint": str, "status_code": int, "duration_ms": float}


def request(host: Any, path: str) -> str:
    """Send the app a request within a trace of our own, and return the trace's id."""
    trace_id = secrets.token_hex(16)
    fetch(host, APP + path, "--header", f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01")
    return trace_id


def lines_of(host: Any, trace_id: str, count: int) -> Any:
    """Wait until Loki has that many lines of a trace, and return them."""
    query = f'{{job="fastapi"}} | trace_id="{trace_id}"'
    eventually(
        lambda: len(find_lines(host, query)) >= count,
        otherwise=lambda: host.check_output("tail -n 5 /var/log/demo-app/*.log") + journal(host, "promtail", "loki"),
    )
    return find_lines(host, query)


@pytest.mark.parametrize("name", UNITS)
def test_every_part_runs_as_its_own_user_and_comes_back_at_boot(host: Any, name: str) -> None:
    check_service(host, name)


def test_the_queries_that_users_already_have_return_what_they_should(host: Any) -> None:
    traces = {path: request(host, path) for path in ("/", "/health", "/trace/42", "/error")}
    lines_of(host, traces["/error"], 2)

    everything = find_lines(host, '{job="fastapi"}')
    assert {line.labels["trace_id"] for line in everything if "trace_id" in line.labels} >= set(traces.values())

    errors = find_lines(host, '{job="fastapi", level="ERROR"}')
    assert {line.record.get("trace_id") for line in errors} >= {traces["/error"]}
    assert {line.record["level"] for line in errors} == {"ERROR"}
    assert not {line.record.get("trace_id") for line in errors} & {traces["/"], traces["/trace/42"]}

    assert len(find_lines(host, '{job="fastapi", service_name="fastapi-demo"}')) >= len(everything)

    trace_id = traces["/trace/42"]
    by_text = find_lines(host, f'{{job="fastapi"}} |~ "trace_id.*{trace_id}"')
    assert by_text
    assert {line.record["trace_id"] for line in by_text} == {trace_id}

    counted = find_sample(host, 'sum(count_over_time({job="fastapi", level="ERROR"} [5m]))')
    assert counted >= len([line for line in errors if line.record.get("trace_id") == traces["/error"]]) > 0


def test_a_trace_returns_exactly_the_lines_of_its_request_each_once(host: Any) -> None:
    trace_id = request(host, "/trace/42")
    files = "/var/log/demo-app/app.log /var/log/demo-app/access.log"
    written = eventually(lambda: sorted(host.run(f"grep -hF {trace_id} {files}").stdout.splitlines()))
    assert sorted(line.text for line in lines_of(host, trace_id, len(written))) == written


def test_a_record_holds_every_field_of_the_contract(host: Any) -> None:
    trace_id = request(host, "/trace/7")
    lines = lines_of(host, trace_id, 2)
    for line in lines:
        assert {name: type(line.record.get(name)) for name in CONTRACT} == dict.fromkeys(CONTRACT, str)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z", line.record["timestamp"])
        assert line.record["trace_id"] == trace_id
        assert re.fullmatch(r"[0-9a-f]{16}", line.record["span_id"])
        assert line.labels["span_id"] == line.record["span_id"]
    (canonical,) = [line.record for line in lines if "status_code" in line.record]
    assert {name: type(canonical[name]) for name in REQUEST} == REQUEST
    assert (canonical["method"], canonical["endpoint"], canonical["status_code"]) == ("GET", "/trace/{item_id}", 200)


def test_a_failing_request_leaves_its_stack_trace_and_trace_id(host: Any) -> None:
    trace_id = request(host, "/error")
    records = [line.record for line in lines_of(host, trace_id, 2)]
    (failure,) = [record for record in records if "Traceback (most recent call last)" in record.get("exception", "")]
    assert failure["level"] == "ERROR"
    assert [record["status_code"] for record in records if "status_code" in record] == [500]
    # For people at the host: a copy that is not sent a second time.
    copies = host.check_output(f"grep -cF {trace_id} /var/log/demo-app/error.log")
    assert int(copies) == len([record for record in records if record["level"] == "ERROR"])


def test_the_journal_is_searchable(host: Any) -> None:
    mark = unique("probe")
    # What `logger` writes has no unit where it has ended before journald looks for it.
    host.check_output(f"systemd-run --quiet --wait --property=SyslogIdentifier=probe echo {mark}")
    (line,) = eventually(lambda: find_lines(host, f'{{job="systemd-journal"}} | identifier="probe" |= "{mark}"'))
    assert line.labels["unit"]
    assert (line.labels["environment"], line.labels["host"]) == ("dev", "default-debian12")


def test_grafana_lets_in_only_who_knows_the_password(host: Any) -> None:
    status, body = fetch(host, f"{GRAFANA}/api/health")
    assert (status, json.loads(body)["database"]) == (200, "ok")
    assert fetch(host, f"{GRAFANA}/api/org", *LOG_IN)[0] == 200
    assert fetch(host, f"{GRAFANA}/api/org", "--user", "admin:wrong")[0] == 401
    assert fetch(host, f"{GRAFANA}/api/org")[0] == 401


def test_grafana_finds_the_lines_through_its_data_source(host: Any) -> None:
    trace_id = request(host, "/trace/1")
    expected = len(lines_of(host, trace_id, 2))
    status, body = fetch(host, f"{GRAFANA}/api/datasources/uid/loki/health", *LOG_IN)
    assert (status, json.loads(body)["status"]) == (200, "OK")
    query = "--get", "--data-urlencode", f'query={{job="fastapi"}} | trace_id="{trace_id}"'
    status, body = fetch(host, f"{GRAFANA}/api/datasources/proxy/uid/loki/loki/api/v1/query_range", *LOG_IN, *query)
    assert status == 200, body
    assert sum(len(stream["values"]) for stream in json.loads(body)["data"]["result"]) == expected


def test_prometheus_scrapes_every_part(host: Any) -> None:
    def up() -> bool:
        found = [labels for labels, _ in samples(host, "up == 1")]
        assert all((labels["host"], labels["environment"]) == ("default-debian12", "dev") for labels in found)
        return {labels["job"] for labels in found} == JOBS

    eventually(up, seconds=60, otherwise=lambda: fetch(host, f"{PROMETHEUS}/api/v1/targets")[1])
    for metric in ("loki_build_info", "promtail_build_info", "http_requests_total", "node_uname_info"):
        assert samples(host, metric), metric


def test_a_requests_duration_leads_from_its_metric_to_its_lines(host: Any) -> None:
    trace_id = request(host, "/trace/42")
    query = 'http_request_duration_seconds_bucket{job="demo_app", endpoint="/trace/{item_id}"}'

    def exemplars() -> set[str]:
        found = ask_prometheus(host, "query_exemplars", query=query, start="0", end="9999999999")
        return {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}

    eventually(lambda: trace_id in exemplars(), seconds=60, otherwise=lambda: fetch(host, f"{APP}/metrics")[1])
    lines_of(host, trace_id, 2)


def test_no_secret_lies_open(host: Any) -> None:
    for secret in ("admin123", "logstead-dev-only"):
        check_no_secret_is_readable(
            host, secret, "/etc", "/opt/demo-app/current/pyvenv.cfg", "/var/lib", "/var/log", "/run"
        )


def test_nothing_listens_on_more_than_it_must(host: Any) -> None:
    addresses = {
        line.split()[3] for line in host.check_output("ss --listening --tcp --numeric --no-header").splitlines()
    }
    assert {"127.0.0.1:3101", "127.0.0.1:9096", "127.0.0.1:9080"} <= addresses
    reachable = {address.rpartition(":")[2] for address in addresses if not address.startswith("127.")}
    assert reachable == {"22", "3100", "8000"}


def test_a_check_of_a_converged_host_reports_no_change() -> None:
    code, output = run_playbook("site.yml", "--check", "--diff")
    assert code == 0, output
    assert re.search(r"changed=0 .*failed=0", output), output


def test_another_admin_password_is_carried_out_and_never_shown(host: Any) -> None:
    password = unique("password")
    try:
        code, output = run_playbook("site.yml", "--tags", "grafana", "-vv", "--diff", grafana_admin_password=password)
        assert code == 0, output
        assert password not in output
        assert fetch(host, f"{GRAFANA}/api/org", "--user", f"admin:{password}")[0] == 200
        assert fetch(host, f"{GRAFANA}/api/org", *LOG_IN)[0] == 401
    finally:
        run_playbook("site.yml", "--tags", "grafana")
    assert fetch(host, f"{GRAFANA}/api/org", *LOG_IN)[0] == 200


def test_after_a_power_cut_everything_comes_back_by_itself(host: Any) -> None:
    before = request(host, "/trace/2")
    lines_of(host, before, 2)
    power_cycle(host)
    active = f"systemctl is-active {' '.join(UNITS)}"
    eventually(lambda: host.run(active).rc == 0, seconds=60, otherwise=lambda: journal(host, *UNITS))
    eventually(lambda: fetch(host, f"{APP}/health")[0] == 200, seconds=60, otherwise=lambda: journal(host, "demo-app"))
    eventually(
        lambda: fetch(host, "http://127.0.0.1:3101/ready")[0] == 200,
        seconds=60,
        otherwise=lambda: journal(host, "loki"),
    )
    lines_of(host, request(host, "/trace/3"), 2)
    lines_of(host, before, 2)
    assert host.run("runuser -u nobody -- curl --silent http://127.0.0.1:3101/ready").rc == 7
    assert host.check_output("systemctl --failed --no-legend") == ""
