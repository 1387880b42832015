"""Alerts on the real Loki, Prometheus and Alertmanager: they arrive when they should, say what to do, and end."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml
from listeners import Listeners
from support import (
    LOKI,
    PROMETHEUS,
    REPOSITORY,
    ask_loki,
    ask_prometheus,
    eventually,
    fetch,
    find_sample,
    journal,
    run_playbook,
    samples,
    unique,
)

APP = "http://127.0.0.1:8000"
UNITS = ("loki", "prometheus", "alertmanager")
REQUESTS = 'sum(count_over_time({job="fastapi"} |= `"status_code"` [5m]))'
FAILED = (
    'sum(count_over_time({job="fastapi"} |= `"status_code"` | json status_code="status_code" | status_code=500 [5m]))'
)
# What the rules call it, in group_vars: there it is kept from Ansible.
SHARED = yaml.safe_load((REPOSITORY / "roles/platform/defaults/main/alerts.yml").read_text())
RULES = SHARED["platform_alert_rules"]
COMPARISON = re.compile(r"\s(<|<=|>|>=|==)\s*[\d.]+$")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def told() -> Iterator[Listeners]:
    """Those who are told of alerts."""
    with Listeners() as listeners:
        yield listeners


def rules_in_force(host: Any, source: str) -> dict[str, Json]:
    """Return the rules that an engine evaluates, by name, each with when its group was last looked at."""
    url = f"{LOKI}/prometheus" if source == "loki" else PROMETHEUS
    status, body = fetch(host, f"{url}/api/v1/rules")
    assert status == 200, body
    groups = json.loads(body)["data"]["groups"]
    return {rule["name"]: rule for group in groups for rule in group["rules"]}


def evaluated_since(host: Any, source: str, name: str, moment: float) -> Json:
    """Return a rule once it has been evaluated after a moment; until then nothing."""
    rule = rules_in_force(host, source)[name]
    evaluated = re.sub(r"(\.\d{6})\d*", r"\1", rule["lastEvaluation"]).replace("Z", "+00:00")
    return rule if datetime.fromisoformat(evaluated).timestamp() > moment else {}


def now(host: Any) -> float:
    """Return the host's time."""
    return float(host.check_output("date +%s.%N"))


def send(host: Any, path: str, count: int) -> None:
    """Send the app so many requests."""
    host.check_output(f"curl --silent --output /dev/null '{APP}{path}?[1-{count}]'")


@pytest.mark.parametrize("source", ["loki", "prometheus"])
def test_every_rule_is_in_force_and_can_be_evaluated(host: Any, source: str) -> None:
    shared = {**RULES, **SHARED["platform_recording_rules"]}
    wanted = {name for name, rule in shared.items() if rule["source"] == source}
    eventually(
        lambda: {rule["health"] for rule in rules_in_force(host, source).values()} == {"ok"},
        seconds=60,
        otherwise=lambda: f"{rules_in_force(host, source)} {journal(host, *UNITS)}",
    )
    rules = rules_in_force(host, source)
    assert set(rules) == wanted
    assert {rule["lastError"] for rule in rules.values() if rule.get("lastError")} == set()


def test_two_errors_at_night_page_nobody(host: Any, told: Listeners) -> None:
    # Only where these tests have just run before there is anything to wait for.
    eventually(lambda: find_sample(host, REQUESTS) < 40, seconds=330)
    before = find_sample(host, FAILED)
    send(host, "/error", 2)
    eventually(lambda: find_sample(host, FAILED) >= before + 2, otherwise=lambda: journal(host, "promtail", "loki"))
    arrived = now(host)
    # By its share alone it would be one.
    ratio = find_sample(host, "sum by (service_name) (" + query_of("HighErrorRate", "expr") + ")")
    assert ratio > RULES["HighErrorRate"]["above"]
    rule = eventually(lambda: evaluated_since(host, "loki", "HighErrorRate", arrived))
    assert (rule["state"], rule["alerts"]) == ("inactive", [])
    assert not told.alerts("firing", alertname="HighErrorRate")


