# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Jinja filters for Loki's ruler: its settings, and the files of rules that it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def by_tenant_folder(file: Mapping[str, Any], tenants: Iterable[str], folder: str) -> list[dict[str, Any]]:
    """Return a file for each tenant, as the module systemd_app takes them: the ruler reads each tenant's own folder."""
    return [{"path": f"{folder}/{tenant}/logstead.yml", **file} for tenant in tenants]


def ruler_config(ruler: Mapping[str, Any], rules: str, data: str) -> dict[str, Any]:
    """Return the settings of the ruler.

    Args:
        ruler: Who its rules are for, as the variable `loki_ruler`.
        rules: Folder with a folder of rules for each tenant.
        data: Loki's folder of data.
    """
    # An alert links to its query in Grafana. With an empty address, Loki 3.7.8 ends as soon as there is a rule.
    link = {"external_url": ruler["grafana"], "datasource_uid": "loki"} if ruler.get("grafana") else {}
    prometheus = ruler.get("prometheus")
    remote_write = {
        "enabled": True,
        "add_org_id_header": False,
        "clients": {"prometheus": {"url": f"{prometheus}/api/v1/write"}},
    }
    return {
        "storage": {"type": "local", "local": {"directory": rules}},
        "rule_path": f"{data}/rules-temp",
        "wal": {"dir": f"{data}/ruler-wal"},
        "poll_interval": "15s",
        "alertmanager_url": ruler.get("alertmanager") or "",
        **link,
        **({"remote_write": remote_write} if prometheus else {}),
    }


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"by_tenant_folder": by_tenant_folder, "ruler_config": ruler_config}
