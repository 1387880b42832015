"""Write the table of docs/environments.md, which compares the environments, from group_vars and the roles' defaults."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.docs.tables import markdown_table, with_table, write_table  # noqa: E402 - from the repository's root

DOCUMENT = REPOSITORY / "docs/environments.md"
ENVIRONMENTS = ("dev", "staging", "prod")
MARKS = ("<!-- made by `make docs` from group_vars: begin -->\n", "<!-- end -->\n")
# Every variable in which environments differ must be here: a test looks.
ROWS = {
    "platform_log_level": "minimum log level of applications",
    "platform_retention": "log retention",
    "loki_retention_by_level": "log retention overrides, by level",
    "promtail_sampling": "sampling rate, by job and level",
    "loki_memory_max": "memory limit of Loki",
    "promtail_memory_max": "memory limit of Promtail",
    "platform_alert_engine": "alert engine",
    "prometheus_retention": "metrics retention",
    "prometheus_retention_size": "maximum disk usage of metrics",
    "loki_http_listen_address": "Loki listens on",
    "promtail_http_listen_address": "Promtail listens on",
    "grafana_http_listen_address": "Grafana listens on",
    "prometheus_http_listen_address": "Prometheus listens on",
    "alertmanager_http_listen_address": "Alertmanager listens on",
    "node_exporter_http_listen_address": "node_exporter listens on",
    "demo_app_http_listen_address": "the demo app listens on",
    "platform_tenants_enabled": "whether environments that share a Loki are separate tenants",
    "gateway_https_listen_address": "with tenants, the gateway listens on",
    "grafana_admin_password": "Grafana's admin password",
    "grafana_secret_key": "encryption key of secrets stored by Grafana",
    "platform_credentials": "with tenants, the gateway's credentials",
    "gateway_certificate_key": "with tenants, the private key of the gateway's certificate",
}
# What no value in the files says by itself.
ALONE_OR_NOT = "127.0.0.1 with a single host, otherwise the host's address"
SCRAPED = "127.0.0.1, or the host's address if a Prometheus on another host scrapes it"
IN_WORDS = {
    "platform_alert_engine": "Alertmanager, where the group has a host",
    "loki_http_listen_address": ALONE_OR_NOT,
    "prometheus_http_listen_address": ALONE_OR_NOT,
    "alertmanager_http_listen_address": ALONE_OR_NOT,
    "promtail_http_listen_address": SCRAPED,
    "node_exporter_http_listen_address": SCRAPED,
    "demo_app_http_listen_address": SCRAPED,
    "grafana_http_listen_address": "all addresses",
    "gateway_https_listen_address": "all addresses",
}
# Secrets, and where they are where group_vars have none.
SECRETS = {
    "grafana_admin_password": "in the vault",
    "grafana_secret_key": "in the vault",
    "platform_credentials": "in the vault",
    "gateway_certificate_key": "generated on the host, or your own in the vault",
}


def load(path: Path) -> dict[str, Any]:
    """Return the variables of a file; none if it isn't there."""
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def variables_of(environment: str) -> dict[str, Any]:
    """Return what an environment has, by Ansible's order: defaults, group_vars/all, its own."""
    paths = [
        *REPOSITORY.glob("roles/*/defaults/main.yml"),
        *REPOSITORY.glob("roles/platform/defaults/main/*.yml"),
        *REPOSITORY.glob("group_vars/all/*.yml"),
        REPOSITORY / f"group_vars/{environment}/main.yml",
    ]
    return {name: value for path in paths for name, value in load(path).items()}


def in_words(value: Any) -> str:
    """Return a value as YAML writes it in one line."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {{{in_words(item)}}}" if isinstance(item, dict) else f"{key}: {in_words(item)}"
            for key, item in value.items()
        )
    return str(value)


def cell(name: str, environment: str) -> str:
    """Return what the table says of a variable in an environment."""
    value = variables_of(environment).get(name)
    if name in SECRETS:
        return "known to everybody" if value else SECRETS[name]
    if value in (None, {}):
        return ""
    return f"`{in_words(value)}`" if "{{" not in str(value) else IN_WORDS[name]


def table() -> str:
    """Return the table in Markdown."""
    lines = [["", "variable", *ENVIRONMENTS], ["---"] * (2 + len(ENVIRONMENTS))]
    for name, meaning in ROWS.items():
        lines.append([meaning, f"`{name}`", *(cell(name, environment) for environment in ENVIRONMENTS)])
    return markdown_table(lines)


def document() -> str:
    """Return the document with a fresh table in it."""
    return with_table(DOCUMENT, MARKS, table())


if __name__ == "__main__":
    write_table(DOCUMENT, MARKS, table())
