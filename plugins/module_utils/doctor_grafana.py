# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The doctor looks whether Grafana finds a line, and evaluates its rules."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import (
    SILENCE,
    Outcome,
    StepFailed,
    ask,
    find_lines,
    log_in,
    parsed,
    silent_unit,
)


def check_grafana(parameters: dict[str, Any]) -> Outcome:
    """Look whether Grafana lets in, and its data source finds a probe."""
    url, uid = parameters["url"], quote(parameters["datasource"], safe="")
    headers = {**log_in(parameters), "Accept": "application/json"}
    status, body = ask(f"{url}/api/health")
    if status == SILENCE:
        silent_unit("grafana", url, body)
    if (parsed(body) or {}).get("database") != "ok":
        raise StepFailed(
            f"{url}/api/health answers {status}: {body[:200]!r}",
            "read ./manage.sh logs grafana, and look what has this port (ss -ltnp).",
        )
    status, body = ask(f"{url}/api/org", headers)
    if status != 200:
        raise StepFailed(
            f"Grafana doesn't let {parameters['user']} log in ({status}: {body[:200]}).",
            "run site.yml, which sets the password to grafana_admin_password. Wrong tries lock a user for a while.",
        )
    status, body = ask(f"{url}/api/datasources/uid/{uid}", headers)
    source = parsed(body) if status == 200 else None
    if not isinstance(source, dict):
        raise StepFailed(f"Grafana has no data source with the uid {uid} ({status}).", "run site.yml --tags grafana.")
    status, body = ask(f"{url}/api/datasources/uid/{uid}/health", headers, timeout=60)
    if status != 200:
        raise StepFailed(
            f"Grafana's data source {source.get('name')} can't ask Loki at {source.get('url')}: "
            f"{(parsed(body) or {}).get('message') or body[:200]}",
            "if that address is wrong, run site.yml --tags grafana, with another grafana_loki_url if need be; else "
            f"look for a firewall: curl {source.get('url')}/ready on Grafana's host.",
        )
    if not parameters["probes"]:
        return Outcome("log-in and data source work, but there is no line to look for")
    probe = parameters["probes"][0]
    status, body, lines = find_lines(f"{url}/api/datasources/proxy/uid/{uid}/loki/api/v1", probe["query"], headers)
    if not lines:
        host = urlsplit(str(source.get("url"))).netloc
        raise StepFailed(
            f"Grafana's data source works, but finds nothing for {probe['query']} ({status}: {body[:200].strip()}).",
            f"look whether {host} is the Loki that Promtail sends to: grafana_loki_url and promtail_loki_url.",
        )
    return Outcome(
        f"log-in works, the data source is healthy and finds {len(lines)} lines by the trace id", lines=lines
    )


def ask_grafana(parameters: dict[str, Any], path: str) -> Any:
    """Return the JSON that Grafana answers its administrator."""
    status, body = ask(parameters["url"] + path, {**log_in(parameters), "Accept": "application/json"})
    answer = parsed(body) if status == 200 else None
    if not isinstance(answer, dict):
        raise StepFailed(
            f"{parameters['url']}{path} answers {status}: {body[:200].strip()}", "read ./manage.sh logs grafana."
        )
    return answer


def check_grafana_alerts(parameters: dict[str, Any]) -> Outcome:
    """Check whether Grafana evaluates rules; report firing alerts and receivers."""
    groups = ask_grafana(parameters, "/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    if not rules:
        raise StepFailed("Grafana has no rules for alerts.", "run site.yml --tags grafana.")
    for rule in rules:
        if rule.get("health") in ("err", "error"):
            raise StepFailed(
                f"Grafana can't evaluate the rule {rule['name']}: {rule.get('lastError')}",
                "see whether what it asks answers (./manage.sh status); if it does, mend the rule in "
                "platform_alert_rules or platform_alert_overrides, and run site.yml.",
            )
    firing = sorted(rule["name"] for rule in rules if rule.get("state") == "firing")
    policy = ask_grafana(parameters, "/api/v1/provisioning/policies")
    routes = [policy, *policy.get("routes", [])]
    names = list(dict.fromkeys(route["receiver"] for route in routes if route.get("receiver")))
    is_nobody = names == ["grafana-default-email"]
    receivers = (
        "no receiver is configured (platform_alert_receivers)" if is_nobody else f"receivers: {', '.join(names)}"
    )
    return Outcome(f"{len(rules)} rules are evaluated; firing: {', '.join(firing) or 'nothing'}; {receivers}")
