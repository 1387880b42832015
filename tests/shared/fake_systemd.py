"""A systemctl that only pretends."""

from __future__ import annotations

import time
from pathlib import Path

# `systemctl show` prints the properties; whatever else is asked of it is written down, and refused if the test says so.
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> asked
if [ -e refused ] && [ "$1" = "$(cat refused)" ]; then echo "refused by the test" >&2; exit 1; fi
if [ "$1" = show ]; then
  cat properties
  # The second unit and all others, after an empty line each.
  shift 2; while [ "${1#--}" = "$1" ]; do echo; cat other-properties; shift; done
fi
"""
JOURNALCTL = """#!/bin/sh
echo "2026-11-23 toy[1]: what is left of the journal of $2"
"""


class Systemd:
    """The unit's properties, as systemctl shows them, and what was asked of systemctl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.properties = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "ActiveEnterTimestampMonotonic": "0",
            "UnitFileState": "enabled",
            "NeedDaemonReload": "no",
            "ExecMainStartTimestampMonotonic": "0",
            "NRestarts": "0",
            "Result": "success",
            "InvocationID": "1",
            "MainPID": "1",
        }
        self.started(seconds_ago=60)
        self.others_have()
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def has(self, **properties: str) -> None:
        """Let the unit have other properties."""
        self.properties |= properties
        (self.folder / "properties").write_text("".join(f"{name}={text}\n" for name, text in self.properties.items()))

    def started(self, seconds_ago: float) -> None:
        """Let the unit's process have been started then, by somebody else."""
        monotonic = time.clock_gettime(time.CLOCK_MONOTONIC) - seconds_ago
        self.has(ExecMainStartTimestampMonotonic=str(int(monotonic * 1e6)), InvocationID=f"{monotonic:.6f}")

    def others_have(self, **properties: str) -> None:
        """Let all units but the first that is asked for have such properties."""
        lines = {**self.properties, **properties}
        (self.folder / "other-properties").write_text("".join(f"{name}={text}\n" for name, text in lines.items()))

    def refuses(self, command: str) -> None:
        """Let systemctl fail for one of its commands."""
        (self.folder / "refused").write_text(command)

    def asked(self) -> list[str]:
        """Return what systemctl was asked to do, without the looking."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if not line.startswith("show ")]
