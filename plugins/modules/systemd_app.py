#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have one program's files as wanted, and its unit running them."""

from __future__ import annotations

import os
import syslog
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import (
    PodmanError,
    has_leftovers,
    remove_leftovers,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import (
    current_release,
    go_back_to_proven,
    remember_proven,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_databases import (
    copy_databases,
    remove_old_copies,
    restore_databases,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_files import (
    UNIT_FOLDER,
    Copy,
    File,
    FilesError,
    put_in_place,
    what_a_removal_asks,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_state import (
    CHANGES,
    State,
    forget,
    needed_change,
    read_state,
    remember_loaded,
    stamp,
    write_state,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_unit import (
    ReloadWatch,
    UnitError,
    carry_out,
    needed_actions,
    properties_of,
    started_at,
    wait_until_ready,
)

DOCUMENTATION = r"""
module: systemd_app
version_added: 1.0.0
short_description: Install the files of a service, and have its unit enabled, up to date and ready
description:
  - All files are first written to a private directory, where those that differ are verified by their own
    O(files[].validate) commands. Only when all of them pass are the files moved into place, in the order given, each by
    a rename. A configuration that the program refuses so never gets to where a restart would read it.
  - A unit is verified by C(systemd-analyze verify), and refused if systemd would leave out one of its lines, or if the
    host lacks a supplementary group that it names.
  - Then the unit is enabled, started if it isn't running, and restarted or reloaded if its process has not loaded what
    is on disk. C(/var/lib/logstead/UNIT.json) records what it has loaded, so a run that was interrupted before is
    completed by the next one. No clock is compared unless nothing is recorded.
  - Then the module waits until the service is ready, that is until O(ready_url) gives the expected answer. If it isn't
    ready in time, or doesn't accept what it reloads, the files and the release that ran before are restored and started
    again, and the module fails. A service that was stopped gets its files back and is stopped again.
  - Before another release starts, the O(databases) are copied. They are restored with the release that ran before.
  - Finally, leftovers of the other runtime, a release or a container, are removed.
  - What was started, restarted or reloaded is written to the host's log, with the identifier C(logstead). Dashboards
    show it as an annotation.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: A file isn't verified in check mode if the program that verifies it isn't installed yet.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: partial
    details: Covers all files, but hides the text of those with O(files[].secret). Actions on units are in RV(actions).
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
options:
  unit:
    description: The unit to run, such as C(loki.service).
    type: str
    required: true
  files:
    description:
      - The files, in the order in which they are moved into place. systemd is reloaded for unit files among them.
      - In the text of a unit file, C({gid:NAME}) is replaced by the numeric id of a group.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file. Missing parent directories are created with mode 0755.
        type: path
        required: true
      content:
        description: The complete text. Mutually exclusive with O(files[].secret), and one of the two is required.
        type: str
      secret:
        description: The complete text of a file that must not be shown in logs and diffs.
        type: str
      mode:
        description: Octal mode.
        type: str
        default: "0644"
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      validate:
        description:
          - Commands that have to succeed before any file is moved into place. C(%s) is replaced by the path of the
            file to verify, and C(%d) by its directory, which holds the other files of this list that belong there.
        type: list
        elements: str
        default: []
      apply:
        description:
          - Command that is run on the file just before it is moved into place, so that it is repeated after an
            interruption. C(%s) and C(%d) are replaced as in O(files[].validate).
        type: str
      on_change:
        description:
          - What makes the unit read the file again. A unit that is reloaded needs C(ExecReload=). V(none) is for a file
            that the program watches by itself.
        type: str
        choices: [restart, reload, none]
        default: restart
      read_by: {description: "Another unit of the host, which reads the file instead.", type: str}
  absent:
    description:
      - Files that are removed. A pattern such as C(*.json) matches all files but those in O(files). A removed file asks
        of the unit what the O(files) that match its pattern ask. If none does, the unit is reloaded if it is for one of
        O(files), else restarted.
    type: list
    elements: path
    default: []
  reads:
    description: Other files and symbolic links that the unit reads only at its start.
    type: list
    elements: path
    default: []
  image:
    description:
      - Container image that the unit runs. Files are then verified inside it, except by programs below C(/opt), which
        run on the host. Without it the unit runs a release below O(root).
    type: str
  root:
    description: Directory of all releases.
    type: path
    default: /opt
  ready_url:
    description: URL that answers when the service is ready. Without it the module doesn't wait.
    type: str
  ready_body:
    description: Regular expression that has to match in the answer. Required together with O(ready_url).
    type: str
  ready_ca:
    description: PEM file with the CA certificate that O(ready_url) is verified against.
    type: path
  ready_timeout:
    description: How long to wait until the service is ready, in seconds.
    type: int
    default: 120
  upgrade_timeout:
    description:
      - How long to wait instead if another release starts than the one that ran before, which may have to migrate its
        data first. V(0) for O(ready_timeout).
    type: int
    default: 0
  databases:
    description:
      - SQLite databases of the program that another release would change. Before it starts, the unit is stopped and
        they are copied to C(/var/lib/logstead/databases/UNIT), where the last two copies remain.
    type: list
    elements: path
    default: []
  release:
    description:
      - What the release is, such as its version and checksum. It does nothing by itself, but another release gives
        another O(fingerprint).
    type: dict
  fingerprint:
    description: Digest of all arguments. The action plugin of this name computes it.
    type: str
  reload_check:
    description:
      - How the service tells that it has accepted what it was reloaded for. It is polled for up to O(ready_timeout).
    type: dict
    suboptions:
      url:
        description: URL of its metrics.
        type: str
      success_metric:
        description: Metric that is 1 if the last reload succeeded.
        type: str
      timestamp_metric:
        description: Metric with the time of the last successful reload.
        type: str
      workers:
        description: Whether new child processes tell so instead, as for nginx.
        type: bool
        default: false
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Run Loki with a configuration that it accepts
  logstead.platform.systemd_app:
    unit: loki.service
    files:
      - path: /etc/loki/loki.yml
        content: "{{ loki_config | to_nice_yaml }}"
        mode: "0640"
        group: loki
        validate: ["/opt/loki/current/loki -verify-config -config.file=%s"]
      - path: /etc/systemd/system/loki.service
        content: "{{ loki_unit | logstead.platform.to_unit }}"
    reads: [/opt/loki/current]
    ready_url: http://127.0.0.1:3100/ready
    ready_body: ^ready

- name: Remove a drop-in of the journal, and restart it
  logstead.platform.systemd_app:
    unit: systemd-journald.service
    absent: [/etc/systemd/journald.conf.d/logstead.conf]
"""

RETURN = r"""
actions:
  description:
    - The actions on units in order, such as C(daemon-reload), C(enable), C(start), C(restart) and C(reload). If the
      runtime changes, C(stop) comes first and C(clean) last.
    - An action on another unit that O(files[].read_by) names is followed by its name, and comes before those on
      O(unit).
  type: list
  elements: str
  returned: success
  sample: [reload, restart]
"""


FILE_OPTIONS = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "secret": {"type": "str", "no_log": True},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "validate": {"type": "list", "elements": "str", "default": []},
    "apply": {"type": "str"},
    "on_change": {"type": "str", "choices": ["restart", "reload", "none"], "default": "restart"},
    "read_by": {"type": "str"},
}


RELOAD_CHECK_OPTIONS = {
    "url": {"type": "str"},
    "success_metric": {"type": "str"},
    "timestamp_metric": {"type": "str"},
    "workers": {"type": "bool", "default": False},
}
RELOAD_CHECK_RULES = {
    "required_together": [("url", "success_metric", "timestamp_metric")],
    "required_if": [("workers", False, ("url",))],
    "mutually_exclusive": [("url", "workers")],
}


def wait(parameters: dict[str, Any], timeout: int = 0) -> None:
    """Wait until the service answers as it should, if an answer is known."""
    if parameters["ready_url"]:
        url, body, ca = (parameters[f"ready_{name}"] for name in ("url", "body", "ca"))
        wait_until_ready(parameters["unit"], url, body, timeout or parameters["ready_timeout"], ca)


def release_before(state: State) -> str:
    """Return the release or the image that the unit last became ready with; empty if that is unknown."""
    return str(state.get("image") or (state.get("release") or {}).get("version") or "")


def secure_databases(state: State, parameters: dict[str, Any], before: str, release: str) -> str:
    """Copy the databases before another release starts, unless an interrupted run did; return the folder.

    Raises:
        UnitError: They can't be copied.
    """
    unit, copied = parameters["unit"], state.get("copied") or {}
    if (copied.get("before"), copied.get("release")) == (before, release) and Path(copied["folder"]).is_dir():
        return str(copied["folder"])
    carry_out(unit, "stop")
    try:
        folder = str(copy_databases(unit, parameters["databases"], before))
    except OSError as error:
        raise UnitError(
            f"the databases of {unit} can't be copied before {release} starts ({error}): free space in /var/lib."
        ) from error
    state["copied"] = {"before": before, "release": release, "folder": folder}
    write_state(unit, state)
    return folder


def companions_of(files: list[File], unit: str) -> list[str]:
    """Return the units among the files that only have to be loaded."""
    return [file.path.name for file in files if file.path.parent == UNIT_FOLDER and file.path.name != unit]


def apply(parameters: dict[str, Any], actions: list[tuple[str, str]]) -> None:
    """Carry out actions on units; raise UnitError if the unit itself doesn't take what it is reloaded for."""
    unit, check = parameters["unit"], parameters["reload_check"]
    watch = ReloadWatch(unit, check) if check and (unit, "reload") in actions else None
    for one, action in actions:
        carry_out(one, action)
    if watch:
        watch.wait(parameters["ready_timeout"])


def remember(state: State, unit: str, reads: dict[str, dict[str, str]]) -> None:
    """Remember that the units' processes have loaded what is on disk now."""
    for one, properties in zip(reads, properties_of(*reads)):
        remember_loaded(state, one, properties.get("InvocationID", ""), reads[one])
    save(state, unit)


def remember_reconciled(
    state: State, parameters: dict[str, Any], files: list[File], reads: dict[str, dict[str, str]], home: Path
) -> None:
    """Remember all by which systemd_app_facts can tell that nothing has to be done."""
    if not parameters.get("fingerprint"):
        return
    kept = ("fingerprint", "absent", "image", "root", "ready_url", "ready_body", "ready_ca")
    state.update({name: parameters[name] for name in kept})
    state["files"] = {str(file.path): stamp(file.path)[0] for file in files}
    state["reads"] = reads
    state["companions"] = companions_of(files, parameters["unit"])
    state["release"] = current_release(home)
    save(state, parameters["unit"])


def save(state: State, unit: str) -> None:
    """Write a unit's state, unless it is written so."""
    if state != read_state(unit):
        write_state(unit, state)


def go_back(parameters: dict[str, Any], copies: list[Copy], home: Path, change: str, databases: str) -> str:
    """Have run again what ran before, and say whether it does; say nothing if nothing has changed since.

    Args:
        parameters: Those of the module.
        copies: The files as they were.
        home: Directory of the releases.
        change: What makes the unit read its files.
        databases: Folder with the databases as they were; empty if there is none.
    """
    has_other_release = go_back_to_proven(home)
    if not (copies or has_other_release):
        return ""
    for copy in copies:
        copy.put_back()
    try:
        if databases:
            carry_out(parameters["unit"], "stop")
            restore_databases(parameters["databases"], Path(databases))
        carry_out(parameters["unit"], "daemon-reload")
        apply(parameters, [(parameters["unit"], "restart" if has_other_release else change)])
        wait(parameters)
    except (UnitError, OSError) as error:
        return f"\nWhat ran before was put back, but it doesn't get ready either: {error}"
    return "\nWhat ran before was put back and runs again."


def stop_as_before(parameters: dict[str, Any], copies: list[Copy], home: Path, databases: str) -> str:
    """Put back what a unit that was stopped had before, stop it, and say so; do nothing after a first installation."""
    unit = parameters["unit"]
    has_other_release = go_back_to_proven(home)
    if not has_other_release and all(copy.content is None for copy in copies):
        return ""
    for copy in copies:
        copy.put_back()
    try:
        carry_out(unit, "daemon-reload")
        carry_out(unit, "stop")
        if databases:
            restore_databases(parameters["databases"], Path(databases))
    except (UnitError, OSError) as error:
        return f"\nWhat was there before was put back, but: {error}"
    return "\nWhat was there before was put back, and the service is stopped as it was."


def log_deploy(parameters: dict[str, Any], actions: list[str]) -> None:
    """Write to the host's log what was done to the unit, unless its process is the same and has read nothing new."""
    done = [f"{action}ed" for action in ("start", "restart", "reload") if action in actions]
    if done:
        image = str(parameters.get("image") or "").rsplit("/", 1)[-1]
        version = str((parameters.get("release") or {}).get("version") or image)
        syslog.openlog("logstead")
        syslog.syslog(syslog.LOG_INFO, f"{' and '.join(done)} {parameters['unit']} {version}".strip())
        syslog.closelog()


def reconcile_unit(
    parameters: dict[str, Any],
    state: State,
    needed: list[tuple[str, str]],
    reads: dict[str, dict[str, str]],
    copies: list[Copy],
) -> None:
    """Carry out the needed actions, and wait until the unit is ready.

    Raises:
        UnitError: It isn't, and what ran before was put back if something has changed.
    """
    unit, image = parameters["unit"], parameters["image"]
    home = Path(parameters["root"], Path(unit).stem)
    own = {action for one, action in needed if one == unit}
    before, release = release_before(state), image or current_release(home).get("version", "")
    is_other_release, databases = bool(before and release and before != release), ""
    was_stopped = "start" in own and next(iter(properties_of(unit)))["ActiveState"] == "inactive"
    try:
        if is_other_release and parameters["databases"] and own & {"start", "restart"}:
            databases = secure_databases(state, parameters, before, release)
        apply(parameters, needed)
        remember(state, unit, reads)
        wait(parameters, parameters["upgrade_timeout"] if is_other_release else 0)
    except UnitError as error:
        if "start" not in own:
            change = "reload" if "reload" in own else "restart"
            back = go_back(parameters, copies, home, change, databases)
        else:
            # One that was failing has nothing to go back to.
            back = stop_as_before(parameters, copies, home, databases) if was_stopped else ""
        if back.endswith(("runs again.", "stopped as it was.")):
            state.pop("copied", None)
        elif databases:
            back += f"\nIts databases, as {before} left them, are in {databases}."
        if back.endswith("runs again."):
            remember(state, unit, reads)
        raise UnitError(f"{error}{back}") from error
    if state.pop("copied", None):
        remove_old_copies(unit)
        save(state, unit)


def converge(parameters: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring files and unit into the wanted state; return the module's result."""
    unit, image = parameters["unit"], parameters["image"]
    home = Path(parameters["root"], Path(unit).stem)
    changes_runtime = has_leftovers(home, image)
    files = [File.from_parameters(given, unit) for given in parameters["files"]]
    absent = [Path(path) for path in parameters["absent"]]
    state = read_state(unit)

    def announce(moving: Mapping[str, list[Path]]) -> None:
        forget(state, moving)
        write_state(unit, state)

    stale, diffs, copies = put_in_place(files, absent, unit, check_mode, image=image, announce=announce)
    others = sorted({file.reader for file in files if file.reader} - {unit})
    companions = companions_of(files, unit)
    reads = {one: {str(file.path): file.on_change for file in files if file.reader == one} for one in (*others, unit)}
    reads[unit].update(dict.fromkeys(parameters["reads"], "restart"))
    shown = dict(zip((*reads, *companions), properties_of(*reads, *companions)))
    needed = []
    for one, paths in reads.items():
        gone = what_a_removal_asks(files) if one == unit else "restart"
        known, properties = state.get("loaded", {}).get(one), shown[one]
        change = needed_change(known, properties.get("InvocationID", ""), started_at(properties), paths, gone)
        # In a check run the files aren't there yet, so only what is going to change can tell.
        least = "restart" if one == unit and changes_runtime else "none"
        change = max(change, stale.get(one, "none"), least, key=CHANGES.index)
        beside = [shown[name] for name in companions] if one == unit else []
        needed += [(one, action) for action in needed_actions(properties, beside, change)]
    own = [action for one, action in needed if one == unit]
    if changes_runtime:
        # It stops as the unit says that it was started by: systemd has not read the new one yet.
        needed.insert(len(needed) - len(own), (unit, "stop"))
    if not check_mode:
        reconcile_unit(parameters, state, needed, reads, copies)
        if changes_runtime:
            remove_leftovers(home, image)
        remember_proven(home)
        remember_reconciled(state, parameters, files, reads, home)
        log_deploy(parameters, own)
    actions = [action if one == unit else f"{action} {one}" for one, action in needed]
    return {
        "changed": bool(diffs or needed),
        "diff": diffs,
        "actions": [*actions, *(["clean"] if changes_runtime else [])],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": FILE_OPTIONS,
                "mutually_exclusive": [("content", "secret")],
                "required_one_of": [("content", "secret")],
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "reads": {"type": "list", "elements": "path", "default": []},
            "image": {"type": "str"},
            "root": {"type": "path", "default": "/opt"},
            "ready_url": {"type": "str"},
            "ready_body": {"type": "str"},
            "ready_ca": {"type": "path"},
            "ready_timeout": {"type": "int", "default": 120},
            "upgrade_timeout": {"type": "int", "default": 0},
            "databases": {"type": "list", "elements": "path", "default": []},
            "release": {"type": "dict"},
            "fingerprint": {"type": "str"},
            "reload_check": {"type": "dict", "options": RELOAD_CHECK_OPTIONS, **RELOAD_CHECK_RULES},
        },
        required_together=[("ready_url", "ready_body")],
        supports_check_mode=True,
    )
    os.umask(0o022)  # a hardened host's 027 would hide new folders from the program's own user
    try:
        result = converge(module.params, module.check_mode)
    except (FilesError, UnitError, PodmanError, OSError, LookupError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
