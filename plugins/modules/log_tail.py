#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: the last lines of logs, read with their owner's rights."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.log_files import printable, tail_of

DOCUMENTATION = r"""
module: log_tail
version_added: 1.1.0
short_description: Return the last lines of log files, read with the rights of their owner
description:
  - Reads each file as O(user), so that nothing is returned that this user may not read.
  - Follows no symbolic link, and reads regular files only, of each at most the last megabyte.
  - Control characters, such as terminal escapes, are returned as escapes such as C(\x1b).
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  paths:
    description: Absolute paths of the files. A file that doesn't exist is not an error.
    type: list
    elements: path
    required: true
  user:
    description: User who reads the files.
    type: str
    required: true
  lines:
    description: Maximum number of lines of each file.
    type: int
    default: 100
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Read the demo app's log
  logstead.platform.log_tail:
    paths: [/var/log/demo-app/app.log]
    user: demo-app
    lines: 20
"""

RETURN = r"""
text:
  description: The lines, with the path of each file before them, or why it can't be read.
  type: str
  returned: success
"""


@contextlib.contextmanager
def rights_of(user: str) -> Iterator[None]:
    """Do something with no more rights than a user of the host."""
    if os.geteuid() != 0:  # tests, and a connection as the user itself
        yield
        return
    entry, groups = pwd.getpwnam(user), os.getgroups()
    os.setgroups(os.getgrouplist(user, entry.pw_gid))
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def section(path: str, lines: int) -> str:
    """Return the last lines of a file, with a heading."""
    try:
        text = b"\n".join(tail_of(Path(path))[-lines:]).decode(errors="replace")
    except OSError as error:
        text = f"{error.filename}: {error.strerror}"
    return f"==> {path} <==\n{text}\n"


def text_of(paths: list[str], user: str, lines: int) -> str:
    """Return the last lines of files."""
    with rights_of(user):
        return printable("\n".join(section(path, lines) for path in paths))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "user": {"type": "str", "required": True},
            "lines": {"type": "int", "default": 100},
        },
        supports_check_mode=True,
    )
    try:
        text = text_of(module.params["paths"], module.params["user"], module.params["lines"])
    except KeyError:  # before the first run of site.yml
        text = f"There is no user {module.params['user']}, and so no log of theirs."
    module.exit_json(changed=False, text=text)


if __name__ == "__main__":
    main()
