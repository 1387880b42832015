# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module grafana_org that waits until Grafana lets its administrator in and shows what it was given."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from ansible_collections.logstead.platform.plugins.module_utils.grafana_client import NO_ANSWER, Grafana, GrafanaError

POLL_SECONDS = 0.3
OUR_FOLDERS = "logstead-"
ALERTS_FOLDER = "logstead-alerts"  # has no dashboards


def set_password(command: str, password: str) -> None:
    """Set the password by Grafana's command line, as the owner of its database."""
    words = [*command.split(), "admin", "reset-admin-password", "--password-from-stdin"]
    result = subprocess.run(words, input=password + "\n", capture_output=True, text=True, check=False, cwd="/")
    if result.returncode != 0:
        raise GrafanaError(f"Grafana refuses the new password: {(result.stdout + result.stderr).strip()[-500:]}")


def explain(status: int, grafana: Grafana, user: str, datasource: str) -> str:
    """Say what a status other than 200 means at the end."""
    if status == NO_ANSWER:
        return f"Grafana doesn't answer at {grafana.url}; `journalctl -u grafana` says why it ended."
    if status == 401:
        return (
            f"the password was set, but {user} still can't log in. Either the administrator has another "
            "name in Grafana's database, which keeps the one it was made with; or the user is locked, as after five "
            "wrong passwords: then run this again in five minutes."
        )
    return (
        f"Grafana answers {status} for the data source {datasource}, which it should have been "
        "provisioned with; `journalctl -u grafana` says why."
    )


def let_in(grafana: Grafana, parameters: dict[str, Any], deadline: float) -> None:
    """Have the data source answered for, which the administrator alone may ask for."""
    what = "set the administrator's password"
    path = f"/api/datasources/uid/{parameters['datasource']}"
    while (status := grafana.ask(path)[0]) != 200:
        if status == 401 and what not in grafana.done:
            grafana.done.append(what)
            set_password(parameters["command"], parameters["password"])
        elif status == 401 or time.monotonic() > deadline:
            raise GrafanaError(explain(status, grafana, parameters["user"], parameters["datasource"]))
        else:
            time.sleep(POLL_SECONDS)


def found(grafana: Grafana, path: str) -> Any:
    """Return the JSON of a good answer, or None."""
    status, answer = grafana.ask(path)
    return answer if status == 200 else None


def await_dashboards(grafana: Grafana, wanted: set[str], deadline: float) -> None:
    """Wait until all dashboards are there."""
    while missing := wanted - {it["uid"] for it in found(grafana, "/api/search?type=dash-db&limit=5000") or []}:
        if time.monotonic() > deadline:
            raise GrafanaError(
                f"Grafana doesn't show the dashboards {', '.join(sorted(missing))}, which it was provisioned with; "
                "`journalctl -u grafana` says why."
            )
        time.sleep(POLL_SECONDS)


def is_empty(grafana: Grafana, folder: str, deadline: float) -> bool:
    """Tell whether nobody has put anything into a folder; what was provisioned goes by itself, and is waited for."""
    while held := found(grafana, f"/api/search?folderUIDs={folder}&limit=5000"):
        dashboards = [found(grafana, f"/api/dashboards/uid/{it['uid']}") or {} for it in held]
        if not all(it.get("meta", {"provisioned": True})["provisioned"] for it in dashboards):
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return held is not None


def remove_folders(grafana: Grafana, wanted: set[str], deadline: float) -> None:
    """Remove our folders that are no longer wanted and that hold nothing."""
    present = {folder["uid"] for folder in found(grafana, "/api/folders?limit=1000") or []}
    for uid in sorted(present - wanted - {ALERTS_FOLDER}):
        is_ours_and_empty = uid.startswith(OUR_FOLDERS) and is_empty(grafana, uid, deadline)
        # Grafana itself refuses to remove a folder with rules for alerts.
        if is_ours_and_empty and grafana.ask(f"/api/folders/{uid}", "DELETE")[0] == 200:
            grafana.done.append(f"removed the folder {uid}")


def converge_provisioned(grafana: Grafana, parameters: dict[str, Any]) -> None:
    """Have the administrator let in, and shown what Grafana was provisioned with."""
    deadline = time.monotonic() + parameters["timeout"]
    let_in(grafana, parameters, deadline)
    await_dashboards(grafana, set(parameters["dashboards"]), deadline)
    remove_folders(grafana, set(parameters["folders"]), deadline)
