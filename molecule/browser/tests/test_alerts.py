"""Alerts of a genuine Grafana: all of them are there, they arrive when they should, say what to do, and end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from listeners import Listeners
from panels import ask_grafana
from support import REPOSITORY, eventually, journal, run_playbook, samples, unique

APP = "http://127.0.0.1:8000"
RULES = yaml.safe_load((REPOSITORY / "roles/platform/defaults/main/alerts.yml").read_text())["platform_alert_rules"]
PROVISIONING = "/api/v1/provisioning"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def told() -> Iterator[Listeners]:
    """Those who are told of alerts, where the inventory says."""
    with Listeners(web_port=9481, mail_port=9426) as listeners:
        yield listeners


def rules(host: Any) -> dict[str, Json]:
    """Return the rules that Grafana evaluates, with their state, by name."""
    _, answer = ask_grafana(host, "/api/prometheus/grafana/api/v1/rules")
    return {rule["name"]: rule for group in answer["data"]["groups"] for rule in group["rules"]}


def firing(host: Any, name: str, *labels: str) -> list[tuple[str, ...]]:
    """Return these labels of each alert of a rule that fires."""
    alerts = rules(host)[name].get("alerts", [])
    return [tuple(it["labels"].get(label, "") for label in labels) for it in alerts if it["state"] == "Alerting"]


def send(host: Any, path: str, count: int) -> None:
    """Send the app so many requests."""
    host.check_output(f"curl --silent --output /dev/null '{APP}{path}?[1-{count}]'")


def test_every_rule_is_in_force_and_can_be_evaluated(host: Any) -> None:
    eventually(
        lambda: {rule["health"] for rule in rules(host).values()} <= {"ok", "nodata"},
        seconds=90,
        otherwise=lambda: f"{rules(host)} {journal(host, 'grafana')}",
    )
    assert set(rules(host)) == set(RULES)
    # Nobody else evaluates them.
    assert {labels["alertname"] for labels, _ in samples(host, "ALERTS")} == set()


def test_who_is_told_and_when_is_there_and_nobody_may_change_it_by_hand(host: Any) -> None:
    _, policy = ask_grafana(host, f"{PROVISIONING}/policies")
    assert (policy["receiver"], policy["group_wait"], policy["provenance"]) == ("ops", "1s", "api")
    assert [route["receiver"] for route in policy["routes"]] == ["program", "desk", "dead", "ops", "ops"]
    assert policy["routes"][4]["mute_time_intervals"] == ["logstead-nights"]
    _, exported = ask_grafana(host, f"{PROVISIONING}/contact-points/export?format=json")
    points = {it["name"]: [point["type"] for point in it["receivers"]] for it in exported["contactPoints"]}
    assert (points["ops"], points["program"], sorted(points["desk"])) == (
        ["email"],
        ["webhook"],
        ["pagerduty", "slack"],
    )
    assert [it["name"] for it in ask_grafana(host, f"{PROVISIONING}/mute-timings")[1]] == ["logstead-nights"]
    assert {it["provenance"] for it in ask_grafana(host, f"{PROVISIONING}/alert-rules")[1]} == {"api"}


def test_a_storm_of_errors_reaches_people_and_programs_and_ends(host: Any, told: Listeners) -> None:
    # Only where these tests have just run before there is anything to wait for.
    eventually(lambda: rules(host)["HighErrorRate"]["state"] == "inactive", seconds=330)
    send(host, "/error", 60)
    wanted = {"alertname": "HighErrorRate", "service_name": "fastapi-demo", "environment": "dev"}
    (alert,) = eventually(
        lambda: told.alerts("firing", **wanted),
        seconds=90,
        otherwise=lambda: f"{rules(host)['HighErrorRate']} {journal(host, 'grafana', 'promtail')}",
    )[:1]
    assert alert["labels"]["severity"] == "critical"
    notes = alert["annotations"]
    assert re.fullmatch(r"fastapi-demo fails [\d.]+% of its requests", notes["summary"])
    link = "https://grafana.example.org/d/logstead-fastapi?var-environment=dev&var-service=fastapi-demo"
    assert notes["link"] == link
    assert "no value" not in json.dumps(alert)

    subject = "[FIRING:1] HighErrorRate (dev)"
    (mail,) = eventually(lambda: told.mails_about(subject), otherwise=lambda: journal(host, "grafana"))[:1]
    for text in ("FIRING: fastapi-demo fails ", "What to do: ", f"Look at: {link}", "Since: "):
        assert text in mail, mail
    (chat,) = eventually(lambda: told.chats_about(subject))[:1]
    assert f"Look at: {link}" in chat["text"]
    (event,) = eventually(lambda: told.events_about("trigger", subject))[:1]
    assert (event["routing_key"], event["payload"]["severity"], event["client_url"]) == (
        "a-key-of-our-own",
        "critical",
        link,
    )
    assert "What to do: " in event["payload"]["custom_details"]["alerts"]

    # That nothing can be delivered to one of them is an alert as well.
    eventually(
        lambda: ("grafana", "webhook") in firing(host, "NotificationsFailing", "job", "integration"),
        seconds=90,
        otherwise=lambda: f"{rules(host)['NotificationsFailing']} {journal(host, 'grafana')}",
    )

    # It is over once enough requests succeed.
    send(host, "/", 700)
    eventually(
        lambda: told.alerts("resolved", **wanted),
        seconds=90,
        otherwise=lambda: f"{rules(host)['HighErrorRate']} {journal(host, 'grafana')}",
    )
    (mail,) = eventually(lambda: told.mails_about("[RESOLVED] HighErrorRate (dev)"))[:1]
    assert "RESOLVED: fastapi-demo fails" in mail
    assert ", until " in mail
    eventually(lambda: told.chats_about("[RESOLVED] HighErrorRate (dev)"))
    (end,) = eventually(lambda: told.events_about("resolve", "[RESOLVED] HighErrorRate (dev)"))[:1]
    assert end["dedup_key"] == event["dedup_key"]


def test_a_unit_that_fails_is_told_of_to_the_program_alone(host: Any, told: Listeners) -> None:
    unit = unique("logstead-probe")
    host.run(f"systemd-run --wait --unit {unit} /bin/false")
    failed = {"alertname": "UnitFailed", "name": f"{unit}.service"}
    try:
        (alert,) = eventually(
            lambda: told.alerts("firing", **failed), seconds=60, otherwise=lambda: journal(host, "grafana")
        )[:1]
        assert alert["annotations"]["runbook"].startswith(f"On browser-debian12, systemctl status {unit}.service")
    finally:
        host.check_output(f"systemctl reset-failed {unit}")
    eventually(lambda: told.alerts("resolved", **failed), seconds=90, otherwise=lambda: journal(host, "grafana"))
    assert not [mail for mail in told.mails if "UnitFailed" in mail["Subject"]]


def test_the_doctor_tells_which_alerts_grafana_has_and_who_is_told() -> None:
    code, output = run_playbook("playbooks/doctor.yml")
    assert code == 0, output
    seen = rf"{len(RULES)} rules are evaluated; firing: .*; receivers: ops, program, desk, dead"
    wanted = rf"6  Grafana tells of alerts +ok .* {seen}"
    assert re.search(wanted, output), output


def test_a_rule_that_is_switched_off_is_gone_and_a_query_that_is_refused_changes_nothing(host: Any) -> None:
    broken = {"Broken": {"source": "prometheus", "expr": "sum(up", "above": 1, "severity": "info", "summary": "No"}}
    code, output = run_playbook("playbooks/grafana.yml", platform_alert_overrides=broken)
    assert code != 0
    assert "the rule Broken is refused by prometheus" in output
    assert set(rules(host)) == set(RULES)
    code, output = run_playbook("playbooks/grafana.yml", platform_alert_overrides={"NoLogs": {"enabled": False}})
    try:
        assert code == 0, output
        assert set(rules(host)) == set(RULES) - {"NoLogs"}
    finally:
        code, output = run_playbook("playbooks/grafana.yml")
    assert code == 0, output
    assert set(rules(host)) == set(RULES)


def test_another_engine_takes_all_of_it_off_grafana(host: Any) -> None:
    try:
        code, output = run_playbook("playbooks/grafana.yml", platform_alert_engine="none")
        assert code == 0, output
        assert rules(host) == {}
        assert ask_grafana(host, f"{PROVISIONING}/policies")[1]["receiver"] == "grafana-default-email"
        assert "program" not in json.dumps(ask_grafana(host, f"{PROVISIONING}/contact-points/export?format=json")[1])
        assert ask_grafana(host, f"{PROVISIONING}/mute-timings")[1] == []
        code, output = run_playbook("playbooks/grafana.yml", platform_alert_engine="none")
        assert re.search(r"changed=0 .*failed=0", output), output
    finally:
        code, output = run_playbook("playbooks/grafana.yml")
    assert code == 0, output
    assert set(rules(host)) == set(RULES)
