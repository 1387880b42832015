"""Grafana's alerts: what rules and receivers become, what is refused, and that Grafana has them in the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter.grafana_alerting import (
    duration,
    grafana_alerting,
    interval_problems,
    uid_of,
)
from ansible_collections.logstead.platform.plugins.filter.smtp import smtp_password_files, smtp_settings

from tests.unit.test_alert_rules import default_rules, rule

BOTH = ["loki", "prometheus"]
OPS = {"name": "ops", "email": ["ada@example.org", "bob@example.org"]}
SMTP = {"host": "smtp.example.org:587", "from": "logstead@example.org", "user": "logstead", "password": "pass word"}

Json = dict[str, Any]


def alerting(rules: Any, sources: list[str] | None = None, overrides: Json | None = None, **told: Any) -> Json:
    told = {"receivers": [], "routes": [], "mute_times": {}, "smtp": SMTP, **told}
    return grafana_alerting(rules, told, overrides or {}, sources or BOTH)


def only_rule(**keys: Any) -> Json:
    (group,) = alerting({"Down": rule(**keys)})["groups"]
    (made,) = group["rules"]
    found: Json = made
    return found


# --- Rules ------------------------------------------------------------------------------------------------------------


def test_a_rule_becomes_a_query_and_a_limit() -> None:
    made = only_rule(
        **{"for": "90m"}, labels={"team": "web"}, when="on() vector(1)", link="https://g/d/x?var-job={job}"
    )
    query = "(up) and (on() vector(1))"
    assert made == {
        "uid": "logstead-Down",
        "title": "Down",
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "queryType": "instant",
                "datasourceUid": "prometheus",
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": {"refId": "A", "expr": query, "queryType": "instant", "instant": True, "range": False},
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": "lt", "params": [1]}}],
                },
            },
        ],
        "noDataState": "OK",
        "execErrState": "KeepLast",
        "for": "1h30m",
        "labels": {"severity": "info", "team": "web"},
        "annotations": {
            "summary": "{{ $labels.job }} is down",
            "link": "https://g/d/x?var-job={{ $labels.job | urlquery }}",
        },
        "isPaused": False,
    }


def test_the_value_is_written_as_the_text_says_and_nothing_where_there_is_none() -> None:
    made = only_rule(summary="{value}, {value:percentage}, {value:bytes}B")
    parts = [
        f"{{{{ with $values.A }}}}{{{{ .Value | {form} }}}}{{{{ end }}}}"
        for form in ('printf "%.4g"', "humanizePercentage", "humanize1024")
    ]
    assert made["annotations"]["summary"] == "{}, {}, {}B".format(*parts)
    assert only_rule(below=None, above=0.5)["data"][1]["model"]["conditions"] == [
        {"evaluator": {"type": "gt", "params": [0.5]}}
    ]


def test_each_interval_has_a_group_and_a_rule_that_is_off_or_whose_source_is_missing_is_left_out() -> None:
    rules = {
        "A": rule(),
        "B": rule(interval="60s"),
        "C": rule(interval="5m"),
        "D": rule(enabled=False),
        "E": rule(source="loki"),
    }
    made = alerting(rules, sources=["prometheus", "other"])["groups"]
    assert [(it["name"], it["interval"], [one["title"] for one in it["rules"]]) for it in made] == [
        ("logstead-1m", 60, ["A", "B"]),
        ("logstead-5m", 300, ["C"]),
    ]


def test_every_rule_of_the_platform_is_one_of_grafanas() -> None:
    made = [it for group in alerting(default_rules())["groups"] for it in group["rules"]]
    assert {it["title"] for it in made} == set(default_rules())
    assert "{value" not in str(made)
    assert len({it["uid"] for it in made}) == len(made)


@pytest.mark.parametrize(
    ("given", "wanted"), [("90s", "1m30s"), ("60m", "1h"), ("24h", "1d"), ("25h", "25h"), ("14d", "2w"), ("0s", "0s")]
)
def test_durations_are_written_as_grafana_shows_them(given: str, wanted: str) -> None:
    assert duration(given) == wanted


def test_uids_fit_and_stay_the_same() -> None:
    long = uid_of("A" * 60)
    assert len(long) <= 40
    assert long == uid_of("A" * 60) != uid_of("A" * 61)
    assert uid_of("ops", "email") == "logstead-ops-email"
    assert uid_of("ä") != uid_of("ö")


@pytest.mark.parametrize("interval", ["15s", "0s", "500ms"])
def test_an_interval_that_grafana_lacks_is_refused(interval: str) -> None:
    problem = f"the rule Down: its interval is {interval}; Grafana takes multiples of 10s."
    assert list(interval_problems({"Down": rule(interval=interval)})) == [problem]
    assert not list(interval_problems({"Down": rule(interval=interval, enabled=False), "No": "rule"}))
    with pytest.raises(AnsibleFilterError, match="multiples of 10s"):
        alerting({"Down": rule(interval=interval)})


def test_what_no_engine_takes_is_refused_all_at_once() -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        alerting({"Down": rule(source="mimir")}, receivers=[OPS], smtp={}, routes=[{"receiver": "pager"}])
    for text in ("its source is 'mimir'", "platform_alert_smtp has no server", "leads to the unknown receiver pager"):
        assert text in str(refused.value)


# --- Receivers --------------------------------------------------------------------------------------------------------

RECEIVERS = [
    OPS,
    {
        "name": "all",
        "webhook": {"url": "https://t.example.org/a", "token": "secret-1"},
        "slack": {"url": "https://s.example.org/secret-2", "channel": "#alerts"},
        "pagerduty": {"routing_key": "secret-3", "url": "https://p.example.org/v2/enqueue"},
    },
]


def test_receivers_become_contact_points_and_their_secrets_are_apart() -> None:
    made = alerting({"Down": rule()}, receivers=RECEIVERS)["contact_points"]
    assert [(it["uid"], it["name"], it["type"]) for it in made] == [
        ("logstead-ops-email", "ops", "email"),
        ("logstead-all-webhook", "all", "webhook"),
        ("logstead-all-slack", "all", "slack"),
        ("logstead-all-pagerduty", "all", "pagerduty"),
    ]
    mail, web, chat, pager = (it["settings"] for it in made)
    title, text = '{{ template "logstead.title" . }}', '{{ template "logstead.text" . }}'
    addresses = "ada@example.org;bob@example.org"
    assert mail == {"addresses": addresses, "singleEmail": False, "subject": title, "message": text}
    assert web == {"title": title, "message": text}
    assert chat == {"recipient": "#alerts", "title": title, "text": text}
    assert pager["url"] == "https://p.example.org/v2/enqueue"
    assert pager["details"] == {"alerts": text}
    assert [it["secrets"] for it in made] == [
        {},
        {"url": "https://t.example.org/a", "authorization_credentials": "secret-1"},
        {"url": "https://s.example.org/secret-2"},
        {"integrationKey": "secret-3"},
    ]
    assert "secret" not in str([it["settings"] for it in made])


def test_routes_become_policies_that_are_silent_at_their_times() -> None:
    nights = [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]
    routes = [
        {"receiver": "all", "match": {"severity": ["critical", "warning"], "job": "x"}, "continue": True},
        {"receiver": "ops", "match": {"severity": "info"}, "mute": "nights"},
    ]
    overrides = {"repeat_interval": "240m"}
    made = alerting(
        {"Down": rule()}, overrides=overrides, receivers=RECEIVERS, routes=routes, mute_times={"nights": nights}
    )
    assert made["policy"] == {
        "receiver": "ops",
        "group_by": ["alertname", "environment"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": [
            {
                "receiver": "all",
                "object_matchers": [["job", "=", "x"], ["severity", "=~", "critical|warning"]],
                "continue": True,
            },
            {
                "receiver": "ops",
                "object_matchers": [["severity", "=", "info"]],
                "mute_time_intervals": ["logstead-nights"],
            },
        ],
    }
    assert made["mute_times"] == [{"name": "logstead-nights", "time_intervals": nights}]
    assert '{{ define "logstead.title" -}}' in made["template"]


def test_without_receivers_nobody_is_told_at_any_time() -> None:
    made = alerting({"Down": rule()})
    assert made["contact_points"] == []
    (route,) = made["policy"]["routes"]
    assert (made["policy"]["receiver"], route["receiver"]) == ("grafana-default-email", "grafana-default-email")
    assert route["mute_time_intervals"] == [it["name"] for it in made["mute_times"]] == ["logstead-always"]


def test_without_rules_there_is_nothing() -> None:
    assert alerting({}, receivers=RECEIVERS) == {}


def test_the_server_for_mail_is_in_the_settings_and_its_password_in_a_file() -> None:
    made = smtp_settings(SMTP, "/etc/grafana")
    assert made["smtp"] == {
        "enabled": True,
        "host": "smtp.example.org:587",
        "from_address": "logstead@example.org",
        "from_name": "logstead",
        "startTLS_policy": "MandatoryStartTLS",
        "user": "logstead",
        "password": "$__file{/etc/grafana/smtp_password}",
    }
    (file,) = smtp_password_files(SMTP, "/etc/grafana")
    assert file == {"path": "/etc/grafana/smtp_password", "secret": "pass word", "mode": "0640", "group": "grafana"}
    assert smtp_settings({}, "/etc/grafana") == {}
    assert smtp_password_files({"host": "a:25", "from": "b"}, "/etc/grafana") == []
    assert smtp_settings({"host": "a:25", "from": "b", "tls": False}, "/x")["smtp"]["startTLS_policy"] == "NoStartTLS"
