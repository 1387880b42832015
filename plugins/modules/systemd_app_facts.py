#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: tell what a run has to know of the host, in one call."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.sys_info import get_distribution, get_distribution_version
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import (
    RECORD,
    has_image,
    images_of,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import current_release

DOCUMENTATION = r"""
module: systemd_app_facts
version_added: 1.0.0
short_description: Gather the facts that the collection's roles need, in one call
description:
  - Sets the facts C(distribution), C(distribution_version), C(python) and C(python_version) as
    M(ansible.builtin.setup) does, and the version of systemd, in a fraction of its time.
  - Sets the fact C(systemd_app_releases), so that a run doesn't have to check each program's release by itself.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The module never changes the host.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
  facts:
    description: Returns C(ansible_facts) that are added to the facts of the host.
    support: full
options:
  root:
    description: Directory of all releases.
    type: path
    default: /opt
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Gather facts
  logstead.platform.systemd_app_facts:

- name: Show the release of Loki that is installed
  ansible.builtin.debug:
    msg: "{{ ansible_facts['systemd_app_releases']['loki']['version'] | default('none') }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts that are set.
  type: dict
  returned: always
  contains:
    distribution:
      description: Name of the distribution.
      type: str
      returned: always
      sample: Debian
    distribution_version:
      description: Version of the distribution.
      type: str
      returned: always
      sample: "13"
    python:
      description: The C(version) of Python as a dictionary of C(major), C(minor) and C(micro).
      type: dict
      returned: always
    python_version:
      description: Version of Python.
      type: str
      returned: always
      sample: 3.13.5
    systemd:
      description: The C(version) of systemd. Empty if the host wasn't booted with systemd.
      type: dict
      returned: always
      sample: {version: 257}
    systemd_app_releases:
      description:
        - What each program below O(root) runs from, by its name. A release has C(version), and C(sha256) if it was
          unpacked from an archive. A container has C(image).
      type: dict
      returned: always
"""


# Is there if systemd is what has booted the host: sd_booted(3).
BOOTED = Path("/run/systemd/system")


def systemd_version() -> int | None:
    """Return the version of systemd, or None if the host doesn't run it."""
    if not BOOTED.is_dir():
        return None
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


def facts_of(root: Path) -> dict[str, Any]:
    """Return the facts by name."""
    version = systemd_version()
    # Also of a program's own tools, such as /opt/loki/lokitool.
    links = (*root.glob("*/current"), *root.glob("*/*/current"))
    releases = {link.parent.name: current_release(link.parent) for link in links}
    images = {record.parent.name: images_of(record.parent)[:1] for record in root.glob(f"*/{RECORD}")}
    releases |= {name: {"image": image} for name, (image,) in images.items() if has_image(image)}
    return {
        "distribution": get_distribution(),
        "distribution_version": get_distribution_version(),
        "python": {"version": dict(zip(("major", "minor", "micro"), sys.version_info))},
        "python_version": platform.python_version(),
        "systemd": {} if version is None else {"version": version},
        "systemd_app_releases": {name: release for name, release in releases.items() if release},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/opt"}}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts=facts_of(Path(module.params["root"])))


if __name__ == "__main__":
    main()
