"""Every public variable is tried with wrong values: each is refused by name, or accepted by the list in this file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.action.preflight_check import options_of, problems_of
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES, all_components
from ansible_collections.logstead.platform.plugins.plugin_utils.values import KINDS, find_kind, find_problems
from ansible_collections.logstead.platform.plugins.plugin_utils.variables import COMMON_ROLES

ROLE_NAMES = ("platform", *(component.role for component in all_components()), *COMMON_ROLES)
GROUPS = [component.group for component in all_components()]

# --- The wrong values -------------------------------------------------------------------------------------------------

WRONG_TEXTS: dict[str, Any] = {
    "null": None,
    "list": ["x"],
    "dict": {"x": "y"},
    "truth value": True,
    "empty": "",
    "negative": -5,
    "huge number": 10**20,
    "huge text": "9" * 5000,
    "non-ASCII": "Zoë",
    "newline": "x\nExecStartPre=/usr/bin/touch /tmp/x",
    "newline in a zone": "fe80::1%x\nExecStartPre=/bin/false",
    "NUL": "x\x00y",
    "terminal escape": "\x1b[31mx",
    "line separator": "x\u2028y",
    "reversed text": "x\u202egpj",
    "Jinja": "{{ 7 * 7 }}",
    "specifier": "%n",
    "escaped specifier": "%%",
    "quotes and spaces": "a \"b\" 'c'",
    "full-width digits": "\uff13\uff11d",
    "shell": "$(id)",
    "other folder": "../../etc/shadow",
    "line that goes on": "x\\",
}
WRONG_NUMBERS: dict[str, Any] = {
    **{name: WRONG_TEXTS[name] for name in WRONG_TEXTS if name not in ("huge text",)},
    "word": "three",
    "fraction": 3.5,
    "full-width digits": "\uff13\uff11",
    "digits and a newline": "3100\n",
}
WRONG_TRUTHS: dict[str, Any] = {
    **{name: WRONG_TEXTS[name] for name in WRONG_TEXTS if name not in ("truth value",)},
    "word": "maybe",
}
WRONG_DICTS: dict[str, Any] = {
    **{name: WRONG_TEXTS[name] for name in WRONG_TEXTS if name != "dict"},
    "newline in a key": {"x\ny": "z"},
    "NUL in a key": {"x\x00": "z"},
    "newline in a value": {"x": "y\nz"},
    "NUL": {"x": "y\x00"},
    "terminal escape, deep": {"x": {"y": ["\x1b[31m"]}},
    "reversed text": {"x": "\u202egpj"},
}
WRONG_LISTS: dict[str, Any] = {
    **{name: WRONG_TEXTS[name] for name in WRONG_TEXTS if name != "list"},
    "NUL": ["x\x00"],
    "null in it": [None],
    "number in it": [-5],
    "line separator": ["x\u2028y"],
}
WRONG_LISTS_OF_TEXTS = {**WRONG_LISTS, **{f"{name} in it": [value] for name, value in WRONG_TEXTS.items()}}
WRONG_LISTS_OF_DICTS = {**WRONG_LISTS, **{f"{name} in it": [value] for name, value in WRONG_DICTS.items()}}
PORTS: dict[str, Any] = {"no port": 0, "port above all": 65536, "port of root's": 80}

# --- Those that are accepted, looked at one by one --------------------------------------------------------------------

# What is written where nothing in it has a meaning: a file of its own, JSON, a request.
ANY_LINE = {
    *("negative", "huge number", "non-ASCII", "Jinja", "specifier", "escaped specifier", "quotes and spaces"),
    *("full-width digits", "shell", "other folder", "line that goes on"),
}
# Digits only, which a name may have.
DIGITS = {"huge number"}
UIDS_IN_IT = {"huge number in it", "negative in it", "number in it"}
MULTIPLE_LINES = {"newline in a value", "newline in a value in it"}
ACCEPTED: tuple[tuple[str, set[str]], ...] = (
    # Without it, something isn't configured.
    ("platform_mirror_url", {"empty"}),
    ("platform_loki_url", {"empty"}),
    ("platform_prometheus_url", {"empty"}),
    ("platform_alertmanager_url", {"empty"}),
    ("platform_grafana_url", {"empty"}),
    ("platform_gateway_ca", {"empty"}),
    ("gateway_ca", {"empty"}),
    ("gateway_certificate*", {"empty"}),
    ("gateway_metrics_file", {"empty"}),
    ("grafana_build", {"empty"}),
    ("grafana_prometheus_url", {"empty"}),
    ("grafana_tracing_datasource", {"empty"}),
    ("demo_app_otlp_endpoint", {"empty"}),
    ("demo_app_wheelhouse_url", {"empty"}),
    ("logrotate_journal_max_*", {"empty"}),
    ("logrotate_rules.*_size", {"empty"}),
    ("loki_ruler.alertmanager", {"empty"}),
    ("loki_ruler.prometheus", {"empty"}),
    ("loki_ruler.grafana", {"empty"}),
    # Names.
    ("*_version", DIGITS),
    ("demo_app_environment", DIGITS),
    ("promtail_environment", DIGITS),
    ("prometheus_environment", DIGITS),
    ("platform_tenant", DIGITS),
    ("loki_ruler.tenants", {"huge number in it"}),
    ("demo_app_service_name", DIGITS),
    ("promtail_log_files.job", DIGITS),
    ("logrotate_rules.name", DIGITS),
    ("grafana_*_user", DIGITS),
    ("grafana_org_users.login", DIGITS),
    # A uid may begin with a minus.
    ("grafana_org_datasource", {*DIGITS, "negative"}),
    ("grafana_org_datasources", UIDS_IN_IT),
    ("grafana_org_dashboards", UIDS_IN_IT),
    ("grafana_org_folders", UIDS_IN_IT),
    ("grafana_org_preferences.home_dashboard", {*DIGITS, "negative"}),
    # A file of its own, or a request of Grafana's API in JSON.
    ("grafana_admin_password", ANY_LINE),
    ("grafana_secret_key", ANY_LINE),
    ("grafana_org_admin_password", ANY_LINE),
    ("grafana_org_users.password", {"huge number", "Jinja", "quotes and spaces", "other folder"}),  # the long ones
    ("grafana_org_users.name", {*ANY_LINE, "empty"}),
    ("grafana_org_service_accounts.name", ANY_LINE),
    ("grafana_org_name", {*ANY_LINE, "empty"}),
    # Commands: of `grafana cli`, which the role grafana passes, and a script, which logrotate checks.
    ("grafana_org_command", ANY_LINE),
    ("logrotate_rules.postrotate", {*ANY_LINE, "empty", "newline", "newline in a zone", "huge text"}),
    # YAML and JSON, which quote what is in them, or an INI file with quotes. Each program checks its own.
    ("alertmanager_config_overrides", MULTIPLE_LINES),
    ("grafana_config_overrides", MULTIPLE_LINES),
    ("loki_config_overrides", MULTIPLE_LINES),
    ("prometheus_config_overrides", MULTIPLE_LINES),
    ("promtail_config_overrides", MULTIPLE_LINES),
    ("*_scrape_configs", MULTIPLE_LINES),
    ("platform_*_rules", MULTIPLE_LINES),
    ("platform_rules", MULTIPLE_LINES),
    ("platform_alerts", MULTIPLE_LINES),
    ("platform_alert_overrides", MULTIPLE_LINES),
    ("prometheus_rules", MULTIPLE_LINES),
    ("loki_rules", MULTIPLE_LINES),
    ("grafana_org_alert_rules", MULTIPLE_LINES),
    ("grafana_org_alert_policy_overrides", MULTIPLE_LINES),
    ("*_mute_times", MULTIPLE_LINES),
    # The preflight checks platform_alert_receivers, and the role these, whose default that is.
    ("alertmanager_receivers", MULTIPLE_LINES),
    ("alertmanager_routes", MULTIPLE_LINES),
    ("grafana_org_alert_receivers", MULTIPLE_LINES),
    ("grafana_org_alert_routes", MULTIPLE_LINES),
    ("grafana_datasources", MULTIPLE_LINES),
    ("*_loki_gateway", MULTIPLE_LINES),  # it has a certificate
    ("platform_dashboards", MULTIPLE_LINES),
    ("platform_log_formats", MULTIPLE_LINES),
    ("promtail_log_files.format", DIGITS),
    ("gateway_credentials", MULTIPLE_LINES),  # passwords, of which only digests are written
)


def accepted(name: str) -> set[str]:
    """Return the wrong values that a variable, or a key of its entries, may have."""
    return {label for pattern, labels in ACCEPTED if fnmatchcase(name, pattern) for label in labels}


# --- A host that runs everything --------------------------------------------------------------------------------------

PASSWORDS = {"prod": {"write": "p" * 20, "read": "q" * 20}}
HOST: dict[str, Any] = {
    "ansible_facts": {
        "distribution": "Debian",
        "distribution_version": "13.1",
        "systemd": {"version": 257},
        "python": {"version": {"major": 3, "minor": 13}},
        "python_version": "3.13.5",
    },
    "group_names": ["prod", *GROUPS],
    "groups": {"all": ["web"], **{group: ["web"] for group in GROUPS}},
    "platform_environment": "prod",
    "platform_environments": ["dev", "staging", "prod"],
    "platform_runtime": "podman",
    "platform_image_registry": "registry.example.org",
    "platform_tenants_enabled": True,
    "platform_credentials": PASSWORDS,
    "platform_gateway_url": "https://logs.example.org:3102",
    "gateway_loki_url": "http://127.0.0.1:3101",
    "promtail_loki_url": "https://logs.example.org:3102",
    "grafana_loki_url": "https://logs.example.org:3102",
    "grafana_admin_password": "a-password-of-our-own",
    "grafana_secret_key": "0123456789abcdef",
    "logrotate_rules": [],
}


def wrong_values_of(option: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the wrong values that fit a specification, by what is wrong with each."""
    elements, ports = option.get("elements"), PORTS if name.endswith("_port") else {}
    return {
        "int": {**WRONG_NUMBERS, **ports},
        "float": {label: value for label, value in WRONG_NUMBERS.items() if label not in ("fraction",)},
        "bool": WRONG_TRUTHS,
        "dict": WRONG_DICTS,
        "list": WRONG_LISTS_OF_DICTS if elements == "dict" else WRONG_LISTS_OF_TEXTS,
    }.get(option.get("type", "str"), WRONG_TEXTS)


