# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module systemd_app that copies a program's databases before another release changes them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_state

KEEP = 2  # copies of each unit
SUFFIXES = ("", "-journal", "-wal", "-shm")  # SQLite's files of one database


def copies_folder(unit: str) -> Path:
    """Return where the copies of a unit are: not in its own directory, where its user could replace them."""
    return systemd_app_state.FOLDER / "databases" / unit


def copy_databases(unit: str, databases: Iterable[str], release: str) -> Path:
    """Copy the databases of a unit that is stopped, named after the release that they belong to; return the folder.

    Raises:
        OSError: There is no space for them, for example.
    """
    label = re.sub(r"[^\w.-]+", "_", release)
    folder = copies_folder(unit) / f"{label}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copies_folder(unit).chmod(0o700)
    try:
        for source in files_of(databases):
            copy_file(source, folder / source.name)
    except OSError:
        shutil.rmtree(folder)
        raise
    return folder


def restore_databases(databases: Iterable[str], folder: Path) -> None:
    """Have the databases of a unit that is stopped as they were copied.

    Raises:
        OSError: A file can't be written; the copy remains.
    """
    for database in databases:
        for suffix in SUFFIXES:
            path = Path(f"{database}{suffix}")
            copy = folder / path.name
            if not copy.is_file():
                path.unlink(missing_ok=True)
                continue
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            os.close(handle)
            copy_file(copy, Path(name))
            Path(name).replace(path)


def remove_old_copies(unit: str) -> None:
    """Remove all copies of a unit but the newest ones."""
    found = sorted(copies_folder(unit).glob("*"), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEEP]:
        shutil.rmtree(path)


def files_of(databases: Iterable[str]) -> list[Path]:
    """Return the files of the databases that exist."""
    paths = [Path(f"{database}{suffix}") for database in databases for suffix in SUFFIXES]
    return [path for path in paths if path.exists()]


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file with its owner and mode, and have it on disk."""
    # The program's user owns the directory: a link or a FIFO there must not make root read something else.
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as content:
        status = os.fstat(content.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{source} is not a regular file")
        with target.open("wb") as copy:
            shutil.copyfileobj(content, copy, 1 << 20)
            os.fchown(copy.fileno(), status.st_uid, status.st_gid)
            os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
            copy.flush()
            os.fsync(copy.fileno())
