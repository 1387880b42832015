"""Action plugin: call the module of this name only where something may have to be done.

At a run's start, the module systemd_app_facts tells which units are reconciled, by the fingerprints of what was asked
for. What is asked for again by the same fingerprint needs no connection.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.logstead.platform.plugins.plugin_utils.fingerprint import fingerprint_of

FACT = "systemd_app_reconciled"


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core ships no types
    """Leaves alone what is reconciled, and has the module do the rest."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, or that nothing has to be done."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        facts = (task_vars or {}).get("ansible_facts") or {}
        known = facts.get(FACT) or {}
        unit, fingerprint = self._task.args.get("unit"), fingerprint_of(self._task.args)
        if known.get(unit) == fingerprint:
            return {**result, "changed": False, "actions": [], "diff": []}
        arguments = {**self._task.args, "fingerprint": fingerprint}
        name = "logstead.platform.systemd_app"
        result.update(self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars))
        if unit in known:
            # Of what the run has touched itself, the fact says nothing any more.
            result["ansible_facts"] = {FACT: {one: known[one] for one in known if one != unit}}
        return result
