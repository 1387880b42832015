# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What a program's folder, such as /opt/loki, says of its current release."""

from __future__ import annotations

from pathlib import Path

# Lies in each release and remembers which archive it came from: the one way to notice that a pinned checksum changed.
ORIGIN = ".sha256"
# Points to the release that was the current one when the service last got ready.
PROVEN = ".proven"


def current_release(home: Path) -> dict[str, str]:
    """Return the `version` that `current` points to, and the `sha256` of the archive that it was unpacked from.

    Without `sha256` it was made from no archive, or unpacked again since it became the current one.
    """
    link = home / "current"
    if not (link.is_symlink() and link.is_dir()):
        return {}
    release, origin = {"version": str(link.readlink())}, link / ORIGIN
    # A release that was unpacked after the link was made needs a new one: then its service is restarted.
    if origin.is_file() and link.lstat().st_mtime_ns >= origin.stat().st_mtime_ns:
        release["sha256"] = origin.read_text().strip()
    return release


def point(link: Path, target: str) -> None:
    """Point a link somewhere else, in one step."""
    new = link.with_name(f".{link.name}-new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def remember_proven(home: Path) -> None:
    """Remember that the service got ready with the current release."""
    current, proven = home / "current", home / PROVEN
    if current.is_symlink() and not (proven.is_symlink() and proven.readlink() == current.readlink()):
        point(proven, str(current.readlink()))


def go_back_to_proven(home: Path) -> bool:
    """Make the release the current one with which the service last got ready; return whether that is another one."""
    current, proven = home / "current", home / PROVEN
    if not (current.is_symlink() and proven.is_dir()) or proven.readlink() == current.readlink():
        return False
    point(current, str(proven.readlink()))
    return True
