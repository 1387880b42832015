#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have Grafana's administrator log in with the wanted password."""

from __future__ import annotations

import subprocess
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: grafana_admin_password
short_description: Have Grafana's administrator log in with the wanted password
description:
  - Grafana reads the password of its settings only when it makes its database. This module tries to log in, and if
    that is refused it sets the password by Grafana's own command line, which reads it from its standard input.
options:
  url: {description: Address of Grafana., type: str, required: true}
  user: {description: Log-in name of the administrator., type: str, required: true}
  password: {description: The wanted password., type: str, required: true}
  command: {description: Command line of C(grafana cli) up to its subcommand., type: str, required: true}
  run_as: {description: User that owns Grafana's database., type: str, default: grafana}
author: [logstead contributors]
"""


class PasswordError(Exception):
    """Says why the password could not be tried or set."""


def logs_in(url: str, user: str, password: str) -> bool | None:
    """Tell whether the log-in works; None if Grafana doesn't answer."""
    try:
        open_url(
            f"{url}/api/org",
            url_username=user,
            url_password=password,
            force_basic_auth=True,
            timeout=10,
            use_proxy=False,
        ).close()
    except HTTPError as error:
        if error.code == 401:
            return False
        raise PasswordError(f"{url}/api/org answers {error.code} ({error.reason})") from error
    except (OSError, HTTPException):
        return None
    return True


def set_password(command: str, run_as: str, password: str) -> None:
    """Set the password by Grafana's command line, as the owner of its database."""
    words = ["runuser", "-u", run_as, "--", *command.split(), "admin", "reset-admin-password", "--password-from-stdin"]
    result = subprocess.run(words, input=password + "\n", capture_output=True, text=True, check=False, cwd="/")
    if result.returncode != 0:
        raise PasswordError(f"Grafana refuses the new password: {(result.stdout + result.stderr).strip()[-500:]}")


def converge(parameters: dict[str, Any], check_mode: bool) -> bool:
    """Have the log-in work; return whether the password had to be set."""
    log_in = (parameters["url"], parameters["user"], parameters["password"])
    works = logs_in(*log_in)
    if works is None and not check_mode:
        raise PasswordError(f"Grafana doesn't answer at {parameters['url']}")
    if works is not False or check_mode:
        return works is False
    set_password(parameters["command"], parameters["run_as"], parameters["password"])
    if not logs_in(*log_in):
        raise PasswordError(
            f"the password was set, but {parameters['user']} still can't log in. Either the administrator has another "
            "name in Grafana's database, which keeps the one it was made with; or the user is locked, as after five "
            "wrong passwords: then run this again in five minutes"
        )
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "command": {"type": "str", "required": True},
            "run_as": {"type": "str", "default": "grafana"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=converge(module.params, module.check_mode))
    except PasswordError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
