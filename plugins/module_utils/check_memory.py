# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What the checks of a host remember: with which arguments they were passed, and what they read for that."""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_state import stamp, write_private

FOLDER = Path("/var/lib/logstead/checks")


def stamps_of(patterns: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file that matches a pattern; a path that nothing is at has an empty one."""
    return {path: stamp(path)[0] for pattern in patterns for path in sorted(glob.glob(pattern)) or [pattern]}


def remember(component: str, check: str, fingerprint: str, patterns: list[str], result: dict[str, Any]) -> None:
    """Remember that a check was passed, for as long as the files that match the patterns are as they are now.

    Args:
        component: Name of the component that it is a check of, with which it is forgotten.
        check: Name of the module.
        fingerprint: Of the module's arguments.
        patterns: What the check has read; wildcards are allowed.
        result: What the module returns.
    """
    record = {"fingerprint": fingerprint, "files": stamps_of(patterns), "patterns": patterns, "result": result}
    write_private(FOLDER / f"{component}.json", {"check": check, **record})


def passed_checks() -> dict[str, dict[str, Any]]:
    """Return `fingerprint` and `result` of each check that still holds, by the module's name."""
    passed = {}
    for path in FOLDER.glob("[!.]*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text())
            if stamps_of(record["patterns"]) == record["files"]:
                passed[str(record["check"])] = {name: record[name] for name in ("fingerprint", "result")}
    return passed
