"""Action plugin: compare the periods of retention, unless that was done for the same question."""

from __future__ import annotations

from ansible_collections.logstead.platform.plugins.plugin_utils.check_action import CheckAction


class ActionModule(CheckAction):
    """Calls the module of this name where its last result doesn't hold any more."""
