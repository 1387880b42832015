#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have one systemd service enabled, running what is on disk now, and ready."""

from __future__ import annotations

import re
import subprocess
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: systemd_app_service
short_description: Have one systemd service enabled, running what is on disk now, and ready
description:
  - Starts the service if it doesn't run, and restarts it if one of the files it reads is newer than its process.
    That is a fact about the host and not about this run, so a run that was interrupted before the restart is made up
    for.
  - Then waits until the service answers as it should; a port that answers something else doesn't count.
options:
  name: {description: Name of the unit, without C(.service)., type: str, required: true}
  reads:
    description: Files and links that the process reads only when it starts.
    type: list
    elements: path
    default: []
  restart: {description: Restart in any case., type: bool, default: false}
  ready_url: {description: Address that answers when the service is ready., type: str, required: true}
  ready_body: {description: Regular expression that must be found in the answer., type: str, required: true}
  timeout: {description: How long to wait for that, in seconds., type: int, default: 120}
author: [logstead contributors]
"""

RETURN = r"""
actions: {description: "What was done: C(reload), C(enable), C(start), C(restart)", type: list, returned: always}
"""

POLL_SECONDS = 0.3
JOURNAL_LINES = 40


class ServiceError(Exception):
    """Says what the service does instead of running, with the end of its journal."""


def systemctl(*arguments: str) -> str:
    """Run systemctl; raise ServiceError with its words if it fails."""
    result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ServiceError(f"`systemctl {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


def properties_of(unit: str) -> dict[str, str]:
    """Return what systemd says of a unit."""
    names = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestampMonotonic,NRestarts,Result"
    shown = systemctl("show", unit, f"--property={names}")
    return dict(line.split("=", 1) for line in shown.splitlines())


def started_at(properties: dict[str, str]) -> float:
    """Return when the unit's process was started, in seconds since the epoch."""
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(properties["ExecMainStartTimestampMonotonic"]) / 1e6
    return time.time() - age


def changed_at(path: str) -> float:
    """Return when a file, or a link itself, was last put in place, in seconds since the epoch; 0 if it isn't there."""
    try:
        return Path(path).lstat().st_ctime
    except FileNotFoundError:
        return 0.0


def journal_of(unit: str) -> str:
    """Return the end of the unit's journal."""
    command = ["journalctl", "--unit", unit, "--lines", str(JOURNAL_LINES), "--no-pager", "--output", "short-iso"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def answer_of(url: str) -> tuple[bool, str]:
    """Return whether an address answers without an error, and what it answers or why it doesn't."""
    try:
        with open_url(url, timeout=5, use_proxy=False) as response:
            body: str = response.read(65536).decode(errors="replace")
            return True, body
    except HTTPError as error:
        return False, f"{error.code}: {error.read(300).decode(errors='replace').strip()}"
    except (OSError, HTTPException, ValueError) as error:
        return False, f"no answer ({error})"


def wait_until_ready(unit: str, url: str, body: str, timeout: int) -> None:
    """Poll until the service answers as it should; raise ServiceError if it fails or the time is over."""
    deadline = time.monotonic() + timeout
    restarts = None
    while True:
        is_fine, answer = answer_of(url)
        if is_fine and re.search(body, answer):
            return
        properties = properties_of(unit)
        # Restarts of earlier days don't count.
        restarts = int(properties["NRestarts"] or 0) if restarts is None else restarts
        # A unit that restarts by itself would otherwise take all of the time to be called failed.
        if properties["ActiveState"] == "failed" or int(properties["NRestarts"] or 0) >= restarts + 3:
            problem = f"{unit} keeps ending (result: {properties['Result']})"
        elif time.monotonic() > deadline:
            problem = (
                f"{unit} is not ready after {timeout} s: {url} should answer /{body}/, but answers {answer[:300]!r}"
            )
        else:
            time.sleep(POLL_SECONDS)
            continue
        raise ServiceError(f"{problem}. Its journal ends:\n{journal_of(unit)}")


def needed_actions(unit: str, reads: list[str], restart: bool) -> list[str]:
    """Return what has to be done, in order."""
    properties = properties_of(unit)
    actions = []
    if properties["NeedDaemonReload"] == "yes" or properties["LoadState"] != "loaded":
        actions.append("reload")
    if properties["UnitFileState"] != "enabled":
        actions.append("enable")
    if properties["ActiveState"] not in ("active", "reloading"):
        actions.append("start")
    elif restart or started_at(properties) < max(map(changed_at, reads), default=0.0):
        actions.append("restart")
    return actions


def carry_out(unit: str, action: str) -> None:
    """Carry out one action."""
    if action == "reload":
        systemctl("daemon-reload")
    elif action == "enable":
        systemctl("enable", unit)
    else:
        # A unit that has given up earlier gets a fresh count of its tries; for one that hasn't, this fails.
        subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
        try:
            systemctl("restart", unit)
        except ServiceError as error:
            raise ServiceError(f"{error} Its journal ends:\n{journal_of(unit)}") from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "reads": {"type": "list", "elements": "path", "default": []},
            "restart": {"type": "bool", "default": False},
            "ready_url": {"type": "str", "required": True},
            "ready_body": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    unit = f"{parameters['name']}.service"
    try:
        actions = needed_actions(unit, parameters["reads"], parameters["restart"])
        if not module.check_mode:
            for action in actions:
                carry_out(unit, action)
            wait_until_ready(unit, parameters["ready_url"], parameters["ready_body"], parameters["timeout"])
    except ServiceError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
