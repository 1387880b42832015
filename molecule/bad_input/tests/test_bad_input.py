"""Bad input ends the run of site.yml before the host is touched, says what is wrong, and what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support import run_playbook

# Everything that a run could change, with what it holds: paths, owners, modes, and files' sizes and times.
PLACES = "/etc /opt /srv /usr/local /var/cache /var/lib /var/log/demo-app"
KEPT_BY_OTHERS = "-not -path '/var/lib/systemd/*' -not -path '/var/lib/private*'"
WRITTEN = "-type d -printf '%p %u:%g %m\\n' -o -printf '%p %u:%g %m %s %T@\\n'"
FINGERPRINT = f"find {PLACES} -xdev {KEPT_BY_OTHERS} \\( {WRITTEN} \\) 2>&1 | sort"


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown runtime": ({"platform_runtime": "docker"}, "platform_runtime", "systemd"),
    "retention that is no duration": (
        {"platform_retention": "a month"},
        "platform_retention is 'a month'",
        "such as 31d",
    ),
    "retention below a day": ({"platform_retention": "12h"}, "platform_retention is '12h'", "24h at least"),
    "retention of levels that are none or too short": (
        {"loki_retention_by_level": {"DEBUG": "12h", "debug": "3d"}},
        "loki_retention_by_level has the unknown level debug; levels are DEBUG, INFO",
        "loki_retention_by_level['DEBUG'] is '12h': Loki keeps every line for 24h at least",
    ),
    "two services on one port": (
        {"loki_http_port": 3100},
        "grafana_http_port and loki_http_port are both 3100",
        "a port of its own",
    ),
    "misspelt variable": (
        {"loki_retension": "7d"},
        "loki_retension is an unknown variable",
        "did you mean loki_retention?",
    ),
    "collector without a store": ({"promtail_loki_url": ""}, "there is no Loki", "put a host in the group loki"),
    "default password in production": (
        {"platform_environment": "prod"},
        "grafana_admin_password",
        "group_vars/prod/vault.yml",
    ),
    "address that is none": ({"loki_http_listen_address": "logs.example"}, "is no IP address", "Set platform_address"),
    "log without a path": (
        {"platform_logs": {"shop": {"rotation": "never"}}},
        "platform_logs: shop needs path",
        "or paths",
    ),
    "dashboard that isn't there": (
        {"grafana_dashboards": [{"file": "none.json"}, {"title": "Shop"}]},
        "none.json can't be read",
        "title and job, and maybe uid, folder and panels",
    ),
    "account without a password": ({"grafana_org_users": [{"login": "ada"}]}, "password", "grafana_org_users"),
    "mirror that does not answer": (
        {"platform_mirror_url": "http://10.89.77.2:81"},
        "can't be reached",
        "Check the host's network",
    ),
    "version that does not exist": ({"loki_version": "0.0.1"}, "answers 404", "Check that this version exists"),
    "archive that is damaged": (
        {"platform_mirror_url": "http://10.89.77.2/faulty/corrupt"},
        "is expected",
        "The archive is damaged",
    ),
    "archive without a checksum": (
        {"platform_mirror_url": "http://10.89.77.2/faulty/unlisted"},
        "lists no checksum for loki-linux-",
        "Choose a version that has one",
    ),
    "wrong checksum": ({"loki_checksum": "0" * 64}, f"but {'0' * 64} is expected", "Nothing was changed"),
}


@pytest.mark.parametrize(("variables", "problem", "advice"), CASES.values(), ids=CASES)
def test_the_run_stops_before_the_host_is_touched(
    host: Any, variables: dict[str, Any], problem: str, advice: str
) -> None:
    before = host.check_output(FINGERPRINT)
    code, output = run_playbook("site.yml", **variables)
    said = re.sub(r"\s+", " ", output)
    assert code == 2, output
    assert problem in said, output
    assert advice in said, output
    assert "Nothing was changed" in said, output
    assert host.check_output(FINGERPRINT).splitlines() == before.splitlines(), "something has changed on the host"


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
