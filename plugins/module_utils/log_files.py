# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""How modules that run as root read logs: whoever owns a log's folder may put anything there."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

TAIL_BYTES = 1 << 20
# What moves a terminal's cursor, changes its colours or its title, or turns text around; not the end of a line, and no
# tabulator.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
WILDCARD = re.compile(r"[*?\[{]")


def printable(text: str) -> str:
    """Return a text of which no character can do anything to a terminal: such are shown as escapes."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode(), text)


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading, whatever its owner may have put in its place.

    Below the path's first two folders no link is followed. doctor and logs open logs alike; a test compares.

    Raises:
        OSError: It can't be read, leads through a link, is no regular file, or is another owner's by a hard link.
    """
    flags, where = os.O_CLOEXEC | os.O_NOFOLLOW, Path(*path.parts[: min(3, len(path.parts) - 1)])
    folder = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.parts[len(where.parts) : -1]:
            where = where / name
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = below
        where, owner = path, os.fstat(folder).st_uid
        # A pipe would wait for its writer.
        file = os.open(path.name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, dir_fd=folder)
    except OSError as error:
        is_link = error.errno in (errno.ELOOP, errno.ENOTDIR) and where.is_symlink()
        problem = "a symbolic link, which is not followed" if is_link else error.strerror
        raise OSError(error.errno, problem, str(where)) from error
    finally:
        os.close(folder)
    status, problem = os.fstat(file), ""
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file"
    elif status.st_nlink > 1 and status.st_uid != owner:
        problem = "a hard link to a file of another owner"
    if problem:
        os.close(file)
        raise OSError(errno.EINVAL, problem, str(path))
    return os.fdopen(file, "rb")


def tail_of(path: Path) -> list[bytes]:
    """Return the last whole lines of a log, of at most a megabyte."""
    with open_log(path) as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
        file.seek(start)
        lines = file.read(TAIL_BYTES).split(b"\n")
    # What follows the last end of a line is being written.
    return [line for line in lines[1 if start else 0 : -1] if line.strip()]


def as_regex(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for a path pattern of Promtail's: `**`, `*`, `?`, `[…]` and `{a,b}`."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")"}
    depth, out = 0, ""
    for word in re.findall(r"\*\*/|\*\*|\[[^]]+\]|.", pattern):
        depth += (word == "{") - (word == "}")
        if word == "," and depth:
            out += "|"
        elif word.startswith("[") and len(word) > 2:
            out += word.replace("[!", "[^")
        else:
            out += parts.get(word, re.escape(word))
    return re.compile(out)


def matches_of(pattern: str, exclude: str = "") -> list[Path]:
    """Return what is there under a name that matches, files or not; no link to a folder is followed."""
    wanted, unwanted = as_regex(pattern), as_regex(exclude) if exclude else None
    prefix = WILDCARD.split(pattern, maxsplit=1)[0]
    names = [pattern]
    if prefix != pattern:
        has_folders = WILDCARD.search(pattern.rpartition("/")[0])
        names = []
        for folder, folders, files in os.walk(prefix.rpartition("/")[0] or "/"):
            # Links to folders are among the folders.
            names += [os.path.join(folder, name) for name in (*files, *folders)]
            if not has_folders:
                folders.clear()
    found = [name for name in names if wanted.fullmatch(name) and not (unwanted and unwanted.fullmatch(name))]
    return sorted(Path(name) for name in found if os.path.lexists(name))


def problem_of_log(path: Path) -> str:
    """Return why a log isn't read though it is there; empty if it is, or is a folder."""
    try:
        open_log(path).close()
    except FileNotFoundError:
        return ""  # rotated meanwhile
    except OSError as error:
        is_folder = path.is_dir() and not path.is_symlink()
        return "" if is_folder else f"{error.filename} is {error.strerror}"
    return ""
