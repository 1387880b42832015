# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filters for Grafana's settings of e-mail, from those that Alertmanager takes as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Settings = dict[str, Any]


def password_path(folder: str) -> str:
    """Return where the password is."""
    return f"{folder}/smtp_password"


def smtp_settings(smtp: Mapping[str, Any], folder: str) -> dict[str, Settings]:
    """Return the sections of Grafana's settings; none without a server for e-mail."""
    if not smtp:
        return {}
    log_in: Settings = {"user": smtp["user"]} if smtp.get("user") else {}
    if smtp.get("password"):
        log_in["password"] = f"$__file{{{password_path(folder)}}}"
    section = {
        "enabled": True,
        "host": smtp["host"],
        "from_address": smtp["from"],
        "from_name": "logstead",
        "startTLS_policy": "MandatoryStartTLS" if smtp.get("tls", True) else "NoStartTLS",
        **log_in,
    }
    # Mails stay HTML: in its plain ones, Grafana 12.2 writes the & of a link as &amp;.
    return {"smtp": section}


def smtp_password_files(smtp: Mapping[str, Any], folder: str) -> list[Settings]:
    """Return the file with the password, as the module `systemd_app` takes it."""
    if not smtp.get("password"):
        return []
    return [{"path": password_path(folder), "secret": str(smtp["password"]), "mode": "0640", "group": "grafana"}]


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {"smtp_settings": smtp_settings, "smtp_password_files": smtp_password_files}
