#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have Grafana let its administrator in, and show the data source that it was given."""

from __future__ import annotations

import subprocess
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: grafana_access
short_description: Have Grafana let its administrator in, and show the data source that it was given
description:
  - Grafana says that it is healthy before it has read what it is provisioned with, and ends a moment later if it
    can't. So this module waits until the administrator finds the data source.
  - Grafana reads the password of its settings only when it makes its database. If the log-in is refused, this module
    sets the password by Grafana's own command line, which reads it from its standard input.
options:
  url: {description: Address of Grafana., type: str, required: true}
  user: {description: Log-in name of the administrator., type: str, required: true}
  password: {description: The wanted password., type: str, required: true}
  datasource: {description: The uid of the data source., type: str, required: true}
  command: {description: Command line of C(grafana cli) up to its subcommand., type: str, required: true}
  run_as: {description: User that owns Grafana's database., type: str, default: grafana}
  timeout: {description: "How long to wait for an answer, in seconds.", type: int, default: 60}
author: [logstead contributors]
"""

POLL_SECONDS = 0.3
NO_ANSWER = 0


class AccessError(Exception):
    """Says what Grafana answers instead, and what to do."""


def ask(url: str, user: str, password: str, datasource: str) -> int:
    """Ask for the data source as the administrator; return the HTTP status, or NO_ANSWER."""
    try:
        open_url(
            f"{url}/api/datasources/uid/{datasource}",
            url_username=user,
            url_password=password,
            force_basic_auth=True,
            timeout=10,
            use_proxy=False,
        ).close()
    except HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return NO_ANSWER
    return 200


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


def converge(parameters: dict[str, Any], check_mode: bool) -> bool:
    """Have the data source answered for; return whether the password had to be set."""
    question = [parameters[name] for name in ("url", "user", "password", "datasource")]
    status = ask(*question)
    if check_mode:
        return status == 401
    was_set = False
    deadline = time.monotonic() + parameters["timeout"]
    while status != 200:
        if status == 401 and not was_set:
            set_password(parameters["command"], parameters["run_as"], parameters["password"])
            was_set = True
        elif status == 401 or time.monotonic() > deadline:
            raise AccessError(explain(status, parameters))
        else:
            time.sleep(POLL_SECONDS)
        status = ask(*question)
    return was_set


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "datasource": {"type": "str", "required": True},
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
