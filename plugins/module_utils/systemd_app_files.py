# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module systemd_app that brings a program's files into the wanted state, all of them or none."""

from __future__ import annotations

import errno
import glob
import grp
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import command_in, has_image
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_state import CHANGES

try:
    from ansible.module_utils.compat import selinux
except ImportError:  # the host has no library of it
    selinux = None

UNIT_FOLDER = Path("/etc/systemd/system")
# systemd applies what it only says this of.
APPLIED_ALL_THE_SAME = re.compile(r"please use|deprecated|obsolete|not safe")
# In a unit, or in the command line of its container, whose groups have their numbers where they exist.
NAMED_GROUPS = re.compile(r"^SupplementaryGroups=(.*)$|--group-add=([A-Za-z_][\w-]*)", re.MULTILINE)


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
    on_change: str
    reader: str | None  # the unit that has to do that

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], unit: str) -> File:
        """Make a File from one entry of the list that the module was given with this unit."""
        is_secret = parameters["secret"] is not None
        path, text = Path(parameters["path"]), parameters["secret"] if is_secret else parameters["content"]
        return cls(
            path=path,
            text=re.sub(r"\{gid:([\w-]+)\}", number_of_group, text) if path.parent == UNIT_FOLDER else text,
            is_secret=is_secret,
            mode=int(parameters["mode"], 8),
            reader=None if parameters["on_change"] == "none" else parameters["read_by"] or unit,
            **{key: parameters[key] for key in ("owner", "group", "validate", "apply", "on_change")},
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


@dataclass
class Copy:
    """What was at a path before."""

    path: Path
    content: bytes | None
    owner: str = "root"
    group: str = "root"
    mode: int = 0

    @classmethod
    def of(cls, path: Path) -> Copy:
        """Remember what is there now."""
        try:
            status = path.stat()
            content = path.read_bytes()
        except FileNotFoundError:
            return cls(path, None)
        owner, group = name_of_user(status.st_uid), name_of_group(status.st_gid)
        return cls(path, content, owner, group, status.st_mode & 0o7777)

    def put_back(self) -> None:
        """Have at the path what was there before."""
        if self.content is None:
            self.path.unlink(missing_ok=True)
        else:
            put(self.path, self.content, self.owner, self.group, self.mode)


def diff_of_absent(path: Path) -> dict[str, str]:
    """Return Ansible's before and after of a file that goes; its text may be a secret."""
    return {"before_header": str(path), "after_header": f"{path} (absent)", "before": "", "after": ""}


def number_of_group_name(name: str) -> int | None:
    """Return the number of a group, or None where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def number_of_group(found: re.Match[str]) -> str:
    """Return the number of a group, or the name where there is none."""
    number = number_of_group_name(found[1])
    return found[1] if number is None else str(number)


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


def run(words: list[str], path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line on a file, without a shell; its output is kept together."""
    return subprocess.run(
        [word.replace("%s", str(path)).replace("%d", str(path.parent)) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def stage(file: File, folder: Path) -> Path:
    """Write a file below the private folder, at its own path: programs look at the ending, and at what is beside it."""
    staged = folder.joinpath(*file.path.parts[1:])
    staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged.write_bytes(file.text.encode(errors="surrogateescape"))
    return staged


def check(file: File, staged: Path, folder: Path, image: str | None) -> None:
    """Raise FilesError if one of the file's own checks refuses it; they run in the image, if there is one."""
    for command in file.validate:
        # It sees the files that are staged, and those that the settings may name beside them. A tool of the host's own
        # isn't in the image.
        is_in_image = image and not command.startswith("/opt/")
        words = command_in(str(image), command, folder, file.path.parent) if is_in_image else command.split()
        result = run(words, staged)
        if result.returncode != 0:
            raise FilesError(
                f"{file.path} was refused by `{command}` (exit code {result.returncode}); the old files stay in place. "
                f"Mend the variable that it comes from. It said:\n{result.stdout.strip()}"
            )


def check_unit(file: File, staged: Path) -> None:
    """Raise FilesError if systemd would leave out a line of a unit, for which it only warns, or not load it.

    It is judged by itself: the program that it starts, its user and its group may be yet to come.
    """
    if not shutil.which("systemd-analyze"):
        return
    told = run(["systemd-analyze", "verify", "%s"], staged.resolve()).stdout
    lines = re.findall(rf"^{re.escape(str(staged.resolve()))}:(\d+): (.*)$", told, re.MULTILINE)
    found = [f"line {number}: {text}" for number, text in lines if not APPLIED_ALL_THE_SAME.search(text)]
    found += re.findall(rf"^{re.escape(staged.name)}: (.* Refusing\.)$", told, re.MULTILINE)
    if found:
        raise FilesError(
            f"{file.path} was refused by `systemd-analyze verify`; the old files stay in place. Fix the variable that "
            "it comes from, such as its role's …_unit_overrides. It said:\n" + "\n".join(dict.fromkeys(found))
        )


def check_groups(file: File) -> None:
    """Raise FilesError if a unit names a supplementary group that the host doesn't have: it would not start."""
    for words in NAMED_GROUPS.findall(file.text):
        for group in " ".join(words).split():
            if not group.isdigit() and number_of_group_name(group) is None:
                raise FilesError(
                    f"{file.path} names the group {group}, which this host doesn't have; the old files stay in place. "
                    "Create the group, or remove it from the variable that it comes from."
                )


def move_in(file: File, staged: Path) -> None:
    """Apply a file, then put it in place by a rename within its own folder."""
    if file.apply:
        result = run(file.apply.split(), staged)
        if result.returncode != 0:
            raise FilesError(f"`{file.apply}` failed for {file.path}: {result.stdout.strip()}")
    put(file.path, staged.read_bytes(), file.owner, file.group, file.mode)


def put(path: Path, content: bytes, owner: str, group: str, mode: int) -> None:
    """Put a file in place by a rename within its own folder."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Not beside the target: some programs read every file of a folder, hidden ones included. A folder is ignored.
    folder = path.parent
    if folder.stat().st_dev == folder.parent.stat().st_dev:
        folder = folder.parent
    incoming = Path(tempfile.mkdtemp(dir=folder, prefix=".incoming-"), path.name)
    try:
        incoming.touch(mode=0o600)
        incoming.write_bytes(content)
        shutil.chown(incoming, owner, group)
        incoming.chmod(mode)
        label(incoming, path)
        with incoming.open("rb") as written:
            os.fsync(written.fileno())
        try:
            incoming.replace(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            overwrite(path, incoming, owner, group, mode)
    finally:
        shutil.rmtree(incoming.parent, ignore_errors=True)


def label(incoming: Path, path: Path) -> None:
    """Give a file the SELinux context that belongs to its place."""
    # AnsibleModule.atomic_move does so as well, but it opens a new file to all users first.
    if selinux and selinux.is_selinux_enabled() == 1:
        code, context = selinux.matchpathcon(str(path), incoming.stat().st_mode)
        if code == 0:
            selinux.lsetfilecon(str(incoming), context)


def overwrite(path: Path, incoming: Path, owner: str, group: str, mode: int) -> None:
    """Write over a file that is a mount of its own, which no rename can replace."""
    path.chmod(mode & 0o600)
    shutil.chown(path, owner, group)
    with path.open("wb") as written:
        written.write(incoming.read_bytes())
        written.flush()
        os.fsync(written.fileno())
    path.chmod(mode)


def can_check(file: File, image: str | None) -> bool:
    """Tell whether what checks a file is there."""
    if image and not has_image(image):
        return False
    programs = [command.split()[0] for command in file.validate]
    return all(shutil.which(program) for program in programs if not image or program.startswith("/opt/"))


def what_a_removal_asks(files: list[File], pattern: Path | None = None) -> str:
    """Return what a file that is removed asks of the unit: the same as the files that stay and match its pattern."""
    beside = [file.on_change for file in files if pattern and fnmatch(str(file.path), str(pattern))]
    if beside:
        return max(beside, key=CHANGES.index)
    # Who can reload what is changed can reload what is gone.
    return "reload" if any(file.on_change == "reload" for file in files) else "restart"


def put_in_place(  # noqa: PLR0913 - one host's files, and how they are handled
    files: list[File],
    absent: list[Path],
    unit: str,
    check_mode: bool,
    *,
    image: str | None = None,
    announce: Callable[[Mapping[str, list[Path]]], None] = lambda _: None,
) -> tuple[dict[str, str], list[dict[str, str]], list[Copy]]:
    """Bring all files into the wanted state.

    Before the first one moves, `announce` is told of the paths, by the unit that reads them.
    Return what each unit has to do to read anew, Ansible's diffs, and what was there before.
    """
    different = [file for file in files if file.differs()]
    wanted = {file.path for file in files}
    found = {Path(name): path for path in absent for name in sorted(glob.glob(str(path)))}
    superfluous = {path: what_a_removal_asks(files, pattern) for path, pattern in found.items() if path not in wanted}
    unread = [path for path, change in superfluous.items() if change != "none"]
    changes = [(file.reader, file.on_change) for file in different if file.reader]
    changes += [(unit, superfluous[path]) for path in unread]
    stale: dict[str, str] = dict(sorted(changes, key=lambda change: CHANGES.index(change[1])))
    moving = {one: [file.path for file in different if file.reader == one] for one in stale}
    diffs = [file.diff() for file in different] + [diff_of_absent(path) for path in superfluous]
    copies = [Copy.of(path) for path in (*(file.path for file in different), *superfluous)]
    with tempfile.TemporaryDirectory(prefix="systemd-app-") as name:
        folder = Path(name)
        staged = {str(file.path): stage(file, folder) for file in (files if different else [])}
        # Another image may refuse what the last one took. Its name is in the unit.
        is_other_image = image and any(file.path.parent == UNIT_FOLDER for file in different)
        for file in files if is_other_image else different:
            # Before the first installation the program that would check the file isn't there yet.
            if file.validate and not (check_mode and not can_check(file, image)):
                check(file, staged[str(file.path)], folder, image)
        for file in (file for file in different if file.path.parent == UNIT_FOLDER):
            check_unit(file, staged[str(file.path)])
            if not check_mode:  # other roles may create it in the same run
                check_groups(file)
        if not check_mode and diffs:
            announce({**moving, unit: moving.get(unit, []) + unread})
            for file in different:
                move_in(file, staged[str(file.path)])
            for path in superfluous:
                path.unlink()
    return stale, diffs, copies