def trials() -> Iterator[tuple[str, str, Any, str]]:
    """Yield each variable (or `variable.key`), what is wrong with its value, the value, and the variable itself."""
    for role in ROLE_NAMES:
        for name, option in options_of(role).items():
            for label, value in wrong_values_of(option, name).items():
                yield name, label, value, name
            for key, below in option.get("options", {}).items():
                # The other keys that an entry has to have, valid ones.
                others = {
                    other: VALID_KEYS[other]
                    for other, its in option["options"].items()
                    if its.get("required") and other != key
                }
                for label, value in wrong_values_of(below, key).items():
                    entry = {**others, key: value}
                    yield f"{name}.{key}", label, entry if option["type"] == "dict" else [entry], name


VALID_KEYS = {
    "job": "shop",
    "path": "/var/log/shop/app.log",
    "name": "shop",
    "paths": ["/var/log/shop/app.log"],
    "login": "ada",
    "password": "a-password-of-our-own",
    "lines_per_second": 5,
    "burst": 5,
}


def test_the_host_that_is_changed_has_no_problems() -> None:
    assert problems_of(HOST) == []


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_default_is_a_valid_value(role: str) -> None:
    options = options_of(role)
    defaults = {name: option["default"] for name, option in options.items() if "default" in option}
    assert [problem for name, value in defaults.items() for problem in find_problems(name, value, options[name])] == []


