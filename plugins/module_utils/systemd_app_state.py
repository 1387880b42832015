# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What the module systemd_app remembers of a unit: what was put in place, and what its process has loaded of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path("/var/lib/logstead")
# What a change of a file asks of the unit that reads it, the weaker first.
CHANGES = ("none", "reload", "restart")

State = dict[str, Any]
# What is at a path, and which file that is: the same content may have been written again.
Stamp = list[str]


def stamp(path: str | Path) -> Stamp:
    """Return the digest of what is at a path with its owner and mode, and the file's identity; empty if nothing is.

    A link is told by where it points to and when it was made, for what it points to may have been made anew.
    """
    path = Path(path)
    try:
        own = path.lstat()
        # Without the device, whose number may be another one after a boot.
        identity = f"{own.st_ino}:{own.st_ctime_ns}"
        if path.is_symlink():
            return [f"-> {os.readlink(path)} {own.st_mtime_ns}", identity]
        content = str(own.st_mtime_ns) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ["", ""]
    return [f"{content} {own.st_uid}:{own.st_gid} {own.st_mode & 0o7777:04o}", identity]


def state_path(unit: str) -> Path:
    """Return where a unit's state is kept."""
    return FOLDER / f"{unit}.json"


def read_state(unit: str) -> State:
    """Return what is remembered of a unit; nothing if it can't be read."""
    with contextlib.suppress(OSError, ValueError):
        state = json.loads(state_path(unit).read_text())
        if isinstance(state, dict):
            return state
    return {}


def read_states() -> dict[str, State]:
    """Return what is remembered of all units."""
    return {path.stem: read_state(path.stem) for path in sorted(FOLDER.glob("[!.]*.json"))}


def write_state(unit: str, state: State) -> None:
    """Remember a unit's state."""
    write_private(state_path(unit), state)


def write_private(path: Path, state: State) -> None:
    """Write a state whole or not at all, for root alone: it has digests of secrets."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    text = json.dumps(state, indent=1, sort_keys=True)
    new = path.with_name(f".{path.name}-new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def forget(state: State, moving: Mapping[str, Iterable[Path]]) -> None:
    """Remember that nobody knows what a unit's process has of its files that are moving, until it has loaded them."""
    state.pop("fingerprint", None)
    for unit, paths in moving.items():
        known = state.setdefault("loaded", {}).setdefault(unit, {"process": "", "files": {}})
        known["files"].update({str(path): ["unknown", "unknown"] for path in paths})


def remember_loaded(state: State, unit: str, process: str, paths: Iterable[str]) -> None:
    """Remember that the unit's process has loaded what is on disk now."""
    state.setdefault("loaded", {})[unit] = {"process": process, "files": {path: stamp(path) for path in paths}}


def needed_change(
    loaded: Mapping[str, Any] | None, process: str, started: float, reads: Mapping[str, str], otherwise: str
) -> str:
    """Return what is needed for a process to have loaded what is on disk: `restart`, `reload` or `none`.

    Args:
        loaded: What is remembered of the unit's process.
        process: The invocation that runs now. In the one that is remembered, other content is what counts. One that
            was started since by somebody else has loaded the same as long as no file was written since.
        started: When it was started, for files of which nothing is remembered.
        reads: What a change of each file asks for.
        otherwise: What one of any other file does, such as one that was removed.
    """
    files: Mapping[str, Stamp] = (loaded or {}).get("files", {})
    parts = 1 if loaded and loaded.get("process") == process else 2
    needed = "none"
    for path in {**files, **reads}:
        is_stale = stamp(path)[:parts] != files[path][:parts] if path in files else changed_at(path) > started
        if is_stale:
            needed = max(needed, reads.get(path, otherwise), key=CHANGES.index)
    return needed


def changed_at(path: str) -> float:
    """Return when a file, or a link itself, was last put in place, in seconds since the epoch; 0 if it isn't there."""
    try:
        return Path(path).lstat().st_ctime
    except FileNotFoundError:
        return 0.0
