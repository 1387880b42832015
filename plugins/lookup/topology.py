# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Lookup: what a host has to know of itself and of the others, worked out from the inventory."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.logstead.platform.plugins.plugin_utils.components import find_component
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import FAMILIES, Topology

DOCUMENTATION = r"""
name: topology
short_description: Tell who listens where, and who reaches whom how
version_added: 1.0.0
description:
  - Works out from the inventory what several hosts have to agree on. The defaults of the roles call it; a variable that
    the inventory sets wins over each.
options:
  _terms:
    description:
      - What to tell, and for some the group of the component.
      - C(address), C(metrics_address), C(is_single_host), C(environment), C(gateway_url), C(gateway_ca),
        C(grafana_url), C(endpoints), C(targets), C(logs), C(log_formats), C(log_sources), C(log_rotations) and
        C(local_access) need nothing else.
      - C(listen_address), C(url) and C(listening_url) need the group of a component.
      - C(contributions) needs the name of a family of variables that add up, such as C(platform_alert_receivers).
      - C(components) has what the verbs need to know of each component of the host, or of the one named behind it.
    type: list
    elements: str
    required: true
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Show where Loki is reached
  ansible.builtin.debug:
    msg: "{{ lookup('logstead.platform.topology', 'url', 'loki') }}"
"""

RETURN = r"""
_raw:
  description: The answer. Addresses and URLs are texts; C(components) is a list, and C(targets) a dict of dicts.
  type: list
  elements: raw
"""

ALONE = (
    "address",
    "endpoints",
    "environment",
    "gateway_ca",
    "gateway_url",
    "grafana_url",
    "is_single_host",
    "local_access",
    "log_formats",
    "log_rotations",
    "log_sources",
    "logs",
    "metrics_address",
    "targets",
)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Answers one question about the topology."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[Any]:
        """Return the answer as a list of one element."""
        known = variables or {}
        topology = Topology(known["inventory_hostname"], known["groups"], known["hostvars"])
        question, *rest = terms
        if question == "components":
            return [topology.components(*map(str, rest))]
        if question in ALONE and not rest:
            return [getattr(topology, question)()]
        if question == "listen_address" and len(rest) == 1:
            return [topology.default_listen_address(find_component(rest[0]))]
        if question in ("url", "listening_url") and len(rest) == 1:
            return [getattr(topology, question)(rest[0])]
        if question == "contributions" and rest and rest[0] in FAMILIES:
            return [topology.contributions(rest[0])]
        raise AnsibleError(f"the lookup topology can't answer {', '.join(map(str, terms))}; see its documentation.")
