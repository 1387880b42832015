#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: sum up what the module `doctor` has found on all hosts, for people."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: doctor_report
version_added: 1.0.0
short_description: Summarize the results of the doctor module on all hosts
description:
  - Turns the results of M(logstead.platform.doctor) on all hosts into a report for the terminal and one diagnosis.
  - Reads nothing but its own options, so it is meant to be delegated to the controller and run once.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The module never changes the host.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  steps:
    description: The steps, in the order in which they were run.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the step verifies.
        type: str
        required: true
      empty:
        description: What to report if no host has run the step.
        type: str
        required: true
      results:
        description:
          - The registered result of M(logstead.platform.doctor) by host. The result of a host that hasn't run the step
            has C(skipped).
        type: dict
        required: true
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Summarize what the doctor has found
  logstead.platform.doctor_report:
    steps:
      - name: Promtail sends
        empty: no host is in the group promtail
        results: "{{ dict(groups['promtail'] | zip(groups['promtail'] | map('extract', hostvars, 'doctor_sent'))) }}"
  delegate_to: localhost
  run_once: true
  register: doctor_summary
"""

RETURN = r"""
report:
  description: The report, with one line for each step and host.
  type: str
  returned: always
diagnosis:
  description: The first step that failed, the cause, and what to do. Empty if no step failed.
  type: str
  returned: always
"""

MAX_LINES = 8
NAME_WIDTH = 30


def problem_of(host: str, result: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return the host, the cause and the advice, if a host's step didn't pass."""
    if result.get("unreachable"):
        return (
            host,
            f"the host can't be reached: {result.get('msg', '')}",
            "see whether it is up, and whether ssh gets there.",
        )
    if result.get("outcome") == "failed":
        return host, result["cause"], result["advice"]
    if result.get("outcome") != "passed":
        return (
            host,
            f"the check itself broke: {result.get('msg', result)}",
            "run it again with -- -vvv, and report what it prints.",
        )
    return None


def took(result: dict[str, Any]) -> bool:
    """Tell whether a host has taken a step."""
    return not result.get("skipped", False)


def row_of(number: int, step: dict[str, Any], results: dict[str, dict[str, Any]], failed_before: bool) -> list[str]:
    """Return the report's lines on one step."""
    head = f"{number}  {step['name']:<{NAME_WIDTH}}"
    if failed_before:
        return [f"{head}not tried"]
    if not results:
        return [f"{head}nothing   {step['empty']}"]
    seconds = max(result.get("seconds", 0) for result in results.values())
    problems = [host for host, result in results.items() if problem_of(host, result)]
    if problems:
        return [f"{head}FAILED    {seconds:6.2f} s  {', '.join(problems)}"]
    width = max(map(len, results))
    details = [f"{host:<{width}}  {result['detail']}" for host, result in results.items()]
    has_app = any(result.get("probe", {}).get("kind") != "journal" for result in results.values())
    return [
        f"{head}{'ok' if has_app else 'no app':<10}{seconds:6.2f} s  {details[0]}",
        *(" " * (NAME_WIDTH + 24) + detail for detail in details[1:]),
    ]


def short(line: str) -> str:
    """Return a record's most telling fields; other lines as they are, cut."""
    try:
        record = json.loads(line)
        return "  ".join(str(record[name]) for name in ("timestamp", "level", "logger_name", "message"))
    except (ValueError, KeyError, TypeError):
        return line[:200]


def report_of(steps: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the report and the diagnosis."""
    rows: list[str] = []
    diagnosis = ""
    ids: list[str] = []
    lines: list[str] = []
    tried = 0
    for number, step in enumerate(steps, start=1):
        results = {host: result for host, result in step["results"].items() if took(result)}
        rows += row_of(number, step, results, failed_before=bool(diagnosis))
        tried += len(results)
        ids += [f"{result['probe']['trace_id']}  ({host})" for host, result in results.items() if result.get("probe")]
        lines = next((result["lines"] for result in results.values() if result.get("lines")), lines)
        found = [problem for host, result in results.items() if (problem := problem_of(host, result))]
        if found and not diagnosis:
            host, cause, advice = found[0]
            others = ", ".join(other for other, *_ in found[1:])
            diagnosis = (
                f"doctor: step {number} of {len(steps)} ({step['name']}) failed on {host}: {cause}"
                + f"\nWhat to do: {advice}"
                + (f"\n(The same step failed on {others} too.)" if others else "")
            )
    if not tried and not diagnosis:
        diagnosis = "doctor: there is nothing to look at: the hosts that are asked for run no part of the platform."
    if ids:
        rows += ["", f"Trace id: {ids[0]}", *(f"          {other}" for other in ids[1:MAX_LINES])]
    if lines and not diagnosis:
        rows += ["What Loki returned for it:", *(f"  {short(line)}" for line in lines[:MAX_LINES])]
        rows += [f"  … and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    if not diagnosis:
        rows += ["", "doctor: every step that was taken works."]
    return "\n".join(rows), diagnosis


def main() -> None:
    """Run the module."""
    options = {
        "name": {"type": "str", "required": True},
        "empty": {"type": "str", "required": True},
        "results": {"type": "dict", "required": True},
    }
    module = AnsibleModule(
        argument_spec={"steps": {"type": "list", "elements": "dict", "required": True, "options": options}},
        supports_check_mode=True,
    )
    report, diagnosis = report_of(module.params["steps"])
    module.exit_json(changed=False, report=report, diagnosis=diagnosis)


if __name__ == "__main__":
    main()
