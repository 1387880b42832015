#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_check
version_added: 1.0.0
short_description: Verify everything that is requested of a host, before anything on it is changed
description:
  - Reads the variables of the collection's roles and the host's facts, and fails with all faults at once. Each fault is
    told with the variable that it comes from, and what to set instead.
  - Verifies names and types of the roles' variables against their argument specs, the operating system, retention
    periods, sampling, dashboards, alert rules and receivers, ports, connections between components, container images,
    tenants with their credentials and certificates, and that no secret is a well-known one.
  - Runs on the controller and opens no connection. The facts have to be gathered before, by
    M(logstead.platform.systemd_app_facts).
  - Has no options. What it verifies depends on the groups that the host is in.
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The action never changes the host.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options: {}
requirements: ["cryptography (on the controller)"]
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Gather the facts that are verified
  logstead.platform.systemd_app_facts:

- name: Verify everything that is requested of this host
  logstead.platform.preflight_check:
"""

RETURN = r"""
msg:
  description: All faults, numbered, each with what to do.
  type: str
  returned: failure
"""
