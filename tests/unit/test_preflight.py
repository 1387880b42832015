"""The role preflight: what is asked for of a host is looked at as a whole, and every problem says what to do."""

from __future__ import annotations

import ipaddress
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.action.preflight_check import known_names, problems_of
from ansible_collections.logstead.platform.plugins.plugin_utils.components import all_components

COMPONENTS = [component.group for component in all_components() if component.group != "gateway"]  # it needs tenants


def facts(**changed: Any) -> dict[str, Any]:
    return {
        "distribution": "Debian",
        "distribution_version": "12.9",
        "systemd": {"version": 252},
        "python": {"version": {"major": 3, "minor": 11}},
        "python_version": "3.11.2",
        **changed,
    }


def asked(**changed: Any) -> dict[str, Any]:
    """Return the variables of a host of prod that runs everything; a value of None takes a variable away."""
    variables = {
        "ansible_facts": facts(),
        "group_names": ["prod", *COMPONENTS],
        "platform_environment": "prod",
        "platform_runtime": "systemd",
        "platform_retention": "31d",
        "platform_log_level": "WARNING",
        "loki_http_listen_address": "127.0.0.1",
        "loki_http_port": 3101,
        "loki_grpc_port": 9096,
        "promtail_http_port": 9080,
        "promtail_loki_url": "http://127.0.0.1:3101",
        "grafana_http_port": 3100,
        "grafana_loki_url": "http://127.0.0.1:3101",
        "grafana_admin_password": "a-password-of-our-own",
        "grafana_secret_key": "0123456789abcdef",
        "demo_app_http_port": 8000,
        **changed,
    }
    return {name: value for name, value in variables.items() if value is not None}


def only_problem(**changed: Any) -> str:
    """Return the one problem that these variables have."""
    problems = problems_of(asked(**changed))
    assert len(problems) == 1, problems
    return problems[0]


def test_a_sound_host_has_no_problems() -> None:
    assert problems_of(asked()) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_host_of_one_component_needs_no_variables_of_the_others(component: str) -> None:
    variables = {
        name: value
        for name, value in asked(group_names=["prod", component]).items()
        if name.startswith((f"{component}_", "platform_", "ansible_", "group_"))
    }
    assert problems_of(variables) == []


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of(
        asked(platform_runtime="docker", platform_retention="forever", grafana_admin_password="admin", loki_prot=1)
    )
    assert len(problems) == 4


# --- Dashboards -------------------------------------------------------------------------------------------------------


def test_a_dashboard_that_grafana_would_not_show_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    problem = only_problem(grafana_dashboards=[{"file": str(tmp_path / "broken.json")}])
    assert f"{tmp_path}/broken.json is no JSON" in problem


def test_a_dashboard_may_ask_the_data_sources_that_are_listed_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(
        '{"uid": "own", "title": "Own", "panels": [{"type": "stat", "datasource": {"uid": "shop-db"}}]}'
    )
    own = {"grafana_dashboards": [{"file": str(tmp_path / "own.json")}]}
    assert "asks the unknown data source shop-db; known are loki" in only_problem(**own)
    assert problems_of(asked(**own, grafana_datasources=[{"name": "Shop", "uid": "shop-db", "type": "mysql"}])) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (7, "is 7; write the text"),
        ([], r"is []; write the text"),
        ("a\nline of text", "no line breaks"),
        ("*", "would mute too many lines; write at least 8 characters"),
        ("error *  *", "would mute too many lines"),
    ],
)
def test_known_noise_that_would_mute_nothing_or_too_much_is_refused_by_name(text: Any, told: str) -> None:
    problem = only_problem(platform_known_noise={"fine": "harmless (really)", "off": "", "mine": text})
    assert problem.startswith("platform_known_noise['mine'] ")
    assert told in problem


def test_traces_are_looked_for_in_a_data_source_that_there_is() -> None:
    assert "it is the uid of one of grafana_datasources" in only_problem(grafana_tracing_datasource="tempo")
    tempo = {"name": "Tempo", "uid": "tempo", "type": "tempo"}
    assert problems_of(asked(grafana_tracing_datasource="tempo", grafana_datasources=[tempo])) == []


# --- Alerts -----------------------------------------------------------------------------------------------------------

DOWN = {"source": "prometheus", "expr": "up", "below": 1, "severity": "info", "summary": "{job} is down"}


