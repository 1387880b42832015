"""What only whole hosts can do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support import eventually


def answers(host: Any) -> bool:
    """Tell whether the host can be logged in to."""
    try:
        return bool(host.run("true").rc == 0)
    except RuntimeError:  # what testinfra raises when ssh gets no connection
        return False


@pytest.fixture
def power_cycle() -> Callable[[Any], None]:
    """Return a function that cuts a host's power and starts it again."""

    def cycle(host: Any) -> None:
        name = host.check_output("hostname")
        environment = {**os.environ, "CONTAINERS_CONF": f"{os.environ['LOGSTEAD_CACHE']}/containers.conf"}
        for action in ("kill", "start"):
            subprocess.run(["podman", action, name], check=True, env=environment, stdout=subprocess.DEVNULL)
        eventually(lambda: answers(host), seconds=60)

    return cycle
