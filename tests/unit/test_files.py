"""The files of the module systemd_app: all of a program, or none."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_files as module

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.modules import systemd_app

pytestmark = pytest.mark.usefixtures("systemd")

OWNER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
SECRET = "correct-horse-battery-staple"
UNIT = "toy.service"
NOTHING_DONE: dict[str, Any] = {"restart": False, "others": set(), "diff": []}


class Host:
    """A folder for the program's files, and a program that checks them: it refuses what holds the word `wrong`."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.seen = folder / "seen"
        self.checker = self.script(folder / "checker", f'echo "$1" >> {self.seen}; ! grep -H wrong "$1"')

    @staticmethod
    def script(path: Path, text: str) -> Path:
        """Make an executable."""
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def file(self, name: str, content: str | None = "text\n", **changed: Any) -> dict[str, Any]:
        """Return one entry of the module's list."""
        entry = {
            "path": str(self.etc / "toy" / name),
            "content": content,
            "secret": None,
            "mode": "0640",
            "owner": OWNER,
            "group": GROUP,
            "validate": [f"{self.checker} %s"],
            "apply": None,
            "on_change": "restart",
            "read_by": None,
        }
        return {**entry, **changed}

    def converge(
        self, *files: dict[str, Any], absent: tuple[str, ...] = (), check_mode: bool = False
    ) -> dict[str, Any]:
        """Do the module's work on the files without Ansible around it."""
        wanted = [module.File.from_parameters(entry, UNIT) for entry in files]
        gone = [self.etc / "toy" / name for name in absent]
        stale, diff, _ = module.put_in_place(wanted, gone, UNIT, check_mode)
        return {"restart": UNIT in stale, "others": stale.keys() - {UNIT}, "diff": diff}

    def texts(self) -> dict[str, str]:
        """Return every file below /etc with its text, temporary ones included."""
        paths = (path for path in self.etc.rglob("*") if path.is_file())
        return {str(path.relative_to(self.etc)): path.read_text(errors="replace") for path in paths}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def umask_of_a_hardened_host() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def run_main(
    capsys: pytest.CaptureFixture[str], *files: dict[str, Any], **parameters: Any
) -> tuple[dict[str, Any], str]:
    """Run the module as Ansible does; return its result, and all that it printed."""
    given = [{name: value for name, value in entry.items() if value is not None} for entry in files]
    with patch_module_args({"unit": "toy.service", "files": given, **parameters}), pytest.raises(SystemExit):
        systemd_app.main()
    printed = capsys.readouterr().out
    result: dict[str, Any] = json.loads(printed)
    return result, printed


# --- Files appear -----------------------------------------------------------------------------------------------------


def test_a_file_appears_with_its_text_mode_and_folders(host: Host) -> None:
    result = host.converge(host.file("conf.d/a.yml", "key: value\n"))
    path = host.etc / "toy/conf.d/a.yml"
    assert path.read_text() == "key: value\n"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert result["diff"][0]["before_header"] == f"{path} (absent)"
    assert result["diff"][0]["after_header"] == f"{path} ({OWNER}:{GROUP} 0640)"


def test_a_second_run_changes_nothing_and_checks_nothing(host: Host) -> None:
    files = (host.file("a"), host.file("b", None, secret=SECRET))
    host.converge(*files)
    before, inodes = host.seen.read_text(), [path.stat().st_ino for path in host.etc.rglob("*")]
    assert host.converge(*files) == NOTHING_DONE
    assert host.seen.read_text() == before
    assert [path.stat().st_ino for path in host.etc.rglob("*")] == inodes


