"""The module systemd_app_facts: what a run has to know of the host, and the same that setup says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import current_release

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.modules import systemd_app_facts as module

SUBSETS = "!all,!min,distribution,platform,python,systemd"


def facts(capsys: pytest.CaptureFixture[str], root: Path, *users: str) -> dict[str, Any]:
    """Run the module as Ansible does; return its facts."""
    with patch_module_args({"root": str(root), "users": list(users)}), pytest.raises(SystemExit):
        module.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["ansible_facts"]
    return found


def test_the_host_is_told_of_as_setup_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["ansible", "localhost", "-m", "ansible.builtin.setup", "-a", f"gather_subset={SUBSETS}"]
    python = ["-e", f"ansible_python_interpreter={sys.executable}"]
    env = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "NO_COLOR": "1"}
    printed = subprocess.run([*command, *python], capture_output=True, text=True, check=True, env=env).stdout
    setup = json.loads(printed[printed.index("{") :])["ansible_facts"]
    found = facts(capsys, tmp_path)
    assert found["distribution"] == setup["ansible_distribution"]
    assert found["distribution_version"].split(".")[0] == setup["ansible_distribution_version"].split(".")[0]
    assert found["python_version"] == setup["ansible_python_version"]
    assert found["python"]["version"].items() <= setup["ansible_python"]["version"].items()
    assert found["systemd"].get("version") == setup.get("ansible_systemd", {}).get("version")


@pytest.mark.parametrize(("booted", "found"), [(True, {"version": 257}), (False, {})])
def test_a_host_has_systemd_if_it_runs_it(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    booted: bool,
    found: dict[str, int],
) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'systemd 257 (257.8-1~deb13u2)'\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "BOOTED", tmp_path if booted else tmp_path / "run/systemd/system")
    assert facts(capsys, tmp_path)["systemd"] == found


def test_users_that_the_host_lacks_are_told_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert facts(capsys, tmp_path, "root", "nobody-has-this-name")["unknown_users"] == ["nobody-has-this-name"]


@pytest.mark.parametrize(("capabilities", "found"), [("000001ffffffffff", True), ("00000000a80425fb", False)])
def test_root_of_a_container_may_lack_what_nftables_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: str, found: bool
) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython3\nCapPrm:\tffff\nCapEff:\t{capabilities}\nSeccomp:\t0\n")
    monkeypatch.setattr(module, "STATUS", tmp_path / "status")
    assert facts(capsys, tmp_path)["has_net_admin"] is found


def test_releases_are_told_of_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # Also those of a program's own tools.
    for name, origin in (("loki", f"{'0' * 64}\n"), ("loki/lokitool", None), ("demo-app", None)):
        (tmp_path / name / "1.0").mkdir(parents=True)
        if origin:
            (tmp_path / name / "1.0/.sha256").write_text(origin)
        (tmp_path / name / "current").symlink_to("1.0")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/current").symlink_to("gone")
    (tmp_path / "foreign/current").mkdir(parents=True)
    assert current_release(tmp_path / "broken") == {}
    assert facts(capsys, tmp_path)["systemd_app_releases"] == {
        "loki": {"version": "1.0", "sha256": "0" * 64},
        "lokitool": {"version": "1.0"},
        "demo-app": {"version": "1.0"},
    }


def test_a_release_unpacked_again_since_it_became_current_has_no_archive(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "loki/1.0").mkdir(parents=True)
    (tmp_path / "loki/current").symlink_to("1.0")
    (tmp_path / "loki/1.0/.sha256").write_text("0" * 64)
    later = (tmp_path / "loki/current").lstat().st_mtime + 1
    os.utime(tmp_path / "loki/1.0/.sha256", (later, later))
    assert facts(capsys, tmp_path)["systemd_app_releases"] == {"loki": {"version": "1.0"}}
