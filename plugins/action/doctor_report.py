"""Action plugin: sum up what the doctor's steps have found on all hosts."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.plugin_utils.doctor_report import report_of
from ansible_collections.logstead.platform.plugins.plugin_utils.doctor_steps import Templates, found_by, steps_of
from ansible_collections.logstead.platform.plugins.plugin_utils.variables import variables_with_defaults


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the report and the diagnosis, which is empty if no step has failed."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sum up."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        merged, templar = variables_with_defaults(variables, self._templar, self._loader)
        steps = steps_of(Templates(merged, templar.template))
        result["report"], result["diagnosis"] = report_of(steps, found_by(variables))
        return result
