# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module systemd_app that has a unit enabled, running what is on disk now, and ready."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
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
        "ExecMainStartTimestampMonotonic,NRestarts,Result"
    )
    shown = systemctl("show", *units, f"--property={names}")
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]


def started_at(properties: dict[str, str]) -> float:
    """Return when the unit's process, or the timer itself, was started, in seconds since the epoch."""
    started = properties.get("ExecMainStartTimestampMonotonic") or properties["ActiveEnterTimestampMonotonic"]
    return time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - int(started) / 1e6)


def changed_at(path: str) -> float:
    """Return when a file, or a link itself, was last put in place, in seconds since the epoch; 0 if it isn't there."""
    try:
        return Path(path).lstat().st_ctime
    except FileNotFoundError:
        return 0.0


def journal_of(unit: str) -> str:
    """Return the end of the unit's journal."""
    command = ["journalctl", "--unit", unit, "--lines", str(JOURNAL_LINES), "--no-pager", "--output", "short-iso"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def answer_of(url: str, ca: str | None = None) -> tuple[bool, str]:
    """Return whether an address answers without an error, and what it answers or why it doesn't."""
    try:
        # The service is on this host: no proxy is in between.
        verified = [HTTPSHandler(context=ssl.create_default_context(cafile=ca))] if ca else []
        with build_opener(ProxyHandler({}), *verified).open(url, timeout=5) as response:
            body: str = response.read(65536).decode(errors="replace")
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


def needed_actions(unit: str, companions: Iterable[str], reads: Iterable[str], restart: bool) -> list[str]:
    """Return what has to be done, in order; `companions` are units that only have to be loaded as they are on disk."""
    properties, *others = properties_of(unit, *companions)
    actions = []
    if any(one["NeedDaemonReload"] == "yes" or one["LoadState"] != "loaded" for one in (properties, *others)):
        actions.append("reload")
    # A static unit has nothing to enable: others start it.
    if properties["UnitFileState"] not in ("enabled", "static"):
        actions.append("enable")
    if properties["ActiveState"] not in ("active", "reloading"):
        actions.append("start")
    elif restart or started_at(properties) < max(map(changed_at, reads), default=0.0):
        actions.append("restart")
    return actions


def carry_out(unit: str, action: str) -> None:
    """Carry out one action."""
    if action == "reload":
        systemctl("daemon-reload")
    elif action == "enable":
        systemctl("enable", unit)
    elif action == "stop":
        systemctl("stop", unit)
    else:
        # A unit that has given up earlier gets a fresh count of its tries; for one that hasn't, this fails.
        subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
        try:
            systemctl("restart", unit)
        except UnitError as error:
            raise UnitError(f"{error} Its journal ends:\n{journal_of(unit)}") from error