def test_new_folders_are_open_to_the_programs_user_on_a_host_with_a_strict_umask(
    host: Host,
    umask_of_a_hardened_host: None,  # noqa: ARG001 - is in force
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, _ = run_main(capsys, host.file("deep/er/a"))
    assert result["changed"] is True
    folders = [path for path in host.etc.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}


def test_a_file_that_another_unit_reads_asks_for_a_restart_of_that_one(host: Host) -> None:
    limits, own = host.file("limits", read_by="journal.service"), host.file("own")
    assert host.converge(limits, own)["others"] == {"journal.service"}
    result = host.converge({**limits, "content": "other\n"}, own)
    assert (result["restart"], result["others"]) == (False, {"journal.service"})
    assert host.converge({**limits, "content": "other\n"}, own) == NOTHING_DONE


def test_only_a_file_that_the_program_reads_at_its_start_asks_for_a_restart(host: Host) -> None:
    live, fixed = host.file("live", on_change="none"), host.file("fixed")
    host.converge(live, fixed)
    result = host.converge({**live, "content": "other\n"}, fixed)
    assert (result["restart"], len(result["diff"])) == (False, 1)
    assert host.converge(live, {**fixed, "content": "other\n"})["restart"] is True


def test_a_mode_that_has_drifted_is_repaired(host: Host) -> None:
    entry = host.file("a")
    host.converge(entry)
    Path(entry["path"]).chmod(0o666)
    result = host.converge(entry)
    assert Path(entry["path"]).stat().st_mode & 0o7777 == 0o640
    assert result["diff"][0]["before_header"].endswith(" 0666)")


def test_an_owner_that_has_drifted_is_noticed_and_repaired(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = host.file("a")
    host.converge(entry)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("shutil.chown", lambda _path, owner, group: asked.append((owner, group)))
    assert host.converge({**entry, "owner": "nobody"}, check_mode=True)["diff"]
    assert asked == []
    result = host.converge({**entry, "owner": "nobody", "group": "nogroup"})
    assert asked == [("nobody", "nogroup")]
    assert result["diff"][0]["before_header"].endswith(f"({OWNER}:{GROUP} 0640)")
    assert result["diff"][0]["after_header"].endswith("(nobody:nogroup 0640)")


def test_a_file_is_never_open_to_more_users_than_wanted_not_even_on_its_way(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    monkeypatch.setattr(
        "shutil.chown", lambda path, *_: modes.extend((path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777))
    )
    host.converge(host.file("a", None, secret=SECRET))
    assert modes == [0o600, 0o700]


def test_present_content_that_is_no_text_is_replaced(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    path = host.etc / "toy/a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00binary")
    result, _ = run_main(capsys, host.file("a", "text\n"))
    assert result["changed"] is True, result
    assert path.read_text() == "text\n"


def test_text_outside_of_ascii_arrives_as_it_is(host: Host) -> None:
    entry = host.file("a", "größe: 日志\n")
    host.converge(entry)
    assert Path(entry["path"]).read_text(encoding="utf-8") == "größe: 日志\n"
    assert host.converge(entry)["diff"] == []


# --- All or none ------------------------------------------------------------------------------------------------------


def test_one_refused_file_leaves_all_the_old_ones(host: Host) -> None:
    files = [host.file("a", "old\n"), host.file("b", "old\n"), host.file("c", "old\n")]
    host.converge(*files)
    before = host.texts()
    wanted = [{**entry, "content": text} for entry, text in zip(files, ("new\n", "new and wrong\n", "new\n"))]
    with pytest.raises(module.FilesError):
        host.converge(*wanted, absent=("c",))
    assert host.texts() == before


def test_the_message_names_the_file_the_program_and_what_it_said(host: Host) -> None:
    entry = host.file("a", "this is wrong\n")
    with pytest.raises(module.FilesError) as raised:
        host.converge(entry)
    message = str(raised.value)
    assert message.startswith(f"{entry['path']} was refused by `{host.checker} %s` (exit code 1); the old files stay")
    assert "this is wrong" in message
    assert host.texts() == {}


def test_what_a_program_says_may_be_no_text(host: Host, tmp_path: Path) -> None:
    mumbler = host.script(tmp_path / "mumbler", r"printf '\377 bad'; false")
    with pytest.raises(module.FilesError, match="\ufffd bad"):
        host.converge(host.file("a", validate=[f"{mumbler} %s"]))


def test_every_check_of_a_file_has_to_pass(host: Host) -> None:
    with pytest.raises(module.FilesError, match="refused by `false`"):
        host.converge(host.file("a", validate=[f"{host.checker} %s", "false"]))


def test_a_check_sees_the_file_under_its_own_name_in_a_private_folder(host: Host) -> None:
    host.converge(host.file("a.yml"), host.file("b.yml"))
    seen = [Path(line) for line in host.seen.read_text().splitlines()]
    assert [path.name for path in seen] == ["a.yml", "b.yml"]
    assert not any(path.parent.exists() for path in seen)


def test_a_check_sees_the_other_files_beside_it_as_they_are_going_to_be(host: Host, tmp_path: Path) -> None:
    host.converge(host.file("names", "same"), host.file("settings", "old"))
    found = tmp_path / "found"
    checker = host.script(tmp_path / "both", f'cat "$1/settings" "$1/names" "$2" >> {found}')
    host.converge(host.file("names", "same"), host.file("settings", "new", validate=[f"{checker} %d %s"]))
    assert found.read_text() == "newsamenew"


def test_what_is_checked_is_closed_to_other_users(host: Host, tmp_path: Path) -> None:
    modes = tmp_path / "modes"
    looker = host.script(tmp_path / "looker", f'stat -c %a "$(dirname "$1")" >> {modes}')
    host.converge(host.file("a", None, secret=SECRET, validate=[f"{looker} %s"]))
    assert modes.read_text() == "700\n"


def test_files_are_moved_in_in_the_order_given(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    move_in = module.move_in

    def noted(file: module.File, staged: Path) -> None:
        moved.append(file.path.name)
        move_in(file, staged)

    monkeypatch.setattr(module, "move_in", noted)
    host.converge(host.file("z"), host.file("a"), host.file("m"))
    assert moved == ["z", "a", "m"]


def test_no_file_is_moved_in_before_all_have_been_checked(host: Host, tmp_path: Path) -> None:
    lister = host.script(tmp_path / "lister", f"ls -A {host.etc} >> {host.seen} 2>&1; true")
    host.etc.mkdir()
    host.converge(host.file("a", validate=[f"{lister} %s"]), host.file("b", validate=[f"{lister} %s"]))
    assert host.seen.read_text() == ""


def test_the_targets_folder_never_holds_a_file_that_does_not_belong_there(host: Host, tmp_path: Path) -> None:
    # Some programs read every file of a folder, hidden ones included; sysusers and logrotate are such.
    watcher = host.script(tmp_path / "watcher", f"find {host.etc}/toy -mindepth 1 >> {host.seen}; true")
    host.converge(host.file("a", validate=[], apply=f"{watcher} %s"))
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        listing = [str(path) for path in (host.etc / "toy").iterdir()]
        host.seen.write_text(host.seen.read_text() + "\n".join(listing) + "\n")
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", watched)
        host.converge(host.file("a", "other\n", validate=[], apply=f"{watcher} %s"))
    assert set(host.seen.read_text().split()) == {f"{host.etc}/toy/a"}
    assert host.texts() == {"toy/a": "other\n"}
    assert {path.name for path in host.etc.iterdir()} == {"toy"}


def test_a_move_that_fails_leaves_the_old_file_and_nothing_else(host: Host) -> None:
    entry = host.file("a", "old\n")
    host.converge(entry)
    with pytest.raises(LookupError, match="no-such-group"):
        host.converge({**entry, "content": "new\n", "group": "no-such-group"})
    assert host.texts() == {"toy/a": "old\n"}
    assert {path.name for path in host.etc.iterdir()} == {"toy"}


def test_a_file_that_is_a_mount_of_its_own_is_written_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = host.file("a", "a longer old text\n")
    host.converge(entry)
    inode = Path(entry["path"]).stat().st_ino

    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    host.converge({**entry, "content": "new\n", "mode": "0600"})
    assert host.texts() == {"toy/a": "new\n"}
    assert Path(entry["path"]).stat().st_mode & 0o777 == 0o600
    assert Path(entry["path"]).stat().st_ino == inode


def test_a_file_has_the_label_of_its_place_before_it_is_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled: list[tuple[str, bool]] = []

    class Selinux:
        is_selinux_enabled = staticmethod(lambda: 1)
        matchpathcon = staticmethod(lambda path, _mode: [0, f"label of {path}"])
        lsetfilecon = staticmethod(lambda _path, context: labelled.append((context, path.exists())))

    path = host.etc / "toy/a"
    monkeypatch.setattr(module, "selinux", Selinux)
    host.converge(host.file("a"))
    assert labelled == [(f"label of {path}", False)]


# --- Apply ------------------------------------------------------------------------------------------------------------


def test_apply_acts_on_the_new_text_before_the_file_is_moved_in(host: Host, tmp_path: Path) -> None:
    entry = host.file("a", "new\n", validate=[])
    applier = host.script(tmp_path / "applier", f'cat "$1" > {host.seen}; test ! -e {entry["path"]}')
    host.converge({**entry, "apply": f"{applier} %s"})
    assert host.seen.read_text() == "new\n"
    assert Path(entry["path"]).read_text() == "new\n"


def test_a_run_that_was_interrupted_after_apply_repeats_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applier = host.script(tmp_path / "applier", f"echo applied >> {host.seen}")
    entry = host.file("a", validate=[], apply=f"{applier} %s")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host.converge(entry)
    assert host.texts() == {}
    host.converge(entry)
    host.converge(entry)
    assert host.seen.read_text() == "applied\n" * 2
    assert host.texts() == {"toy/a": "text\n"}


def test_an_apply_that_fails_stops_the_run_before_its_file_is_there(host: Host) -> None:
    first, second, third = host.file("a"), host.file("b", apply="false %s"), host.file("c")
    with pytest.raises(module.FilesError, match=rf"`false %s` failed for {second['path']}"):
        host.converge(first, second, third)
    assert set(host.texts()) == {"toy/a"}


def test_running_again_after_an_interruption_finishes_the_work(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (host.file("a"), host.file("b"), host.file("c"))
    move_in = module.move_in

    def killed(file: module.File, staged: Path) -> None:
        if file.path.name == "b":
            raise KeyboardInterrupt
        move_in(file, staged)

    with monkeypatch.context() as patch:
        patch.setattr(module, "move_in", killed)
        with pytest.raises(KeyboardInterrupt):
            host.converge(*files)
    result = host.converge(*files)
    assert set(host.texts()) == {"toy/a", "toy/b", "toy/c"}
    assert [Path(diff["after_header"].split()[0]).name for diff in result["diff"]] == ["b", "c"]


# --- Absent files -----------------------------------------------------------------------------------------------------


def test_files_that_must_not_be_there_go_and_that_asks_for_a_restart(host: Host) -> None:
    host.converge(host.file("a"), host.file("old", "password = x\n"))
    (host.etc / "toy/dangling").symlink_to("nowhere")
    result = host.converge(host.file("a"), absent=("old", "dangling", "never-there"))
    assert result["restart"] is True
    assert [path.name for path in (host.etc / "toy").iterdir()] == ["a"]
    assert [(diff["after_header"], diff["before"]) for diff in result["diff"]] == [
        (f"{host.etc}/toy/old (absent)", ""),
        (f"{host.etc}/toy/dangling (absent)", ""),
    ]
    assert host.converge(host.file("a"), absent=("old", "dangling")) == NOTHING_DONE


def test_a_pattern_means_all_files_but_the_wanted_ones(host: Host) -> None:
    host.converge(host.file("a.json"), host.file("old.json"), host.file("old.yml"))
    result = host.converge(host.file("a.json"), absent=("*.json",))
    assert result["restart"] is True
    assert sorted(path.name for path in (host.etc / "toy").iterdir()) == ["a.json", "old.yml"]
    assert host.converge(host.file("a.json"), absent=("*.json",)) == NOTHING_DONE


def test_a_file_that_goes_asks_what_those_ask_that_stay_beside_it(host: Host) -> None:
    watched, read = {"on_change": "none"}, {"on_change": "restart"}
    host.converge(host.file("a.json", **watched), host.file("old.json", **watched), host.file("b", **read))
    result = host.converge(host.file("a.json", **watched), host.file("b", **read), absent=("*.json",))
    assert [path.name for path in sorted((host.etc / "toy").iterdir())] == ["a.json", "b"]
    assert len(result["diff"]) == 1
    assert result["restart"] is False


# --- Secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_secret_is_never_in_the_result(host: Host, capsys: pytest.CaptureFixture[str], check_mode: bool) -> None:
    entry = host.file("key", None, secret=f"old-{SECRET}")
    host.converge(entry)
    result, printed = run_main(capsys, {**entry, "secret": f"new-{SECRET}"}, _ansible_check_mode=check_mode)
    assert result["changed"] is True
    assert SECRET not in printed.split('"invocation"')[0]
    assert SECRET not in printed
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == ("a secret\n", "another secret\n")


def test_a_secret_whose_mode_has_drifted_shows_no_other_change(host: Host) -> None:
    entry = host.file("key", None, secret=SECRET)
    host.converge(entry)
    Path(entry["path"]).chmod(0o644)
    (diff,) = host.converge(entry)["diff"]
    assert (diff["before"], diff["after"]) == ("", "")
    assert diff["before_header"].endswith("0644)")


def test_a_secret_that_is_refused_is_not_in_the_message(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result, printed = run_main(capsys, host.file("key", None, secret=f"wrong-{SECRET}"))
    assert result["failed"] is True
    assert "was refused by" in result["msg"]
    assert SECRET not in printed


# --- Check mode -------------------------------------------------------------------------------------------------------


def test_check_mode_tells_the_truth_and_changes_nothing(host: Host, tmp_path: Path) -> None:
    applier = host.script(tmp_path / "applier", f"echo applied >> {tmp_path}/applied")
    old, new = host.file("a", "old\n"), host.file("a", "new\n", apply=f"{applier} %s")
    host.converge(old, host.file("gone"))
    before = host.texts()
    result = host.converge(new, host.file("b"), absent=("gone",), check_mode=True)
    assert host.texts() == before
    assert not (tmp_path / "applied").exists()
    assert result == host.converge(new, host.file("b"), absent=("gone",))


def test_check_mode_refuses_what_the_program_refuses(host: Host) -> None:
    with pytest.raises(module.FilesError, match="was refused"):
        host.converge(host.file("a", "wrong\n"), check_mode=True)


def test_check_mode_works_before_the_program_is_installed(host: Host) -> None:
    entry = host.file("a", validate=["/opt/toy/1.0/no-such-program --check %s"])
    assert host.converge(entry, check_mode=True)["diff"]


def test_a_real_run_without_the_program_that_checks_fails_and_changes_nothing(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = run_main(capsys, host.file("a", validate=["/opt/toy/1.0/no-such-program --check %s"]))
    assert result["failed"] is True
    assert "/opt/toy/1.0/no-such-program" in result["msg"]
    assert host.texts() == {}


def test_a_file_has_either_a_content_or_a_secret(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(capsys, host.file("a", "x", secret=SECRET))[0]["failed"] is True
    assert run_main(capsys, host.file("a", None))[0]["failed"] is True


# --- Units ------------------------------------------------------------------------------------------------------------

SOUND_UNIT = """# Managed by logstead
[Unit]
Description=Toy
X-Release=1
After=network-online.target
[Service]
ExecStart=/opt/toy/current/toy --url=http://127.0.0.1:1/%%n
User=toy-that-is-yet-to-come
SupplementaryGroups={groups}
MemoryMax={memory}
{more}
[Install]
WantedBy=multi-user.target
"""


def unit_text(memory: str = "25%", groups: str = "root", more: str = "") -> str:
    return SOUND_UNIT.format(memory=memory, groups=groups, more=more)


@pytest.fixture
def unit_folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the host's units."""
    monkeypatch.setattr(module, "UNIT_FOLDER", host.etc / "toy")
    return host.etc / "toy"


@pytest.mark.usefixtures("unit_folder")
def test_a_unit_whose_program_and_user_are_yet_to_come_is_accepted(host: Host) -> None:
    assert host.converge(host.file(UNIT, unit_text(), validate=[]))["restart"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (unit_text(memory="lots"), "line 10: Invalid memory limit 'lots', ignoring"),
        (unit_text(more="NoSuchDirective=x"), "line 11: Unknown key.*NoSuchDirective.*ignoring"),
        (unit_text(more="Nice=99"), "line 11: Nice priority out of range, ignoring"),
        (unit_text(more="Environment=X=%Q"), "line 11: Failed to resolve specifiers in X=%Q, ignoring"),
        (unit_text(more="[Sevice]\nNice=1"), "line 11: Unknown section 'Sevice'"),
        (unit_text().replace("ExecStart", "#"), "Service has no ExecStart=.* Refusing"),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.usefixtures("unit_folder")
def test_a_unit_with_a_line_that_systemd_would_ignore_is_refused(
    host: Host, text: str, problem: str, check_mode: bool
) -> None:
    host.converge(host.file(UNIT, unit_text(), validate=[]), host.file("toy.conf"))
    before = host.texts()
    with pytest.raises(module.FilesError, match=f"toy.service was refused by `systemd-analyze verify`(.|\n)*{problem}"):
        host.converge(host.file("toy.conf", "other\n"), host.file(UNIT, text, validate=[]), check_mode=check_mode)
    assert host.texts() == before


@pytest.mark.usefixtures("unit_folder")
def test_a_unit_that_systemd_applies_with_a_remark_is_accepted(host: Host) -> None:
    assert host.converge(host.file(UNIT, unit_text(more="MemoryLimit=1G"), validate=[]))["restart"]


@pytest.mark.parametrize("more", ["", "ExecStartPre=/usr/bin/podman run --group-add=no-such-group x"])
@pytest.mark.usefixtures("unit_folder")
def test_a_unit_with_a_group_that_the_host_lacks_is_refused_but_not_in_check_mode(host: Host, more: str) -> None:
    text = unit_text(groups="root" if more else "root no-such-group 4", more=more)
    with pytest.raises(module.FilesError, match="names the group no-such-group, which this host doesn't have"):
        host.converge(host.file(UNIT, text, validate=[]))
    assert host.texts() == {}
    assert host.converge(host.file(UNIT, text, validate=[]), check_mode=True)["restart"]