def test_a_rule_that_can_t_be_meant_is_told_by_its_name() -> None:
    assert problems_of(asked(platform_rules={"Down": DOWN})) == []
    problem = only_problem(platform_rules={"Down": DOWN | {"severty": "page"}})
    assert "the rule Down: severty is no setting of it; is severity meant?" in problem


def test_alerts_need_an_alertmanager_where_it_is_to_tell_of_them() -> None:
    assert "put a host in the group alertmanager" in only_problem(platform_alert_engine="alertmanager")
    given = {"platform_alert_engine": "alertmanager", "platform_alertmanager_url": "http://127.0.0.1:9093"}
    assert problems_of(asked(**given)) == []


def test_alerts_need_a_grafana_where_it_is_to_tell_of_them_and_rules_that_it_takes() -> None:
    given: dict[str, Any] = {"platform_alert_engine": "grafana", "platform_alerts": {"Down": DOWN | {"interval": "1m"}}}
    elsewhere = {**asked(**given), "groups": {}}
    assert [text for text in problems_of(elsewhere) if "alert" in text] == [
        "platform_alert_engine is grafana, but there is none: put a host in the group grafana."
    ]
    given["groups"] = {"grafana": ["g.example.org"]}
    assert problems_of(asked(**given)) == []
    assert "Grafana takes multiples of 10s" in only_problem(
        **{**given, "platform_alerts": {"Down": DOWN | {"interval": "15s"}}}
    )
    assert "below is 'x'" in only_problem(**{**given, "platform_alerts": {"Up": {**DOWN, "below": "x"}}})


def test_a_receiver_that_can_t_be_reached_is_told_of() -> None:
    ops = [{"name": "ops", "email": ["ops@example.org"]}]
    smtp = {"host": "smtp.example.org:587", "from": "logstead@example.org"}
    assert "platform_alert_smtp has no server" in only_problem(platform_alert_receivers=ops)
    assert problems_of(asked(platform_alert_receivers=ops, platform_alert_smtp=smtp)) == []
    routes = [{"receiver": "nobody"}]
    problem = only_problem(platform_alert_receivers=ops, platform_alert_smtp=smtp, platform_alert_routes=routes)
    assert "route 1 leads to the unknown receiver nobody" in problem


# --- People -----------------------------------------------------------------------------------------------------------

ADA = {"login": "ada", "password": "hers alone"}


@pytest.mark.parametrize(
    ("users", "told"),
    [
        ([ADA, ADA], "grafana_org_users has ada more than once"),
        ([ADA | {"login": "admin"}], "grafana_org_users has the administrator"),
        ([ADA | {"password": "password"}], "the password of ada in grafana_org_users is one that everybody knows"),
        ([ADA | {"password": "short"}], "shorter than 8 characters"),
        ([ADA | {"role": "boss"}], "value of role must be one of: viewer, editor, admin"),
        ([{"login": "ada"}], "missing required arguments: password"),
    ],
)
def test_an_account_that_can_t_be_meant_is_refused(users: list[dict[str, str]], told: str) -> None:
    assert any(told in problem for problem in problems_of(asked(grafana_org_users=users)))


def test_people_and_programs_may_have_accounts() -> None:
    programs = [{"name": "ci", "role": "viewer", "token_file": "/root/token"}]
    assert problems_of(asked(grafana_org_users=[ADA], grafana_org_service_accounts=programs)) == []


# --- Names and values -------------------------------------------------------------------------------------------------


IN_CONTAINERS = {"platform_runtime": "podman", "platform_image_registry": "registry.example.org:5000/upstream"}


def test_containers_need_nothing_more_than_where_their_images_are() -> None:
    assert problems_of(asked(**IN_CONTAINERS)) == []
    images = {"loki": f"docker.io/grafana/loki:3.7.8@sha256:{'a' * 64}", "promtail": f"localhost/x@sha256:{'b' * 64}"}
    assert problems_of(asked(**IN_CONTAINERS, platform_images=images)) == []


@pytest.mark.parametrize(
    "registry", ["https://registry.example.org", "registry.example.org/", "upstream", "a b.example"]
)
def test_a_registry_is_a_host_and_no_address(registry: str) -> None:
    assert "expected a registry's host" in only_problem(**{**IN_CONTAINERS, "platform_image_registry": registry})


@pytest.mark.parametrize(
    "image", ["grafana/loki:3.7.8", "docker.io/grafana/loki", "docker.io/grafana/loki@sha256:12", ""]
)
def test_an_image_without_a_registry_or_a_version_is_refused(image: str) -> None:
    assert "it is a full name with a registry" in only_problem(**IN_CONTAINERS, platform_images={"loki": image})


