#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: follow one log line on one host through one step of its way from the app to Grafana."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.doctor_app import check_app, write_to_journal
from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import CONTEXT, Outcome, StepFailed
from ansible_collections.logstead.platform.plugins.module_utils.doctor_grafana import (
    check_grafana,
    check_grafana_alerts,
)
from ansible_collections.logstead.platform.plugins.module_utils.doctor_loki import check_loki
from ansible_collections.logstead.platform.plugins.module_utils.doctor_prometheus import check_alerts
from ansible_collections.logstead.platform.plugins.module_utils.doctor_promtail import check_promtail

DOCUMENTATION = r"""
module: doctor
version_added: 1.0.0
short_description: Verify one step of the way that a log line takes from the application to Grafana
description:
  - Each call runs one O(step) on one host. The first step creates a log line, and the following ones look for it.
  - A step that finds a fault doesn't make the module fail. The result is in RV(outcome), with the cause and what to do,
    so that M(logstead.platform.doctor_report) can report on all hosts at once.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: Check mode makes no difference. The steps V(app) and V(journal) always write the log line they look for.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  step:
    description:
      - V(app) requests a trace from the demo app and reads its log files.
      - V(journal) writes a line to the systemd journal, on a host without the app.
      - Either of them creates the line that the other steps look for, RV(probe).
      - V(promtail) verifies that Promtail reads and sends, V(loki) and V(grafana) that they find the lines.
      - V(alerts) verifies that Prometheus scrapes every target, evaluates its rules, and reaches Alertmanager.
      - V(grafana_alerts) verifies that Grafana evaluates its rules.
    type: str
    choices: [app, journal, promtail, loki, grafana, alerts, grafana_alerts]
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  url:
    description: URL of the component. Unused if O(step=journal).
    type: str
    default: ""
  promtail_url:
    description: URL of the host's Promtail, if it has one. Used by O(step=app) and O(step=journal).
    type: str
    default: ""
  log_folder:
    description: Directory of the app's log files. Required if O(step=app), and used by O(step=promtail).
    type: path
  loki_url:
    description: URL that Promtail should send to. Used by O(step=promtail).
    type: str
    default: ""
  log_files:
    description:
      - The log files that Promtail should read, each a dictionary with the pattern C(path) and optionally C(exclude).
        Used by O(step=promtail).
    type: list
    elements: dict
    default: []
  probes:
    description: The RV(probe) of the first step, of one or more hosts.
    type: list
    elements: dict
    default: []
  user:
    description: Login name. Used by O(step=grafana), O(step=grafana_alerts), and O(step=loki) behind a gateway.
    type: str
    default: admin
  password:
    description: Password of O(user). Required if O(step=grafana) or O(step=grafana_alerts).
    type: str
  tenant:
    description: Tenant, if Loki is queried through a gateway. Used by O(step=loki).
    type: str
    default: ""
  ca:
    description: PEM file with the CA certificate that Loki's URL is verified against. Ignored if it doesn't exist.
    type: path
  alertmanager_url:
    description: URL of Alertmanager, if there is one. Used by O(step=alerts).
    type: str
    default: ""
  datasource:
    description: The uid of the data source. Used by O(step=grafana).
    type: str
    default: loki
  timeout:
    description: How long to wait for what is expected, in seconds.
    type: int
    default: 60
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Write a line to the journal
  logstead.platform.doctor:
    step: journal
    host: "{{ inventory_hostname }}"
    promtail_url: http://127.0.0.1:9080
  register: doctor_written

- name: Verify that Loki has it
  logstead.platform.doctor:
    step: loki
    host: "{{ inventory_hostname }}"
    url: http://127.0.0.1:3100
    probes: ["{{ doctor_written['probe'] }}"]
  register: doctor_stored
"""

RETURN = r"""
outcome:
  description: C(passed) or C(failed).
  type: str
  returned: always
detail:
  description: What the step has found. Empty if it failed.
  type: str
  returned: always
cause:
  description: What is wrong. Empty if the step passed.
  type: str
  returned: always
advice:
  description: What to do. Empty if the step passed.
  type: str
  returned: always
seconds:
  description: How long the step took.
  type: float
  returned: always
probe:
  description: The line to look for, from O(step=app) and O(step=journal). Empty otherwise.
  type: dict
  returned: always
lines:
  description: The lines that O(step=loki) and O(step=grafana) have found.
  type: list
  elements: str
  returned: always
"""

STEPS = {
    "app": check_app,
    "journal": write_to_journal,
    "promtail": check_promtail,
    "loki": check_loki,
    "grafana": check_grafana,
    "alerts": check_alerts,
    "grafana_alerts": check_grafana_alerts,
}


def examine(parameters: dict[str, Any]) -> dict[str, Any]:
    """Take one step; return the module's result."""
    began = time.monotonic()
    try:
        outcome = STEPS[parameters["step"]](parameters)
    except StepFailed as problem:
        outcome = Outcome("", outcome="failed", cause=problem.cause, advice=problem.advice)
    return {**asdict(outcome), "seconds": round(time.monotonic() - began, 2)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": list(STEPS), "required": True},
            "host": {"type": "str", "required": True},
            "url": {"type": "str", "default": ""},
            "promtail_url": {"type": "str", "default": ""},
            "log_folder": {"type": "path"},
            "loki_url": {"type": "str", "default": ""},
            "log_files": {"type": "list", "elements": "dict", "default": []},
            "probes": {"type": "list", "elements": "dict", "default": []},
            "user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "no_log": True},
            "tenant": {"type": "str", "default": ""},
            "ca": {"type": "path"},
            "alertmanager_url": {"type": "str", "default": ""},
            "datasource": {"type": "str", "default": "loki"},
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[
            ("step", "app", ["log_folder"]),
            ("step", "grafana", ["password"]),
            ("step", "grafana_alerts", ["password"]),
        ],
        supports_check_mode=True,
    )
    ca = module.params["ca"]
    if ca and Path(ca).is_file():
        CONTEXT.load_verify_locations(ca)
    module.exit_json(changed=False, **examine(module.params))


if __name__ == "__main__":
    main()
