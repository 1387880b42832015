"""What all unit tests need."""

from __future__ import annotations

import os
import syslog
from pathlib import Path

import pytest
from ansible_collections.logstead.platform.plugins.module_utils import check_memory, systemd_app_state
from fake_systemd import Systemd


@pytest.fixture(autouse=True)
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the units' states, which is the test's own."""
    folder = tmp_path / "states"
    monkeypatch.setattr(systemd_app_state, "FOLDER", folder)
    monkeypatch.setattr(check_memory, "FOLDER", folder / "checks")
    return folder


@pytest.fixture(autouse=True)
def host_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What modules write to the host's log, which isn't that of the machine that runs the tests."""
    written: list[str] = []

    def write(_priority: int, text: str) -> None:
        if not text.startswith("Invoked with "):  # Ansible's own line
            written.append(text)

    monkeypatch.setattr(syslog, "syslog", write)
    return written


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A systemctl and a journalctl, before the real ones on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Systemd(folder)
