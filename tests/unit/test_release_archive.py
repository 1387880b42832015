"""Tests of the archive that a release is installed from, built from what git has and from nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = "logstead.platform"
NEEDED = ["LICENSE", "README.md", "CHANGELOG.md", "meta/runtime.yml", "requirements.yml", "demo_app/pyproject.toml"]
# Folders of which every file that git has is needed.
NEEDED_FOLDERS = ["roles", "plugins", "playbooks", "demo_app/src", "requirements"]
SUPERFLUOUS = ["tests", "molecule", "collections", "dashboards", "demo_app/tests", "galaxy.yml", "Makefile"]
# What would be left behind by work in a checkout, and must not reach an archive that is built from it.
JUNK = [
    ".git/config",
    ".venv/bin/python",
    ".ansible/roles",
    ".mypy_cache/cache.json",
    "plugins/modules/__pycache__/systemd_app.cpython-313.pyc",
    "demo_app/.pytest_cache/README.md",
    "demo_app/src/demo_app.egg-info/PKG-INFO",
    "logstead-platform-0.0.1.tar.gz",
    "group_vars/prod/vault.yml",
]


def ansible(*command: str, folder: Path, collections: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of Ansible in a folder, without the settings and collections of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(collections.parent / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def tracked() -> list[str]:
    """Return the files that git has, as they are in the working tree."""
    shown = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in shown.split("\0") if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the archive from a clean copy, into which the traces of work were put."""
    folder = tmp_path_factory.mktemp("release")
    copy = folder / "copy"
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    for name in JUNK:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("junk\n")
    built = ansible(
        "ansible-galaxy", "collection", "build", "--output-path", str(folder), folder=copy, collections=folder / "none"
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def names(archive: Path) -> set[str]:
    """Return the names of what is in the archive, without folders."""
    with tarfile.open(archive) as packed:
        return {member.name for member in packed.getmembers() if not member.isdir()}


def test_what_playbooks_need_is_in_the_archive(names: set[str]) -> None:
    needed = {name for name in tracked() if name.startswith(tuple(f"{folder}/" for folder in NEEDED_FOLDERS))}
    assert {name.partition("/")[0] for name in needed} >= {"roles", "plugins", "playbooks"}
    assert not {*needed, *NEEDED} - names


def test_what_they_do_not_need_is_not(names: set[str]) -> None:
    assert not [name for name in names for left in SUPERFLUOUS if name == left or name.startswith(f"{left}/")]
    assert sorted(names & set(JUNK)) == []
    hidden = {name for name in names if re.search(r"(^|/)\.|__pycache__|\.egg-info|\.pyc$", name)}
    assert not hidden


def test_nothing_in_the_archive_leads_out_of_it(archive: Path, names: set[str]) -> None:
    with tarfile.open(archive) as packed:
        links = {member.name: member.linkname for member in packed.getmembers() if member.issym()}
    targets = [os.path.normpath(Path(name).parent / target) for name, target in links.items()]
    assert [target for target in targets if not any(f"{name}/".startswith(f"{target}/") for name in names)] == []


def test_the_version_is_the_newest_one_of_the_changelog(archive: Path) -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    dated = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert dated[0] == version
    assert re.search(rf"^\[{re.escape(version)}\]: https://\S+/v{re.escape(version)}$", changelog, re.MULTILINE)
    assert archive.name == f"logstead-platform-{version}.tar.gz"


def test_the_guide_installs_the_newest_version() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    guide = (ROOT / "docs/upgrading.md").read_text()
    named = re.findall(r"(?:\.git,v|platform-|version: v)(\d+\.\d+\.\d+)", guide)
    assert len(named) >= 4
    assert set(named) == {version}


def test_what_is_installed_runs_every_playbook_by_name_from_an_empty_folder(archive: Path, tmp_path: Path) -> None:
    collections, elsewhere, inventory = (tmp_path / name for name in ("collections", "elsewhere", "inventory"))
    elsewhere.mkdir()
    inventory.mkdir()
    (inventory / "hosts.yml").write_text("loki: {hosts: {log1.example.org: }}\n")
    install = ["ansible-galaxy", "collection", "install", str(archive), "-p", str(collections), "--offline"]
    installed = ansible(*install, folder=elsewhere, collections=collections)
    assert installed.returncode == 0, installed.stderr
    playbooks = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    assert "site" in playbooks
    checked = ansible(
        "ansible-playbook",
        *(f"{NAME}.{playbook}" for playbook in playbooks),
        *("--syntax-check", "-i", str(inventory)),
        folder=elsewhere,
        collections=collections,
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("playbook: ") == len(playbooks)
    # Not one of those in this checkout.
    assert str(ROOT) not in checked.stdout
    assert not list(elsewhere.iterdir())
