#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: tell which releases are current on the host, so that a run need not ask for each."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: systemd_app_facts
short_description: Tell which releases are current on the host
description:
  - Sets the fact C(systemd_app_releases), a dictionary by the program's name, of those that M(systemd_app_release) has
    made and that are whole. A program that is not in it has to be looked at by that module.
options:
  root: {description: Folder of all programs., type: path, default: /opt}
author: [logstead contributors]
"""

RETURN = r"""
ansible_facts:
  description: "C(systemd_app_releases): for each program its C(version) and the C(sha256) of its archive."
  type: dict
  returned: always
"""


def current_releases(root: Path) -> dict[str, dict[str, str]]:
    """Return version and archive's SHA-256 of each program's current release, by the program's name."""
    releases = {}
    for link in root.glob("*/current"):
        origin = link / ".sha256"
        # A release that was unpacked after the link was made needs a new one: then its service is restarted.
        if link.is_symlink() and origin.is_file() and link.lstat().st_mtime_ns >= origin.stat().st_mtime_ns:
            releases[link.parent.name] = {"version": str(link.readlink()), "sha256": origin.read_text().strip()}
    return releases


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/opt"}}, supports_check_mode=True)
    releases = current_releases(Path(module.params["root"]))
    module.exit_json(changed=False, ansible_facts={"systemd_app_releases": releases})


if __name__ == "__main__":
    main()
