"""Grafana by its own HTTP API: a genuine one and the tests' stand-in have to answer the same."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from support import Hosts, check_no_secret_is_readable, check_service, eventually, fetch, journal, run_playbook, unique

GRAFANA = "http://127.0.0.1:3100"
LOG_IN = ("--user", "admin:only-for-this-test")


def ask(host: Any, path: str, *options: str) -> tuple[int, Any]:
    """Ask Grafana as its administrator; return the status and the JSON."""
    status, body = fetch(host, f"{GRAFANA}{path}", *LOG_IN, *options)
    return status, json.loads(body) if body else None


@pytest.fixture(scope="module")
def hosts() -> Hosts:
    """All hosts of the scenario."""
    return Hosts()


def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any) -> None:
    check_service(host, "grafana")


def test_lets_in_only_who_knows_the_password(host: Any) -> None:
    status, body = fetch(host, f"{GRAFANA}/api/health")
    assert (status, json.loads(body)["database"]) == (200, "ok"), journal(host, "grafana")
    assert ask(host, "/api/org")[0] == 200
    assert fetch(host, f"{GRAFANA}/api/org", "--user", "admin:wrong")[0] == 401
    assert fetch(host, f"{GRAFANA}/api/org")[0] == 401


def test_nobody_can_sign_up(host: Any) -> None:
    new = json.dumps({"email": "a@example.org", "password": "12345678"})
    status, _ = fetch(host, f"{GRAFANA}/api/user/signup", "--header", "Content-Type: application/json", "--data", new)
    assert status in (401, 404)


def test_the_data_source_has_its_fixed_uid_and_answers_a_query(host: Any) -> None:
    status, source = ask(host, "/api/datasources/uid/loki")
    assert status == 200
    assert {name: source[name] for name in ("type", "url", "isDefault", "readOnly")} == {
        "type": "loki",
        "url": "http://127.0.0.1:3101",
        "isDefault": True,
        "readOnly": True,
    }
    assert ask(host, "/api/datasources/uid/loki/health")[1]["status"] == "OK"
    line = unique("shown")
    push = {"streams": [{"stream": {"job": "probe"}, "values": [[str(time.time_ns()), line]]}]}
    to_loki = "--header", "Content-Type: application/json", "--data", json.dumps(push)
    assert fetch(host, "http://127.0.0.1:3101/loki/api/v1/push", *to_loki)[0] == 204
    query = {
        "queries": [
            {"refId": "A", "datasource": {"uid": "loki"}, "expr": f'{{job="probe"}} |= "{line}"', "queryType": "range"}
        ],
        "from": "now-5m",
        "to": "now",
    }
    post = "--header", "Content-Type: application/json", "--data", json.dumps(query)

    def shown() -> bool:
        status, answer = ask(host, "/api/ds/query", *post)
        return status == 200 and line in json.dumps(answer)

    assert eventually(shown, otherwise=lambda: journal(host, "grafana", "loki"))


def test_a_data_source_that_is_no_longer_listed_goes(hosts: Hosts) -> None:
    assert {ask(host, "/api/datasources/uid/second")[0] for host in hosts} == {200}
    code, output = run_playbook("molecule/grafana/converge.yml", second_datasource_is_gone=True)
    assert code == 0, output
    assert {ask(host, "/api/datasources/uid/second")[0] for host in hosts} == {404}
    assert {ask(host, "/api/datasources/uid/loki")[0] for host in hosts} == {200}


def test_calls_nobody_and_keeps_its_secrets(host: Any) -> None:
    settings = host.file("/etc/grafana/grafana.ini").content_string
    for line in (
        "reporting_enabled = false",
        "check_for_updates = false",
        "preinstall_disabled = true",
        "public_key_retrieval_disabled = true",
        "default_theme = light",
    ):
        assert line in settings.splitlines()
    for secret in ("only-for-this-test", "only-for-this-test-too"):
        assert secret not in settings
        check_no_secret_is_readable(host, secret, "/etc", "/var/lib", "/run")