def test_a_storm_of_errors_reaches_people_and_programs_and_ends(host: Any, told: Listeners) -> None:
    send(host, "/error", 60)
    wanted = {"alertname": "HighErrorRate", "service_name": "fastapi-demo", "environment": "staging"}
    (alert,) = eventually(
        lambda: told.alerts("firing", **wanted),
        seconds=60,
        otherwise=lambda: f"{rules_in_force(host, 'loki')['HighErrorRate']} {journal(host, *UNITS)}",
    )[:1]
    assert alert["labels"]["severity"] == "critical"
    notes = alert["annotations"]
    assert re.fullmatch(r"fastapi-demo fails [\d.]+% of its requests", notes["summary"])
    link = "https://grafana.example.org/d/logstead-fastapi?var-environment=staging&var-service=fastapi-demo"
    assert notes["link"] == link
    assert "<no value>" not in json.dumps(alert)
    # Whoever wants to see the query gets there as well.
    assert alert["generatorURL"].startswith("https://grafana.example.org/explore?")

    mails = eventually(lambda: told.mails_about("[FIRING:1] HighErrorRate (staging)"))
    for text in (notes["summary"].split("%")[0].rsplit(" ", 1)[0], "What to do: ", f"Look at: {link}", "Since: "):
        assert text in mails[0], mails[0]
    (chat,) = eventually(lambda: told.chats_about("[FIRING:1] HighErrorRate (staging)"))[:1]
    assert chat["title_link"] == link
    assert "FIRING: fastapi-demo fails" in chat["text"]
    (event,) = eventually(lambda: told.events_about("trigger", "[FIRING:1] HighErrorRate (staging)"))[:1]
    assert (event["routing_key"], event["payload"]["severity"], event["client_url"]) == (
        "a-key-of-our-own",
        "critical",
        link,
    )
    assert "What to do: " in event["payload"]["custom_details"]["alerts"]

    # It is over once enough requests succeed.
    send(host, "/", 700)
    eventually(
        lambda: told.alerts("resolved", **wanted),
        seconds=90,
        otherwise=lambda: f"{rules_in_force(host, 'loki')['HighErrorRate']} {journal(host, *UNITS)}",
    )
    (mail,) = eventually(lambda: told.mails_about("[RESOLVED] HighErrorRate (staging)"))[:1]
    assert "RESOLVED: fastapi-demo fails" in mail
    assert ", until " in mail
    eventually(lambda: told.chats_about("[RESOLVED] HighErrorRate (staging)"))
    (end,) = eventually(lambda: told.events_about("resolve", "[RESOLVED] HighErrorRate (staging)"))[:1]
    assert end["dedup_key"] == event["dedup_key"]


def test_what_is_recorded_from_lines_is_kept_by_prometheus(host: Any) -> None:
    send(host, "/", 30)
    # Also where nothing fails: then the share is 0.
    for name, least, most in (("service:requests:rate5m", 0.1, 1000), ("service:request_errors:ratio5m", 0, 1)):
        asked = f'{name}{{environment="staging", service_name="fastapi-demo"}}'
        ((labels, value),) = eventually(lambda: samples(host, asked), otherwise=lambda: journal(host, *UNITS))
        assert set(labels) == {"__name__", "environment", "service_name"}
        assert least <= value <= most, labels
    # The state of its alerts as well.
    states = eventually(lambda: samples(host, 'last_over_time(ALERTS{alertname="HighErrorRate"}[10m])'))
    assert {labels["alertstate"] for labels, _ in states} >= {"firing"}


def test_a_part_that_stops_is_told_of_until_it_is_back(host: Any, told: Listeners) -> None:
    down = {"alertname": "TargetDown", "job": "demo_app", "host": "alerting-debian12", "severity": "critical"}
    host.check_output("systemctl stop demo-app")
    try:
        (alert,) = eventually(lambda: told.alerts("firing", **down), otherwise=lambda: journal(host, *UNITS))[:1]
        assert alert["annotations"]["summary"] == "demo_app on alerting-debian12 doesn't answer"
    finally:
        host.check_output("systemctl start demo-app")
    eventually(lambda: told.alerts("resolved", **down), otherwise=lambda: journal(host, *UNITS))


