# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The values of a host's variables where no role runs: what the inventory sets, over the defaults of its roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.logstead.platform.plugins.plugin_utils.components import (
    ROLES,
    all_components,
    components_of,
    default_files,
)

# These run on the hosts of several groups.
COMMON_ROLES = {"logrotate": ("demo_app", "promtail"), "grafana_org": ("grafana",)}


@cache
def role_folders() -> dict[str, Path]:
    """Return the folders of all roles of the platform, and of components that are described elsewhere."""
    own = {path.name: path for path in ROLES.iterdir() if (path / "meta").is_dir()}
    return {**{component.role: component.path for component in all_components()}, **own}


def roles_of(groups: Iterable[str]) -> list[str]:
    """Return the roles that run on a host of these groups."""
    names = set(groups)
    common = [role for role, hosts in COMMON_ROLES.items() if names.intersection(hosts)]
    return ["platform", *(component.role for component in components_of(names)), *common]


def defaults_of_host(groups: Iterable[str], loader: Any) -> dict[str, Any]:
    """Return the defaults of the roles of a host, as templates that Ansible trusts."""
    folders = role_folders()
    defaults: dict[str, Any] = {}
    for role in roles_of(groups):
        private = folders[role] / "vars/main.yml"  # which defaults may refer to
        for path in [*default_files(folders[role]), *([private] if private.is_file() else [])]:
            loaded: Mapping[str, Any] = loader.load_from_file(str(path), trusted_as_template=True) or {}
            defaults.update(loaded)
    return defaults


def variables_with_defaults(variables: Mapping[str, Any], templar: Any, loader: Any) -> tuple[dict[str, Any], Any]:
    """Return a host's variables over the defaults of its roles, and what works out a template with them."""
    merged = {**defaults_of_host(variables["group_names"], loader), **variables}
    return merged, templar.copy_with_new_env(available_variables=merged)
