"""Bad input ends the run of site.yml before the host is touched, says what is wrong, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from support import run_playbook

# Everything that a run could change, with what it holds: paths, owners, modes, and files' sizes and times.
PLACES = "/etc /opt /srv /usr/local /var/cache /var/lib /var/log/demo-app"
KEPT_BY_OTHERS = "-not -path '/var/lib/systemd/*' -not -path '/var/lib/private*'"
WRITTEN = "-type d -printf '%p %u:%g %m\\n' -o -printf '%p %u:%g %m %s %T@\\n'"
FINGERPRINT = f"find {PLACES} -xdev {KEPT_BY_OTHERS} \\( {WRITTEN} \\) 2>&1 | sort"


@dataclass(frozen=True)
class Case:
    """Some bad input, and what one sentence about it says: what is wrong, and what to do."""

    variables: dict[str, Any]
    problem: str
    advice: str


def value(name: str, given: Any, problem: str, advice: str = "; expected ") -> Case:
    """Return the case of one variable with a wrong value."""
    return Case({name: given}, f"{name}{problem}", advice)


# A line of a unit's, by way of a value in another.
INJECTED = "\nExecStartPre=/usr/bin/touch /etc/injected"
RETENTION = {"loki_retention_by_level": {"DEBUG": "12h", "debug": "3d"}}
WRONG_LOGS: dict[str, dict[str, Any]] = {
    "relative": {"path": "var/log/x.log"},
    "lines": {"path": "/var/log/x.log\n/etc/shadow"},
    "job": {"job": "a{b}"},
    "label": {"labels": {"my-label": "x"}},
    "own-path": {"labels": {"__path__": "/etc/shadow"}},
    "platforms": {"labels": {"level": "INFO"}},
    "nothing": {"labels": {"team": None}},
    "slashes": {"path": "/var/log//demo-app/app.log"},
    "pattern": {"path": "/var/log/demo-app/a*.log"},
}
NEVER = {"rotation": "never"}
LOGS = {"platform_logs": {name: {"path": f"/var/log/{name}.log", **NEVER, **own} for name, own in WRONG_LOGS.items()}}
DASHBOARDS = {"grafana_dashboards": [{"file": "none.json"}, {"title": "Shop"}]}
# The preflight tells all problems of a host at once, so the cases of one run share it.
RUNS: dict[str, dict[str, Case]] = {
    "services, files and people": {
        "unknown runtime": Case({"platform_runtime": "docker"}, "platform_runtime", "systemd"),
        "retention that is no duration": Case(
            {"platform_retention": "a month"}, "platform_retention is 'a month'", "such as 31d"
        ),
        "two services on one port": Case(
            {"loki_http_port": 3100}, "grafana_http_port and loki_http_port are both 3100", "a port of its own"
        ),
        "misspelt variable": Case(
            {"loki_retension": "7d"}, "loki_retension is an unknown variable", "did you mean loki_retention?"
        ),
        "collector without a store": Case(
            {"promtail_loki_url": ""}, "there is no Loki", "put a host in the group loki"
        ),
        "address that is none": Case(
            {"loki_http_listen_address": "logs.example"}, "expected an IP address", "Set platform_address"
        ),
        "log without a path": Case(
            {"platform_logs": {"shop": {"rotation": "never"}}},
            "platform_logs: shop needs path",
            "or paths for several logs",
        ),
        "dashboard that isn't there": Case(DASHBOARDS, "grafana_dashboards", "none.json can't be read"),
        "dashboard that is neither": Case(
            DASHBOARDS, "grafana_dashboards", "title and job, and maybe uid, folder and panels"
        ),
        "account without a password": Case({"grafana_org_users": [{"login": "ada"}]}, "password", "grafana_org_users"),
    },
    # One of each kind; tests/unit/test_wrong_values.py tries all variables with all wrong values.
    "values": {
        case.problem: case
        for case in (
            value("loki_http_port", -5, " is -5", "a TCP port from 1 to 65535"),
            value("loki_grpc_port", 99999, " is 99999", "a TCP port from 1 to 65535"),
            value("promtail_http_port", 80, " is 80", "AmbientCapabilities: CAP_NET_BIND_SERVICE"),
            value("demo_app_http_port", "\uff18\uff10\uff10\uff10", " is "),
            value("loki_memory_max", "lots", " is 'lots'", "bytes with a suffix"),
            value("promtail_memory_max", "512m", " is '512m'", "bytes with a suffix"),
            value("grafana_memory_max", "%n", " is '%n'"),
            value("loki_unit_overrides", {"Service": {"Nice": f"1{INJECTED}"}}, ": Service: 'Nice' is "),
            value("grafana_unit_overrides", {"Sevice": {"Nice": 1}}, " has the section 'Sevice'"),
            value("promtail_unit_overrides", "Nice=1", " is 'Nice=1'; expected a dict", ""),
            value("promtail_groups", [f"adm{INJECTED}"], "[1] is ", "the name of a user or group"),
            value("promtail_journal_enabled", "maybe", "", "bool"),
            value("promtail_sampling", None, " is null", "give it a value, or remove it"),
            value("platform_environment", 'de"v', " is 'de\"v'", "a name of ASCII letters, digits, - and _"),
            value("platform_retention", "\uff13\uff11d", " is ", "such as 31d"),
            value("loki_retention", "99999999y", " is '99999999y'", "the longest retention is 100y"),
            value("platform_address", "300.1.1.1", " is '300.1.1.1'"),
            value("platform_grafana_url", "http://a b", " is 'http://a b'"),
            value("platform_loki_url", "loki:3101", " is 'loki:3101'"),
            value("loki_instance_address", "localhost", " is 'localhost'"),
            value("loki_version", "../3", " is '../3'"),
            value("loki_checksum", "abc", " is 'abc'", "64 hex digits"),
            value("demo_app_log_folder", "var/log/app", " is 'var/log/app'", "an absolute path"),
            value("demo_app_log_group", "adm\x00", " is "),
            value("demo_app_service_name", "a{b}", " is 'a{b}'"),
            value("demo_app_otlp_endpoint", "ftp://x", " is 'ftp://x'"),
            value("grafana_admin_user", "a b", " is 'a b'"),
            value("grafana_org_name", "x\u202egpj", " is ", "control characters"),
            value("logrotate_interval_minutes", -1, " is -1", "minutes from 1 to 1440"),
            value("logrotate_journal_max_use", f"1G{INJECTED}", " is "),
            value("logrotate_journal_max_age", "31", " is '31'", "a time span of systemd"),
            Case({"plattform_log_level": "INFO"}, "plattform_log_level is an unknown variable", "platform_log_level?"),
        )
    },
    "logs": {
        case.problem: case
        for case in (
            Case(LOGS, "platform_logs: relative: path is 'var/log/x.log'", "an absolute path"),
            Case(LOGS, "platform_logs: lines: path is ", "control characters"),
            Case(LOGS, "platform_logs: job: job is 'a{b}'", "a name of ASCII letters"),
            Case(LOGS, "platform_logs: label: labels: the name is 'my-label'", "a label name"),
            Case(LOGS, "platform_logs: own-path: labels: the name is '__path__'", "does not begin with __"),
            Case(LOGS, "platform_logs: platforms: labels: the name is 'level'", "those that the platform sets"),
            Case(LOGS, "platform_logs: nothing: labels: team is null", "one line of text"),
            Case(LOGS, "platform_logs: slashes and demo-app both name", "Keep one of them"),
            Case(LOGS, "platform_logs: pattern and demo-app both name", "Keep one of them"),
        )
    },
    "retention and secrets": {
        "retention below a day": Case({"platform_retention": "12h"}, "platform_retention is '12h'", "24h at least"),
        "retention of a level that is none": Case(
            RETENTION, "loki_retention_by_level has the unknown level debug", "levels are DEBUG, INFO"
        ),
        "retention of a level that is too short": Case(
            RETENTION, "loki_retention_by_level['DEBUG'] is '12h'", "Loki keeps every line for 24h at least"
        ),
        "default password in production": Case(
            {"platform_environment": "prod"}, "grafana_admin_password", "group_vars/prod/vault.yml"
        ),
    },
    # Each of these is the first problem of a release, with which the run ends.
    **{
        name: {name: case}
        for name, case in {
            "mirror that does not answer": Case(
                {"platform_mirror_url": "http://10.89.77.2:81"}, "can't be reached", "Check the host's network"
            ),
            "version that does not exist": Case(
                {"loki_version": "0.0.1"}, "answers 404", "Check that this version exists"
            ),
            "archive that is damaged": Case(
                {"platform_mirror_url": "http://10.89.77.2/faulty/corrupt"}, "is expected", "The archive is damaged"
            ),
            "archive without a checksum": Case(
                {"platform_mirror_url": "http://10.89.77.2/faulty/unlisted"},
                "lists no checksum for loki-linux-",
                "Choose a version that has one",
            ),
            "wrong checksum": Case({"loki_checksum": "0" * 64}, f"but {'0' * 64} is expected", "Nothing was changed"),
        }.items()
    },
}


@pytest.mark.parametrize("cases", RUNS.values(), ids=RUNS)
def test_the_run_stops_before_the_host_is_touched(host: Any, cases: dict[str, Case]) -> None:
    before = host.check_output(FINGERPRINT)
    variables = {name: value for case in cases.values() for name, value in case.variables.items()}
    code, output = run_playbook("site.yml", **variables)
    # The preflight numbers its sentences, and each is about one thing.
    said = re.sub(r"\s+", " ", output)
    sentences = re.split(r" \(\d+\) ", said)
    assert code == 2, output
    for name, case in cases.items():
        assert any(case.problem in it and case.advice in it for it in sentences), f"{name}: {output}"
    assert "Nothing was changed" in said, output
    assert host.check_output(FINGERPRINT).splitlines() == before.splitlines(), "something has changed on the host"


@pytest.mark.parametrize("options", [{"NoSuchDirective": "x"}, {"Nice": "99"}], ids=["unknown option", "ignored value"])
def test_a_unit_with_a_line_that_systemd_would_ignore_is_refused(host: Any, options: dict[str, str]) -> None:
    before = host.check_output(FINGERPRINT)
    code, output = run_playbook("site.yml", "--check", "--tags", "loki", loki_unit_overrides={"Service": options})
    assert code == 2, output
    said = re.sub(r"\s+", " ", output)
    assert "/etc/systemd/system/loki.service was refused by `systemd-analyze verify`" in said, output
    assert "ignoring" in said, output
    assert host.check_output(FINGERPRINT) == before


def test_a_host_that_is_too_old_is_refused(host: Any) -> None:
    before = host.check_output(FINGERPRINT)
    host.check_output("cp -a /etc/os-release /tmp/os-release && cp -a /usr/lib/os-release /tmp/lib-os-release")
    host.check_output("sed -i 's/^VERSION_ID=.*/VERSION_ID=\"10\"/; s/13 (trixie)/10 (buster)/' /usr/lib/os-release")
    host.check_output("mv /etc/debian_version /tmp/debian_version && echo 10.13 > /etc/debian_version")
    try:
        code, output = run_playbook("site.yml")
    finally:
        host.check_output("mv /tmp/debian_version /etc/debian_version; cp -a /tmp/lib-os-release /usr/lib/os-release")
    assert code == 2, output
    assert "supported are Debian from 12 on" in output
    assert host.check_output(FINGERPRINT) == before


def test_without_any_of_this_the_run_would_have_worked() -> None:
    code, output = run_playbook("site.yml", "--check", "--diff")
    assert code == 0, output