def test_an_image_of_what_has_none_is_refused() -> None:
    problem = only_problem(**IN_CONTAINERS, platform_images={"gateway": "docker.io/nginx:1"})
    assert (
        "platform_images has gateway, which has no image; node_exporter, alertmanager, prometheus, loki, promtail"
        in problem
    )


def test_the_demo_apps_image_comes_from_somewhere() -> None:
    assert "demo_app/Containerfile" in only_problem(platform_runtime="podman")
    assert problems_of(asked(platform_runtime="podman", platform_mirror_url="http://mirror")) == []
    image = {"demo_app": "registry.example.org/demo-app:0.1.0"}
    assert problems_of(asked(platform_runtime="podman", platform_images=image)) == []


def test_an_unknown_runtime_is_refused_and_the_known_ones_are_named() -> None:
    problem = only_problem(platform_runtime="docker")
    assert "platform_runtime" in problem
    assert "docker" in problem
    assert "systemd" in problem


def test_an_unknown_log_level_is_refused() -> None:
    assert "VERBOSE" in only_problem(platform_log_level="VERBOSE")


def test_a_port_that_is_no_number_is_refused_once() -> None:
    problem = only_problem(loki_http_port="three")
    assert "loki_http_port" in problem
    assert "expected a TCP port" in problem


@pytest.mark.parametrize("port", [-5, 0, 65536, 99999, "\uff13\uff11\uff10\uff11"])
def test_a_port_that_there_is_not_is_refused(port: object) -> None:
    assert only_problem(loki_http_port=port).endswith("expected a TCP port from 1 to 65535.")


def test_a_port_of_roots_needs_a_unit_that_may_listen_on_it() -> None:
    assert "may not listen on a port below 1024" in only_problem(loki_http_port=443)
    capability = {"Service": {"AmbientCapabilities": "CAP_NET_BIND_SERVICE"}}
    assert problems_of(asked(loki_http_port=443, loki_unit_overrides=capability)) == []


def test_a_wrong_value_that_others_have_by_default_is_reported_once() -> None:
    changed = {"platform_retention": "forever", "loki_retention": "forever"}
    assert only_problem(**changed, set_names=[]).startswith("platform_retention is 'forever'")
    assert len(problems_of(asked(**changed, set_names=["loki_retention"]))) == 2


@pytest.mark.parametrize("period", ["\uff13\uff11d", "99999999y", "101y", "31d\n"])
def test_a_period_of_other_digits_or_without_an_end_is_refused(period: str) -> None:
    assert only_problem(platform_retention=period).startswith("platform_retention is ")


@pytest.mark.parametrize("limit", ["lots", "512m", "1K", "-1G", "101%", "0%", "\u0665G", "1G\nUser=root"])
def test_a_memory_limit_that_systemd_ignores_is_refused(limit: str) -> None:
    assert "loki_memory_max is" in only_problem(loki_memory_max=limit)


@pytest.mark.parametrize("limit", ["infinity", "512M", "1.5G", "25%", 1073741824])
def test_a_memory_limit_of_systemds_is_accepted(limit: object) -> None:
    assert problems_of(asked(loki_memory_max=limit)) == []


def test_an_environment_that_is_no_name_becomes_no_path() -> None:
    problems = problems_of(asked(platform_environment='de"v {{ 7*7 }}', grafana_secret_key=""))
    assert problems[0].startswith("platform_environment is 'de\"v {{ 7*7 }}'; expected a name")
    assert "group_vars/<environment>/vault.yml" in problems[1]
    assert "7*7" not in problems[1]


def test_a_secret_is_not_shown_in_a_message() -> None:
    assert "hunter2" not in only_problem(grafana_admin_password="hunter2\n")
    assert "hunter2" not in only_problem(platform_mirror_url=f"http://me:{'hunter2'}@mirror example.org")
    receivers = [{"name": "ops", "webhook": {"url": "http://example.org/hunter2\x00"}}]
    assert "hunter2" not in "".join(problems_of(asked(platform_alert_receivers=receivers)))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("plattform_retention", "platform_retention"),
        ("platfrom_log_level", "platform_log_level"),
        ("Loki_http_port", "loki_http_port"),
        ("promtial_memory_max", "promtail_memory_max"),
        ("demoapp_log_folder", "demo_app_log_folder"),
    ],
)
def test_a_misspelt_prefix_is_found(name: str, meant: str) -> None:
    assert only_problem(other_names=[name]) == f"{name} is an unknown variable; did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        *("vault_grafana_admin_password", "my_loki_retention", "app_http_port", "nginx_http_port", "grafana2_version"),
        *("app_environment", "log_level", "mirror_url", "docker_memory_max", "postgres_version", "environment"),
    ],
)
def test_a_users_own_variable_is_not_taken_for_a_misspelt_one(name: str) -> None:
    assert problems_of(asked(other_names=[name])) == []


