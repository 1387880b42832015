"""Who listens where and who reaches whom, what groups and hosts contribute, and the records of components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.logstead.platform.plugins.plugin_utils import components as records
from ansible_collections.logstead.platform.plugins.plugin_utils.components import (
    ROLES,
    defaults_of,
    find_component,
    load_components,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.contributions import merge_contributions
from ansible_collections.logstead.platform.plugins.plugin_utils.logs import (
    default_logs,
    find_problems,
    rotations_of,
    sources_of,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import Topology

EVERYTHING = [component.group for component in load_components() if component.group != "gateway"]
RECORD = {"name": "toy", "description": "A toy", "order": 5, "listen": "scraped", "ready": {"path": "/", "body": "toy"}}


def topology(host: str, hosts: dict[str, list[str]], **variables: dict[str, Any]) -> Topology:
    """Return the topology as a host sees it: groups by host, and variables by host."""
    groups: dict[str, list[str]] = {"all": list(hosts)}
    for name, names in hosts.items():
        for group in names:
            groups.setdefault(group, []).append(name)
    return Topology(host, groups, {name: variables.get(name, {}) for name in hosts})


# --- Addresses --------------------------------------------------------------------------------------------------------


def test_a_single_host_keeps_to_loopback_but_for_people() -> None:
    one = topology("a", {"a": ["dev", *EVERYTHING]})
    listen = {group: one.listen_address(find_component(group)) for group in EVERYTHING}
    assert {group for group, address in listen.items() if address == "0.0.0.0"} == {"grafana"}  # noqa: S104
    assert set(listen.values()) == {"0.0.0.0", "127.0.0.1"}  # noqa: S104
    assert one.url("loki") == "http://127.0.0.1:3101"
    assert one.environment() == "dev"


def test_several_hosts_reach_one_another_by_their_addresses() -> None:
    hosts = {"a": ["prod", "loki", "prometheus"], "b": ["prod", "promtail"]}
    seen = topology("b", hosts, a={"ansible_host": "10.0.0.1"}, b={"platform_address": "10.0.0.2"})
    assert seen.url("loki") == "http://10.0.0.1:3101"
    assert seen.listen_address(find_component("promtail")) == "10.0.0.2"
    assert seen.listen_address(find_component("loki"), "a") == "10.0.0.1"
    assert seen.targets() == {}, "only Prometheus' host scrapes"
    targets = topology("a", hosts, a={"ansible_host": "10.0.0.1"}, b={"platform_address": "10.0.0.2"}).targets()
    assert targets == {
        "a": {"prometheus": "10.0.0.1:9090", "loki": "10.0.0.1:3101"},
        "b": {"promtail": "10.0.0.2:9080"},
    }


def test_what_the_inventory_sets_wins() -> None:
    own = {
        "loki_http_port": 3200,
        "loki_http_listen_address": "10.9.9.9",
        "grafana_root_url": "https://logs.example.org/",
    }
    seen = topology("a", {"a": ["dev", *EVERYTHING]}, a=own)
    assert seen.endpoints()["loki"] == "10.9.9.9:3200"
    assert seen.url("loki") == "http://127.0.0.1:3200"
    assert seen.grafana_url() == "https://logs.example.org"


def test_loki_behind_a_gateway_on_its_host_listens_for_that_alone() -> None:
    hosts = {"a": ["prod", "loki", "gateway"], "b": ["prod", "promtail"]}
    tenants: dict[str, Any] = {
        name: {"platform_tenants_enabled": True, "ansible_host": f"10.0.0.{name}"} for name in "ab"
    }
    seen = topology("b", hosts, **tenants)
    assert seen.listen_address(find_component("loki"), "a") == "127.0.0.1"
    assert seen.gateway_url() == "https://10.0.0.a:3102"


def test_a_host_of_no_environment_or_of_two_has_none() -> None:
    assert topology("a", {"a": ["loki"]}).environment() == ""
    assert topology("a", {"a": ["dev", "prod"]}).environment() == ""
    assert topology("a", {"a": ["loki"]}, a={"platform_environment": "lab"}).environment() == "lab"


# --- Contributions ----------------------------------------------------------------------------------------------------


def test_the_logs_of_all_groups_of_a_host_add_up() -> None:
    web, db = ({"path": f"/var/log/{name}.log", "format": "plain", "rotation": "elsewhere"} for name in ("nginx", "pg"))
    own = {"platform_logs_web": {"nginx": web}, "platform_logs_db": {"postgresql": db}}
    seen = topology("a", {"a": ["dev", "promtail", "demo_app"]}, a=own)
    assert [entry["path"] for entry in seen.log_sources()] == [
        "/var/log/demo-app/app.log",
        "/var/log/demo-app/access.log",
        "/var/log/pg.log",
        "/var/log/nginx.log",
    ]
    assert [rule["name"] for rule in seen.log_rotations()] == ["demo-app", "demo-app-errors"]


def test_an_entry_of_the_platforms_own_logs_is_changed_by_its_name() -> None:
    own = {"platform_logs": {"demo-app": {"rotation": {"keep": 3}, "sampling": {"DEBUG": 0.5}}}}
    seen = topology("a", {"a": ["dev", "demo_app"]}, a=own)
    assert seen.log_rotations()[0]["keep"] == 3
    assert seen.log_rotations()[0]["hold"] is True
    assert seen.log_sources()[0]["sampling"] == {"DEBUG": 0.5}


def test_two_variables_that_give_one_name_different_entries_are_both_named() -> None:
    hosts = {"a": {"platform_logs_web": {"app": {"path": "/x"}}, "platform_logs_db": {"app": {"path": "/y"}}}}
    with pytest.raises(AnsibleError, match="platform_logs_db of a and platform_logs_web of a both have app"):
        merge_contributions("platform_logs", hosts, {})
    hosts["a"]["platform_logs_db"] = {"app": {"path": "/x"}}
    assert merge_contributions("platform_logs", hosts, {}) == {"app": {"path": "/x"}}


def test_lists_of_all_hosts_add_up_and_equal_entries_count_once() -> None:
    ops, chat = {"name": "ops", "email": ["ops@example.org"]}, {"name": "chat", "slack": {"url": "https://x"}}
    hosts: dict[str, dict[str, Any]] = {
        "a": {"platform_alert_receivers": [ops]},
        "b": {"platform_alert_receivers": [ops], "platform_alert_receivers_b": [chat]},
    }
    assert merge_contributions("platform_alert_receivers", hosts, []) == [ops, chat]
    routes = [
        {"receiver": "ops", "match": {"severity": "critical"}},
        {"receiver": "ops", "match": {"severity": "info"}},
    ]
    assert merge_contributions("platform_alert_routes", {"a": {"platform_alert_routes": routes}}, []) == routes
    apart = {"a": {"platform_alert_routes_a": routes[:1]}, "b": {"platform_alert_routes_b": routes[1:]}}
    assert merge_contributions("platform_alert_routes", apart, []) == routes, "two groups route to one receiver"


def test_what_hosts_contribute_to_a_dict_comes_over_the_platforms_own_entries() -> None:
    own = defaults_of(ROLES / "platform")["platform_known_noise"]
    assert topology("a", {"a": ["dev"]}).contributions("platform_known_noise") == own
    a, b = {"platform_known_noise": {"ssh-probe": ""}}, {"platform_known_noise_b": {"mine": "a harmless line"}}
    found = topology("a", {"a": ["dev"], "b": ["dev"]}, a=a, b=b).contributions("platform_known_noise")
    assert found == {**own, "ssh-probe": "", "mine": "a harmless line"}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("x", "write such as {path:"),
        ({"path": "/x"}, "doesn't say how the log is rotated"),
        ({"rotation": "never"}, "needs path, or paths"),
        ({"path": "/x", "paths": ["/y"], "rotation": "never"}, "needs path, or paths"),
        ({"path": "/x", "rotation": "weekly"}, "doesn't say how the log is rotated"),
        ({"path": "/x", "rotation": {"kep": 3}}, "rotation has the unknown key kep"),
        ({"path": "/x", "rotation": "never", "lables": {}}, "unknown key lables"),
        ({"path": "/var/log/demo-app/app.log", "rotation": "never"}, "both name /var/log/demo-app/app.log"),
    ],
)
def test_an_invalid_entry_of_a_log_is_named(entry: Any, problem: str) -> None:
    logs = {**default_logs("/var/log/demo-app", "fastapi-demo", has_demo_app=True), "shop": entry}
    problems = list(find_problems(logs))
    assert len(problems) == 1
    assert problem in problems[0]
    for read in (sources_of, rotations_of):
        with pytest.raises(AnsibleError, match="platform_logs: shop"):
            read(logs)


WRONG_ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"path": "var/log/x.log"}, "path is 'var/log/x.log'; expected an absolute path"),
    ({"path": "/var/log/x.log\n/etc/shadow"}, "path is '/var/log/x.log\\n/etc/shadow'"),
    ({"path": "/var/log/../../etc/shadow"}, "without .."),
    ({"path": "/x", "job": "a{b}"}, "job is 'a{b}'; expected a name"),
    ({"path": "/x", "job": ""}, "job is ''"),
    ({"path": "/x", "job": "a\nb"}, "job is 'a\\nb'"),
    ({"path": "/x", "exclude": "x*"}, "exclude is 'x*'; expected an absolute path"),
    ({"path": "/x", "labels": {"my-label": "x"}}, "labels: the name is 'my-label'; expected a label name"),
    ({"path": "/x", "labels": {"__path__": "/etc/shadow"}}, "the name is '__path__'"),
    ({"path": "/x", "labels": {"level": "INFO"}}, "none of those that the platform sets"),
    ({"path": "/x", "labels": {"host": "evil"}}, "the name is 'host'"),
    ({"path": "/x", "labels": {"team": None}}, "labels: team is null"),
    ({"path": "/x", "labels": {"team": ""}}, "labels: team is ''"),
    ({"path": "/x", "labels": ["team"]}, "expected labels by name"),
    ({"path": "/x", "rotation": {"max_size": "lots"}}, "rotation: max_size is 'lots'; expected bytes with a suffix"),
    ({"path": "/x", "rotation": {"keep": -1}}, "rotation: keep is -1"),
    ({"path": "/x", "rotation": {"owner": "root\nsu root"}}, "rotation: owner is"),
    ({"path": "/x", "rotation": {"mode": "rw"}}, "rotation: mode is 'rw'"),
]


@pytest.mark.parametrize(("entry", "problem"), WRONG_ENTRIES, ids=[problem for _, problem in WRONG_ENTRIES])
def test_a_wrong_value_of_a_log_is_refused(entry: dict[str, Any], problem: str) -> None:
    (found,) = find_problems({"shop": {"rotation": "never", **entry}})
    assert found.startswith("platform_logs: shop: ")
    assert problem in found


@pytest.mark.parametrize(
    "path",
    [
        *("/var/log//demo-app/app.log", "/var/log/./demo-app/app.log", "//var/log/demo-app/app.log"),
        *(
            "/var/log/demo-app/a*.log",
            "/var/log/*/app.log",
            "/var/log/**/app.log",
            "/var/**",
            "/var/log/demo-app/???.log",
        ),
    ],
)
def test_one_file_in_two_spellings_is_refused(path: str) -> None:
    logs = default_logs("/var/log/demo-app", "fastapi-demo", has_demo_app=True)
    problems = list(find_problems({**logs, "shop": {"path": path, "rotation": "elsewhere"}}))
    assert problems
    assert "platform_logs: shop and demo-app both name what may be one file, /var/log/demo-app/app.log" in problems[0]
    assert "each line would be sent twice" in problems[0]


def test_a_file_may_be_named_twice_if_only_one_entry_collects_it_and_only_one_rotates_it() -> None:
    logs = default_logs("/var/log/demo-app", "fastapi-demo", has_demo_app=True)
    collected = {"path": "/var/log/demo-app/error*", "rotation": "elsewhere"}
    assert list(find_problems({**logs, "errors": collected})) == []
    rotated = {**collected, "collect": False, "rotation": {"keep": 3}}
    assert "the log would be rotated twice" in "".join(find_problems({**logs, "errors": rotated}))


def test_a_file_that_a_pattern_excludes_is_named_once() -> None:
    logs = default_logs("/var/log/demo-app", "fastapi-demo", has_demo_app=True)
    others = {"path": "/var/log/demo-app/*.log", "exclude": "/var/log/demo-app/a*.log", "rotation": "never"}
    assert list(find_problems({**logs, "shop": others})) == []


# --- Records ----------------------------------------------------------------------------------------------------------


def write_record(folder: Path, **changed: Any) -> Path:
    """Write the record of a toy role; a value of None takes a field away. Return the folder of roles."""
    path = folder / "toy" / records.RECORD
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({key: value for key, value in {**RECORD, **changed}.items() if value is not None}))
    return folder


def test_a_role_in_the_roles_path_with_a_record_is_a_component(tmp_path: Path) -> None:
    (toy,) = [one for one in load_components((str(write_record(tmp_path)),)) if one.name == "toy"]
    assert (toy.group, toy.port, toy.data, toy.role_name) == ("toy", "toy_http_port", ("/var/lib/toy",), "toy")
    assert "/etc/systemd/system/toy.service" in toy.program_paths


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"ready": None}, "lacks ready"),
        ({"colour": "red"}, "unknown field colour"),
        ({"listen": "nobody"}, "listen is 'nobody'"),
        ({"ready": {"path": "/"}}, "ready needs path and body"),
        ({"group": "loki"}, "both describe the component loki"),
    ],
)
def test_an_invalid_record_is_refused_by_its_path(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(AnsibleError, match=problem) as refused:
        load_components((str(write_record(tmp_path, **changed)),))
    assert str(tmp_path) in str(refused.value)


def test_an_unknown_component_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(AnsibleError, match="unknown component lokki; the components are node-exporter"):
        find_component("lokki")
    assert find_component("demo-app") is find_component("demo_app")


def test_the_verbs_are_told_what_a_component_is() -> None:
    seen = topology("a", {"a": ["dev", "loki", "demo_app"]}, a={"demo_app_log_folder": "/srv/log"})
    loki, app = seen.components()
    assert (loki["url"], loki["body"], loki["ca"]) == ("http://127.0.0.1:3101/ready", "^ready", "")
    assert app["data"] == ["/var/lib/demo-app", "/srv/log"]
    assert [one["name"] for one in seen.components("demo-app")] == ["demo-app"]
