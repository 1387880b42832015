# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filter that renders the platform's rules and receivers for Grafana's provisioning API.

The rules and receivers are those of roles/platform/defaults/main/alerts.yml, and are checked by the same code as for
the other engine. https://grafana.com/docs/grafana/latest/developers/http_api/alerting_provisioning/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.logstead.platform.plugins.filter import alert_rules, alertmanager_config

Json = dict[str, Any]
Receiver = Mapping[str, Any]

MESSAGES = Path(__file__).resolve().parents[2] / "roles/alertmanager/files/logstead.tmpl"
# What is ours among what others have made begins so.
OURS = "logstead-"
UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
# Where no receiver is configured: Grafana always has this receiver, and it is muted at all times.
NOBODY = "grafana-default-email"
ALWAYS = {"name": f"{OURS}always", "time_intervals": [{"times": [{"start_time": "00:00", "end_time": "24:00"}]}]}
TITLE, TEXT = '{{ template "logstead.title" . }}', '{{ template "logstead.text" . }}'
DEFAULT_INTERVAL = "1m"
TICK = 10  # seconds; Grafana looks at rules at multiples of it
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
POLICY = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
# The number is missing while a rule has no result.
VALUE = "{{{{ with $values.A }}}}{{{{ .Value | {form} }}}}{{{{ end }}}}"


def uid_of(*names: str) -> str:
    """Return the uid of something of ours, always the same for the same names."""
    uid = OURS + "-".join(names)
    return uid if UID.fullmatch(uid) else OURS + hashlib.sha256(uid.encode()).hexdigest()[:24]


def seconds_of(duration: object) -> float:
    """Return how long a duration such as 1h30m is."""
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", str(duration)))


def duration(text: object) -> str:
    """Return a duration as Grafana writes it, so that it is found unchanged: 90m is 1h30m, and 24h is 1d."""
    left, written = round(seconds_of(text) * 1000), ""
    for unit in ("y", "w", "d", "h", "m", "s", "ms"):
        length = round(SECONDS[unit] * 1000)
        # Years, weeks and days only where nothing is left over.
        if left >= length and (unit not in "ywd" or left % length == 0):
            written += f"{left // length}{unit}"
            left %= length
    return written or "0s"


# --- Rules ---


def query_of(rule: Mapping[str, Any]) -> str:
    """Return the query whose value is watched; it has no result where the rule's condition has none."""
    return f"({rule['expr'].strip()}) and ({rule['when'].strip()})" if rule.get("when") else str(rule["expr"].strip())


def rule_of(name: str, rule: Mapping[str, Any]) -> Json:
    """Return a rule as Grafana has it: A asks the data source, B is whether A's value is beyond the limit."""
    model = {"refId": "A", "expr": query_of(rule), "queryType": "instant", "instant": True, "range": False}
    above = "above" in rule
    limit = {"type": "gt" if above else "lt", "params": [rule["above"] if above else rule["below"]]}
    threshold = {"refId": "B", "type": "threshold", "expression": "A", "conditions": [{"evaluator": limit}]}
    annotations = {
        key: alert_rules.as_template(rule[key], key == "link", VALUE)
        for key in alert_rules.TEXTS
        if alert_rules.has_text(rule, key)
    }
    return {
        "uid": uid_of(name),
        "title": name,
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "queryType": "instant",
                "datasourceUid": rule["source"],
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": model,
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": threshold,
            },
        ],
        # No result means that nothing is wrong, as for the other engine: what is missing has rules of its own.
        "noDataState": "OK",
        # A data source that can't be asked, as while it restarts, neither raises nor ends an alert; RulesFailing and
        # TargetDown tell of it.
        "execErrState": "KeepLast",
        "for": duration(rule.get("for") or "0s"),
        "labels": {"severity": rule["severity"], **rule.get("labels", {})},
        "annotations": annotations,
        "isPaused": False,
    }


def groups_of(rules: Mapping[str, Any], sources: Sequence[str]) -> list[Json]:
    """Return the rules in force whose data source there is, in a group for each interval."""
    groups: dict[str, list[Json]] = {}
    for name, rule in rules.items():
        if alert_rules.is_enabled(rule) and alert_rules.is_alert(rule) and rule["source"] in sources:
            groups.setdefault(duration(rule.get("interval") or DEFAULT_INTERVAL), []).append(rule_of(name, rule))
    return [
        {"name": f"{OURS}{interval}", "interval": int(seconds_of(interval)), "rules": found}
        for interval, found in groups.items()
    ]


def interval_problems(rules: Mapping[str, Any]) -> Iterator[str]:
    """Find intervals that Grafana doesn't have, in sentences."""
    for name, rule in rules.items():
        interval = str(rule.get("interval") or DEFAULT_INTERVAL) if isinstance(rule, Mapping) else DEFAULT_INTERVAL
        # What is no duration at all is complained of as for every engine.
        if (
            alert_rules.is_enabled(rule)
            and alert_rules.DURATION.fullmatch(interval)
            and (seconds_of(interval) or 1) % TICK
        ):
            yield f"the rule {name}: its interval is {interval}; Grafana takes multiples of {TICK}s."


# --- Receivers ---


