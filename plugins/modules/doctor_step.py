#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor_step
version_added: 1.0.0
short_description: Run one step of the doctor on a host
description:
  - Runs M(logstead.platform.doctor) if the host takes the step and every earlier step passed on every host. Register
    the result as C(doctor_taken), which the later steps and the report read.
  - Whatever goes wrong is a finding and does not fail the task.
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
options:
  name:
    description: Name of the step, as M(logstead.platform.doctor_plan) returns it.
    type: str
    required: true
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Run a step
  logstead.platform.doctor_step:
    name: Loki finds the line
  register: doctor_taken
"""

RETURN = r"""
taken:
  description: The results of all steps that this host has taken, by name.
  type: dict
  returned: success
"""
