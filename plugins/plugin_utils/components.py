# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The components of the platform: each is described once, by the record in its role, `meta/component.yml`.

Preflight, verbs, status, scrape targets and the documentation loop over these records. A role outside the collection
that has a record is a component too, if it is found in Ansible's roles path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleError

COLLECTION = Path(__file__).resolve().parents[2]
ROLES = COLLECTION / "roles"
RECORD = "meta/component.yml"
# Who has to reach a component, which decides on what address it listens by default: the other hosts of the platform,
# Prometheus alone, or people and other networks.
SCOPES = ("platform", "scraped", "public")
REQUIRED = {"name", "description", "order", "listen", "ready"}
OPTIONAL = {"group", "port", "local_ports", "client", "single_host", "data", "image", "metrics_job", "packages"}


@dataclass(frozen=True)
class Component:
    """One component, as its record describes it."""

    role: str  # the folder's name
    path: Path  # the folder of the role
    name: str  # of the unit, the user, /etc/NAME, /opt/NAME and /var/lib/NAME
    group: str  # of hosts that run it
    description: str
    order: int  # of starting: those that others send to come first
    listen: str  # one of SCOPES
    port: str  # name of the variable
    local_ports: tuple[str, ...]  # names of the variables with ports that local users have no access to
    is_client: bool  # whether its user connects to such ports of other components
    ready: Mapping[str, str]  # path, body (regular expression), and perhaps url (`gateway`) and ca
    data: tuple[str, ...]  # paths; {variable} stands for a variable's value
    single_host: str  # what is sent to the first host alone, so that the group has one; empty: any number of hosts
    image: str  # repository of the container image; empty: it runs on the host in every runtime
    metrics_job: str  # name of the scrape job; empty: it has no metrics
    packages: tuple[str, ...]  # of the distribution

    @property
    def role_name(self) -> str:
        """The name by which a play includes the role."""
        return f"logstead.platform.{self.role}" if self.path.parent == ROLES else self.role

    @property
    def address_variable(self) -> str:
        """The name of the variable with the address that it listens on."""
        return self.port.removesuffix("_port") + "_listen_address"

    @property
    def program_paths(self) -> list[str]:
        """Everything that is removed with it, but its data."""
        units = [f"/etc/systemd/system/{self.name}.{kind}" for kind in ("service", "timer")]
        return [
            *units,
            *(f"/etc/{folder}/{self.name}.conf" for folder in ("sysusers.d", "tmpfiles.d")),
            *(f"/var/lib/logstead/{self.name}.{kind}.json" for kind in ("service", "timer")),
            f"/var/lib/logstead/checks/{self.name}.json",
            f"/etc/{self.name}",
            f"/opt/{self.name}",
        ]


def build_component(path: Path) -> Component:
    """Return the component of a role's folder.

    Raises:
        AnsibleError: The record lacks a field, has an unknown one, or one of a wrong kind.
    """
    where = path / RECORD
    record = yaml.safe_load(where.read_text())
    if not isinstance(record, dict):
        raise AnsibleError(f"{where}: the record is no mapping of fields.")
    missing, unknown = sorted(REQUIRED - set(record)), sorted(set(record) - REQUIRED - OPTIONAL)
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown field {', '.join(unknown)}"
        raise AnsibleError(f"{where}: the record {problem}. A record has {', '.join(sorted(REQUIRED | OPTIONAL))}.")
    if record["listen"] not in SCOPES:
        raise AnsibleError(f"{where}: listen is {record['listen']!r}; it is one of {', '.join(SCOPES)}.")
    if not isinstance(record["ready"], dict) or not {"path", "body"} <= set(record["ready"]):
        raise AnsibleError(f"{where}: ready needs path and body, such as {{path: /ready, body: ^ready}}.")
    role, name = path.name, str(record["name"])
    port = str(record.get("port", f"{role}_http_port"))
    return Component(
        role=role,
        path=path,
        name=name,
        group=str(record.get("group", role)),
        description=str(record["description"]),
        order=int(record["order"]),
        listen=record["listen"],
        port=port,
        # What is for people has a login of its own.
        local_ports=tuple(record.get("local_ports", [] if record["listen"] == "public" else [port])),
        is_client=bool(record.get("client", False)),
        ready=record["ready"],
        data=tuple(record.get("data", [f"/var/lib/{name}"])),
        single_host=str(record.get("single_host", "")),
        image=str(record.get("image", "")),
        metrics_job=str(record.get("metrics_job", "")),
        packages=tuple(record.get("packages", [])),
    )


@cache
def load_components(roles_path: tuple[str, ...] = ()) -> tuple[Component, ...]:
    """Return all components in the order in which they start: the collection's, and those in the roles path."""
    folders = dict.fromkeys([ROLES, *(Path(folder).resolve() for folder in roles_path)])
    records = [record for folder in folders for record in sorted(folder.glob(f"*/{RECORD}"))]
    found = [build_component(record.parents[1]) for record in records]
    by_group: dict[str, Component] = {}
    for component in found:
        other = by_group.setdefault(component.group, component)
        if other is not component:
            raise AnsibleError(f"{component.path} and {other.path} both describe the component {component.group}.")
    return tuple(sorted(found, key=lambda component: (component.order, component.name)))


def all_components() -> tuple[Component, ...]:
    """Return the components that this run of Ansible can know."""
    return load_components(tuple(constants.DEFAULT_ROLES_PATH or ()))


def components_of(groups: Iterable[str]) -> list[Component]:
    """Return the components of a host that is in these groups."""
    names = set(groups)
    return [component for component in all_components() if component.group in names]


def find_component(name: str) -> Component:
    """Return a component by its name or its group.

    Raises:
        AnsibleError: There is none of that name.
    """
    for component in all_components():
        if name.replace("-", "_") in (component.name.replace("-", "_"), component.group):
            return component
    known = ", ".join(component.name for component in all_components())
    raise AnsibleError(f"unknown component {name}; the components are {known}.")


@cache
def defaults_of(role_path: Path) -> dict[str, Any]:
    """Return a role's defaults as they are written."""
    defaults: dict[str, Any] = {}
    for path in default_files(role_path):
        defaults.update(yaml.safe_load(path.read_text()) or {})
    return defaults


def default_files(role_path: Path) -> list[Path]:
    """Return the files of a role's defaults."""
    paths = [role_path / "defaults/main.yml", *sorted(role_path.glob("defaults/main/*.yml"))]
    return [path for path in paths if path.is_file()]