def test_a_variable_that_is_needed_and_missing_is_named() -> None:
    problem = only_problem(platform_environment=None)
    assert "the host is in no environment" in problem


def test_a_log_file_with_an_unknown_key_is_refused() -> None:
    assert "lables" in only_problem(promtail_log_files=[{"job": "a", "path": "/a", "lables": {}}])


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("loki_retension", "loki_retention"),
        ("promtail_logfiles", "promtail_log_files"),
        ("grafana_admin_pasword", "grafana_admin_password"),
        ("platform_enviroment", "platform_environment"),
        ("demo_app_port", "demo_app_http_port"),
    ],
)
def test_a_misspelt_variable_is_found_and_the_right_one_suggested(misspelt: str, meant: str) -> None:
    assert only_problem(**{misspelt: 1}) == f"{misspelt} is an unknown variable; did you mean {meant}?"


def test_a_name_that_is_like_no_other_is_refused_all_the_same() -> None:
    assert only_problem(loki_qqqqqqqqqqqq=1) == "loki_qqqqqqqqqqqq is an unknown variable."


def test_variables_of_others_are_none_of_our_business() -> None:
    assert problems_of(asked(ansible_host="x", my_own="x", __loki_private="x", influxdb_port=1)) == []


def test_every_role_contributes_its_names() -> None:
    assert {known_names()[f"{role}_http_port"] for role in COMPONENTS} == set(COMPONENTS)
    assert known_names()["platform_environment"] == "platform"


# --- The host ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "version"),
    [("Debian", "11.11"), ("Ubuntu", "20.04"), ("Ubuntu", "21.10"), ("CentOS", "9"), ("Debian", "n/a"), ("Debian", "")],
)
def test_an_unsupported_system_is_refused_and_the_supported_ones_are_named(distribution: str, version: str) -> None:
    problem = only_problem(ansible_facts=facts(distribution=distribution, distribution_version=version))
    assert problem.startswith(f"the host runs {distribution} {version}; supported are Debian from 12 on and Ubuntu")
    assert "Upgrade it, or take it out of the inventory." in problem


@pytest.mark.parametrize(
    ("distribution", "version"),
    [("Debian", "12"), ("Debian", "13.1"), ("Ubuntu", "22.04"), ("Ubuntu", "22.04.5"), ("Ubuntu", "24.10")],
)
def test_a_supported_system_is_welcome(distribution: str, version: str) -> None:
    assert problems_of(asked(ansible_facts=facts(distribution=distribution, distribution_version=version))) == []


@pytest.mark.parametrize(("systemd", "shown"), [({"version": 247}, "247"), ({"version": "248.3"}, "248"), ({}, "none")])
def test_a_systemd_that_is_too_old_or_missing_is_refused(systemd: dict[str, Any], shown: str) -> None:
    problem = only_problem(ansible_facts=facts(systemd=systemd))
    assert problem == f"the host has systemd {shown}; at least 249 is needed. Upgrade the host."


@pytest.mark.parametrize("minor", [6, 8])
def test_a_python_that_is_too_old_is_refused(minor: int) -> None:
    python = {"python": {"version": {"major": 3, "minor": minor}}, "python_version": f"3.{minor}.1"}
    problem = only_problem(ansible_facts=facts(**python))
    assert problem.startswith(f"the host's Python is 3.{minor}.1; at least 3.9 is needed.")
    assert "ansible_python_interpreter" in problem


def test_a_host_without_facts_has_problems_and_no_traceback() -> None:
    assert len(problems_of(asked(ansible_facts={}))) == 3


# --- Local access -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [["a b"], ['a", "b'], ["-x"], ["x\n"], [""], ["ü"], [7]])
def test_a_local_user_whose_name_is_invalid_is_named(users: list[Any]) -> None:
    assert f"platform_local_users[1] is {users[0]!a}" in only_problem(platform_local_users=users)


