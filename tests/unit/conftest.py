"""What all unit tests need."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import syslog
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.logstead.platform.plugins.module_utils import check_memory, systemd_app_state
from fake_systemd import Systemd

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.hosts.cache import CACHE  # noqa: E402 - from the repository's root

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
VERSIONS = {
    name: version
    for role in ("loki", "prometheus", "alertmanager")
    for name, version in yaml.safe_load((REPOSITORY / f"roles/{role}/defaults/main.yml").read_text()).items()
}


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


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lokitool, promtool and amtool, of the pinned releases."""
    folder = tmp_path_factory.mktemp("programs")
    mirror = CACHE / "mirror/github.com"
    loki = mirror / f"grafana/loki/releases/download/v{VERSIONS['loki_version']}/lokitool-linux-{ARCHITECTURE}.zip"
    with zipfile.ZipFile(loki) as content:
        content.extract(loki.stem, folder)
    (folder / loki.stem).rename(folder / "lokitool")
    for suite, program in (("prometheus", "promtool"), ("alertmanager", "amtool")):
        version = VERSIONS[f"{suite}_version"]
        name = f"{suite}-{version}.linux-{ARCHITECTURE}"
        archive = mirror / f"prometheus/{suite}/releases/download/v{version}/{name}.tar.gz"
        subprocess.run(["tar", "-xzf", archive, "-C", folder, f"{name}/{program}"], check=True)
        (folder / name / program).rename(folder / program)
    for program in ("lokitool", "promtool", "amtool"):
        (folder / program).chmod(0o755)
    return folder
