#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: tell how the platform's components on a host are, as a table for people."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: component_status
version_added: 1.0.0
short_description: Report the status of the platform's components on a host
description:
  - Reads the state of each unit from systemd, the size of its data from the disk, and whether it is ready from the
    component's own HTTP endpoint.
  - A component that is down doesn't make the module fail. It is listed in RV(problems), so that every host can report
    before the play fails.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The module never changes the host.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  components:
    description: The components that are expected to run on the host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the component's unit, without C(.service).
        type: str
        required: true
      url:
        description: URL that answers when the component is ready.
        type: str
        required: true
      body:
        description: Regular expression that has to match in the answer.
        type: str
        required: true
      ca:
        description: PEM file with the CA certificate that O(components[].url) is verified against.
        type: path
      data:
        description: Paths of the component's data, whose sizes on the disk are added up.
        type: list
        elements: path
        default: []
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Read the status of Loki and Promtail
  logstead.platform.component_status:
    components:
      - {name: loki, url: "http://127.0.0.1:3100/ready", body: "^ready", data: [/var/lib/loki]}
      - {name: promtail, url: "http://127.0.0.1:9080/ready", body: "^Ready", data: [/var/lib/promtail]}
  register: status_seen

- name: Fail if one of them is down
  ansible.builtin.assert:
    that: status_seen['problems'] | length == 0
    fail_msg: "{{ status_seen['problems'] | join('; ') }}"
"""

RETURN = r"""
table:
  description: A table for the terminal, with one line for each component.
  type: str
  returned: always
problems:
  description: The components that are expected to run and don't, one sentence for each.
  type: list
  elements: str
  returned: always
  sample: [promtail is not ready]
"""

HEAD = ("COMPONENT", "STATE", "AT BOOT", "SINCE", "VERSION", "MEMORY", "DATA", "ADDRESS")
PROPERTIES = "LoadState,ActiveState,SubState,UnitFileState,StateChangeTimestamp,MemoryCurrent,Result,NRestarts"
UNKNOWN = "-"


def properties_of(unit: str) -> dict[str, str]:
    """Return what systemd says of a unit."""
    command = ["systemctl", "show", unit, f"--property={PROPERTIES}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def human_size(number: str | int) -> str:
    """Return a number of bytes for people; what isn't a number is unknown."""
    try:
        size = float(number)
    except ValueError:
        return UNKNOWN
    for suffix in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {suffix}"
        size /= 1024
    # systemd says 2^64 - 1 where it doesn't know.
    return f"{size:.1f} GiB" if size < 2**30 else UNKNOWN


def disk_use(paths: list[str]) -> int:
    """Return the bytes that paths take on the disk."""
    result = subprocess.run(["du", "-s", "-B1", "--", *paths], capture_output=True, text=True, check=False)
    return sum(int(line.split("\t")[0]) for line in result.stdout.splitlines())


def version_of(name: str, root: str = "/opt") -> str:
    """Return the version that `current` points to; a long one, as digests are, is cut."""
    try:
        return os.readlink(Path(root, name, "current"))[:12]
    except OSError:
        return UNKNOWN


def is_ready(url: str, body: str, ca: str | None) -> bool:
    """Tell whether an address answers as it should."""
    try:
        with open_url(url, timeout=5, use_proxy=False, ca_path=ca or None) as response:
            return bool(re.search(body, response.read(65536).decode(errors="replace")))
    except (HTTPError, OSError, ValueError):
        return False


def state_of(shown: dict[str, str], ready: bool) -> str:
    """Return a unit's state in a few words; "running" is the only one that is as it should be."""
    if shown.get("LoadState") == "not-found":
        return "not installed"
    active = shown.get("ActiveState", "unknown")
    if active == "active":
        return "running" if ready else "not ready"
    if active == "activating":
        return f"restarting (try {shown.get('NRestarts', '?')}: {shown.get('Result', '?')})"
    return f"failed ({shown.get('Result', '?')})" if active == "failed" else {"inactive": "stopped"}.get(active, active)


def row_of(component: dict[str, Any]) -> tuple[str, ...]:
    """Return a component's line of the table."""
    name = component["name"]
    shown = properties_of(f"{name}.service")
    runs = shown.get("ActiveState") == "active"
    since = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+", shown.get("StateChangeTimestamp", ""))
    address = re.sub(r"^\w+://([^/]+).*", r"\1", component["url"])
    return (
        name,
        state_of(shown, runs and is_ready(component["url"], component["body"], component["ca"])),
        shown.get("UnitFileState") or UNKNOWN,
        since[0] if since else UNKNOWN,
        version_of(name),
        human_size(shown.get("MemoryCurrent", "")) if runs else UNKNOWN,
        human_size(disk_use(component["data"])),
        address,
    )


def table_of(rows: list[tuple[str, ...]]) -> str:
    """Return lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def problems_of(rows: list[tuple[str, ...]]) -> list[str]:
    """Return what should run and doesn't."""
    return [f"{name} is {state}" for name, state, *_ in rows if state != "running"]


def main() -> None:
    """Run the module."""
    options = {
        "name": {"type": "str", "required": True},
        "url": {"type": "str", "required": True},
        "body": {"type": "str", "required": True},
        "ca": {"type": "path"},
        "data": {"type": "list", "elements": "path", "default": []},
    }
    module = AnsibleModule(
        argument_spec={"components": {"type": "list", "elements": "dict", "required": True, "options": options}},
        supports_check_mode=True,
    )
    rows = [row_of(component) for component in module.params["components"]]
    module.exit_json(changed=False, table=table_of([HEAD, *rows]), problems=problems_of(rows))


if __name__ == "__main__":
    main()
