# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module systemd_app that has a unit enabled, running what is on disk now, and ready."""

from __future__ import annotations

import contextlib
import re
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

POLL_SECONDS = 0.3
JOURNAL_LINES = 40


class UnitError(Exception):
    """Says what the unit does instead of running, with the end of its journal."""


def systemctl(*arguments: str) -> str:
    """Run systemctl; raise UnitError with its words if it fails."""
    result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UnitError(f"`systemctl {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


def properties_of(*units: str) -> list[dict[str, str]]:
    """Return what systemd says of each unit. A timer has fewer of the properties than a service."""
    names = (
        "LoadState,ActiveState,UnitFileState,NeedDaemonReload,ActiveEnterTimestampMonotonic,"
        "ExecMainStartTimestampMonotonic,NRestarts,Result,InvocationID,MainPID"
    )
    shown = systemctl("show", *units, f"--property={names}")
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]


def started_at(properties: dict[str, str]) -> float:
    """Return when the unit's process, or the timer itself, was started, in seconds since the epoch."""
    started = properties.get("ExecMainStartTimestampMonotonic") or properties["ActiveEnterTimestampMonotonic"]
    return time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - int(started) / 1e6)


def journal_of(unit: str) -> str:
    """Return the end of the unit's journal."""
    command = ["journalctl", "--unit", unit, "--lines", str(JOURNAL_LINES), "--no-pager", "--output", "short-iso"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def answer_of(url: str, ca: str | None = None, timeout: float = 5) -> tuple[bool, str]:
    """Return whether an address answers without an error, and what it answers or why it doesn't."""
    try:
        # The service is on this host: no proxy is in between.
        verified = [HTTPSHandler(context=ssl.create_default_context(cafile=ca))] if ca else []
        with build_opener(ProxyHandler({}), *verified).open(url, timeout=timeout) as response:
            body: str = response.read(1 << 22).decode(errors="replace")
            return True, body
    except HTTPError as error:
        return False, f"{error.code}: {error.read(300).decode(errors='replace').strip()}"
    except (OSError, HTTPException, ValueError) as error:
        return False, f"no answer ({error})"


def wait_until_ready(unit: str, url: str, body: str, timeout: int, ca: str | None = None) -> None:
    """Poll until the service answers as it should; raise UnitError if it fails or the time is over."""
    deadline = time.monotonic() + timeout
    restarts = None
    while True:
        is_fine, answer = answer_of(url, ca)
        if is_fine and re.search(body, answer):
            return
        (properties,) = properties_of(unit)
        # Restarts of earlier days don't count.
        restarts = int(properties["NRestarts"] or 0) if restarts is None else restarts
        # A unit that restarts by itself would otherwise take all of the time to be called failed.
        if properties["ActiveState"] == "failed" or int(properties["NRestarts"] or 0) >= restarts + 3:
            problem = f"{unit} keeps ending (result: {properties['Result']})"
        elif time.monotonic() > deadline:
            problem = (
                f"{unit} is not ready after {timeout} s: {url} should answer /{body}/, but answers {answer[:300]!r}"
            )
        else:
            time.sleep(POLL_SECONDS)
            continue
        raise UnitError(f"{problem}. Its journal ends:\n{journal_of(unit)}")


def children_of(process: str) -> set[str]:
    """Return the ids of a process's children."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Name and brackets of the program, which may hold anything, come before.
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == process:
                found.add(path.parent.name)
    return found


def metric_of(text: str, name: str) -> float | None:
    """Return the value of a metric without labels, or None if it isn't told of."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


class ReloadWatch:
    """Sees whether a program takes its configuration: what it says of that is other than before.

    The new time is compared with the old one and not with the clock's, which may be set.
    """

    def __init__(self, unit: str, check: Mapping[str, Any]) -> None:
        """Remember what there is before the reload."""
        self.unit, self.check = unit, check
        self.before = self.look()

    def look(self) -> tuple[set[str], float | None, float | None]:
        """Return the program's workers, when it last took a configuration, and whether it took the last one."""
        if self.check["workers"]:
            (properties,) = properties_of(self.unit)
            return children_of(properties["MainPID"]), None, None
        _, text = answer_of(self.check["url"])
        return set(), metric_of(text, self.check["timestamp_metric"]), metric_of(text, self.check["success_metric"])

    def wait(self, timeout: int) -> None:
        """Poll until the program has taken it; raise UnitError if it refuses or the time is over."""
        deadline = time.monotonic() + timeout
        workers, at, was_fine = self.before
        while True:
            new_workers, new_at, is_fine = self.look()
            if new_workers - workers if self.check["workers"] else is_fine == 1 and new_at != at:
                return
            is_refused = was_fine == 1 and is_fine == 0
            if is_refused or time.monotonic() > deadline:
                problem = "refuses" if is_refused else f"has not taken within {timeout} s"
                raise UnitError(f"{self.unit} {problem} its new files. Its journal ends:\n{journal_of(self.unit)}")
            time.sleep(POLL_SECONDS)


def needed_actions(properties: Mapping[str, str], companions: Iterable[Mapping[str, str]], change: str) -> list[str]:
    """Return what has to be done, in order.

    Args:
        properties: What systemd says of the unit.
        companions: The same of units that only have to be loaded as they are on disk.
        change: What its process needs: `restart`, `reload` or `none`.
    """
    actions = []
    if any(one["NeedDaemonReload"] == "yes" or one["LoadState"] != "loaded" for one in (properties, *companions)):
        actions.append("daemon-reload")
    # A static unit has nothing to enable: others start it.
    if properties["UnitFileState"] not in ("enabled", "static"):
        actions.append("enable")
    if properties["ActiveState"] not in ("active", "reloading"):
        actions.append("start")
    elif change != "none":
        actions.append(change)
    return actions


def carry_out(unit: str, action: str) -> None:
    """Carry out one action."""
    if action == "daemon-reload":
        systemctl("daemon-reload")
    elif action in ("enable", "stop", "reload"):
        systemctl(action, unit)
    else:
        # A unit that has given up earlier gets a fresh count of its tries; for one that hasn't, this fails.
        subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
        try:
            systemctl("restart", unit)
        except UnitError as error:
            raise UnitError(f"{error} Its journal ends:\n{journal_of(unit)}") from error
