"""The unit of every component, in both runtimes, rendered by a real play and verified as on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_files import File, check_unit

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIMES = ("systemd", "podman")
SECRETS = {"grafana_admin_password": "a-password-of-our-own", "grafana_secret_key": "0123456789abcdef"}


def parameters_of(role: str) -> dict[str, Any]:
    """Return what a role's tasks hand to systemd_app."""
    tasks = yaml.safe_load((REPOSITORY / f"roles/{role}/tasks/main.yml").read_text())
    found = [task["vars"] for task in tasks if "systemd_app_command" in task.get("vars", {})]
    return found[0] if found else {}


PARAMETERS = {
    path.parents[1].name: parameters_of(path.parents[1].name) for path in REPOSITORY.glob("roles/*/tasks/main.yml")
}
ROLES = sorted(role for role, parameters in PARAMETERS.items() if parameters)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the units, by runtime."""
    folder = tmp_path_factory.mktemp("units")
    tasks = [
        {
            "tags": ["render"],
            "vars": {**PARAMETERS[role], "platform_runtime": runtime, "role_path": str(REPOSITORY / "roles" / role)},
            "ansible.builtin.copy": {
                "content": "{{ __systemd_app_unit_files | to_json }}",
                "dest": f"{folder}/{role}-{runtime}.json",
                "mode": "0600",
            },
        }
        for role in ROLES
        for runtime in RUNTIMES
    ]
    play = {
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        "roles": [f"logstead.platform.{role}" for role in ROLES],
        "vars_files": [str(REPOSITORY / f"roles/systemd_app/{name}/main.yml") for name in ("defaults", "vars")],
        "tasks": tasks,
    }
    (folder / "render.yml").write_text(yaml.safe_dump([play]))
    variables = {**SECRETS, "ansible_python_interpreter": sys.executable}
    result = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            "inventories/prod",
            "--tags",
            "render",
            "-e",
            json.dumps(variables),
            folder / "render.yml",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("role", ROLES)
def test_systemd_ignores_no_line_of_a_unit(units: Path, tmp_path: Path, role: str, runtime: str) -> None:
    rendered = json.loads((units / f"{role}-{runtime}.json").read_text())
    files = [
        File.from_parameters(
            {"secret": None, "mode": "0644", "owner": "root", "group": "root", "validate": [], "apply": None}
            | {"read_by": None, "on_change": "restart", **entry},
            "toy.service",
        )
        for entry in rendered
    ]
    assert files
    for file in files:
        (tmp_path / file.path.name).write_text(file.text)
    for file in files:
        check_unit(file, tmp_path / file.path.name)
