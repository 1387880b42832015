"""What lets a run without changes be short: fingerprints, and the one look at a host that tells which still hold."""

from __future__ import annotations

import grp
import json
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.action import systemd_app as action
from ansible_collections.logstead.platform.plugins.module_utils import check_memory
from ansible_collections.logstead.platform.plugins.plugin_utils import check_action, fingerprint
from fake_systemd import Systemd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.modules import systemd_app, systemd_app_facts

UNIT = "toy.service"
ARGUMENTS = {"unit": UNIT, "files": [{"path": "/etc/toy", "content": "text"}]}
SAME = fingerprint.fingerprint_of(ARGUMENTS)


# --- The fingerprint, and who looks at it ---


def test_a_fingerprint_is_of_what_is_asked_for_and_not_of_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint.fingerprint_of(ARGUMENTS)
    assert first == fingerprint.fingerprint_of(dict(reversed(ARGUMENTS.items())))
    assert first != fingerprint.fingerprint_of({**ARGUMENTS, "files": [{"path": "/etc/toy", "content": "texts"}]})
    assert first != fingerprint.fingerprint_of({**ARGUMENTS, "release": {"version": "2.0"}})
    monkeypatch.setattr(fingerprint, "collection_version", lambda: "0.0.1")
    assert first != fingerprint.fingerprint_of(ARGUMENTS)


def test_the_version_is_known_in_a_checkout_and_where_the_collection_is_installed(tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout/galaxy.yml").write_text("version: 1.2.3\n")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/MANIFEST.json").write_text('{"collection_info": {"version": "4.5.6"}}')
    assert fingerprint.collection_version(tmp_path / "checkout") == "1.2.3"
    assert fingerprint.collection_version(tmp_path / "installed") == "4.5.6"


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("known", "calls", "left"),
    [
        ({UNIT: fingerprint.fingerprint_of(ARGUMENTS)}, 0, None),
        ({UNIT: "another", "b.service": "x"}, 1, {"b.service": "x"}),
        ({"b.service": "x"}, 1, None),
        (None, 1, None),
    ],
)
def test_the_module_is_called_unless_the_fingerprint_holds(
    monkeypatch: pytest.MonkeyPatch, check_mode: bool, known: Any, calls: int, left: Any
) -> None:
    asked: list[dict[str, Any]] = []

    def execute(self: Any, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert (self, module_name, task_vars) == (plugin, "logstead.platform.systemd_app", variables)
        asked.append(module_args)
        return {"changed": True, "actions": ["restart"], "diff": []}

    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})
    monkeypatch.setattr(action.ActionModule, "_execute_module", execute)
    plugin = object.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(args=ARGUMENTS, check_mode=check_mode)
    variables = {"ansible_facts": {} if known is None else {action.FACT: known}}
    result = plugin.run(None, variables)
    assert asked == [{**ARGUMENTS, "fingerprint": fingerprint.fingerprint_of(ARGUMENTS)}] * calls
    assert result["changed"] is bool(calls)
    assert result.get("ansible_facts") == (None if left is None else {action.FACT: left})


# --- Checks ---


@pytest.mark.parametrize(
    ("passed", "calls"),
    [
        (
            {
                "logrotate_check": {
                    "fingerprint": fingerprint.fingerprint_of(ARGUMENTS),
                    "result": {"is_installed": True},
                }
            },
            0,
        ),
        ({"logrotate_check": {"fingerprint": "another", "result": {"is_installed": True}}}, 1),
        ({"loki_retention": {"fingerprint": SAME, "result": {}}}, 1),
        (None, 1),
    ],
)
def test_a_check_is_made_unless_its_last_result_holds(monkeypatch: pytest.MonkeyPatch, passed: Any, calls: int) -> None:
    given: list[dict[str, Any]] = []

    def execute(_: Any, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert (module_name, task_vars) == ("logstead.platform.logrotate_check", variables)
        given.append(module_args)
        return {"changed": False, "is_installed": True}

    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})
    monkeypatch.setattr(check_action.CheckAction, "_execute_module", execute)
    plugin = object.__new__(check_action.CheckAction)
    plugin._task = SimpleNamespace(args=ARGUMENTS, action="logstead.platform.logrotate_check")
    variables = {"ansible_facts": {} if passed is None else {check_action.FACT: passed}}
    assert plugin.run(None, variables) == {"changed": False, "is_installed": True}
    assert given == [{**ARGUMENTS, "fingerprint": fingerprint.fingerprint_of(ARGUMENTS)}] * calls


def test_a_check_holds_while_the_files_that_it_read_are_as_they_were(tmp_path: Path) -> None:
    """One more, one less, other content: each calls for a new check; nonsense in the memory as well."""
    read = [f"{tmp_path}/*.conf", f"{tmp_path}/one"]

    def holds() -> bool:
        return check_memory.passed_checks() == {"toy_check": {"fingerprint": "f", "result": {"a": 1}}}

    (tmp_path / "a.conf").write_text("text")
    check_memory.remember("toy", "toy_check", "f", read, {"a": 1})
    assert holds()
    for name, text in (("b.conf", "more"), ("one", "more"), ("a.conf", "else"), ("a.conf", "")):
        path = tmp_path / name
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        assert check_memory.passed_checks() == {}
        path.unlink() if before is None else path.write_text(before)
        assert holds()
    (tmp_path / "a.conf").unlink()
    assert check_memory.passed_checks() == {}
    for text in ("", "{", "[]", '{"check": "toy_check"}'):
        (check_memory.FOLDER / "toy.json").write_text(text)
        assert check_memory.passed_checks() == {}


