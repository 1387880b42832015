"""What the parts of this repository promise one another: names, defaults, precedence, headers, documents."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.action.preflight_check import check_secrets

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parents[1].name for path in REPOSITORY.glob("roles/*/meta/argument_specs.yml"))
COMPONENTS = [role for role in ROLES if role not in ("systemd_app", "platform")]
ENVIRONMENTS = ("dev", "staging", "prod")
INVENTORIES = sorted(path.name for path in REPOSITORY.glob("inventories/*"))
HEADER = "# Managed by logstead"


class Loader(yaml.SafeLoader):
    """Reads Ansible's YAML; what is encrypted, and every other tag, is read as None."""


Loader.add_multi_constructor("!", lambda *_: None)


def load(path: Path) -> Any:
    """Return what a YAML file holds."""
    return yaml.load(path.read_text(), Loader) if path.is_file() else None  # noqa: S506 - a SafeLoader


def options_of(role: str) -> dict[str, dict[str, Any]]:
    """Return a role's public variables by name; those of all entry points of the role that has no main one."""
    specs = load(REPOSITORY / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    chosen = [specs["main"]] if "main" in specs else specs.values()
    return {name: option for spec in chosen for name, option in spec.get("options", {}).items()}


def defaults_of(role: str) -> dict[str, Any]:
    paths = [REPOSITORY / f"roles/{role}/defaults/main.yml", *REPOSITORY.glob(f"roles/{role}/defaults/main/*.yml")]
    return {name: value for path in paths for name, value in (load(path) or {}).items()}


def shared_variables() -> dict[str, Any]:
    """Return what group_vars/all sets."""
    return {name: value for path in REPOSITORY.glob("group_vars/all/*.yml") for name, value in load(path).items()}


def is_literal(value: Any) -> bool:
    return "{{" not in str(value)


def everything_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key), value
            yield from everything_in(value)
    elif isinstance(node, list):
        for element in node:
            yield from everything_in(element)


def files_of_tasks() -> list[Path]:
    return [*REPOSITORY.glob("roles/*/tasks/*.yml"), *REPOSITORY.glob("playbooks/**/*.yml"), REPOSITORY / "site.yml"]