def test_a_unit_that_fails_is_told_of_to_the_program_alone(host: Any, told: Listeners) -> None:
    unit = unique("logstead-probe")
    host.run(f"systemd-run --wait --unit {unit} /bin/false")
    failed = {"alertname": "UnitFailed", "name": f"{unit}.service"}
    try:
        (alert,) = eventually(lambda: told.alerts("firing", **failed), otherwise=lambda: journal(host, *UNITS))[:1]
        assert alert["annotations"]["runbook"].startswith(f"On alerting-debian12, systemctl status {unit}.service")
    finally:
        host.check_output(f"systemctl reset-failed {unit}")
    eventually(lambda: told.alerts("resolved", **failed), otherwise=lambda: journal(host, *UNITS))
    # A warning: people aren't woken by it.
    assert not [mail for mail in told.mails if "UnitFailed" in mail["Subject"]]


@pytest.fixture
def disk(host: Any) -> Iterator[str]:
    """A small disk. Memory is no disk to the rules, so another file system lies on it."""
    path = f"/srv/{unique('disk')}"
    host.check_output(
        f"mkdir -p /srv/memory /srv/empty {path} && mount -t tmpfs -o size=64m memory /srv/memory && "
        f"mkdir /srv/memory/upper /srv/memory/work && mount -t overlay data {path} "
        "-o lowerdir=/srv/empty,upperdir=/srv/memory/upper,workdir=/srv/memory/work"
    )
    yield path
    host.check_output(f"umount {path} /srv/memory; rm -rf /srv/memory /srv/empty {path}")


def test_a_disk_that_fills_is_told_of_before_it_is_full_and_again_when_it_is(
    host: Any, told: Listeners, disk: str
) -> None:
    filling, full = ({"alertname": name, "mountpoint": disk} for name in ("DiskFilling", "DiskFull"))
    eventually(lambda: samples(host, f'node_filesystem_avail_bytes{{mountpoint="{disk}"}}', PROMETHEUS))
    host.check_output(f"head -c 45M /dev/zero > {disk}/filler")
    (alert,) = eventually(lambda: told.alerts("firing", **filling), otherwise=lambda: journal(host, *UNITS))[:1]
    assert re.fullmatch(rf"{disk} on alerting-debian12 is full in 0\.\d days", alert["annotations"]["summary"])
    assert not told.alerts("firing", **full)
    host.check_output(f"head -c 15M /dev/zero >> {disk}/filler")
    (alert,) = eventually(lambda: told.alerts("firing", **full), otherwise=lambda: journal(host, *UNITS))[:1]
    assert re.fullmatch(rf"Only 6\.\d+% of {disk} on alerting-debian12 is free", alert["annotations"]["summary"])
    # Somebody has to act now, so people are told as well; of what was a warning, they weren't.
    eventually(lambda: told.mails_about("[FIRING:1] DiskFull (staging)"))
    assert not [mail for mail in told.mails if "DiskFilling" in mail["Subject"]]
    host.check_output(f"rm {disk}/filler")
    eventually(lambda: told.alerts("resolved", **full), otherwise=lambda: journal(host, *UNITS))


def test_the_doctor_tells_what_is_looked_at_and_who_is_told() -> None:
    code, output = run_playbook("playbooks/doctor.yml")
    assert code == 0, output
    seen = r"6 targets are up, \d+ rules are evaluated; firing: .*; receivers: ops, program, chat, pager"
    wanted = rf"5  Metrics and alerts +ok .* {seen}"
    assert re.search(wanted, output), output


# --- Queries ----------------------------------------------------------------------------------------------------------


def query_of(name: str, key: str) -> str:
    """Return a rule's query as its engine gets it; without its comparison, so that it has a result on a good day."""
    text = re.sub(r"\{% (end)?raw %\}", "", RULES[name][key])
    return COMPARISON.sub("", text) if key == "when" else text


@pytest.fixture(scope="module")
def happened(host: Any) -> None:
    """Let happen what rules tell of, as far as the host has not told of it by itself."""
    send(host, "/", 20)
    send(host, "/error", 2)
    eventually(lambda: find_sample(host, FAILED) >= 2, otherwise=lambda: journal(host, "promtail", "loki"))
    # There is no gateway here; what its role writes, the scenario `gateway` looks at.
    metric = f"gateway_certificate_not_after_seconds {int(time.time()) + 86400 * 90}"
    host.check_output(f"echo '{metric}' > /var/lib/node-exporter/textfile/gateway.prom")
    # A line of last year is refused.
    assert push(host, "probe", age=365 * 86400, count=1) == 400
    # A program that wrote 500 lines 20 minutes ago, and has been silent since.
    assert push(host, "quiet", age=20 * 60, count=500) == 204


