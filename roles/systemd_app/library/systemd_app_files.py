#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: bring the files of one program into the wanted state, all of them or none."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: systemd_app_files
short_description: Bring the files of one program into the wanted state, all of them or none
description:
  - Every file that differs is first written to a private folder and checked there by its own O(files[].validate)
    commands. Only when all of them have passed are the files moved in, in the order given, each by a rename.
  - So a configuration that the program refuses never reaches the place where a restart would read it.
options:
  files:
    description: The files, in the order in which they are moved in.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where the file belongs. Missing parent folders are made with mode 0755.
        type: path
        required: true
      content: {description: The whole text., type: str}
      secret:
        description: The whole text of a file whose text must not be shown; instead of O(files[].content).
        type: str
      mode: {description: Octal mode., type: str, default: "0644"}
      owner: {description: Name of the owner., type: str, default: root}
      group: {description: Name of the group., type: str, default: root}
      validate:
        description: Commands that must succeed before anything is moved in; C(%s) stands for the file to check.
        type: list
        elements: str
        default: []
      apply:
        description:
          - Command that acts on the file, run just before it is moved in, so that an interrupted run repeats it.
        type: str
      restart: {description: Whether the program reads the file only when it starts., type: bool, default: true}
  absent: {description: Files that must not be there., type: list, elements: path, default: []}
author: [logstead contributors]
"""

RETURN = r"""
restart:
  description: Whether a file has changed that the program reads only when it starts.
  type: bool
  returned: always
reads: {description: Paths of all such files., type: list, returned: always}
"""


class FilesError(Exception):
    """Says which file was refused, by whom and why; nothing has been moved in."""


@dataclass
class File:
    """One wanted file."""

    path: Path
    text: str
    is_secret: bool
    mode: int
    owner: str
    group: str
    validate: list[str]
    apply: str | None
    restart: bool

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> File:
        """Make a File from one entry of the module's list."""
        is_secret = parameters["secret"] is not None
        return cls(
            path=Path(parameters["path"]),
            text=parameters["secret"] if is_secret else parameters["content"],
            is_secret=is_secret,
            mode=int(parameters["mode"], 8),
            **{key: parameters[key] for key in ("owner", "group", "validate", "apply", "restart")},
        )

    def present_text(self) -> str | None:
        """Return the text that is there now, or None."""
        try:
            return self.path.read_bytes().decode(errors="surrogateescape")
        except FileNotFoundError:
            return None

    def present_attributes(self) -> str:
        """Return owner, group and mode of what is there now, for comparison and for the diff."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return "absent"
        return f"{name_of_user(status.st_uid)}:{name_of_group(status.st_gid)} {status.st_mode & 0o7777:04o}"

    def wanted_attributes(self) -> str:
        """Return owner, group and mode as wanted."""
        return f"{self.owner}:{self.group} {self.mode:04o}"

    def differs(self) -> bool:
        """Tell whether anything has to be done."""
        return self.present_text() != self.text or self.present_attributes() != self.wanted_attributes()

    def diff(self) -> dict[str, str]:
        """Return Ansible's before and after; a secret's text is left out."""
        before, after = (self.present_text() or "", self.text)
        if self.is_secret:
            before, after = ("", "") if before == after else ("a secret\n", "another secret\n")
        return {
            "before_header": f"{self.path} ({self.present_attributes()})",
            "after_header": f"{self.path} ({self.wanted_attributes()})",
            "before": before,
            "after": after,
        }


def diff_of_absent(path: Path) -> dict[str, str]:
    """Return Ansible's before and after of a file that goes; its text may be a secret."""
    return {"before_header": str(path), "after_header": f"{path} (absent)", "before": "", "after": ""}


def name_of_user(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def name_of_group(gid: int) -> str:
    """Return the name of a group, or the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def run(command: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line on a file, without a shell; its output is kept together."""
    words = [word.replace("%s", str(path)) for word in command.split()]
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def stage(file: File, folder: Path) -> Path:
    """Write a file below the private folder, under its own name: programs look at the ending."""
    staged = Path(tempfile.mkdtemp(dir=folder), file.path.name)
    staged.write_bytes(file.text.encode(errors="surrogateescape"))
    return staged


def check(file: File, staged: Path) -> None:
    """Raise FilesError if one of the file's own checks refuses it."""
    for command in file.validate:
        result = run(command, staged)
        if result.returncode != 0:
            raise FilesError(
                f"{file.path} was refused by `{command}` (exit code {result.returncode}); the old files stay in place. "
                f"Mend the variable that it comes from. It said:\n{result.stdout.strip()}"
            )


def move_in(file: File, staged: Path) -> None:
    """Apply a file, then put it in place by a rename within its own folder."""
    if file.apply:
        result = run(file.apply, staged)
        if result.returncode != 0:
            raise FilesError(f"`{file.apply}` failed for {file.path}: {result.stdout.strip()}")
    file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Not beside the target: some programs read every file of a folder, hidden ones included. A folder is ignored.
    folder = file.path.parent
    if folder.stat().st_dev == folder.parent.stat().st_dev:
        folder = folder.parent
    incoming = Path(tempfile.mkdtemp(dir=folder, prefix=".incoming-"), file.path.name)
    try:
        incoming.touch(mode=0o600)
        incoming.write_bytes(staged.read_bytes())
        shutil.chown(incoming, file.owner, file.group)
        incoming.chmod(file.mode)
        with incoming.open("rb") as written:
            os.fsync(written.fileno())
        incoming.replace(file.path)
    finally:
        shutil.rmtree(incoming.parent, ignore_errors=True)


def converge(files: list[File], absent: list[Path], check_mode: bool) -> dict[str, Any]:
    """Bring all files into the wanted state; return the module's result."""
    different = [file for file in files if file.differs()]
    superfluous = [path for path in absent if path.is_symlink() or path.exists()]
    result = {
        "changed": bool(different or superfluous),
        "restart": any(file.restart for file in different) or bool(superfluous),
        "reads": [str(file.path) for file in files if file.restart],
        "diff": [file.diff() for file in different] + [diff_of_absent(path) for path in superfluous],
    }
    with tempfile.TemporaryDirectory(prefix="systemd-app-") as folder:
        staged = {str(file.path): stage(file, Path(folder)) for file in different}
        for file in different:
            # Before the first installation the program that would check the file isn't there yet.
            if not (check_mode and any(shutil.which(command.split()[0]) is None for command in file.validate)):
                check(file, staged[str(file.path)])
        if not check_mode:
            for file in different:
                move_in(file, staged[str(file.path)])
            for path in superfluous:
                path.unlink()
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "secret": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0644"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "validate": {"type": "list", "elements": "str", "default": []},
                    "apply": {"type": "str"},
                    "restart": {"type": "bool", "default": True},
                },
                "mutually_exclusive": [("content", "secret")],
                "required_one_of": [("content", "secret")],
            },
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # a hardened host's 027 would hide new folders from the program's own user
    try:
        files = [File.from_parameters(parameters) for parameters in module.params["files"]]
        result = converge(files, [Path(path) for path in module.params["absent"]], module.check_mode)
    except (FilesError, OSError, LookupError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