def repository_files() -> list[Path]:
    """Return all files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    return [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]


# --- Variables --------------------------------------------------------------------------------------------------------


def test_every_role_is_looked_at() -> None:
    assert {path.name for path in (REPOSITORY / "roles").iterdir() if path.is_dir()} == set(ROLES)
    assert {"loki", "promtail", "grafana", "demo_app"} <= set(COMPONENTS)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_a_documented_variable(role: str) -> None:
    assert set(defaults_of(role)) <= set(options_of(role))


@pytest.mark.parametrize("role", ROLES)
def test_every_optional_variable_has_a_default_or_says_where_it_comes_from(role: str) -> None:
    known = set(defaults_of(role))
    without = {
        name
        for name, option in options_of(role).items()
        if name not in known and not option.get("required") and "by default" not in option["description"].lower()
    }
    assert not without


@pytest.mark.parametrize("role", ROLES)
def test_no_required_variable_has_a_default(role: str) -> None:
    assert not {name for name, option in options_of(role).items() if option.get("required")} & set(defaults_of(role))


@pytest.mark.parametrize("role", ROLES)
def test_the_documented_default_is_the_real_one(role: str) -> None:
    documented = {name: option["default"] for name, option in options_of(role).items() if "default" in option}
    defaults = defaults_of(role)
    real = {name: defaults[name] for name in defaults if name in options_of(role) and is_literal(defaults[name])}
    assert real == documented


@pytest.mark.parametrize("role", COMPONENTS)
def test_a_component_has_few_variables_and_all_bear_its_name(role: str) -> None:
    assert len(options_of(role)) <= 21
    assert all(name.startswith(f"{role}_") for name in options_of(role))


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_private_variables_bear_its_name_after_two_underscores(role: str) -> None:
    variables = load(REPOSITORY / f"roles/{role}/vars/main.yml") or {}
    registered = {
        value
        for path in REPOSITORY.glob(f"roles/{role}/tasks/*.yml")
        for key, value in everything_in(load(path))
        if key == "register"
    }
    assert not {name for name in {*variables, *registered} if not name.startswith(f"__{role}_")}


def test_every_name_in_group_vars_is_a_variable_of_some_role() -> None:
    known = {name for role in ROLES for name in options_of(role)}
    files = [path for path in REPOSITORY.glob("group_vars/**/*") if path.suffix in (".yml", ".example")]
    assert len(files) > len(ENVIRONMENTS)
    for path in files:
        unknown = {
            name for name in load(path) or {} if name not in known and not name.startswith(("ansible_", "test_"))
        }
        assert not unknown, path


# --- Inventories and precedence, by real plays ------------------------------------------------------------------------


@pytest.mark.parametrize("name", INVENTORIES)
def test_an_inventory_has_the_shared_group_vars_beside_it(name: str) -> None:
    link = REPOSITORY / "inventories" / name / "group_vars"
    assert link.is_symlink()
    assert str(link.readlink()) == "../../group_vars"


def hosts_of(group: dict[str, Any]) -> set[str]:
    below = [hosts_of(child or {}) for child in (group.get("children") or {}).values()]
    return set(group.get("hosts") or {}).union(*below)


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_host_of_an_inventory_is_in_its_environments_group(name: str) -> None:
    everything = load(REPOSITORY / "inventories" / name / "hosts.yml")["all"]
    groups = {key: value for key, value in everything_in(everything) if isinstance(value, dict) and key != "hosts"}
    assert hosts_of(everything)
    assert hosts_of(groups[name]) == hosts_of(everything)
    assert (REPOSITORY / "group_vars" / name / "main.yml").is_file()


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The variables that reach a playbook that a root-level one imports, by environment."""
    folder = tmp_path_factory.mktemp("plays")
    for name in ("group_vars", "inventories"):
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True)
    (folder / "playbooks").mkdir()
    (folder / "site.yml").write_text("- import_playbook: playbooks/show.yml\n")
    (folder / "playbooks/show.yml").write_text(
        """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - ansible.builtin.copy:
        content: >-
          {{ dict(query('ansible.builtin.varnames', '^(PREFIXES)_')
             | zip(query('ansible.builtin.vars', *query('ansible.builtin.varnames',
                   '^(PREFIXES)_')))) | to_json }}
        dest: "{{ playbook_dir }}/../{{ inventory_dir | basename }}.json"
        mode: "0600"
""".replace("PREFIXES", "|".join(("platform", *COMPONENTS)))
    )
    interpreter = f"ansible_python_interpreter={sys.executable}"
    started = {
        environment: subprocess.Popen(
            ["ansible-playbook", "-i", f"inventories/{environment}", "site.yml", "--extra-vars", interpreter],
            cwd=folder,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in ENVIRONMENTS
    }
    found = {}
    for environment, play in started.items():
        output, _ = play.communicate()
        assert play.returncode == 0, output
        found[environment] = json.loads((folder / f"{environment}.json").read_text())
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_play_sees_what_its_environment_says_and_that_beats_what_all_say(
    plays: dict[str, dict[str, Any]], environment: str
) -> None:
    own = load(REPOSITORY / f"group_vars/{environment}/main.yml")
    wanted = {name: value for name, value in own.items() if is_literal(value)}
    assert {name: plays[environment][name] for name in wanted} == wanted
    assert plays[environment]["platform_environment"] == environment


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_play_sees_what_all_environments_share(plays: dict[str, dict[str, Any]], environment: str) -> None:
    own = load(REPOSITORY / f"group_vars/{environment}/main.yml")
    shared = {name: value for name, value in shared_variables().items() if is_literal(value) and name not in own}
    assert {"platform_mirror_url"} <= set(shared)
    assert {name: plays[environment][name] for name in shared} == shared


def test_the_environments_differ_in_what_they_keep_and_write(plays: dict[str, dict[str, Any]]) -> None:
    seen = {name: (found["platform_log_level"], found["platform_retention"]) for name, found in plays.items()}
    assert seen == {"dev": ("DEBUG", "7d"), "staging": ("INFO", "14d"), "prod": ("WARNING", "31d")}


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_only_dev_has_a_password_that_everybody_knows(plays: dict[str, dict[str, Any]], environment: str) -> None:
    public = {name: plays["dev"][name] for name in ("grafana_admin_password", "grafana_secret_key")}
    assert not [name for name, value in public.items() if plays[environment].get(name) == value]
    # And whoever copies dev's is stopped.
    problems = list(check_secrets({**plays[environment], **public, "group_names": ["grafana"]}))
    assert [name for name in public if any(problem.startswith(name) for problem in problems)] == list(public)


# --- Tasks ------------------------------------------------------------------------------------------------------------


def unchecked(call: dict[str, Any]) -> bool:
    """Tell whether Ansible would check no argument of a call: it takes a name that isn't specified for none at all."""
    if not call.get("rolespec_validate", True):
        return False
    role = call["name"].rpartition(".")[2]
    specified = load(REPOSITORY / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return call["tasks_from"] not in specified


def test_the_arguments_of_entry_points_are_checked_unless_the_call_says_otherwise() -> None:
    paths = [*files_of_tasks(), *REPOSITORY.glob("molecule/**/*.yml")]
    values = [(path, value) for path in paths for _, value in everything_in(load(path))]
    calls = [(path, value) for path, value in values if isinstance(value, dict) and "tasks_from" in value]
    assert [call for _, call in calls if call.get("rolespec_validate", True)]
    assert not [(path, call) for path, call in calls if unchecked(call)]
    assert unchecked({"name": "logstead.platform.systemd_app", "tasks_from": "run.yml"})


def names_in(node: Any) -> Iterator[str]:
    """Yield the names of plays, imports, blocks and tasks, but not the `name` arguments of their modules."""
    for entry in node if isinstance(node, list) else []:
        if isinstance(entry, dict):
            yield from [entry["name"]] if "name" in entry else []
            for key in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
                yield from names_in(entry.get(key))


def words_of(name: str) -> list[str]:
    """Return the words of a name after its prefix `<file stem> | `; a Jinja expression is one word."""
    return re.sub(r"\{\{.*?\}\}", "expression", re.sub(r"^[\w-]+ \| ", "", name)).split()


def test_names_of_tasks_and_plays_are_short() -> None:
    paths = [*files_of_tasks(), *REPOSITORY.glob("roles/*/handlers/*.yml")]
    names = [(path, name) for path in paths for name in names_in(load(path))]
    assert {"Install Loki", "run | Install the release of {{ systemd_app_name }}"} <= {name for _, name in names}
    assert not [(str(path), name) for path, name in names if len(words_of(name)) > 8]


def test_the_words_of_a_name_leave_out_its_prefix_and_count_an_expression_once() -> None:
    assert len(words_of("run-it | Start {{ item['a'] | default('b c') }} and {{ other }}")) == 4
    assert list(names_in([{"block": [{"name": "a", "apt": {"name": "b"}}], "rescue": [{"name": "c"}]}])) == ["a", "c"]


def test_no_task_ignores_its_errors() -> None:
    assert not [path for path in files_of_tasks() for key, _ in everything_in(load(path)) if key == "ignore_errors"]


def test_no_role_sets_facts() -> None:
    forbidden = {"set_fact", "ansible.builtin.set_fact"}
    paths = [path for path in files_of_tasks() if "roles" in path.parts]
    assert paths
    assert not [(path, key) for path in paths for key, _ in everything_in(load(path)) if key in forbidden]


@pytest.mark.parametrize("role", [role for role in COMPONENTS if role != "grafana_org"])
def test_a_role_calls_the_shared_one_with_what_that_asks_for(role: str) -> None:
    """It is looked at here, once and for all, because it would take a run 0.06 s for each call."""
    entries = load(REPOSITORY / "roles/systemd_app/meta/argument_specs.yml")["argument_specs"]
    tasks = load(REPOSITORY / "roles" / role / "tasks/main.yml")
    (given,) = (task["vars"] for task in tasks if "systemd_app_name" in task.get("vars", {}))
    calls = [call for key, call in everything_in(tasks) if key == "ansible.builtin.import_role"]
    entered = [call["tasks_from"] for call in calls if call["name"] == "logstead.platform.systemd_app"]
    options = {name: option for entry in entered for name, option in entries[entry].get("options", {}).items()}
    assert "run" in entered
    assert set(given) <= set(options)
    assert {name for name, option in options.items() if option.get("required")} <= set(given)
    if "systemd_app_release" in given:
        release = load(REPOSITORY / "roles" / role / "vars/main.yml")[f"__{role}_release"]
        assert set(release) == set(options["systemd_app_release"]["options"])


def test_the_shared_role_reads_no_variable_of_another_role_and_never_asks_who_called_it() -> None:
    others = "|".join(role for role in (*ROLES, "platform") if role != "systemd_app")
    foreign = re.compile(rf"\b(?:__)?(?:{others})_\w+|ansible_parent_role\w*|hostvars|\bgroups\b")
    paths = [path for path in REPOSITORY.glob("roles/systemd_app/**/*") if path.suffix in (".yml", ".j2")]
    assert paths
    assert not [(path, found) for path in paths for found in foreign.findall(path.read_text())]


def foreign_names(role: str, text: str) -> set[str]:
    """Return the variables of other roles that a text of a component's role names."""
    # Grafana's people are kept by a role of their own, which the role grafana calls and hands what it asks for.
    allowed = {role, {"grafana": "grafana_org"}.get(role)}
    others = "|".join(COMPONENTS)

    def owner(found: str) -> str:
        """Return the role of a name: grafana_org_users is the role grafana_org's, though it begins with grafana."""
        return max((other for other in ROLES if f"{found}_".startswith(f"{other}_")), key=len)

    return {found for found in re.findall(rf"\b(?:__)?((?:{others})_\w+)", text) if owner(found) not in allowed}


@pytest.mark.parametrize("role", COMPONENTS)
def test_a_component_reads_no_variable_of_another_one(role: str) -> None:
    paths = [*REPOSITORY.glob(f"roles/{role}/tasks/*.yml"), *REPOSITORY.glob(f"roles/{role}/*/main.yml")]
    assert paths
    assert not {path: names for path in paths if (names := foreign_names(role, path.read_text()))}


def test_a_variable_of_another_component_would_be_found() -> None:
    text = "{{ loki_http_port }} {{ __loki_config_path }} {{ grafana_http_port }} {{ grafana_org_users }}"
    assert foreign_names("loki", text) == {"grafana_http_port", "grafana_org_users"}
    assert foreign_names("grafana", text) == {"loki_http_port", "loki_config_path"}


# --- What is written to hosts -----------------------------------------------------------------------------------------


def starts_with_header(text: str, role: str) -> bool:
    """Tell whether a text, or the template of one, begins with the header, by itself or by a variable of its role."""
    copied = re.match(r"\{\{\s*lookup\('ansible\.builtin\.file', '([\w.]+)'", text)
    if copied:  # a program: its first line names what runs it
        return HEADER in (REPOSITORY / f"roles/{role}/files/{copied[1]}").read_text().splitlines()[1]
    variables = load(REPOSITORY / f"roles/{role}/vars/main.yml") or {}
    named = re.match(r"\{\{\s*(?:\(?\s*)(__\w+)", text)
    if named:
        return str(variables.get(named[1], "")).startswith(HEADER)
    return re.sub(r"^\{\{\s*'", "", text).startswith(HEADER)


@pytest.mark.parametrize("role", ROLES)
def test_every_text_that_a_role_writes_says_who_wrote_it(role: str) -> None:
    paths = [*REPOSITORY.glob(f"roles/{role}/vars/*.yml"), *REPOSITORY.glob(f"roles/{role}/tasks/*.yml")]
    texts = [value for path in paths for key, value in everything_in(load(path)) if key == "content"]
    from_templates = [text for text in texts if "ansible.builtin.template'" in text]
    templates = {path.name: path for path in REPOSITORY.glob(f"roles/{role}/templates/*.j2")}
    assert all(any(name in text for name in templates) for text in from_templates)
    written = [text for text in texts if text not in from_templates] + [path.read_text() for path in templates.values()]
    assert written or role in ("platform", "grafana_org", "node_exporter")
    assert not [text for text in written if not starts_with_header(text, role)]


# --- Documents --------------------------------------------------------------------------------------------------------


def commands_in(path: Path) -> list[str]:
    """Return the lines of a document's fenced shell commands, without their comments, which may be translated."""
    blocks = re.findall(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_both_readmes_tell_the_same_commands() -> None:
    english, chinese = REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"
    assert english.is_file()
    assert chinese.is_file()
    assert commands_in(english)
    assert commands_in(chinese) == commands_in(english)


def test_the_readme_of_every_role_is_what_make_docs_writes(tmp_path: Path) -> None:
    runs = {
        role: subprocess.Popen(
            ["aar-doc", "--output-file", str(tmp_path / f"{role}.md"), f"roles/{role}", "markdown"], cwd=REPOSITORY
        )
        for role in ROLES
    }
    for role, run in runs.items():
        assert run.wait() == 0, role
        written = REPOSITORY / f"roles/{role}/README.md"
        assert written.is_file(), f"{written} isn't there: run `make docs`"
        assert written.read_text() == (tmp_path / f"{role}.md").read_text(), f"{written} is stale: run `make docs`"


def test_the_readme_of_a_role_names_every_variable() -> None:
    for role in ROLES:
        text = (REPOSITORY / f"roles/{role}/README.md").read_text()
        assert not [name for name in options_of(role) if f"`{name}`" not in text], role


# --- What must not be here --------------------------------------------------------------------------------------------

# Each is put together here, so that this file doesn't match itself.
SECRETS = re.compile(
    "|".join(
        (
            "-----BEGIN [A-Z ]*PRIVATE" + " KEY-----",
            r"\bAKIA[0-9A-Z]{16}\b",
            r"\b(?:gh[pousr]|glpat|glsa|glc|xox[abprs])[-_][A-Za-z0-9_-]{20,}",
            r"://[^\s/:@{}<>$\"']+:[^\s/:@{}<>$\"']+@",
        )
    )
)
HOMES = re.compile(
    r"/(?:home|Users)/[A-Za-z][\w.-]*/|/root/\.(?:cache|config|local|pyenv)\b|/" + r"work/(?:main|shared)\b"
)


def test_the_repository_holds_no_secret_and_no_path_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in repository_files()
        for pattern in (SECRETS, HOMES)
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]
    assert not found


def test_secrets_have_values_in_dev_and_in_encrypted_vaults_only() -> None:
    secret = re.compile(r"password|secret|token", re.IGNORECASE)
    for path in REPOSITORY.glob("group_vars/**/*"):
        if path.is_file() and "dev" not in path.parts and not path.read_text().startswith("$ANSIBLE_VAULT;"):
            values = {
                name: value
                for name, value in everything_in(load(path))
                if secret.search(name) and value and not re.fullmatch(r"\{\{ \w+( \| default\(''\))? \}\}", str(value))
            }
            assert not values, path


def test_a_vault_that_was_filled_in_is_encrypted() -> None:
    for path in REPOSITORY.glob("group_vars/*/vault.yml"):
        assert path.read_text().startswith("$ANSIBLE_VAULT;"), path
