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
short_description: Follow one log line through one step of its way from the app to Grafana
description:
  - A step that finds something wrong doesn't make the module fail; RV(outcome) says so, with the cause and what to do.
options:
  step:
    description:
      - C(app) asks the demo app for a trace and reads its log files.
      - C(journal) writes a line to the journal, where there is no app.
      - Either makes the line that the other steps look for, RV(probe).
      - C(promtail) looks whether Promtail reads and sends, C(loki) and C(grafana) whether they find the lines.
      - C(alerts) looks whether Prometheus can scrape every part and evaluate its rules, and reaches Alertmanager.
      - C(grafana_alerts) looks whether Grafana evaluates rules.
    type: str
    choices: [app, journal, promtail, loki, grafana, alerts, grafana_alerts]
    required: true
  host: {description: Name of the host in the inventory., type: str, required: true}
  url: {description: Address of the component; for C(journal) not used., type: str, default: ""}
  promtail_url:
    description: "C(app), C(journal): address of the host's Promtail, if it has one."
    type: str
    default: ""
  log_folder: {description: "C(app), C(promtail): folder of the app's log files.", type: path}
  loki_url: {description: "C(promtail): where it should send to.", type: str, default: ""}
  log_files:
    description: "C(promtail): the files that it should read: patterns as C(path) and perhaps C(exclude)."
    type: list
    elements: dict
    default: []
  probes: {description: "What the first step gave, of one or more hosts.", type: list, elements: dict, default: []}
  user:
    description: "C(grafana), C(grafana_alerts), C(loki) with a gateway: log-in name."
    type: str
    default: admin
  password: {description: "C(grafana), C(grafana_alerts), C(loki) with a gateway: password.", type: str}
  tenant: {description: "C(loki): tenant, where Loki is asked through a gateway.", type: str, default: ""}
  ca: {description: "File with the CA's certificate by which Loki's address is verified, if it is there.", type: path}
  alertmanager_url: {description: "C(alerts): address of Alertmanager, if there is one.", type: str, default: ""}
  datasource: {description: "C(grafana): uid of the data source.", type: str, default: loki}
  timeout: {description: How long to wait for what should come, in seconds., type: int, default: 60}
author: [logstead contributors]
"""

RETURN = r"""
outcome: {description: "C(passed) or C(failed)", type: str, returned: always}
detail: {description: What was seen., type: str, returned: always}
cause: {description: What is wrong., type: str, returned: always}
advice: {description: What to do., type: str, returned: always}
seconds: {description: How long it took., type: float, returned: always}
probe: {description: "The line to look for, of C(app) and C(journal).", type: dict, returned: always}
lines: {description: "Lines that were found, of C(loki) and C(grafana).", type: list, returned: always}
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
