"""The app and its collector on one host, the store on another: what connects them comes from group vars."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from support import Hosts, eventually, fetch, find_lines, journal, samples

STORE = "http://10.89.77.72"
# Prometheus on the other host scrapes it, so it doesn't listen on loopback.
APP = "http://10.89.77.71:8000"


@pytest.fixture(scope="module")
def app() -> Any:
    """The host of the app and its collector."""
    (host,) = Hosts("two-hosts-app")
    return host


@pytest.fixture(scope="module")
def store() -> Any:
    """The host of Loki and Grafana."""
    (host,) = Hosts("two-hosts-store")
    return host


def test_each_host_has_its_parts_and_no_other(app: Any, store: Any) -> None:
    # A release, or the record of images that containers run from.
    installed = "for path in /opt/*/current /opt/*/images; do [ -e $path ] && dirname $path; done; true"
    assert app.check_output(installed).split() == [
        "/opt/demo-app",
        "/opt/node-exporter",
        "/opt/promtail",
    ]
    assert store.check_output(installed).split() == [
        "/opt/grafana",
        "/opt/loki",
        "/opt/node-exporter",
        "/opt/prometheus",
        "/opt/promtail",
    ]


def test_a_request_on_one_host_is_found_on_the_other(app: Any, store: Any) -> None:
    trace_id = secrets.token_hex(16)
    fetch(app, f"{APP}/trace/42", "--header", f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01")
    lines = eventually(
        lambda: find_lines(store, f'{{job="fastapi"}} | trace_id="{trace_id}"', f"{STORE}:3101"),
        otherwise=lambda: journal(app, "promtail"),
    )
    assert {(line.labels["host"], line.labels["environment"]) for line in lines} == {("two-hosts-app", "staging")}


def test_grafana_asks_loki_at_its_address(store: Any) -> None:
    log_in = "--user", "admin:only-for-this-test"
    status, body = fetch(store, "http://127.0.0.1:3100/api/datasources/uid/loki/health", *log_in)
    assert (status, json.loads(body)["status"]) == (200, "OK"), body


def test_both_hosts_journals_are_found(store: Any) -> None:
    def hosts() -> bool:
        return {line.labels["host"] for line in find_lines(store, '{job="systemd-journal"}', f"{STORE}:3101")} == {
            "two-hosts-app",
            "two-hosts-store",
        }

    assert eventually(hosts)


def test_prometheus_scrapes_the_parts_of_both_hosts(store: Any) -> None:
    wanted = {("two-hosts-app", job) for job in ("promtail", "demo_app", "node")}
    wanted |= {("two-hosts-store", job) for job in ("loki", "promtail", "grafana", "prometheus", "node")}

    def up() -> bool:
        found = [labels for labels, _ in samples(store, "up == 1", f"{STORE}:9090")]
        return {(labels["host"], labels["job"]) for labels in found} == wanted

    eventually(up, seconds=60, otherwise=lambda: fetch(store, f"{STORE}:9090/api/v1/targets")[1])


def test_local_users_of_a_host_reach_no_component_at_its_address(store: Any) -> None:
    for port in (3101, 9090):
        ask = f"curl --silent --max-time 10 {STORE}:{port}/ready"
        assert store.run(f"runuser -u nobody -- {ask}").rc == 7
        assert store.run(ask).rc == 0


def test_what_is_not_meant_for_others_listens_on_the_loopback_interface(app: Any) -> None:
    # Prometheus, for which the app's parts can be reached, is on the same host as these.
    assert fetch(app, f"{STORE}:9080/ready")[0] == 0
    assert fetch(app, f"{STORE}:9100/metrics")[0] == 0
    assert fetch(app, f"{STORE}:9096")[0] == 0
