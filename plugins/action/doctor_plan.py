"""Action plugin: tell which steps the doctor takes in this inventory, in order and numbered."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.plugin_utils.doctor_steps import Templates, steps_of
from ansible_collections.logstead.platform.plugins.plugin_utils.variables import variables_with_defaults


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns each step's name and the title of its task."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Number the steps."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        merged, templar = variables_with_defaults(task_vars or {}, self._templar, self._loader)
        steps = steps_of(Templates(merged, templar.template))
        result["steps"] = [
            {"name": step.name, "title": f"Step {number} of {len(steps)} | {step.title}"}
            for number, step in enumerate(steps, start=1)
        ]
        return result
