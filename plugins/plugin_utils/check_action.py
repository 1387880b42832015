# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What the action plugins of checks have in common: a check that was passed isn't run again for the same question.

At a run's start, the module systemd_app_facts tells which checks still hold: those that were passed with the same
arguments, on files that are as they were.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.plugin_utils.fingerprint import fingerprint_of

FACT = "systemd_app_checks"


class CheckAction(ActionBase):  # type: ignore[misc] # ansible-core ships no types
    """Returns the result of a check that still holds, and has the module of its own name make any other."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, or its last one."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        passed = ((task_vars or {}).get("ansible_facts") or {}).get(FACT) or {}
        fingerprint = fingerprint_of(self._task.args)
        if (passed.get(name) or {}).get("fingerprint") == fingerprint:
            return {**result, "changed": False, **passed[name]["result"]}
        arguments = {**self._task.args, "fingerprint": fingerprint}
        module = f"logstead.platform.{name}"
        return {**result, **self._execute_module(module_name=module, module_args=arguments, task_vars=task_vars)}