# --- The look at a host ---


class Toy:
    """A unit that is as wanted."""

    def __init__(self, folder: Path, systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
        self.systemd, self.capsys, self.opt = systemd, capsys, folder / "opt"
        self.settings, self.other, self.read = folder / "etc/toy.conf", folder / "etc/other.conf", folder / "read"
        self.read.write_text("text")
        (self.opt / "toy/1.0").mkdir(parents=True)
        (self.opt / "toy/1.0/.sha256").write_text("0" * 64)
        (self.opt / "toy/current").symlink_to("1.0")

    def converge(self, **parameters: Any) -> dict[str, Any]:
        """Run the module as Ansible does; return its result."""
        access = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
        files = [
            {"path": str(self.settings), "content": "text", **access},
            {"path": str(self.other), "content": "text", "read_by": "journal.service", **access},
        ]
        absent, root = [str(self.settings.with_name("*.old"))], str(self.opt)
        reads = [str(self.read), str(self.opt / "toy/current")]
        given = {"unit": UNIT, "files": files, "absent": absent, "reads": reads, "root": root, "fingerprint": "f1"}
        with patch_module_args({**given, **parameters}), pytest.raises(SystemExit):
            systemd_app.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result


@pytest.fixture
def toy(tmp_path: Path, systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> Toy:
    toy = Toy(tmp_path, systemd, capsys)
    assert "failed" not in toy.converge()
    return toy


def test_what_was_done_to_a_unit_is_in_the_hosts_log_once_with_its_version(toy: Toy, host_log: list[str]) -> None:
    host_log.clear()
    toy.converge()
    assert host_log == []
    toy.settings.write_text("changed by hand")
    toy.converge(release={"version": "1.0"})
    toy.converge(release={"version": "1.0"})
    assert host_log == ["restarted toy.service 1.0"]


def test_what_is_as_it_was_left_is_known_by_one_question_to_systemd(toy: Toy) -> None:
    (toy.systemd.folder / "asked").unlink()
    assert systemd_app_facts.reconciled() == {UNIT: "f1"}
    assert len((toy.systemd.folder / "asked").read_text().splitlines()) == 1


def test_a_host_without_states_asks_nobody(systemd: Systemd) -> None:
    assert systemd_app_facts.reconciled() == {}
    assert not (systemd.folder / "asked").exists()


DRIFTS: dict[str, Callable[[Toy], Any]] = {
    "other text": lambda toy: toy.settings.write_text("other"),
    "a file is gone": lambda toy: toy.settings.unlink(),
    "other mode": lambda toy: toy.settings.chmod(0o666),
    "a file of another unit": lambda toy: toy.other.write_text("other"),
    "what must not be there": lambda toy: toy.settings.with_name("a.old").touch(),
    "what it reads": lambda toy: toy.read.write_text("other"),
    "another release": lambda toy: (toy.opt / "toy/current").unlink(),
    "the release unpacked again": lambda toy: os.utime(toy.opt / "toy/1.0/.sha256", (2**32, 2**32)),
    "the other runtime": lambda toy: (toy.opt / "toy/images").write_text("x"),
    "stopped": lambda toy: toy.systemd.has(ActiveState="inactive"),
    "disabled": lambda toy: toy.systemd.has(UnitFileState="disabled"),
    "another unit file": lambda toy: toy.systemd.has(NeedDaemonReload="yes"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_has_drifted_is_not_reconciled(toy: Toy, drift: str) -> None:
    DRIFTS[drift](toy)
    assert systemd_app_facts.reconciled() == {}


def test_a_process_that_was_started_since_is_reconciled_if_no_file_was_written(toy: Toy) -> None:
    toy.systemd.started(seconds_ago=0)
    toy.systemd.others_have()
    assert systemd_app_facts.reconciled() == {UNIT: "f1"}
    text = toy.settings.read_text()
    toy.settings.write_text("by hand")
    toy.settings.write_text(text)
    assert systemd_app_facts.reconciled() == {}


def test_a_service_that_does_not_answer_is_not_reconciled(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_app, "wait_until_ready", lambda *_: None)
    toy.converge(ready_url="http://127.0.0.1:1/", ready_body="ready")
    for answer, found in (((True, "ready"), {UNIT: "f1"}), ((True, "busy"), {}), ((False, "ready"), {})):
        monkeypatch.setattr(systemd_app_facts, "answer_of", lambda *_, answer=answer: answer)
        assert systemd_app_facts.reconciled() == found


def test_a_run_that_fails_or_is_interrupted_leaves_no_fingerprint(
    toy: Toy, states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd_app, "apply", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    toy.settings.write_text("other")
    with pytest.raises(KeyboardInterrupt):
        toy.converge()
    assert "fingerprint" not in json.loads((states / f"{UNIT}.json").read_text())
    assert toy.settings.read_text() == "text", "the files are as the old fingerprint says"
    assert systemd_app_facts.reconciled() == {}


def test_a_check_run_leaves_no_fingerprint(toy: Toy) -> None:
    toy.converge(fingerprint="f2", _ansible_check_mode=True)
    assert systemd_app_facts.reconciled() == {UNIT: "f1"}


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": "f1"}', '{"fingerprint": "f1", "reads": 7}'])
def test_a_state_that_is_damaged_is_no_state(toy: Toy, states: Path, text: str) -> None:
    (states / f"{UNIT}.json").write_text(text)
    assert systemd_app_facts.reconciled() == {}
    assert "failed" not in toy.converge()
    assert systemd_app_facts.reconciled() == {UNIT: "f1"}
