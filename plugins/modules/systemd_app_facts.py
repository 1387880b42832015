#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: tell what a run has to know of the host, in one call."""

from __future__ import annotations

import glob
import platform
import pwd
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.sys_info import get_distribution, get_distribution_version
from ansible_collections.logstead.platform.plugins.module_utils.check_memory import passed_checks
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import (
    RECORD,
    has_image,
    has_leftovers,
    images_of,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import current_release
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_state import (
    State,
    needed_change,
    read_states,
    stamp,
)
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_unit import (
    answer_of,
    needed_actions,
    properties_of,
    started_at,
)

DOCUMENTATION = r"""
module: systemd_app_facts
version_added: 1.0.0
short_description: Gather the facts that the collection's roles need, in one call
description:
  - Sets the facts C(distribution), C(distribution_version), C(python) and C(python_version) as
    M(ansible.builtin.setup) does, and the version of systemd, in a fraction of its time.
  - Sets the facts C(has_net_admin), whether root may configure the network, which in a container it often may not, and
    C(unknown_users).
  - Sets the fact C(systemd_app_releases), so that a run doesn't have to check each program's release by itself.
  - Sets the fact C(systemd_app_reconciled), which has by unit the fingerprint of what M(logstead.platform.systemd_app)
    last put in place, if that still holds. Files, processes and readiness are all checked, so that the module need not
    be called for a unit whose fingerprint is unchanged.
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
  users:
    description: Names of users that are expected to exist.
    type: list
    elements: str
    default: []
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
    systemd_app_checks:
      description: The C(fingerprint) and the C(result) of each check that was passed and still holds, by its module.
      type: dict
      returned: always
    has_net_admin:
      description: Whether the module's process has the capability C(CAP_NET_ADMIN).
      type: bool
      returned: always
    unknown_users:
      description: Those of O(users) that don't exist.
      type: list
      elements: str
      returned: always
    systemd_app_releases:
      description:
        - What each program below O(root) runs from, by its name. A release has C(version), and C(sha256) if it was
          unpacked from an archive. A container has C(image).
      type: dict
      returned: always
"""


# Is there if systemd is what has booted the host: sd_booted(3).
BOOTED = Path("/run/systemd/system")
STATUS = Path("/proc/self/status")
CAP_NET_ADMIN = 12  # its bit, by capabilities(7)


def systemd_version() -> int | None:
    """Return the version of systemd, or None if the host doesn't run it."""
    if not BOOTED.is_dir():
        return None
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


# A service that takes longer is asked again by the module itself.
ANSWER_SECONDS = 2.0


def has_files(state: State) -> bool:
    """Tell whether all files are there as they were put in place, and no others that must not be."""
    if any(stamp(path)[0] != digest for path, digest in state["files"].items()):
        return False
    return not any(name not in state["files"] for pattern in state["absent"] for name in glob.iglob(pattern))


def runs(unit: str, state: State, shown: dict[str, dict[str, str]]) -> bool:
    """Tell whether the unit, and those that read its files, run what is on disk."""
    for one, reads in state["reads"].items():
        properties, known = shown[one], state["loaded"][one]
        change = needed_change(known, properties.get("InvocationID", ""), started_at(properties), reads, "restart")
        beside = [shown[name] for name in state["companions"]] if one == unit else []
        if needed_actions(properties, beside, change):
            return False
    return True


def is_ready(state: State) -> bool:
    """Tell whether the service answers as it should, if an answer is known."""
    if not state["ready_url"]:
        return True
    is_fine, answer = answer_of(state["ready_url"], state["ready_ca"], ANSWER_SECONDS)
    return is_fine and bool(re.search(state["ready_body"], answer))


def is_reconciled(unit: str, state: State, shown: dict[str, dict[str, str]]) -> bool:
    """Tell whether all is as the module systemd_app left it."""
    try:
        home = Path(state["root"], Path(unit).stem)
        if has_leftovers(home, state["image"]) or current_release(home) != state["release"]:
            return False
        return has_files(state) and runs(unit, state, shown) and is_ready(state)
    except (KeyError, OSError, TypeError, ValueError):
        # What can't be told is left to the module, which says what is wrong.
        return False


def reconciled() -> dict[str, str]:
    """Return the fingerprints of what is as it was left, by unit."""
    complete = {"fingerprint": str, "reads": dict, "companions": list}
    states = {
        unit: state
        for unit, state in read_states().items()
        if all(isinstance(state.get(name), kind) for name, kind in complete.items())
    }
    if not states:
        return {}
    units = {name for state in states.values() for name in (*state["reads"], *state["companions"])}
    shown = dict(zip(sorted(units), properties_of(*sorted(units))))
    # Most of the time goes by until services answer.
    with ThreadPoolExecutor(max_workers=len(states)) as pool:
        found = pool.map(lambda unit: is_reconciled(unit, states[unit], shown), states)
        return {unit: states[unit]["fingerprint"] for unit, is_so in zip(states, found) if is_so}


def has_net_admin() -> bool:
    """Tell whether this process may configure the network."""
    found = re.search(r"^CapEff:\s*(\w+)$", STATUS.read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) & 1 << CAP_NET_ADMIN)


def is_unknown(user: str) -> bool:
    """Tell whether the host has no user of this name."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return True
    return False


def facts_of(root: Path, users: Sequence[str] = ()) -> dict[str, Any]:
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
        "has_net_admin": has_net_admin(),
        "python": {"version": dict(zip(("major", "minor", "micro"), sys.version_info))},
        "python_version": platform.python_version(),
        "systemd_app_checks": passed_checks(),
        "systemd_app_reconciled": {} if version is None else reconciled(),
        "systemd": {} if version is None else {"version": version},
        "systemd_app_releases": {name: release for name, release in releases.items() if release},
        "unknown_users": [user for user in users if is_unknown(user)],
    }


def main() -> None:
    """Run the module."""
    options = {
        "root": {"type": "path", "default": "/opt"},
        "users": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    facts = facts_of(Path(module.params["root"]), module.params["users"])
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
