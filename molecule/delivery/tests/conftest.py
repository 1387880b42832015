"""What only whole hosts can do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support import eventually


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print each case's figures, also of those that pass."""
    terminalreporter.section("delivery", sep="-")
    for reports in (terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed")):
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {name}: {value}")


@pytest.fixture
def power_cycle() -> Callable[[Any], None]:
    """Return a function that cuts a host's power and starts it again."""

    def answers(host: Any) -> bool:
        try:
            return bool(host.run("true").rc == 0)
        except RuntimeError:  # what testinfra raises when ssh gets no connection
            return False

    def cycle(host: Any) -> None:
        name = host.check_output("hostname")
        environment = {**os.environ, "CONTAINERS_CONF": f"{os.environ['LOGSTEAD_CACHE']}/containers.conf"}
        for action in ("kill", "start"):
            subprocess.run(["podman", action, name], check=True, env=environment, stdout=subprocess.DEVNULL)
        eventually(lambda: answers(host), seconds=60)

    return cycle
