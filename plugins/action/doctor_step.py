"""Action plugin: have a host take one step of the doctor's, if it is its turn and every step before has passed.

Its result is registered as `doctor_taken`, by which steps after it, on any host, know of it. Whatever happens is a
finding: the play goes on, so that there is a report.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.plugin_utils.doctor_steps import (
    RESULT_KEYS,
    Found,
    Step,
    Templates,
    found_by,
    hosts_of,
    is_reached,
    probes_of,
    step_called,
)
from ansible_collections.logstead.platform.plugins.plugin_utils.variables import variables_with_defaults


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module `doctor`, and adds its result to the host's earlier ones."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the step, or skip it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        step, found = step_called(self._task.args["name"]), found_by(variables)
        taken = dict(found[variables["inventory_hostname"]])
        if is_reached(step, found):
            seen = self._take(step, found, variables)
            if seen:
                taken[step.name] = {key: seen[key] for key in RESULT_KEYS if key in seen}
                return {**result, **seen, "taken": taken}
        return {**result, "skipped": True, "taken": taken}

    def _take(self, step: Step, found: Found, variables: dict[str, Any]) -> dict[str, Any]:
        """Return what the module has found, or why it couldn't look; nothing if this host doesn't take the step."""
        merged, templar = variables_with_defaults(variables, self._templar, self._loader)
        host = Templates(merged, templar.template)
        try:
            if not step.takes(host):
                return {}
            arguments = {
                **step.arguments(host),
                "host": variables["inventory_hostname"],
                "probes": probes_of(found, hosts_of(host, "promtail")),
            }
            seen: dict[str, Any] = self._execute_module("logstead.platform.doctor", arguments, task_vars=variables)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": str(error)}
        except KeyError as error:
            return {"msg": f"the variable {error} is not set"}
        except AnsibleError as error:
            return {"msg": str(error)}
        # A module that breaks has no outcome, which is what the report goes by.
        seen.pop("failed", None)
        return seen
