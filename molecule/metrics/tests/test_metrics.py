"""Prometheus, Alertmanager and node_exporter by themselves: they scrape, keep, answer, and refuse bad settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import (
    PROMETHEUS,
    ask_prometheus,
    check_service,
    eventually,
    fetch,
    is_container,
    journal,
    run_playbook,
    samples,
    unique,
)

UNITS = ("prometheus", "alertmanager", "node-exporter")
BROKEN = {"source": "prometheus", "expr": "rate(up[", "above": 1, "severity": "info", "summary": "No"}
HOSTS = {"metrics-debian12": "10.89.77.140", "metrics-debian13": "10.89.77.141"}


@pytest.mark.parametrize("name", UNITS)
def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any, name: str) -> None:
    check_service(host, name)


def test_every_target_is_up_with_its_host_and_environment(host: Any) -> None:
    own = host.check_output("hostname")
    wanted = {("prometheus", own), ("alertmanager", own), *(("node", name) for name in HOSTS)}

    def up() -> bool:
        found = samples(host, 'up{environment="test"} == 1')
        return {(labels["job"], labels["host"]) for labels, _ in found} == wanted

    eventually(up, otherwise=lambda: fetch(host, f"{PROMETHEUS}/api/v1/targets")[1] + journal(host, *UNITS))


def test_a_hosts_memory_disks_and_units_are_known(host: Any) -> None:
    own = f'host="{host.check_output("hostname")}"'
    memory = 1024 * int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo"))
    assert eventually(lambda: samples(host, f"node_memory_MemTotal_bytes{{{own}}}"))[0][1] == memory
    # Its own unit's restrictions must not be taken for the host's.
    for mount in ("/run", "/tmp"):
        size = int(host.check_output(f"findmnt --noheadings --bytes --output SIZE {mount}"))
        assert [value for _, value in samples(host, f'node_filesystem_size_bytes{{{own}, mountpoint="{mount}"}}')] == [
            size
        ]
        assert [value for _, value in samples(host, f'node_filesystem_readonly{{{own}, mountpoint="{mount}"}}')] == [0]
    assert samples(host, f'node_systemd_unit_state{{{own}, name="prometheus.service", state="active"}} == 1')


def test_a_target_that_is_stopped_is_down_until_it_is_back(host: Any) -> None:
    down = f'up{{job="node", host="{host.check_output("hostname")}"}} == 0'
    host.check_output("systemctl stop node-exporter")
    try:
        eventually(lambda: samples(host, down))
    finally:
        host.check_output("systemctl start node-exporter")
    eventually(lambda: not samples(host, down), otherwise=lambda: journal(host, "node-exporter"))


def test_what_others_send_is_kept_over_a_kill(host: Any) -> None:
    name = unique("pushed").replace("-", "_")
    promtool = "/opt/prometheus/current/promtool"
    if is_container(host, "prometheus"):
        image = host.check_output("podman inspect --format '{{.ImageName}}' prometheus")
        promtool = f"podman run --rm --interactive --network=host --entrypoint=promtool {image}"
    host.check_output(f"printf '{name} 42\\n' | {promtool} push metrics {PROMETHEUS}")
    assert eventually(lambda: samples(host, name))[0][1] == 42
    host.check_output("systemctl kill --signal SIGKILL prometheus.service")
    eventually(lambda: fetch(host, f"{PROMETHEUS}/-/ready")[0] == 200, otherwise=lambda: journal(host, "prometheus"))
    assert samples(host, f"last_over_time({name}[10m])")[0][1] == 42


def test_how_much_is_kept_is_limited_by_time_and_size(host: Any) -> None:
    assert ask_prometheus(host, "status/runtimeinfo")["storageRetention"] == "31d or 8GiB"


def test_prometheus_has_found_alertmanager(host: Any) -> None:
    found = eventually(lambda: ask_prometheus(host, "alertmanagers")["activeAlertmanagers"])
    assert found == [{"url": "http://127.0.0.1:9093/api/v2/alerts"}]


def test_nothing_listens_on_more_than_it_was_told(host: Any) -> None:
    addresses = {
        line.split()[3] for line in host.check_output("ss --listening --tcp --numeric --no-header").splitlines()
    }
    own = HOSTS[host.check_output("hostname")]
    assert {address for address in addresses if not address.endswith(":22")} == {
        "127.0.0.1:9090",
        "127.0.0.1:9093",
        f"{own}:9100",
    }


def test_a_changed_rule_or_receiver_is_reloaded_and_restarts_nothing(host: Any) -> None:
    rule = {"source": "prometheus", "expr": "vector(1)", "above": 2, "severity": "info", "summary": "Never"}
    started = "systemctl show --property ExecMainStartTimestampMonotonic prometheus alertmanager"
    before, name = host.check_output(started), host.check_output("hostname")
    changed: dict[str, Any] = {
        "prometheus_rules": {"Loaded": rule},
        "alertmanager_config_overrides": {"route": {"group_wait": "17s"}},
    }
    code, output = run_playbook("molecule/metrics/converge.yml", "--limit", name, **changed)
    try:
        assert code == 0, output
        assert host.check_output(started) == before
        groups = ask_prometheus(host, "rules")["groups"]
        assert "Loaded" in [rule["name"] for group in groups for rule in group["rules"]]
        status = json.loads(fetch(host, "http://127.0.0.1:9093/api/v2/status")[1])
        assert "group_wait: 17s" in status["config"]["original"]
    finally:
        code, output = run_playbook("molecule/metrics/converge.yml", "--limit", name)
    assert code == 0, output
    assert host.check_output(started) == before


def test_an_added_host_is_scraped_without_a_reload_and_a_removed_one_is_not(host: Any) -> None:
    name = host.check_output("hostname")
    targets = {own: {"node_exporter": f"{address}:9100"} for own, address in HOSTS.items()}
    targets[name].update({"prometheus": "127.0.0.1:9090", "alertmanager": "127.0.0.1:9093"})
    targets["added"] = {"node_exporter": f"{HOSTS[name]}:9100"}
    started = "systemctl show --property ExecMainStartTimestampMonotonic prometheus"
    reloaded = f"curl -s {PROMETHEUS}/metrics | grep ^prometheus_config_last_reload_success_timestamp_seconds"
    before = host.check_output(f"{started}; {reloaded}")

    def told() -> str:
        return fetch(host, f"{PROMETHEUS}/api/v1/targets")[1] + journal(host, "prometheus")

    code, output = run_playbook("molecule/metrics/converge.yml", "--limit", name, prometheus_targets=targets)
    try:
        assert code == 0, output
        eventually(lambda: samples(host, 'up{job="node", host="added", environment="test"} == 1'), otherwise=told)
        file = host.file("/etc/prometheus/targets/node.yml")
        assert (file.user, file.group, file.mode) == ("root", "prometheus", 0o640)
    finally:
        code, output = run_playbook("molecule/metrics/converge.yml", "--limit", name)
    assert code == 0, output
    eventually(lambda: not samples(host, 'up{host="added"}'), otherwise=told)
    assert host.check_output(f"{started}; {reloaded}") == before


@pytest.mark.parametrize(
    ("unit", "setting", "value", "words"),
    [
        ("prometheus", "prometheus_config_overrides", {"global": {"scrape_intervall": "1s"}}, "scrape_intervall"),
        ("prometheus", "prometheus_scrape_interval", "often", "not a valid duration"),
        ("alertmanager", "alertmanager_config_overrides", {"route": {"receiver": "somebody"}}, "somebody"),
        ("prometheus", "prometheus_rules", {"Broken": BROKEN}, '"Broken": could not parse expression'),
        ("prometheus", "prometheus_targets", {"a": {"node_exporter": "http://a:9100"}}, "not a valid hostname"),
    ],
    ids=["a key that isn't known", "no period", "a receiver that isn't there", "a rule that is no PromQL", "a URL"],
)
def test_settings_that_a_program_refuses_leave_the_old_ones_running(
    host: Any, unit: str, setting: str, value: Any, words: str
) -> None:
    file = {"prometheus_rules": "rules/logstead", "prometheus_targets": "targets/node"}.get(setting, "config")
    path = f"/etc/{unit}/{file}.yml"
    before = host.check_output(f"sha256sum {path}; systemctl show --property MainPID {unit}")
    name = host.check_output("hostname")
    code, output = run_playbook("molecule/metrics/converge.yml", "--limit", name, **{setting: value})
    assert code != 0
    assert f"{path} was refused by" in output
    assert words in output
    assert host.check_output(f"sha256sum {path}; systemctl show --property MainPID {unit}") == before


def test_their_settings_are_closed_to_others_and_say_who_owns_them(host: Any) -> None:
    for unit in ("prometheus", "alertmanager"):
        settings = host.file(f"/etc/{unit}/config.yml")
        assert (settings.user, settings.group, settings.mode) == ("root", unit, 0o640)
        assert settings.content_string.startswith("# Managed by logstead")


def test_alertmanager_tells_of_itself_and_is_alone(host: Any) -> None:
    status, body = fetch(host, "http://127.0.0.1:9093/api/v2/status")
    assert status == 200
    assert json.loads(body)["cluster"]["status"] == "disabled"