def test_every_key_of_a_log_may_have_a_value() -> None:
    entry: dict[str, Any] = {
        "job": "shop",
        "path": "/var/log/shop/*.log",
        "format": "nginx",
        "timezone": "Europe/Berlin",
    }
    entry |= {"labels": {"team": "web"}, "exclude": "/var/log/shop/x*.log", "sampling": {"DEBUG": 0.5}}
    entry |= {"rate_limit": {"lines_per_second": 0.5, "burst": 5}}
    assert set(entry) == set(options_of("promtail")["promtail_log_files"]["options"])
    assert problems_of({**HOST, "promtail_log_files": [entry]}) == []


def test_every_wrong_value_is_refused_by_name_or_known_to_be_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    begin, tried, refused, surprises = time.monotonic(), 0, 0, []
    for name, label, value, variable in trials():
        tried += 1
        is_refused = any(variable in problem for problem in problems_of({**HOST, variable: value}))
        refused += is_refused
        if is_refused == (label in accepted(name)):
            surprises.append(f"{name}: {label} is {'refused' if is_refused else 'accepted'}")
    with capsys.disabled():
        print(f" [{tried} wrong values, {refused} refused, {time.monotonic() - begin:.0f} s]", end="")
    assert not surprises, "\n".join(surprises)
    assert refused > 1000