def test_a_local_user_that_the_host_lacks_is_named() -> None:
    known = facts(unknown_users=["bob"])
    assert "has bob, which the host doesn't have" in only_problem(
        ansible_facts=known, platform_local_users=["alice", "bob"]
    )
    assert problems_of(asked(platform_local_users=["alice", "svc.backup", "ops@example.org"])) == []


def test_local_users_are_a_list() -> None:
    assert only_problem(platform_local_users="alice") == "platform_local_users is 'alice'; expected a list."


def test_local_access_is_limited_only_where_nftables_can_be_used() -> None:
    container = facts(has_net_admin=False)
    problem = only_problem(ansible_facts=container)
    assert "CAP_NET_ADMIN" in problem
    assert "set platform_local_access to everyone" in problem
    assert problems_of(asked(ansible_facts=container, platform_local_access="everyone")) == []
    only_open_ports = asked(ansible_facts=container, group_names=["prod", "grafana"])
    assert problems_of(only_open_ports) == []


# --- Retention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", ["forever", "31", "31 d", "", 31, "1d12h"])
def test_a_retention_that_is_no_period_is_refused_with_an_example(period: Any) -> None:
    problem = only_problem(platform_retention=period)
    assert (
        problem
        == f"platform_retention is {period!r}, which is no period: write a number and h, d, w or y, such as 31d."
    )


@pytest.mark.parametrize("period", ["1h", "23h", "0d", "0w"])
def test_a_retention_below_24_hours_is_refused(period: str) -> None:
    for name in ("platform_retention", "loki_retention"):
        assert only_problem(**{name: period}) == f"{name} is {period!r}: Loki keeps every line for 24h at least."


@pytest.mark.parametrize("period", ["24h", "1d", "2w", "1y"])
def test_a_retention_of_a_day_or_more_is_welcome(period: str) -> None:
    assert problems_of(asked(platform_retention=period, loki_retention_by_level={"DEBUG": period})) == []


def test_the_retention_of_each_level_is_looked_at() -> None:
    problem = only_problem(loki_retention_by_level={"INFO": "7d", "DEBUG": "12h"})
    assert problem.startswith("loki_retention_by_level['DEBUG'] is '12h': Loki keeps")


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"retention": "12h"}, "loki_tenants['dev']['retention'] is '12h': Loki keeps every line for 24h at least."),
        ({"retention_by_level": {"DEBUG": "1h"}}, "loki_tenants['dev']['retention_by_level']['DEBUG'] is '1h': Loki"),
        (
            {"retention_by_level": {"WARN": "7d"}},
            "loki_tenants['dev']['retention_by_level'] has the unknown level WARN",
        ),
        ("7d", "loki_tenants['dev'] is '7d'; write what is different, such as {retention: 7d}."),
    ],
)
def test_the_retention_of_each_tenant_is_looked_at(own: Any, problem: str) -> None:
    assert only_problem(loki_tenants={"prod": {"limits": {}}, "dev": own}).startswith(problem)


def test_a_retention_of_an_unknown_level_is_refused_and_the_known_ones_are_named() -> None:
    problem = only_problem(loki_retention_by_level={"WARN": "7d"})
    assert problem == (
        "loki_retention_by_level has the unknown level WARN; levels are DEBUG, INFO, WARNING, ERROR, CRITICAL."
    )


# --- Ports and connections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "port", "other"),
    [
        ("grafana_http_port", 3101, "loki_http_port"),
        ("promtail_http_port", "9096", "loki_grpc_port"),
        ("demo_app_http_port", 9080, "promtail_http_port"),
        ("loki_grpc_port", 3101, "loki_http_port"),
    ],
)
def test_two_services_of_a_host_on_one_port_are_both_named(name: str, port: Any, other: str) -> None:
    problem = only_problem(**{name: port})
    assert name in problem
    assert other in problem
    assert f"are both {port}; give each service of a host a port of its own." in problem


def test_a_port_that_is_not_set_is_the_roles_own() -> None:
    problem = only_problem(grafana_http_port=3101, loki_http_port=None)
    assert problem.startswith("grafana_http_port and loki_http_port are both 3101;")


def test_services_of_different_hosts_may_share_a_port() -> None:
    assert problems_of(asked(group_names=["prod", "grafana"], grafana_http_port=3101)) == []


