# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The doctor looks whether Prometheus scrapes, evaluates rules, and reaches Alertmanager."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import (
    SILENCE,
    Outcome,
    StepFailed,
    ask,
    parsed,
    silent_unit,
)


def ask_prometheus(url: str, path: str) -> Any:
    """Return what Prometheus' API calls data."""
    status, body = ask(f"{url}/api/v1/{path}")
    answer = parsed(body) if status == 200 else None
    if not isinstance(answer, dict) or "data" not in answer:
        raise StepFailed(
            f"{url}/api/v1/{path} answers {status}: {body[:200].strip()}",
            "read ./manage.sh logs prometheus, and see what has this port (ss -ltnp).",
        )
    return answer["data"]


def check_alertmanager(url: str, alertmanager: str) -> str:
    """Check whether Prometheus reaches Alertmanager; report firing alerts and receivers."""
    status, body = ask(f"{alertmanager}/api/v2/receivers")
    receivers = parsed(body) if status == 200 else None
    if not isinstance(receivers, list):
        raise StepFailed(
            f"Alertmanager at {alertmanager} answers {status}: {body[:200].strip()}",
            "./manage.sh status says whether it runs; start it, or read ./manage.sh logs alertmanager.",
        )
    found = [urlsplit(one["url"]).netloc for one in ask_prometheus(url, "alertmanagers")["activeAlertmanagers"]]
    if urlsplit(alertmanager).netloc not in found:
        raise StepFailed(
            f"Prometheus doesn't send alerts to {alertmanager}, but to {', '.join(found) or 'nobody'}.",
            "run site.yml --tags prometheus.",
        )
    status, body = ask(f"{alertmanager}/api/v2/alerts?active=true")
    alerts = sorted({str(alert["labels"].get("alertname")) for alert in parsed(body) or []}) if status == 200 else []
    names = [str(one.get("name")) for one in receivers]
    receivers = (
        "no receiver is configured (platform_alert_receivers)"
        if names == ["nobody"]
        else f"receivers: {', '.join(names)}"
    )
    return f"firing: {', '.join(alerts) or 'nothing'}; {receivers}"


def check_alerts(parameters: dict[str, Any]) -> Outcome:
    """Look whether Prometheus scrapes every part, evaluates its rules, and reaches Alertmanager."""
    url = parameters["url"]
    status, body = ask(f"{url}/-/ready")
    if status == SILENCE:
        silent_unit("prometheus", url, body)
    targets = ask_prometheus(url, "targets?state=active")["activeTargets"]
    down = [target for target in targets if target["health"] == "down"]
    if down:
        labels = [f"{target['labels'].get('job')} on {target['labels'].get('host')}" for target in down]
        raise StepFailed(
            f"Prometheus can't scrape {', '.join(labels)}: {down[0].get('lastError')}",
            f"does it run (./manage.sh status), and can {parameters['host']} reach {down[0].get('scrapeUrl')}?",
        )
    rules = [rule for group in ask_prometheus(url, "rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule.get("health") == "err":
            raise StepFailed(
                f"Prometheus can't evaluate the rule {rule['name']}: {rule.get('lastError')}",
                "mend it in platform_alert_rules or platform_alert_overrides, and run site.yml.",
            )
    detail = f"{len(targets)} targets are up, {len(rules)} rules are evaluated"
    alertmanager = parameters["alertmanager_url"]
    return Outcome(f"{detail}; {check_alertmanager(url, alertmanager)}" if alertmanager else detail)
