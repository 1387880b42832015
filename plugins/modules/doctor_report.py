#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor_report
version_added: 1.0.0
short_description: Report what the doctor has found on all hosts
description:
  - Reads what M(logstead.platform.doctor_step) has registered on the hosts of the play.
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
- name: Report the findings
  logstead.platform.doctor_report:
  register: doctor_summary
  run_once: true
"""

RETURN = r"""
report:
  description: The report, a line for each step.
  type: str
  returned: success
diagnosis:
  description: The first step that failed, why, and what to do; empty if none did.
  type: str
  returned: success
"""
