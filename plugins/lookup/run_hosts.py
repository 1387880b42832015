# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Lookup: the hosts of a play, or an error if the run selects none of the platform's.

Ansible skips a play without hosts, and a run that does nothing succeeds. A lookup in `hosts` is evaluated even then.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.logstead.platform.plugins.plugin_utils.components import (
    COLLECTION,
    all_components,
    find_component,
)

DOCUMENTATION = r"""
name: run_hosts
short_description: Return the hosts of a play, or fail if the run selects none
version_added: 1.1.0
description:
  - Returns the pattern for the C(hosts) of a play. It fails with the remedy if an inventory does not exist, if no host
    of the inventory is in a group of the platform, or if C(--limit), C(--tags) or C(--skip-tags) select nothing.
  - C(--limit) and C(--tags) are checked only in a run of the collection's own playbooks. In a playbook that imports
    them, the selection may be meant for other plays.
options:
  _terms:
    description: Name or group of a component; none or an empty one for all.
    type: list
    elements: str
  has_tags:
    description: Whether the run has the components' tags, as the installation does. A verb has none.
    type: bool
    default: false
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Check that each host that runs Loki can be reached
  hosts: "{{ lookup('logstead.platform.run_hosts', 'loki') }}"
  tasks:
    - name: Reach the host
      ansible.builtin.ping:
"""

RETURN = r"""
_raw:
  description: C(all), or the group of the component.
  type: list
  elements: str
"""

Variables = Mapping[str, Any]
ALWAYS = {"all", "always", "tagged"}  # tags that select the preflight, besides a component's


def is_own_playbook(name: str) -> bool:
    """Tell whether a playbook, as it is given on the command line, is one of the collection."""
    path = Path(name).resolve()
    own = path == COLLECTION / "site.yml" or path.parent == COLLECTION / "playbooks"
    return name.startswith("logstead.platform.") or own


def inventory_problem(variables: Variables) -> str:
    """Return why the inventory has no host for the platform, and the remedy; empty if it has one."""
    sources = [str(source) for source in variables.get("ansible_inventory_sources") or ()]
    missing = [source for source in sources if "," not in source and not Path(source).exists()]
    if missing:
        return f"the inventory {missing[0]} does not exist: give the path of yours with -i."
    groups = [component.group for component in all_components()]
    if any(variables["groups"].get(group) for group in groups):
        return ""
    misspelt = [group for group in variables["groups"] if difflib.get_close_matches(group, groups, n=1, cutoff=0.8)]
    return (
        f"no host of the inventory is in a group of the platform ({', '.join(groups)}): put each host in the groups of "
        f"the components that it is to run. The inventory is {', '.join(sources)}"
        + (f", and its group {misspelt[0]} is unknown." if misspelt else ".")
    )


def limit_problem(variables: Variables, groups: Sequence[str]) -> str:
    """Return why no host of the run is in one of the groups, and the remedy; empty if one is."""
    members = {host for group in groups for host in variables["groups"].get(group) or ()}
    if members.intersection(variables["ansible_play_hosts_all"]):
        return ""
    of_group = f"of the group {groups[0]}" if len(groups) == 1 else f"of a group of the platform ({', '.join(groups)})"
    if not members:
        return f"the inventory has no host {of_group}: put a host in it, or name another component."
    return f"--limit {variables.get('ansible_limit')} selects no host {of_group}: limit the run to such a host."


def tags_problem(run: Sequence[str], skipped: Sequence[str], known: Sequence[str]) -> str:
    """Return which tag selects nothing, and the remedy; empty if each selects something."""
    available = f"available: {', '.join(known)}" if known else "this playbook has none, leave --tags out"
    unknown = [tag for tag in run if tag not in known and tag not in (ALWAYS if known else {"all"})]
    if unknown:
        return f"no task has the tag {unknown[0]} of --tags; {available}."
    if set(run) <= set(skipped):
        return f"--skip-tags {','.join(skipped)} skips all that --tags selects: leave one of them out."
    return ""


class LookupModule(LookupBase):  # type: ignore[misc]
    """Returns the pattern of a play's hosts."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Return the pattern as a list of one element.

        Raises:
            AnsibleError: The run would do nothing, or skip the preflight.
        """
        self.set_options(var_options=variables, direct=options)
        known = variables or {}
        component = find_component(str(terms[0])) if terms and terms[0] else None
        groups = [component.group] if component else [each.group for each in all_components()]
        problem = inventory_problem(known) or self.selection_problem(known, groups)
        if problem and not context.CLIARGS.get("syntax"):  # which needs no inventory
            raise AnsibleError(problem)
        return [component.group if component else "all"]

    def selection_problem(self, variables: Variables, groups: Sequence[str]) -> str:
        """Return what is wrong with the selection of hosts and tags, and the remedy; empty if nothing is."""
        run, skipped = (list(variables.get(f"ansible_{name}_tags") or ()) for name in ("run", "skip"))
        has_tags = self.get_option("has_tags")
        for tag in ALWAYS.intersection(skipped) if has_tags else ():
            return f"--skip-tags {tag} would skip the preflight: leave it out."
        if not all(map(is_own_playbook, context.CLIARGS.get("args") or ())):
            return ""  # a playbook of the user's, whose other plays may be meant
        tags = [*groups, "logrotate"] if has_tags else []
        return limit_problem(variables, groups) or tags_problem(run, skipped, tags)