def push(host: Any, job: str, age: int, count: int) -> int:
    """Send Loki lines that are so many seconds old; return the status of its answer."""
    first = int(time.time() - age) * 10**9
    values = [[str(first + number), f"line {number}"] for number in range(count)]
    labels = {"job": job, "host": "alerting-debian12", "environment": "staging"}
    body = json.dumps({"streams": [{"stream": labels, "values": values}]})
    status, _ = fetch(host, f"{LOKI}/loki/api/v1/push", "--header", "Content-Type: application/json", "--data", body)
    return status


def series(host: Any, name: str, key: str) -> list[tuple[dict[str, str], float]]:
    """Return what a rule's query returns: labels and values."""
    ask = ask_loki if RULES[name]["source"] == "loki" else ask_prometheus
    found = ask(host, "query", query=query_of(name, key))["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


@pytest.mark.usefixtures("happened")
@pytest.mark.parametrize("name", RULES)
def test_the_query_of_every_rule_returns_values_with_the_labels_that_people_are_told(host: Any, name: str) -> None:
    found = eventually(lambda: series(host, name, "expr"), otherwise=lambda: query_of(name, "expr"))
    texts = " ".join(RULES[name].get(key, "") for key in ("summary", "description", "runbook", "link"))
    wanted = set(re.findall(r"\{(\w+)(?:\:\w+)?\}", texts)) - {"value"}
    for labels, value in found:
        assert wanted <= set(labels), labels
        assert not math.isnan(value), f"{labels} has no number"
    if "when" in RULES[name]:
        # Only what has the very same labels counts.
        conditions = [labels for labels, _ in eventually(lambda: series(host, name, "when"))]
        assert any(labels in conditions for labels, _ in found), conditions


@pytest.mark.usefixtures("happened")
def test_a_program_that_falls_silent_is_told_of(host: Any, told: Listeners) -> None:
    (alert,) = eventually(
        lambda: told.alerts("firing", alertname="NoLogs", job="quiet"), otherwise=lambda: journal(host, *UNITS)
    )[:1]
    assert alert["annotations"]["summary"] == "No lines of quiet from alerting-debian12 for 15 minutes"


# --- Changes ----------------------------------------------------------------------------------------------------------


def test_a_rule_that_loki_would_not_take_is_refused_and_the_others_go_on(host: Any) -> None:
    path = "/etc/loki/rules/fake/logstead.yml"
    before = host.check_output(f"sha256sum {path}; systemctl show --property MainPID loki")
    broken = {"Broken": {"source": "loki", "expr": "sum(rate({job=)", "above": 1, "severity": "info", "summary": "No"}}
    code, output = run_playbook("playbooks/loki.yml", platform_alert_overrides=broken)
    assert code != 0
    assert f"{path} was refused by" in output
    assert "could not parse expression for alert 'Broken'" in output
    assert host.check_output(f"sha256sum {path}; systemctl show --property MainPID loki") == before
    started = now(host)
    assert eventually(lambda: evaluated_since(host, "loki", "HighErrorRate", started))["health"] == "ok"


def test_a_rule_that_is_switched_off_is_gone_and_comes_back_without_a_restart(host: Any) -> None:
    process = host.check_output("systemctl show --property MainPID loki")
    code, output = run_playbook("playbooks/loki.yml", platform_alert_overrides={"NoLogs": {"enabled": False}})
    try:
        assert code == 0, output
        eventually(lambda: "NoLogs" not in rules_in_force(host, "loki"))
    finally:
        code, output = run_playbook("playbooks/loki.yml")
    assert code == 0, output
    eventually(lambda: "NoLogs" in rules_in_force(host, "loki"))
    assert host.check_output("systemctl show --property MainPID loki") == process


def test_no_secret_of_a_receiver_is_open_to_others_or_in_the_settings(host: Any) -> None:
    assert host.run("grep -rF a-token-of-our-own /etc/alertmanager/config.yml").rc == 1
    for name in ("url", "token"):
        secret = host.file(f"/etc/alertmanager/secrets/program.webhook.{name}")
        assert (secret.user, secret.group, secret.mode) == ("root", "alertmanager", 0o640)
