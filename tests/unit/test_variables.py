"""The platform's variables: an inventory outside the checkout may set each in every scope, and needs hardly any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.action.preflight_check import options_of
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import FAMILIES, HOST_FAMILIES

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {path.parents[1].name: options_of(path.parents[1].name) for path in ROLES.glob("*/meta/argument_specs.yml")}
# The shared role is called by roles alone. A family's entries are merged, which is tested by itself.
VARIABLES = sorted(
    name for role, options in NAMES.items() if role != "systemd_app" for name in options if name not in HOST_FAMILIES
)
SCOPES = {"here": "all", "grouped": "group", "hosted": "host"}


def run_play(folder: Path, inventory: dict[str, Any], play: dict[str, Any]) -> str:
    """Run a play in a folder outside the checkout, as a user of the installed collection would; return its output."""
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    result = subprocess.run(
        ["ansible-playbook", "-i", "inventory.yml", "play.yml"],
        cwd=folder,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The value of every variable on three hosts: set for all, then also for a group, then also for a host."""
    folder = tmp_path_factory.mktemp("scopes")
    values = {scope: {name: f"{name} of {scope}" for name in VARIABLES} for scope in SCOPES.values()}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {
        "all": {
            "vars": {**values["all"], **local},
            "hosts": {"here": None},
            "children": {"some": {"vars": values["group"], "hosts": {"grouped": None, "hosted": values["host"]}}},
        }
    }
    imported = [
        {
            "ansible.builtin.import_role": {"name": f"logstead.platform.{role}", "rolespec_validate": False},
            "tags": ["never"],
        }
        for role in NAMES
        if role not in ("systemd_app", "platform")
    ]
    shown = {
        "ansible.builtin.copy": {
            "content": "{{ dict(names | zip(query('ansible.builtin.vars', *names))) | to_json }}",
            "dest": f"{folder}/{{{{ inventory_hostname }}}}.json",
            "mode": "0600",
        },
        "vars": {"names": VARIABLES},
    }
    run_play(folder, inventory, {"hosts": "all", "gather_facts": False, "tasks": [*imported, shown]})
    return {host: json.loads((folder / f"{host}.json").read_text()) for host in SCOPES}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_set_for_all_for_a_group_and_for_a_host(seen: dict[str, dict[str, Any]], name: str) -> None:
    assert {host: values[name] for host, values in seen.items()} == {
        host: f"{name} of {scope}" for host, scope in SCOPES.items()
    }


def test_hosts_in_groups_and_nothing_else_have_a_value_for_every_variable(tmp_path: Path) -> None:
    """Only the two secrets of Grafana have to be set, and what the roles are handed by one another."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = ("dev", "loki", "promtail", "grafana", "demo_app", "prometheus", "alertmanager", "node_exporter")
    inventory = {"all": {"children": {group: {"hosts": {"one": host}} for group in groups}}}
    roles = [role for role in NAMES if role not in ("systemd_app", "platform", "grafana_org", "gateway")]
    names = [name for role in ("platform", *roles) for name in NAMES[role] if not name.endswith(("password", "_key"))]
    optional = set(HOST_FAMILIES)
    imported = [
        {"ansible.builtin.import_role": {"name": f"logstead.platform.{role}"}, "tags": ["never"]} for role in roles
    ]
    shown = {
        "ansible.builtin.copy": {
            "content": "{{ dict(names | zip(query('ansible.builtin.vars', *names))) | to_json }}",
            "dest": f"{tmp_path}/seen.json",
            "mode": "0600",
        },
        "vars": {"names": sorted(set(names) - optional)},
    }
    for task in imported:
        task["ansible.builtin.import_role"]["rolespec_validate"] = False  # type: ignore[index]
    run_play(tmp_path, inventory, {"hosts": "all", "gather_facts": False, "tasks": [*imported, shown]})
    values = json.loads((tmp_path / "seen.json").read_text())
    assert values["platform_environment"] == "dev"
    assert values["promtail_loki_url"] == values["grafana_loki_url"] == "http://127.0.0.1:3101"
    assert values["prometheus_targets"]["one"]["node_exporter"] == "127.0.0.1:9100"
    assert [entry["path"] for entry in values["promtail_log_files"]] == [
        "/var/log/demo-app/app.log",
        "/var/log/demo-app/access.log",
    ]
    assert values["loki_rules"]["HighErrorRate"]["severity"] == "critical"


def test_every_family_of_variables_is_documented() -> None:
    assert {*FAMILIES, *HOST_FAMILIES} <= set(NAMES["platform"])
