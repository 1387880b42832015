#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor_plan
version_added: 1.0.0
short_description: Number the steps that the doctor takes in this inventory
description:
  - The steps are data in C(plugins/plugin_utils/doctor_steps.py). Steps of components that the inventory lacks are left
    out.
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options: {}
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Number the steps
  logstead.platform.doctor_plan:
  register: doctor_plan
  run_once: true
"""

RETURN = r"""
steps:
  description: The steps in order, each with its C(name) and the C(title) of its task.
  type: list
  elements: dict
  returned: success
"""
