"""The environments: the table that compares them, and their vaults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.docs import environments as script  # noqa: E402 - from the repository's root

PASSWORD = "password"  # the file's name

# --- The table --------------------------------------------------------------------------------------------------------


def test_the_table_is_what_make_docs_writes() -> None:
    assert script.DOCUMENT.read_text() == script.document(), "docs/environments.md is stale: run `make docs`"
    assert script.table() in script.document()


def test_every_variable_in_which_environments_differ_is_in_the_table() -> None:
    own = {name for name in script.ENVIRONMENTS for name in script.load(REPOSITORY / f"group_vars/{name}/main.yml")}
    assert own - {"platform_environment"} <= set(script.ROWS)


def test_the_table_shows_each_environments_own_values_and_no_secret() -> None:
    rows = {line.split(" | ")[1].strip("`"): line for line in script.table().splitlines()[2:]}
    assert [cell.strip() for cell in rows["platform_retention"].split("|")[3:6]] == ["`7d`", "`14d`", "`31d`"]
    assert "known to everybody | in the vault | in the vault" in rows["grafana_admin_password"]
    secrets = script.load(REPOSITORY / "group_vars/dev/main.yml")
    assert not [name for name in script.SECRETS if name in secrets and secrets[name] in script.table()]


# --- Vaults -----------------------------------------------------------------------------------------------------------


def test_no_vault_is_here_unencrypted() -> None:
    for path in REPOSITORY.glob("group_vars/*/vault.yml"):
        assert path.read_text().startswith("$ANSIBLE_VAULT;"), f"encrypt {path}: ansible-vault encrypt {path}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what makes vaults, with a password beside it."""
    tree = tmp_path / "tree"
    (tree / "playbooks").mkdir(parents=True)
    shutil.copy(REPOSITORY / "playbooks/vault_init.py", tree / "playbooks")
    shutil.copytree(REPOSITORY / "group_vars", tree / "group_vars", ignore=shutil.ignore_patterns("vault.yml"))
    (tmp_path / "password").write_text("a password\n")
    return tree


def run(tree: Path, *words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(tree.parent / password), "ANSIBLE_HOME": str(tree)}
    return subprocess.run(
        words, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def init(tree: Path, environment: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    return run(tree, sys.executable, "playbooks/vault_init.py", environment, password=password)


def leaves(values: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a dictionary, however deep."""
    for value in values.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


def test_a_vault_has_random_secrets_for_all_that_its_example_names_and_is_encrypted(copy: Path) -> None:
    found = []
    for environment in ("prod", "staging", "dev"):
        result = init(copy, environment)
        assert result.returncode == 0, result.stdout
        vault = copy / f"group_vars/{environment}/vault.yml"
        assert vault.read_text().startswith("$ANSIBLE_VAULT;")
        assert vault.stat().st_mode & 0o777 == 0o600
        values = yaml.safe_load(run(copy, "ansible-vault", "view", str(vault)).stdout)
        assert list(values) == list(yaml.safe_load((vault.parent / "vault.yml.example").read_text()))
        secrets = [*leaves(values)]
        assert all(len(value) >= 32 for value in secrets)
        assert not [value for value in secrets if value in result.stdout]
        found += secrets
    assert len(set(found)) == len(found)


def test_a_vault_that_is_there_stays_as_it_is(copy: Path) -> None:
    assert init(copy, "prod").returncode == 0
    before = (copy / "group_vars/prod/vault.yml").read_text()
    result = init(copy, "prod")
    assert result.returncode == 1
    assert "group_vars/prod/vault.yml is there already, and stays as it is" in result.stdout
    assert (copy / "group_vars/prod/vault.yml").read_text() == before


@pytest.mark.parametrize("environment", ["", "demo", "prdo", "../prod"])
def test_an_environment_without_a_vault_is_refused(copy: Path, environment: str) -> None:
    result = init(copy, environment)
    assert result.returncode == 1
    assert "is no environment with a vault: say ENV=dev or ENV=prod or ENV=staging" in result.stdout
    assert not list(copy.glob("group_vars/**/vault.yml"))


def test_without_a_password_nothing_is_written(copy: Path) -> None:
    result = init(copy, "prod", password="no-such-file")
    assert result.returncode == 1
    assert "nothing was written" in result.stdout
    assert not list(copy.glob("group_vars/**/vault.yml"))


def test_the_runs_of_an_environment_read_its_vault(copy: Path) -> None:
    assert init(copy, "prod").returncode == 0
    shutil.copytree(REPOSITORY / "inventories/prod", copy / "inventories/prod", symlinks=True)
    words = ["ansible-inventory", "-i", "inventories/prod", "--host", "logs.prod.example.org"]
    assert len(yaml.safe_load(run(copy, *words).stdout)["grafana_admin_password"]) >= 32
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_VAULT_PASSWORD_FILE"}
    locked = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert locked.returncode != 0
    assert "Attempting to decrypt but no vault secrets found" in locked.stderr
