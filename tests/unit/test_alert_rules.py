"""The platform's rules and receivers: what they become, what is refused, and that they fire when they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter.alert_rules import rule_groups, rule_problems
from ansible_collections.logstead.platform.plugins.filter.alertmanager_config import (
    alertmanager_config,
    alertmanager_secrets,
    receiver_problems,
)
from ansible_collections.logstead.platform.plugins.filter.ruler import by_tenant_folder, ruler_config

REPOSITORY = Path(__file__).resolve().parents[2]
Rule = dict[str, Any]


def default_rules() -> dict[str, Rule]:
    """Return the rules of group_vars as roles get them."""
    text = (REPOSITORY / "roles/platform/defaults/main/alerts.yml").read_text()
    text = re.sub(r"\{% (end)?raw %\}", "", text).replace("{{ platform_grafana_url }}", "https://grafana.example.org")
    rules: dict[str, Rule] = yaml.safe_load(text)["platform_alert_rules"]
    return rules


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is kept together."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
    )


def written(rules: dict[str, Rule], source: str, path: Path) -> Path:
    """Write the rules of one engine as the roles do."""
    path.write_text(yaml.safe_dump(rule_groups(rules, source), sort_keys=False, width=200))
    return path


# --- The platform's own rules -----------------------------------------------------------------------------------------


def test_the_programs_that_evaluate_them_take_all_rules(programs: Path, tmp_path: Path) -> None:
    loki, prometheus = (written(default_rules(), name, tmp_path / f"{name}.yml") for name in ("loki", "prometheus"))
    for command in (
        (programs / "lokitool", "rules", "check", loki),
        (programs / "promtool", "check", "rules", prometheus),
    ):
        result = run(*command)
        assert result.returncode == 0, result.stdout


def test_every_rule_says_what_to_do() -> None:
    for name, rule in default_rules().items():
        assert {"summary", "description", "runbook", "severity"} <= set(rule), name


def test_every_link_leads_to_a_dashboard_and_a_variable_that_it_has() -> None:
    dashboards = {}
    for path in (REPOSITORY / "roles/grafana/files/dashboards").glob("*.json"):
        model = yaml.safe_load(path.read_text())
        dashboards[model["uid"]] = {variable["name"] for variable in model["templating"]["list"]}
    links = [rule["link"] for rule in default_rules().values() if "link" in rule]
    assert links
    for link in links:
        uid = re.search(r"/d/([\w-]+)", link)
        assert uid is not None, link
        assert set(re.findall(r"var-(\w+)=", link)) <= dashboards[uid[1]], link


def test_rules_fire_when_they_should_and_tell_what_they_should(programs: Path, tmp_path: Path) -> None:
    written(default_rules(), "prometheus", tmp_path / "rules.yml")
    tests = tmp_path / "tests.yml"
    tests.write_text((REPOSITORY / "tests/rules/prometheus.yml").read_text())
    result = run(programs / "promtool", "test", "rules", tests)
    assert result.returncode == 0, result.stdout


def test_every_rule_of_prometheus_has_a_test() -> None:
    tests = yaml.safe_load((REPOSITORY / "tests/rules/prometheus.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {name for name, rule in default_rules().items() if rule["source"] == "prometheus"}


# --- Rules ------------------------------------------------------------------------------------------------------------


def rule(**keys: Any) -> Rule:
    """Return a sound rule with other keys; None takes one away."""
    sound = {"source": "prometheus", "expr": "up", "below": 1, "severity": "info", "summary": "{job} is down"}
    return {key: value for key, value in {**sound, **keys}.items() if value is not None}


def only_rule(**keys: Any) -> Rule:
    (group,) = rule_groups({"Down": rule(**keys)}, keys.get("source", "prometheus"))["groups"]
    (made,) = group["rules"]
    found: Rule = made
    return found


def test_a_rule_becomes_what_the_engine_reads() -> None:
    made = only_rule(**{"for": "5m"}, labels={"team": "web"}, when="on() vector(1)", link="https://g/d/x?var-job={job}")
    assert made == {
        "alert": "Down",
        "expr": "(up) < 1 and (on() vector(1))",
        "for": "5m",
        "labels": {"severity": "info", "team": "web"},
        "annotations": {
            "summary": "{{ $labels.job }} is down",
            "link": "https://g/d/x?var-job={{ $labels.job | urlquery }}",
        },
    }


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("{value} lines", '{{ $value | printf "%.4g" }} lines'),
        ("{value:percentage} of {job}", "{{ $value | humanizePercentage }} of {{ $labels.job }}"),
        ("no braces", "no braces"),
    ],
)
def test_a_placeholder_is_written_as_the_engine_knows_it(text: str, template: str) -> None:
    assert only_rule(summary=text)["annotations"]["summary"] == template


def test_a_link_without_a_grafana_is_left_out() -> None:
    assert "link" not in only_rule(link="/d/logstead-fastapi?var-service={job}")["annotations"]


def test_each_engine_gets_its_own_rules_and_each_interval_a_group() -> None:
    rules = {"A": rule(), "B": rule(source="loki"), "C": rule(interval="5m"), "D": rule(enabled=False)}
    groups = rule_groups(rules, "prometheus")["groups"]
    assert [(it["name"], it.get("interval"), [one["alert"] for one in it["rules"]]) for it in groups] == [
        ("logstead", None, ["A"]),
        ("logstead-5m", "5m", ["C"]),
    ]
    assert rule_groups({}, "loki") == {"groups": []}


def test_a_rule_without_a_limit_is_recorded_under_its_name() -> None:
    expr = 'sum(rate({job=~".+"}[5m]))'
    rules = {"service:requests:rate5m": {"source": "loki", "expr": expr, "labels": {"a": "b"}}}
    (group,) = rule_groups(rules, "loki")["groups"]
    assert group["rules"] == [{"record": "service:requests:rate5m", "expr": expr, "labels": {"a": "b"}}]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sorce": "loki"}, "sorce is no setting of it; is source meant?"),
        ({"source": "grafana"}, "its source is 'grafana'; it is one of loki, prometheus"),
        ({"expr": " "}, "its expr is no query"),
        ({"when": 3}, "its when is no query"),
        ({"above": 2}, "it has both above and below"),
        ({"below": "1"}, "its below is '1', which is no number"),
        ({"for": "5 minutes"}, "its for is '5 minutes', which is no duration such as 5m"),
        ({"severity": "page"}, "its severity is 'page'; it is one of critical, warning, info"),
        ({"summary": None}, "it has no summary"),
        ({"summary": "{job:bytes}"}, "a form is for {value} alone"),
        ({"summary": "{value:percent}"}, "a form is for {value} alone, one of number, percentage"),
        ({"description": "{{ $labels.job }}"}, "has a brace that isn't around the name of a label"),
        ({"labels": {"team": 1}}, "its labels are no dict of texts"),
        ({"below": None, "severity": None, "summary": None}, "it has neither above nor below, so it isn't an alert"),
    ],
)
def test_a_rule_that_can_t_be_meant_is_refused_by_its_name(keys: Rule, told: str) -> None:
    problems = rule_problems({"Down": rule(**keys)})
    assert any(problem.startswith("the rule Down: ") and told in problem for problem in problems), problems
    with pytest.raises(AnsibleFilterError, match="the rule Down"):
        rule_groups({"Down": rule(**keys)}, "prometheus")


def test_what_is_switched_off_need_not_be_sound() -> None:
    assert rule_problems({"Down": {"enabled": False}}) == []


def test_the_ruler_reads_the_rules_of_each_tenant_and_needs_no_address() -> None:
    files = by_tenant_folder({"mode": "0640"}, ["prod", "staging"], "/rules")
    assert [file["path"] for file in files] == ["/rules/prod/logstead.yml", "/rules/staging/logstead.yml"]
    # Loki ends if it is there and empty.
    assert "external_url" not in ruler_config({}, "/rules", "/data")


# --- Receivers --------------------------------------------------------------------------------------------------------

OPS = {"name": "ops", "email": ["ops@example.org", "oncall@example.org"]}
CHAT = {"name": "chat", "slack": {"url": "https://chat.example.org/hook", "channel": "#alerts"}}
PAGER = {"name": "pager", "pagerduty": {"routing_key": "r-key", "url": "https://pager.example.org/enqueue"}}
PROGRAM = {"name": "program", "webhook": {"url": "https://tickets.example.org/in", "token": "t-key"}}
ALL: list[dict[str, Any]] = [OPS, CHAT, PAGER, PROGRAM]
NIGHTS = {"nights": [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]}
ROUTES: list[dict[str, Any]] = [
    {"receiver": "pager", "match": {"severity": "critical"}, "continue": True},
    {"receiver": "chat", "match": {"severity": ["warning", "info"]}, "mute": ["nights"]},
]
SMTP = {"host": "smtp.example.org:587", "from": "logstead@example.org", "user": "logstead", "password": "s-key"}


def test_alertmanager_takes_every_kind_of_receiver_and_what_people_are_told(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    messages = (REPOSITORY / "roles/alertmanager/files/logstead.tmpl").read_text()
    (tmp_path / "templates/logstead.tmpl").write_text(messages)
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(alertmanager_config(ALL, ROUTES, NIGHTS, SMTP)))
    result = run(programs / "amtool", "check-config", path)
    assert result.returncode == 0, result.stdout
    for labels, names in (("severity=critical", "pager"), ("severity=info", "chat"), ("severity=none", "ops")):
        result = run(programs / "amtool", "config", "routes", "test", f"--config.file={path}", labels)
        assert result.stdout.split() == [names]


def test_secrets_are_in_files_of_their_own_and_nowhere_else() -> None:
    files = alertmanager_secrets(ALL, SMTP)
    secrets = {"https://chat.example.org/hook", "r-key", "https://tickets.example.org/in", "t-key", "s-key"}
    assert {file["secret"] for file in files} == secrets
    assert {(file["mode"], file["group"]) for file in files} == {("0640", "alertmanager")}
    settings = yaml.safe_dump(alertmanager_config(ALL, ROUTES, NIGHTS, SMTP))
    assert not [secret for secret in secrets if secret in settings]
    assert all(file["path"] in settings for file in files)


def test_without_receivers_alerts_can_be_looked_at() -> None:
    config = alertmanager_config([], [], {}, {})
    assert (config["route"]["receiver"], config["receivers"]) == ("nobody", [{"name": "nobody"}])
    assert alertmanager_secrets([], {}) == []


@pytest.mark.parametrize(
    ("receivers", "routes", "told"),
    [
        (
            [{"name": "ops"}],
            [],
            "the receiver ops has no integration; it needs one of email, webhook, slack, pagerduty.",
        ),
        ([{"email": "a@b"}], [], "receiver 1 has no name"),
        ([CHAT, CHAT], [], "there is more than one receiver chat."),
        ([CHAT | {"sms": "1"}], [], "the receiver chat has the unknown key sms"),
        ([{"name": "chat", "slack": {"channel": "#a"}}], [], "the receiver chat has a slack without url."),
        ([{"name": "p", "pagerduty": {"routing_key": "k", "kex": 1}}], [], "pagerduty with the unknown key kex"),
        ([{"name": "p", "webhook": {"url": "tickets"}}], [], "a webhook whose url is no address"),
        ([{"name": "p", "webhook": "https://x"}], [], "the receiver p has a webhook that is no dict of url, token."),
        ([CHAT], [{"receiver": "cat"}], "route 1 leads to the unknown receiver cat; known are chat."),
        ([CHAT], [{"receiver": "chat", "mute": "lunch"}], "route 1 is muted in lunch, which is none of the mute times"),
        ([CHAT], [{"receiver": "chat", "matches": {}}], "route 1 has the unknown key matches"),
        ([CHAT], [{"receiver": "chat", "match": "all"}], "the match of route 1 is no dict"),
    ],
)
def test_a_receiver_or_route_that_leads_nowhere_is_refused(receivers: list[Any], routes: list[Any], told: str) -> None:
    assert any(told in problem for problem in receiver_problems(receivers, routes, NIGHTS, {}))
    with pytest.raises(AnsibleFilterError):
        alertmanager_config(receivers, routes, NIGHTS, {})


@pytest.mark.parametrize(
    ("smtp", "told"),
    [
        ({}, "the receiver ops is notified by e-mail, but platform_alert_smtp has no server."),
        ({"host": "smtp.example.org:25"}, "the server for e-mail lacks from."),
        (SMTP | {"host": "smtp.example.org"}, "has a host without a port"),
        (SMTP | {"hots": "x"}, "has the unknown key hots"),
    ],
)
def test_a_server_for_mail_that_can_t_be_asked_is_refused(smtp: dict[str, Any], told: str) -> None:
    assert any(told in problem for problem in receiver_problems([OPS], [], {}, smtp))
