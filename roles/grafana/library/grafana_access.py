#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have Grafana let its administrator in, and show what it was provisioned with."""

from __future__ import annotations

import json
import subprocess
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: grafana_access
short_description: Have Grafana let its administrator in, and show what it was provisioned with
description:
  - Grafana says that it is healthy before it has read what it is provisioned with, and ends a moment later if it
    can't. So this module waits until the administrator finds the data source and the dashboards.
  - Grafana reads the password of its settings only when it makes its database. If the log-in is refused, this module
    sets the password by Grafana's own command line, which reads it from its standard input.
  - Grafana keeps a folder whose dashboards it is no longer provisioned with. This module removes it when it is one of
    ours (C(logstead-…)) that nobody has put anything into.
options:
  url: {description: Address of Grafana., type: str, required: true}
  user: {description: Log-in name of the administrator., type: str, required: true}
  password: {description: The wanted password., type: str, required: true}
  datasource: {description: The uid of the data source., type: str, required: true}
  dashboards: {description: The uids of the dashboards., type: list, elements: str, default: []}
  folders: {description: The uids of the folders that there are to be., type: list, elements: str, default: []}
  command: {description: Command line of C(grafana cli) up to its subcommand., type: str, required: true}
  run_as: {description: User that owns Grafana's database., type: str, default: grafana}
  timeout: {description: "How long to wait for an answer, in seconds.", type: int, default: 60}
author: [logstead contributors]
"""

POLL_SECONDS = 0.3
OUR_FOLDERS = "logstead-"
NO_ANSWER = 0


class AccessError(Exception):
    """Says what Grafana answers instead, and what to do."""


def ask(parameters: dict[str, Any], path: str, method: str = "GET") -> tuple[int, Any]:
    """Ask Grafana as the administrator; return the HTTP status, or NO_ANSWER, and the JSON of a good answer."""
    try:
        with open_url(
            parameters["url"] + path,
            method=method,
            url_username=parameters["user"],
            url_password=parameters["password"],
            force_basic_auth=True,
            timeout=10,
            use_proxy=False,
        ) as answer:
            return 200, json.loads(answer.read())
    except HTTPError as error:
        return error.code, None
    except (OSError, HTTPException, ValueError):
        return NO_ANSWER, None


def set_password(command: str, run_as: str, password: str) -> None:
    """Set the password by Grafana's command line, as the owner of its database."""
    words = ["runuser", "-u", run_as, "--", *command.split(), "admin", "reset-admin-password", "--password-from-stdin"]
    result = subprocess.run(words, input=password + "\n", capture_output=True, text=True, check=False, cwd="/")
    if result.returncode != 0:
        raise AccessError(f"Grafana refuses the new password: {(result.stdout + result.stderr).strip()[-500:]}")


def explain(status: int, parameters: dict[str, Any]) -> str:
    """Say what a status other than 200 means at the end."""
    if status == NO_ANSWER:
        return f"Grafana doesn't answer at {parameters['url']}; `journalctl -u grafana` says why it ended."
    if status == 401:
        return (
            f"the password was set, but {parameters['user']} still can't log in. Either the administrator has another "
            "name in Grafana's database, which keeps the one it was made with; or the user is locked, as after five "
            "wrong passwords: then run this again in five minutes."
        )
    return (
        f"Grafana answers {status} for the data source {parameters['datasource']}, which it should have been "
        "provisioned with; `journalctl -u grafana` says why."
    )


def let_in(parameters: dict[str, Any], deadline: float) -> bool:
    """Have the data source answered for; return whether the password had to be set."""
    was_set = False
    while (status := ask(parameters, f"/api/datasources/uid/{parameters['datasource']}")[0]) != 200:
        if status == 401 and not was_set:
            set_password(parameters["command"], parameters["run_as"], parameters["password"])
            was_set = True
        elif status == 401 or time.monotonic() > deadline:
            raise AccessError(explain(status, parameters))
        else:
            time.sleep(POLL_SECONDS)
    return was_set


def await_dashboards(parameters: dict[str, Any], deadline: float) -> None:
    """Wait until all dashboards are there."""
    wanted = set(parameters["dashboards"])
    while missing := wanted - {
        found["uid"] for found in ask(parameters, "/api/search?type=dash-db&limit=5000")[1] or []
    }:
        if time.monotonic() > deadline:
            raise AccessError(
                f"Grafana doesn't show the dashboards {', '.join(sorted(missing))}, which it was provisioned with; "
                "`journalctl -u grafana` says why."
            )
        time.sleep(POLL_SECONDS)


def is_empty(parameters: dict[str, Any], folder: str, deadline: float) -> bool:
    """Tell whether nobody has put anything into a folder; what was provisioned goes by itself, and is waited for."""
    while found := ask(parameters, f"/api/search?folderUIDs={folder}&limit=5000")[1]:
        dashboards = [ask(parameters, f"/api/dashboards/uid/{it['uid']}")[1] or {} for it in found]
        if not all(it.get("meta", {"provisioned": True})["provisioned"] for it in dashboards):
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return found is not None


def remove_folders(parameters: dict[str, Any], deadline: float) -> list[str]:
    """Remove our folders that are no longer wanted and that hold nothing; return their uids."""
    found = {folder["uid"] for folder in ask(parameters, "/api/folders?limit=1000")[1] or []}
    unwanted = sorted(uid for uid in found - set(parameters["folders"]) if uid.startswith(OUR_FOLDERS))
    # Grafana itself refuses to remove a folder with rules for alerts.
    return [
        uid
        for uid in unwanted
        if is_empty(parameters, uid, deadline) and ask(parameters, f"/api/folders/{uid}", "DELETE")[0] == 200
    ]


def converge(parameters: dict[str, Any], check_mode: bool) -> bool:
    """Have everything in place; return whether anything had to be done."""
    deadline = time.monotonic() + parameters["timeout"]
    if check_mode:
        return ask(parameters, f"/api/datasources/uid/{parameters['datasource']}")[0] == 401
    was_set = let_in(parameters, deadline)
    await_dashboards(parameters, deadline)
    return bool(remove_folders(parameters, deadline)) or was_set


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "datasource": {"type": "str", "required": True},
            "dashboards": {"type": "list", "elements": "str", "default": []},
            "folders": {"type": "list", "elements": "str", "default": []},
            "command": {"type": "str", "required": True},
            "run_as": {"type": "str", "default": "grafana"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=converge(module.params, module.check_mode))
    except AccessError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