@pytest.mark.parametrize(("component", "name"), [("promtail", "promtail_loki_url"), ("grafana", "grafana_loki_url")])
def test_a_component_that_needs_loki_says_so_where_there_is_none(component: str, name: str) -> None:
    assert only_problem(group_names=["prod", component], **{name: ""}) == (
        f"the host is in the group {component}, but there is no Loki: put a host in the group loki, or set {name}."
    )


@pytest.mark.parametrize("address", ["logs.example.org", "localhost", "10.0.0.256"])
def test_a_loki_for_several_hosts_needs_an_ip_address(address: str) -> None:
    problem = only_problem(loki_http_listen_address=address)
    assert problem.startswith(f"loki_http_listen_address is '{address}'; expected an IP address to listen on. Set")
    assert problems_of(asked(loki_http_listen_address=address, group_names=["prod", "promtail"])) == []


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1"])
def test_an_ip_address_is_welcome(address: str) -> None:
    assert problems_of(asked(loki_http_listen_address=address)) == []


# --- Secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["staging", "prod"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grafana_admin_password", "admin123"),
        ("grafana_admin_password", "admin"),
        ("grafana_admin_password", ""),
        ("grafana_secret_key", "logstead-dev-only"),
        ("grafana_secret_key", "SW2YcwTIb9zpOOhoPsMm"),
        ("grafana_secret_key", ""),
    ],
)
def test_a_secret_that_everybody_knows_is_refused_outside_of_dev(environment: str, name: str, value: str) -> None:
    problem = only_problem(platform_environment=environment, **{name: value})
    assert problem == (
        f"{name} is not set, or is one that everybody knows. Set it in group_vars/{environment}/vault.yml: "
        f"`ansible-vault create` opens a new one; in a checkout, `make vault-init ENV={environment}` makes it with "
        "random secrets."
    )
    assert problems_of(asked(platform_environment="dev", **{name: value or "admin"})) == []


@pytest.mark.parametrize("name", ["grafana_admin_password", "grafana_secret_key"])
def test_a_secret_that_is_not_set_is_told_of_with_the_file_to_set_it_in(name: str) -> None:
    assert any(f"{name} is not set" in text and "vault.yml" in text for text in problems_of(asked(**{name: None})))


def test_a_host_without_grafana_needs_no_secrets_of_it() -> None:
    groups = ["prod", "loki", "promtail", "demo_app"]
    assert problems_of(asked(group_names=groups, grafana_admin_password=None, grafana_secret_key=None)) == []


def test_no_problem_repeats_a_secret() -> None:
    assert not any("admin123" in text for text in problems_of(asked(grafana_admin_password="admin123")))


def test_a_second_store_would_be_no_cluster_and_is_refused() -> None:
    problem = only_problem(groups={"loki": ["a", "b"]})
    assert "the group loki has 2 hosts (a, b)" in problem
    assert "Keep one host in it" in problem


def test_the_demo_app_needs_a_newer_python_than_the_platform() -> None:
    old = {**facts(), "python": {"version": {"major": 3, "minor": 10}}, "python_version": "3.10.12"}
    problem = only_problem(ansible_facts=old)
    assert "the demo app needs Python 3.11" in problem
    assert "demo_app_python" in problem
    assert problems_of(asked(ansible_facts=old, demo_app_python="/opt/python/bin/python3")) == []


# --- Tenants ----------------------------------------------------------------------------------------------------------

PASSWORDS = {"prod": {"write": "p" * 20, "read": "q" * 20}, "dev": {"write": "r" * 20, "read": "s" * 20}}


def with_tenants(**changed: Any) -> dict[str, Any]:
    """Return variables of a host of prod that runs everything, the gateway as well."""
    return asked(
        **{
            "group_names": ["prod", "gateway", *COMPONENTS],
            "groups": {"loki": ["a"], "gateway": ["a"]},
            "platform_tenants_enabled": True,
            "platform_environments": ["dev", "staging", "prod"],
            "platform_credentials": PASSWORDS,
            "platform_gateway_url": "https://logs.example.org:3102",
            "gateway_url": "https://logs.example.org:3102",
            "gateway_loki_url": "http://127.0.0.1:3101",
            "gateway_credentials": PASSWORDS,
            **changed,
        }
    )


def only_problem_of_tenants(**changed: Any) -> str:
    problems = problems_of(with_tenants(**changed))
    assert len(problems) == 1, problems
    return problems[0]


def test_a_sound_gateway_has_no_problems() -> None:
    assert problems_of(with_tenants()) == []
    assert problems_of(with_tenants(platform_tenants_enabled="true")) == []


