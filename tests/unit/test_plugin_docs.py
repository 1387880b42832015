"""Tests that every plugin of the collection is documented, as ansible-doc loads it, and that this matches the code."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "logstead.platform"
PLUGINS = f"ansible_collections.{COLLECTION}.plugins"
FOLDERS = {"module": "modules", "filter": "filter", "lookup": "lookup"}
# Refused on purpose: this collection is under the MIT license, and imports come first in all of its Python.
ACCEPTED = {"missing-gplv3-license", "import-before-documentation"}
# What an option is without a word about it.
OPTION = {"type": "str", "elements": None, "required": False, "default": None, "choices": None}


class SpecSeen(Exception):  # noqa: N818  # the way out of a module's main, not an error
    """Carries what a module asks AnsibleModule for."""


@cache
def documented(kind: str) -> dict[str, Any]:
    """Return what ansible-doc finds of a kind, by name: documentations, or what is wrong with them."""
    # Without the dump, one plugin that can't be shown would hide all others.
    command = ["ansible-doc", "--metadata-dump", "--no-fail-on-errors", "-t", kind, COLLECTION]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["all"].get(kind, {})
    return {name.removeprefix(f"{COLLECTION}."): doc for name, doc in found.items()}


def files_of(folder: str) -> list[str]:
    """Return the names of the Python files of a kind of plugin."""
    return sorted(path.stem for path in ROOT.glob(f"plugins/{folder}/*.py") if path.stem != "__init__")


@cache
def filters() -> dict[str, Any]:
    """Return the functions of all filters by the names that they are registered under."""
    found: dict[str, Any] = {}
    for name in files_of("filter"):
        found |= importlib.import_module(f"{PLUGINS}.filter.{name}").FilterModule().filters()
    return found


@cache
def plugins() -> list[tuple[str, str]]:
    """Return kind and name of every plugin that the collection has by its code."""
    names = {**{kind: files_of(folder) for kind, folder in FOLDERS.items()}, "filter": sorted(filters())}
    return [(kind, name) for kind, found in names.items() for name in found]


def parameters_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a module asks AnsibleModule for; nothing for the stub of an action plugin."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    if not hasattr(module, "main"):
        assert name in files_of("action"), "a module without main is the stub of an action plugin"
        return {"argument_spec": {}, "supports_check_mode": True}

    def see(**parameters: Any) -> NoReturn:
        raise SpecSeen(parameters)

    monkeypatch.setattr(module, "AnsibleModule", see)
    with pytest.raises(SpecSeen) as seen:
        module.main()
    parameters: dict[str, Any] = seen.value.args[0]
    return parameters


def as_options(spec: dict[str, Any], below: str) -> dict[str, Any]:
    """Return options by name in one form, from an argument spec or a documentation; `below` is where suboptions are."""
    return {
        name: {
            **{key: option.get(key, default) for key, default in OPTION.items()},
            "options": as_options(option.get(below) or {}, below),
        }
        for name, option in spec.items()
    }


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_ansible_finds_is_what_the_code_has(kind: str) -> None:
    found = [name for found, name in plugins() if found == kind]
    assert sorted(documented(kind)) == found


def test_every_filter_has_a_sidecar_and_every_sidecar_a_filter() -> None:
    assert sorted(path.stem for path in ROOT.glob("plugins/filter/*.yml")) == sorted(filters())


def test_every_action_plugin_has_the_stub_of_a_module() -> None:
    assert set(files_of("action")) <= set(files_of("modules"))


@pytest.mark.parametrize(("kind", "name"), plugins())
def test_a_plugin_is_documented_in_full(kind: str, name: str) -> None:
    found = documented(kind)[name]
    assert "error" not in found, found["error"]
    missing = [
        key for key in ("short_description", "description", "author", "version_added") if not found["doc"].get(key)
    ]
    missing += [key for key in ("examples", "return") if not found.get(key)]
    assert not missing
    assert not found["doc"]["short_description"].endswith(".")
    # Whoever copies an example has no `collections` to look in.
    assert f"{COLLECTION}.{name}" in found["examples"]
    if kind == "module":
        attributes = found["doc"]["attributes"]
        assert {"check_mode", "diff_mode"} <= set(attributes)
        assert {attribute["support"] for attribute in attributes.values()} <= {"full", "partial", "none"}


def modules_with_code() -> list[str]:
    """Return the modules that run on hosts; the others document an action plugin, which takes its arguments itself."""
    return [
        name for name in files_of("modules") if "AnsibleModule(" in (ROOT / f"plugins/modules/{name}.py").read_text()
    ]


@pytest.mark.parametrize("name", modules_with_code())
def test_a_modules_documentation_has_its_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = parameters_of(name, monkeypatch)
    doc = documented("module")[name]["doc"]
    assert as_options(doc["options"], "suboptions") == as_options(parameters["argument_spec"], "options")
    has_check_mode = doc["attributes"]["check_mode"]["support"] != "none"
    assert has_check_mode == parameters.get("supports_check_mode", False)


@pytest.mark.parametrize("name", sorted(filters()))
def test_a_filters_documentation_has_its_arguments(name: str) -> None:
    doc, function = documented("filter")[name]["doc"], filters()[name]
    first, *others = inspect.signature(function).parameters.values()
    names = ["_input", *(other.name for other in others)]
    assert doc["positional"].split(", ") == names
    assert set(doc["options"]) == set(names)
    for option, parameter in zip(names, (first, *others)):
        is_optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_POSITIONAL
        assert doc["options"][option].get("required", False) != is_optional, option


def test_ansible_tests_own_check_accepts_every_module(tmp_path: Path) -> None:
    # `ansible-test sanity` would first make an environment of its own, with packages from the internet.
    (package,) = importlib.import_module("ansible_test").__path__
    checker = Path(package, "_util/controller/sanity/validate-modules")
    collection = Path("ansible_collections", *COLLECTION.split("."))
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    report = tmp_path / "report.json"
    options = ["--collection", collection, "--collection-version", version, "--format", "json", "--output", report]
    known = [str(ROOT / "collections"), str(checker), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, checker / "validate.py", "--arg-spec", *options, "plugins/modules"],
        cwd=ROOT / "collections" / collection,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": known[0], "PYTHONPATH": os.pathsep.join(known[1:])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.is_file(), result.stderr
    found = json.loads(report.read_text())
    assert sorted(Path(name).stem for name in found) == files_of("modules")
    assert [
        f"{name}: {error['code']}: {error['msg']}"
        for name, findings in found.items()
        for error in findings["errors"]
        if error["code"] not in ACCEPTED
    ] == []
