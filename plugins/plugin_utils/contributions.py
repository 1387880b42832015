# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Families of variables that add up: `platform_logs` with `platform_logs_web`, `platform_logs_db` and so on.

A list or dict that a group sets replaces that of another group, by Ansible's rule. So each group or host has a variable
of its own, with the family's name, an underscore and any word behind it, and all of them count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError

# What tells the entries of a list apart: the first of these keys that an entry has.
ENTRY_KEYS = ("name", "uid", "file", "title")


def entries_of(where: str, value: object) -> Iterable[tuple[str, Any]]:
    """Yield the entries of one variable with their names.

    Raises:
        AnsibleError: The variable is neither a dict nor a list of dicts.
    """
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        for entry in value:
            keys = [key for key in ENTRY_KEYS if isinstance(entry, Mapping) and key in entry]
            # Entries without a name can't contradict one another.
            yield (str(entry[keys[0]]) if keys else repr(entry)), entry
    else:
        raise AnsibleError(f"{where} is {value!r}; it has entries by name.")


def merge_contributions(family: str, hosts: Mapping[str, Mapping[str, Any]], default: Any) -> Any:
    """Return all entries of a family of variables of these hosts; as a list where the default is one.

    Args:
        family: Name of the first variable, such as `platform_logs`.
        hosts: Variables by host.
        default: What an inventory without these variables means: an empty dict or list.

    Raises:
        AnsibleError: Two variables give one name different entries; both are named.
    """
    found: dict[str, tuple[str, Any]] = {}
    for host, variables in hosts.items():
        for variable in sorted(name for name in variables if f"{name}_".startswith(f"{family}_")):
            where = f"{variable} of {host}"
            for name, entry in entries_of(where, variables[variable] or default):
                other, known = found.setdefault(name, (where, entry))
                # Within one list an entry may well come twice: a receiver may have several routes.
                if known != entry and other != where:
                    raise AnsibleError(f"{other} and {where} both have {name}, and differ: give each its own name.")
                if known != entry:
                    found[f"{name} ({len(found)})"] = (where, entry)
    if isinstance(default, list):
        return [entry for _, entry in found.values()]
    return {name: entry for name, (_, entry) in found.items()}