def test_an_environment_without_a_loki_of_its_own_has_no_problems() -> None:
    changed = {"group_names": ["dev", "promtail"], "groups": {"promtail": ["a"]}, "platform_environment": "dev"}
    assert problems_of(with_tenants(**changed, platform_credentials={"dev": PASSWORDS["dev"]})) == []


def test_a_gateway_without_tenants_is_refused() -> None:
    problem = only_problem_of_tenants(platform_tenants_enabled=False)
    assert problem.startswith(
        "the host is in the group gateway, but there are no tenants: set platform_tenants_enabled"
    )


def test_tenants_without_a_gateway_are_refused() -> None:
    problem = only_problem_of_tenants(groups={"loki": ["a"]}, group_names=["prod", "loki"])
    assert "nobody could reach Loki: put the host of the group loki in the group gateway" in problem


def test_two_gateways_are_refused() -> None:
    assert "has 2 hosts (a, b)" in only_problem_of_tenants(groups={"loki": ["a"], "gateway": ["a", "b"]})


@pytest.mark.parametrize("url", ["", "http://logs.example.org:3102", "logs.example.org", "https://logs.example.org/x"])
def test_the_gateway_of_another_inventory_needs_an_https_address(url: str) -> None:
    changed = {"group_names": ["prod", "promtail"], "groups": {"promtail": ["a"]}, "platform_gateway_url": url}
    problem = only_problem_of_tenants(**changed, promtail_loki_url=url, set_names=[])
    assert problem.startswith(f"platform_gateway_url is {url!r}")
    assert "such as https://logs.example.org:3102" in problem


def test_credentials_that_are_missing_are_told_of_with_the_file_to_set_them_in() -> None:
    for given, lacking in (
        ({}, "write and read"),
        ({"prod": {"write": "p" * 20}}, "read"),
        ({"prod": None}, "write and"),
    ):
        problem = only_problem_of_tenants(platform_credentials=given)
        assert problem.startswith(f"platform_credentials['prod'] lacks {lacking}")
        assert "group_vars/prod/vault.yml" in problem
        assert "make vault-init ENV=prod" in problem


def test_the_gateway_needs_both_credentials_of_each_environment_and_others_what_they_read() -> None:
    given = {**PASSWORDS, "dev": {"read": "s" * 20}}
    assert only_problem_of_tenants(platform_credentials=given).startswith("platform_credentials['dev'] lacks write.")
    elsewhere = {"group_names": ["prod", "grafana"], "groups": {"grafana": ["a"]}}
    assert problems_of(with_tenants(platform_credentials=given, **elsewhere)) == []


def test_credentials_of_an_unknown_environment_are_refused() -> None:
    problem = only_problem_of_tenants(platform_credentials={**PASSWORDS, "prdo": {"write": "x" * 20, "read": "y" * 20}})
    assert (
        "platform_credentials has prdo, which is no environment; platform_environments are dev, staging, prod"
        in problem
    )


def test_equal_credentials_are_refused_without_repeating_them() -> None:
    given = {**PASSWORDS, "prod": {"write": "p" * 20, "read": "p" * 20}}
    problem = only_problem_of_tenants(platform_credentials=given)
    assert problem.startswith("prod-read and prod-write have the same password")
    given = {**PASSWORDS, "dev": {"write": "r" * 20, "read": "q" * 20}}
    problem = only_problem_of_tenants(platform_credentials=given)
    assert problem.startswith("dev-read and prod-read have the same password")
    assert "qqq" not in problem


@pytest.mark.parametrize("password", ["short", "x" * 19, "with a space in it, and long", "x" * 30 + "\n"])
def test_a_password_that_can_be_guessed_or_would_be_cut_is_refused(password: str) -> None:
    problem = only_problem_of_tenants(platform_credentials={**PASSWORDS, "prod": {"write": password, "read": "q" * 20}})
    assert problem.startswith("the password of prod-write needs 20 characters or more, and no spaces")
    assert password not in problem


# --- Certificates -----------------------------------------------------------------------------------------------------