def email_point(given: Any) -> tuple[Json, Json]:
    """Return the settings and the secrets of how people are written to, each in a mail of their own."""
    addresses = ";".join(alertmanager_config.as_list(given))
    return {"addresses": addresses, "singleEmail": False, "subject": TITLE, "message": TEXT}, {}


def webhook_point(given: Json) -> tuple[Json, Json]:
    """Return the contact point of a webhook, which gets all labels and annotations as JSON."""
    token = {"authorization_credentials": given["token"]} if given.get("token") else {}
    return {"title": TITLE, "message": TEXT}, {"url": given["url"], **token}


def slack_point(given: Json) -> tuple[Json, Json]:
    """Return the contact point of a chat that accepts Slack's webhooks."""
    channel = {"recipient": given["channel"]} if given.get("channel") else {}
    return {**channel, "title": TITLE, "text": TEXT}, {"url": given["url"]}


def pagerduty_point(given: Json) -> tuple[Json, Json]:
    """Return the contact point of a service that accepts PagerDuty's events."""
    address = {"url": given["url"]} if given.get("url") else {}
    settings = {
        **address,
        "summary": TITLE,
        "severity": "{{ or .CommonLabels.severity `critical` }}",
        "client": "logstead",
        "client_url": "{{ .CommonAnnotations.link }}",
        "details": {"alerts": TEXT},
    }
    return settings, {"integrationKey": given["routing_key"]}


POINTS: dict[str, Callable[[Any], tuple[Json, Json]]] = {
    "email": email_point,
    "webhook": webhook_point,
    "slack": slack_point,
    "pagerduty": pagerduty_point,
}


def contact_points(receivers: Sequence[Receiver]) -> list[Json]:
    """Return Grafana's contact points: one for each way in which a receiver is told."""
    points = []
    for receiver in receivers:
        for kind, made in POINTS.items():
            if receiver.get(kind):
                settings, secrets = made(receiver[kind])
                point = {"uid": uid_of(receiver["name"], kind), "name": receiver["name"], "type": kind}
                points.append({**point, "settings": settings, "secrets": secrets})
    return points


def matcher(label: str, values: object) -> list[str]:
    """Return a matcher for one value of a label, or for any of several."""
    wanted = [str(value) for value in alertmanager_config.as_list(values)]
    if len(wanted) == 1:
        return [label, "=", wanted[0]]
    return [label, "=~", "|".join(re.escape(value) for value in wanted)]


def mute_name(name: str) -> str:
    """Return what times of ours are called in Grafana, where they have no uid."""
    return f"{OURS}{name}"


def route_of(route: Mapping[str, Any]) -> Json:
    """Return one of the routes below the root of the tree of policies."""
    made: Json = {"receiver": route["receiver"]}
    if route.get("match"):
        # In the order in which Grafana shows them.
        made["object_matchers"] = [matcher(label, route["match"][label]) for label in sorted(route["match"])]
    if route.get("mute"):
        made["mute_time_intervals"] = [mute_name(name) for name in alertmanager_config.as_list(route["mute"])]
    return {**made, **({"continue": True} if route.get("continue") else {})}


def policy_of(receivers: Sequence[Receiver], routes: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> Json:
    """Return the tree of policies; without receivers, one that tells nobody."""
    silent = [{"receiver": NOBODY, "mute_time_intervals": [ALWAYS["name"]]}]
    below = [route_of(route) for route in routes] if receivers else silent
    times = {key: duration(value) for key, value in {**POLICY, **overrides}.items() if key in POLICY}
    return {
        "receiver": receivers[0]["name"] if receivers else NOBODY,
        # One message for what goes wrong in one environment at one time.
        "group_by": ["alertname", "environment"],
        **{key: value for key, value in overrides.items() if key not in POLICY},
        **times,
        **({"routes": below} if below else {}),
    }


def grafana_alerting(
    rules: Mapping[str, Any],
    told: Mapping[str, Any],
    policy_overrides: Mapping[str, Any],
    datasources: Sequence[str],
) -> Json:
    """Return all of Grafana's alerting, as the module grafana_org takes it; empty if there are no rules.

    Args:
        rules: Rules by name. Those of a data source that there isn't are left out.
        told: Who is told of what: `receivers`, `routes`, `mute_times` and `smtp`, the server for e-mail.
        policy_overrides: Settings of the policies' root, such as group_wait.
        datasources: Uids of the data sources that Grafana has.

    Raises:
        AnsibleFilterError: Something in them can't be meant; all of it is named.
    """
    if not rules:
        return {}
    receivers, mute_times = told["receivers"], told["mute_times"]
    problems = [
        *alert_rules.rule_problems(rules),
        *alertmanager_config.receiver_problems(receivers, told["routes"], mute_times, told["smtp"]),
        *interval_problems(rules),
    ]
    if problems:
        raise AnsibleFilterError(" ".join(problems))
    mutes = [{"name": mute_name(name), "time_intervals": times} for name, times in mute_times.items()]
    return {
        "groups": groups_of(rules, datasources),
        "contact_points": contact_points(receivers),
        "policy": policy_of(receivers, told["routes"], policy_overrides),
        "mute_times": mutes if receivers else [*mutes, ALWAYS],
        "template": MESSAGES.read_text().strip(),
    }


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"to_grafana_alerting": grafana_alerting}
