"""What all unit tests need."""

from __future__ import annotations

import os
from pathlib import Path

import ansible.module_utils
import pytest
from fake_systemd import Systemd

# Where Ansible finds what the modules of a role share.
for role in ("systemd_app", "grafana_org"):
    ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[2] / f"roles/{role}/module_utils"))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A systemctl and a journalctl, before the real ones on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Systemd(folder)