class Pair:
    """A key and its certificate, made for a test."""

    def __init__(self, name: str, issuer: Pair | None = None, days: tuple[int, int] = (-1, 30), **names: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
        )
        if names:
            entries = [
                x509.DNSName(text) if kind == "dns" else x509.IPAddress(ipaddress.ip_address(text))
                for kind, text in names.items()
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
        self.certificate: x509.Certificate = builder.sign((issuer or self).key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key."""
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, *form).decode()


CA, OTHER_CA = Pair("ca"), Pair("other ca")
BETWEEN = Pair("between", CA)
CHAINED, ALONE = Pair("gateway", BETWEEN, dns="LOGS.example.org"), Pair("gateway", dns="logs.example.org")
GOOD = Pair("gateway", CA, dns="logs.example.org", ip="10.0.0.5")


def of(pair: Pair, **changed: Any) -> dict[str, Any]:
    """Return the variables of a gateway with a certificate of its own."""
    own = {"gateway_certificate": pair.pem, "gateway_certificate_key": pair.key_pem, "platform_gateway_ca": CA.pem}
    return with_tenants(**{**own, **changed})


@pytest.mark.parametrize(
    ("pair", "changed"),
    [
        (GOOD, {}),
        (GOOD, {"platform_gateway_ca": ""}),
        (GOOD, {"platform_gateway_ca": OTHER_CA.pem + CA.pem}),
        (GOOD, {"platform_gateway_url": "https://10.0.0.5:3102"}),
        (Pair("gateway", CA, dns="*.example.org"), {}),
        (
            chained := Pair("gateway", BETWEEN, dns="LOGS.example.org"),
            {"gateway_certificate": chained.pem + BETWEEN.pem},
        ),
        (ALONE, {"platform_gateway_ca": ALONE.pem}),
    ],
    ids=["by name", "public CA", "one of two CAs", "by address", "with a star", "with one between", "signed by itself"],
)
def test_a_sound_certificate_has_no_problems(pair: Pair, changed: dict[str, str]) -> None:
    assert problems_of(of(pair, **changed)) == []


@pytest.mark.parametrize(
    ("pair", "changed", "problem"),
    [
        (Pair("x", CA, (-9, -2), dns="logs.example.org"), {}, "gateway_certificate has expired on "),
        (Pair("x", CA, (2, 9), dns="logs.example.org"), {}, "gateway_certificate is valid only from "),
        (GOOD, {"gateway_certificate_key": CA.key_pem}, "gateway_certificate_key isn't the key of the first"),
        (GOOD, {"gateway_certificate_key": ""}, "gateway_certificate_key is no private key in PEM text"),
        (GOOD, {"gateway_certificate_key": GOOD.pem}, "gateway_certificate_key is no private key in PEM text"),
        (GOOD, {"gateway_certificate": "/etc/ssl/logs.pem"}, "gateway_certificate is no certificate in PEM text"),
        (GOOD, {"gateway_certificate": ""}, "gateway_certificate is no certificate in PEM text"),
        (GOOD, {"platform_gateway_url": "https://10.0.0.6:3102"}, "gateway_certificate isn't for 10.0.0.6, the host"),
        (Pair("x", CA, dns="*.org"), {}, "gateway_certificate isn't for logs.example.org, the host"),
        (Pair("logs.example.org", CA), {}, "gateway_certificate isn't for logs.example.org, the host"),
        (GOOD, {"platform_gateway_ca": OTHER_CA.pem}, "gateway_certificate doesn't come from platform_gateway_ca"),
        (Pair("x", BETWEEN, dns="logs.example.org"), {}, "gateway_certificate doesn't come from platform_gateway_ca"),
        (GOOD, {"platform_gateway_ca": "/etc/ca.pem"}, "platform_gateway_ca is no certificate in PEM text"),
    ],
    ids=[
        "expired",
        "not yet valid",
        "another's key",
        "no key",
        "a certificate for a key",
        "a path",
        "a key alone",
        "another address",
        "a star for two parts",
        "a name that is no longer looked at",
        "another CA",
        "one between is missing",
        "a path for a CA",
    ],
)
def test_a_certificate_that_clients_would_refuse_is_refused(pair: Pair, changed: dict[str, str], problem: str) -> None:
    problems = problems_of(of(pair, **changed))
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)
    assert "BEGIN PRIVATE" not in problems[0]


def test_a_ca_that_has_expired_is_told_of_where_clients_are() -> None:
    elsewhere = {"group_names": ["prod", "promtail"], "groups": {"promtail": ["a"]}}
    problem = only_problem_of_tenants(platform_gateway_ca=Pair("ca", days=(-9, -2)).pem, **elsewhere)
    assert problem.startswith("a certificate of platform_gateway_ca has expired on ")