# --- The vocabulary covers everything ---------------------------------------------------------------------------------


def described_values(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every variable, and key of its entries, whose values need more than their type."""
    for name, option in options.items():
        if "options" in option:
            yield from described_values(option["options"], f"{prefix}{name}.")
        elif option["type"] != "bool" and "choices" not in option:
            yield f"{prefix}{name}"


NAMES = [name for role in ROLE_NAMES for name in described_values(options_of(role))]


def test_every_public_variable_has_a_kind_of_value() -> None:
    assert [name for name in NAMES if find_kind(name) is None] == []


def test_every_pattern_is_of_some_variable() -> None:
    found = {next(pattern for pattern, _ in KINDS if fnmatchcase(name, pattern)) for name in NAMES}
    assert {pattern for pattern, _ in KINDS} - found == set()


def names_in_units() -> set[str]:
    """Return the public variables that the roles write into units and command lines."""
    texts = []
    for role in ROLE_NAMES:
        path = ROLES / role / "vars/main.yml"
        variables = yaml.safe_load(path.read_text()) if path.is_file() else {}
        texts += [str(value) for name, value in variables.items() if re.search(r"_(unit|command|timer|folders)$", name)]
    return {name for role in ROLE_NAMES for name in options_of(role) if re.search(rf"\b{name}\b", " ".join(texts))}


def test_what_is_written_into_a_unit_can_t_mean_something_else_there() -> None:
    names = names_in_units()
    assert {"loki_memory_max", "promtail_groups", "demo_app_log_folder", "node_exporter_arguments"} <= names
    dangerous = {
        "newline",
        "newline in a zone",
        "specifier",
        "escaped specifier",
        "quotes and spaces",
        "line that goes on",
        "shell",
    }
    dangerous |= {f"{label} in it" for label in dangerous}
    assert [name for name in sorted(names) if accepted(name) & dangerous] == []


@pytest.mark.parametrize("value", ["x\nExecStartPre=/bin/false", "x\\", None, {"x": "y"}])
def test_an_override_of_a_unit_can_t_become_another_line(value: Any) -> None:
    (problem,) = problems_of({**HOST, "loki_unit_overrides": {"Service": {"Nice": value}}})
    assert problem.startswith("loki_unit_overrides: Service: 'Nice'")
