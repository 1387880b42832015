"""The databases of a program: copied before another release starts, and restored if that one does not become ready."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_databases as module
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_state as state
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_current import current_release, point
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_unit import UnitError
from ansible_collections.logstead.platform.plugins.modules import systemd_app

pytestmark = pytest.mark.usefixtures("systemd")
UNIT = "toy.service"


class Toy:
    """A program with two releases and a database, which each release writes at its start."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opt, self.database = folder / "opt", folder / "lib" / "toy.db"
        self.database.parent.mkdir()
        for version in ("1.0", "2.0"):
            (self.opt / "toy" / version).mkdir(parents=True)
        self.works = {"1.0", "2.0"}
        self.actions: list[str] = []
        self.timeouts: list[int] = []
        self.migrates: Callable[[], None] = lambda: None
        monkeypatch.setattr(systemd_app, "carry_out", self.carry_out)
        monkeypatch.setattr(systemd_app, "wait_until_ready", self.wait_until_ready)

    @property
    def version(self) -> str:
        """The current release."""
        return current_release(self.opt / "toy")["version"]

    def carry_out(self, unit: str, action: str) -> None:
        """Act as systemd does, and have the release write its database."""
        assert unit == UNIT
        self.actions.append(action)
        if action in ("start", "restart"):
            self.database.write_text(f"{self.database.read_text()}opened by {self.version}\n")
            self.migrates()

    def wait_until_ready(self, _unit: str, _url: str, _body: str, timeout: int, _ca: str | None = None) -> None:
        """Become ready at once, or not at all."""
        self.timeouts.append(timeout)
        if self.version not in self.works:
            raise UnitError("it does not become ready")

    def install(self, version: str) -> dict[str, Any]:
        """Run the module with a release."""
        if current_release(self.opt / "toy").get("version") != version:
            point(self.opt / "toy" / "current", version)
        parameters: dict[str, Any] = {
            "unit": UNIT,
            "files": [],
            "absent": [],
            "reads": [str(self.opt / "toy/current")],
            "image": None,
            "root": str(self.opt),
            "ready_url": "http://127.0.0.1:1/",
            "ready_body": "",
            "ready_ca": None,
            "ready_timeout": 30,
            "upgrade_timeout": 600,
            "databases": [str(self.database)],
            "reload_check": None,
            "fingerprint": version,
        }
        self.actions, self.timeouts = [], []
        return systemd_app.converge(parameters, check_mode=False)

    def copies(self) -> list[str]:
        """Return the content of each copy, the oldest first."""
        folders = sorted(module.copies_folder(UNIT).glob("*"), key=lambda path: path.stat().st_mtime)
        return [(folder / "toy.db").read_text() for folder in folders]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A program that runs its first release."""
    toy = Toy(tmp_path, monkeypatch)
    toy.database.write_text("")
    toy.install("1.0")
    assert toy.copies() == [], "the first release has nothing to copy"
    return toy


def test_the_database_is_copied_while_the_service_is_stopped_and_kept_for_root(toy: Toy) -> None:
    before = toy.database.read_text()
    toy.install("2.0")
    assert toy.actions == ["stop", "restart"]
    assert toy.copies() == [before]
    assert module.copies_folder(UNIT).stat().st_mode & 0o777 == 0o700
    assert toy.timeouts == [600], "another release may have to migrate its data"
    toy.install("2.0")
    assert toy.actions == []
    assert toy.timeouts == [30]


def test_a_release_that_does_not_become_ready_leaves_the_database_as_it_was(toy: Toy) -> None:
    before = toy.database.read_text()
    toy.database.chmod(0o640)
    toy.works = {"1.0"}
    toy.migrates = lambda: Path(f"{toy.database}-wal").write_text(toy.version) if toy.version == "2.0" else None  # type: ignore[assignment]
    with pytest.raises(UnitError, match="What ran before was put back and runs again"):
        toy.install("2.0")
    assert toy.version == "1.0"
    assert toy.database.read_text() == f"{before}opened by 1.0\n"
    assert toy.database.stat().st_mode & 0o777 == 0o640
    assert not Path(f"{toy.database}-wal").exists(), "it belongs to the other release"
    assert [path.name for path in toy.database.parent.iterdir()] == ["toy.db"]


def test_an_interrupted_run_is_completed_with_the_first_copy(toy: Toy) -> None:
    before = toy.database.read_text()

    def interrupt() -> None:
        raise KeyboardInterrupt

    toy.migrates = interrupt
    with pytest.raises(KeyboardInterrupt):
        toy.install("2.0")
    toy.migrates, toy.works = lambda: None, {"1.0"}
    with pytest.raises(UnitError):
        toy.install("2.0")
    assert toy.copies() == [before]
    assert toy.database.read_text() == f"{before}opened by 1.0\n"


def test_a_later_attempt_copies_what_has_been_written_since(toy: Toy) -> None:
    toy.works = {"1.0"}
    with pytest.raises(UnitError):
        toy.install("2.0")
    toy.database.write_text("written since\n")
    time.sleep(1.1)  # the copies' names have seconds
    with pytest.raises(UnitError):
        toy.install("2.0")
    assert toy.database.read_text() == "written since\nopened by 1.0\n"


def test_a_copy_that_fails_leaves_the_release_before_running(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "copy_file", fail)
    with pytest.raises(UnitError, match=r"(?s)can't be copied before 2\.0 starts .*No space left.*runs again"):
        toy.install("2.0")
    assert (toy.version, toy.actions[-1]) == ("1.0", "restart")
    assert toy.copies() == []


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_the_programs_user_put_in_its_place_is_not_copied(toy: Toy, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of root\n")
    wal = Path(f"{toy.database}-wal")
    if kind == "link":
        wal.symlink_to(secret)
    else:
        os.mkfifo(wal)
    with pytest.raises(UnitError, match="can't be copied"):
        toy.install("2.0")
    assert toy.version == "1.0"
    assert toy.copies() == []


def test_the_last_two_copies_remain(toy: Toy) -> None:
    folder = module.copies_folder(UNIT)
    for age, name in enumerate(("0.9", "0.8", "0.7"), 1):
        (folder / name).mkdir(parents=True)
        (folder / name / "toy.db").write_text(name)
        os.utime(folder / name, (time.time() - age * 60,) * 2)
    before = toy.database.read_text()
    toy.install("2.0")
    assert toy.copies() == ["0.9", before]
    assert "copied" not in state.read_state(UNIT)
