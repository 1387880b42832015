"""The role logrotate: its rules, its check for two claims on one log, and the tool `logstead-logs`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.testing import patch_module_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter import logrotate_rules as rules
from ansible_collections.logstead.platform.plugins.module_utils import check_memory
from ansible_collections.logstead.platform.plugins.module_utils.log_paths import paths_meet
from ansible_collections.logstead.platform.plugins.modules import logrotate_check as check

from roles.logrotate.files import logstead_logs as tool

RULE: dict[str, Any] = {"name": "shop", "paths": ["/var/log/shop/shop.log"], "max_size": "10M", "owner": "shop"}
RUNNING = tool.Collector(is_installed=True, is_running=True, invocation="now")


# --- Rules ------------------------------------------------------------------------------------------------------------


def lines_of(**changed: Any) -> list[str]:
    return [line.strip() for line in rules.logrotate_config([{**RULE, **changed}], "/bin/tool").splitlines()]


def test_a_rule_rotates_by_size_and_by_age_to_names_of_their_own() -> None:
    lines = lines_of()
    assert {"daily", "maxsize 10485760", "dateext", "dateformat -%Y%m%d-%H%M%S", "delaycompress"} <= set(lines)
    assert {"create 0640 shop adm", "su shop adm", "nosharedscripts"} <= set(lines)
    assert not [line for line in lines if line.startswith(("size", "copytruncate", "prerotate"))]


def test_only_a_rule_with_hold_asks_the_tool() -> None:
    lines = lines_of(hold=True, hold_max_size="1G")
    assert lines[lines.index("prerotate") + 1 :][:2] == ['/bin/tool hold "$1"', "endscript"]


def test_a_rule_that_is_not_for_the_host_is_left_out() -> None:
    assert rules.logrotate_config([{**RULE, "enabled": False}], "/bin/tool") == ""
    assert rules.logrotate_folders([RULE, {**RULE, "name": "b", "enabled": False, "paths": ["/x/y"]}]) == [
        "/var/log/shop"
    ]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"max_size": "10 MB"}, "which is no size"),
        ({"hold": True}, "without hold_max_size"),
        ({"hold": True, "hold_max_size": "10M"}, "has to be above max_size"),
        ({"paths": ["shop.log"]}, "no absolute path"),
        ({"paths": ["/var/log/{a,b}.log"]}, "no absolute path"),
        ({"paths": ["/var/log/shop/*"]}, "its own rotated files"),
        ({"paths": ["/var/log/*/shop.log"]}, "a wildcard in a folder"),
        ({"paths": []}, "has no paths"),
    ],
)
def test_a_rule_that_would_do_otherwise_than_meant_is_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(AnsibleFilterError, match=problem):
        lines_of(**changed)


def test_the_tool_gets_sizes_in_bytes() -> None:
    (rule,) = rules.logrotate_settings([{**RULE, "max_total_size": "1G", "hold": True, "hold_max_size": "20M"}])
    read = tool.Rule(**rule)
    assert (read.max_size, read.max_total_size, read.hold_max_size) == (10 * 2**20, 2**30, 20 * 2**20)


# --- Two claims on one log --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("/a/b.log", "/a/b.log", True),
        ("/a/b.log", "/a/*.log", True),
        ("/a/b*", "/a/*b.log", True),
        ("/a/*a", "/a/*b", False),
        ("/a/[xyz].log", "/a/y.log", True),
        ("/a/[!y].log", "/a/y.log", False),
        ("/a/?.log", "/a/ab.log", False),
        ("/a/*.log", "/a/b/c.log", False),
        ("/a/b.log", "/a/b.log.1", False),
        ("/*/b.log", "/a/*.log", True),
    ],
)
def test_patterns_meet_if_some_path_matches_both(one: str, other: str, meet: bool) -> None:
    assert paths_meet(one, other) is meet
    assert paths_meet(other, one) is meet


def test_the_paths_of_other_rules_are_found_between_options_and_scripts() -> None:
    text = """
    weekly
    include /etc/logrotate.d
    # /no/comment.log {
    /a/one.log "/a/with space.log"
    /a/two.log {
        postrotate
            if true; then { echo /no/script.log; } fi
            /bin/tell {
            }
        endscript
        su root adm
    }
    '/b/*.log' { daily }
    /c/three.log
    {
        missingok
    }
    """
    assert list(check.paths_in(text)) == ["/a/one.log", "/a/with space.log", "/a/two.log", "/b/*.log", "/c/three.log"]


def test_two_claims_are_named_with_the_file_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "foreign").write_text("/var/log/shop/*.log {\n daily\n}\n")
    (tmp_path / "foreign.dpkg-old").write_text("/var/log/shop/*.log {\n daily\n}\n")
    claims: list[dict[str, Any]] = [
        {"name": "a", "paths": ["/var/log/shop/shop.log"]},
        {"name": "b", "paths": ["/var/log/shop/s*.log"]},
    ]
    found = list(check.double_claims(claims, [f"{tmp_path}/*"]))
    assert len(found) == 3
    assert "of rule a and /var/log/shop/s*.log of rule b" in found[0]
    assert all(f"in {tmp_path}/foreign are" in text for text in found[1:])


def test_rules_that_were_accepted_are_remembered_until_another_package_brings_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logrotate").write_text("#!/bin/sh\n")
    (tmp_path / "logrotate").chmod(0o755)
    monkeypatch.setattr(check, "LOGROTATE", str(tmp_path / "logrotate"))
    claims = [{"name": "a", "paths": ["/var/log/shop/shop.log"]}]
    arguments = {"claims": claims, "config": "# rules", "others": [f"{tmp_path}/others/*"], "fingerprint": "f"}
    (tmp_path / "others").mkdir()
    for more, remembered in (({"_ansible_check_mode": True}, []), ({}, ["logrotate_check"])):
        with patch_module_args({**arguments, **more}), pytest.raises(SystemExit):
            check.main()
        assert json.loads(capsys.readouterr().out)["is_installed"] is True
        assert list(check_memory.passed_checks()) == remembered
    (tmp_path / "others/shop").write_text("/var/log/shop/*.log { daily }\n")
    assert check_memory.passed_checks() == {}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        check.main()
    assert "are both rules for one log" in json.loads(capsys.readouterr().out)["msg"]


# --- The tool ---------------------------------------------------------------------------------------------------------


class Host:
    """A folder with a log, and a collector that has read as much of it as a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "app.log"
        self.positions = folder / "positions.yaml"
        self.collector = RUNNING
        monkeypatch.setattr(tool.Collector, "look", lambda _unit: self.collector)
        rule = tool.Rule("app", [str(self.log)], "daily", 100, hold=True, hold_max_size=1000)
        self.settings = tool.Settings([rule], "promtail.service", self.positions, grace_seconds=0)
        self.memory = tool.Memory(folder / "memory.json")

    def write(self, count: int) -> None:
        """Append lines of 10 bytes to the log."""
        with self.log.open("a") as file:
            file.write("123456789\n" * count)

    def read(self, offset: int) -> None:
        """Let the collector have read so much."""
        self.positions.write_text(f'positions:\n  {self.log}: "{offset}"\n')

    def may_go(self) -> bool:
        """Ask as logrotate does."""
        return tool.decide(self.log, self.settings, self.memory)

    def rotate(self, stamp: str = "20260101-000000") -> bool:
        """Rotate as logrotate would."""
        may_go = self.may_go()
        if may_go:
            self.log.rename(f"{self.log}-{stamp}")
            self.log.touch()
        tool.settle(self.settings, self.memory)
        return may_go


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_log_that_is_read_to_its_end_may_go(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.may_go()


def test_a_log_is_held_while_lines_are_unread_and_the_number_is_told(host: Host) -> None:
    host.write(20)
    host.read(190)
    assert not host.may_go()
    assert host.memory.held[str(host.log)] == "promtail.service has yet to read 10 of 200 bytes"


def test_the_beginning_of_a_line_does_not_hold(host: Host) -> None:
    host.log.write_text("123456789\n1234")
    host.read(10)
    assert host.may_go()


def test_a_log_is_held_while_the_collector_is_stopped_or_has_not_begun(host: Host) -> None:
    host.write(20)
    assert not host.may_go()
    assert "hasn't begun" in host.memory.held[str(host.log)]
    host.read(200)
    host.collector = tool.Collector(is_installed=True, is_running=False, invocation="")
    assert not host.may_go()
    assert "isn't running" in host.memory.held[str(host.log)]


def test_a_position_beyond_the_end_is_that_of_another_file(host: Host) -> None:
    host.write(20)
    host.read(300)
    assert not host.may_go()


def test_nothing_is_held_where_there_is_no_collector(host: Host) -> None:
    host.write(20)
    host.collector = tool.Collector(is_installed=False, is_running=False, invocation="")
    assert host.may_go()


def test_a_log_that_is_too_large_goes_and_the_price_is_remembered(host: Host) -> None:
    host.write(100)
    host.read(10)
    assert host.may_go()
    assert "has yet to read 990 of 1000 bytes, but its 1000 bytes" in host.memory.overrun[str(host.log)]


def test_a_second_rotation_waits_until_the_collector_has_come_along(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.rotate()
    # The new log is larger than the old one, and the position is still the old one's.
    host.write(30)
    assert not host.rotate("20260101-000001")
    assert "the file that was rotated before" in host.memory.held[str(host.log)]
    host.read(300)
    assert host.rotate("20260101-000001")


def test_a_position_of_the_renamed_files_end_is_not_taken_for_the_new_logs(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.may_go()
    host.write(5)  # between the look and the rename
    host.log.rename(f"{host.log}-20260101-000000")
    host.log.touch()
    tool.settle(host.settings, host.memory)
    host.write(25)
    host.read(250)
    assert not host.may_go()
    host.write(1)
    host.read(260)
    assert host.may_go()


def test_a_collector_that_was_started_since_has_the_new_log_open(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.rotate()
    host.write(20)
    assert not host.may_go()
    host.collector = tool.Collector(is_installed=True, is_running=True, invocation="later")
    assert host.may_go()


def test_a_rotation_that_did_not_come_about_is_forgotten(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.may_go()
    tool.settle(host.settings, host.memory)
    assert host.memory.handovers == {}
    assert host.may_go()


def test_what_is_remembered_outlives_the_process_and_nonsense_is_begun_anew(host: Host) -> None:
    host.write(20)
    host.read(200)
    assert host.rotate()
    host.memory.write()
    folder = host.memory.path.parent
    assert tool.Memory.read(folder).handovers == host.memory.handovers
    host.memory.path.write_text("{")
    assert tool.Memory.read(folder).handovers == {}


@pytest.mark.parametrize("content", [None, "positions:\n  - /a\n"], ids=["a folder", "no positions"])
def test_a_log_is_held_while_positions_cannot_be_read(host: Host, content: str | None) -> None:
    host.write(20)
    if content is None:
        host.positions.mkdir()
    else:
        host.positions.write_text(content)
    assert not host.may_go()
    assert host.memory.held[str(host.log)] == f"{host.positions} can't be read as promtail.service's positions"


def test_a_run_by_hand_may_be_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "rotate", lambda *_, **__: 0)
    settings = tool.Settings(rules=[], collector_unit="", positions=tmp_path, grace_seconds=0)
    assert tool.run(settings, tmp_path / "new", force=True) == 0


def rotated(folder: Path, *sizes: int, ending: str = "") -> list[Path]:
    paths = [folder / f"a.log-2020010{n}-000000{ending}" for n in range(1, len(sizes) + 1)]
    for path, size in zip(paths, sizes):
        path.write_bytes(b"x" * size)
    return paths


def test_the_oldest_go_first_and_no_more_than_has_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = rotated(tmp_path, 40, 40, 40, 40)
    (tmp_path / "a.log").write_bytes(b"x" * 500)
    (tmp_path / "a.log-old").write_bytes(b"x" * 500)
    rule = tool.Rule("a", [f"{tmp_path}/*.log"], "daily", 0, max_total_size=80)
    tool.remove([rule], lambda rule: tool.excess(rule, 0))
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert (tmp_path / "a.log").exists()
    assert (tmp_path / "a.log-old").exists()
    assert f"removed {paths[0]} (40 bytes): those of rule a have 160 bytes" in capsys.readouterr().out


def test_what_is_too_old_goes_and_makes_room_for_the_others(tmp_path: Path) -> None:
    paths = rotated(tmp_path, 40, 40, ending=".gz")
    now = paths[1].stat().st_mtime
    os.utime(paths[0], (now - 3 * 86400, now - 3 * 86400))
    rule = tool.Rule("a", [f"{tmp_path}/a.log"], "daily", 0, max_age_days=2, max_total_size=40)
    tool.remove([rule], lambda rule: tool.excess(rule, now))
    assert [path.exists() for path in paths] == [False, True]


def test_a_link_among_the_rotated_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * 100)
    link = tmp_path / "a.log-20200101-000000"
    link.symlink_to("target")
    rule = tool.Rule("a", [f"{tmp_path}/a.log"], "daily", 0, max_total_size=1)
    tool.remove([rule], lambda rule: tool.excess(rule, 0))
    assert link.is_symlink()


def test_an_interrupted_compression_is_cleared_away_and_a_finished_one_stays(tmp_path: Path) -> None:
    (source,) = rotated(tmp_path, 40)
    half, whole = Path(f"{source}.gz"), tmp_path / "a.log-20200109-000000.gz"
    half.touch()
    whole.touch()
    tool.remove([tool.Rule("a", [f"{tmp_path}/a.log"], "daily", 0)], tool.half_compressed)
    assert (source.exists(), half.exists(), whole.exists()) == (True, False, True)


# --- Hostile folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_what_is_swapped_in_while_a_log_is_looked_at_neither_hangs_nor_fools(host: Host, kind: str) -> None:
    host.write(20)
    host.read(150)
    other = host.log.with_name("other")
    other.write_bytes(b"x" * 200)

    def swap(_size: Any = tool.size_of) -> int:
        size = int(_size(host.log))
        host.log.unlink()
        if kind == "pipe":
            os.mkfifo(host.log)
        else:
            host.log.symlink_to(other if kind == "link" else "/dev/zero")
        return size

    target = swap()
    with pytest.raises(OSError, match=r"not a regular file|Too many levels"):
        tool.has_read(host.log, 150, target)
    assert "it can't be read by root: " in tool.unread(host.log, host.settings.rules[0], 150, target)


@pytest.mark.skipif(os.getuid() != 0, reason="root has to act as another user")
def test_a_folder_that_is_swapped_for_a_link_has_nobody_elses_files_removed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        mine, theirs = Path(name, "mine"), Path(name, "theirs")
        Path(name).chmod(0o755)
        theirs.mkdir()
        (file,) = rotated(theirs, 40)
        mine.symlink_to(theirs)
        rule = tool.Rule("a", [f"{mine}/a.log"], "daily", 0, max_total_size=1, owner="nobody", group="nogroup")
        assert tool.remove([rule], lambda rule: tool.excess(rule, 0)) == 1
        assert file.exists()
    assert "rule a: [Errno 13] Permission denied" in capsys.readouterr().out
    assert os.geteuid() == 0


def test_an_owner_who_is_not_there_stops_no_other_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = rotated(tmp_path, 40)
    gone = tool.Rule("a", [f"{tmp_path}/x.log"], "daily", 0, owner="nobody-of-this-name")
    mine = tool.Rule("b", [f"{tmp_path}/a.log"], "daily", 0, max_total_size=1)
    assert tool.remove([gone, mine], lambda rule: tool.excess(rule, 0)) == 1
    assert not path.exists()
    assert 'rule a: "getpwnam(): name not found' in capsys.readouterr().out


def test_a_pipe_among_the_rotated_files_is_removed(tmp_path: Path) -> None:
    pipe, link = tmp_path / "a.log-20200101-000000", tmp_path / "a.log-20200102-000000"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    assert tool.remove([tool.Rule("a", [f"{tmp_path}/a.log"], "daily", 0)], tool.pipes) == 0
    assert not pipe.exists()
    assert link.is_symlink()


def test_a_rule_that_hangs_is_ended_and_the_others_are_rotated(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "logrotate"
    program.write_text(
        f'#!/bin/sh\nfor word; do :; done\ngrep -q hangs "$word" && sleep 60\ncat "$word" >> {tmp_path}/done\n'
    )
    program.chmod(0o755)
    config = tmp_path / "logrotate.conf"
    config.write_text(
        "# Managed by logstead\n" + rules.logrotate_config([{**RULE, "name": "hangs"}, RULE], "/bin/tool")
    )
    monkeypatch.setattr(tool, "LOGROTATE", str(program))
    monkeypatch.setattr(tool, "RULES", config)
    monkeypatch.setattr(tool, "RULE_SECONDS", 1)
    assert tool.rotate(host.settings, tmp_path, force=False) == 1
    assert (tmp_path / "done").read_text() == rules.logrotate_config([RULE], "/bin/tool")
    assert "error: # hangs: logrotate was ended, as it took more than 1 s" in capsys.readouterr().out


def test_names_make_no_lines_of_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    tool.say(5, "removed /a\n<3>forged\x1b[2J\x9b\udcff é")
    assert capsys.readouterr().out == "removed /a\\n<3>forged\\x1b[2J\\x9b\\udcff é\n"


def test_the_tool_knows_with_whose_rights_a_rules_files_are_rotated() -> None:
    (ours, roots) = rules.logrotate_settings([RULE, {**RULE, "name": "b", "su": False}])
    assert (ours["owner"], ours["group"], roots["owner"], roots["group"]) == ("shop", "adm", "root", "root")


def test_a_held_log_keeps_the_time_of_its_last_rotation() -> None:
    before = '"/a.log" 2020-1-1-0:0:0\n"/a.log.b" 2020-1-1-0:0:0\n'
    after = '"/a.log" 2026-1-1-0:0:0\n"/a.log.b" 2026-1-1-0:0:0\n"/new" 2026-1-1-0:0:0\n'
    assert tool.keep_times(before, after, ["/a.log", "/new"]).splitlines() == [
        '"/a.log" 2020-1-1-0:0:0',
        '"/a.log.b" 2026-1-1-0:0:0',
        '"/new" 2026-1-1-0:0:0',
    ]


def test_what_logrotate_drops_of_other_rules_is_kept_while_the_log_is_there() -> None:
    old, new = '"/a.log" 2020-11-1-1:0:0', '"/b.log" 2026-11-26-1:0:0'
    before = f'logrotate state -- version 2\n{old}\n"/gone.log" 2020-11-1-1:0:0\n"/b.log" 2020-1-1-1:0:0\n'
    after = f"logrotate state -- version 2\n{new}\n"
    assert tool.keep_entries(before, after, [Path("/a.log"), Path("/b.log")]) == f"{after}{old}\n"
    assert tool.keep_entries(before, before, [Path("/a.log")]) == before


def test_of_what_logrotate_says_only_the_known_refusal_is_left_out() -> None:
    known = "error: error running non-shared prerotate script for /a.log of '/a.log '"
    assert tool.problems_in(f"{known}\nerror: other\n", ["/a.log"]) == ["error: other"]
    assert tool.problems_in(known, []) == [known]


def test_the_status_tells_of_each_rule(host: Host) -> None:
    host.write(20)
    rotated_file = Path(f"{host.log}-20260101-000000.gz")
    rotated_file.write_bytes(b"x" * 2048)
    text = "\n".join(tool.status_lines(host.settings, host.memory))
    assert "app: 1 rotated, 2.0 KiB, the oldest of 20260101-000000" in text
    assert f"{host.log}  200 B  is rotated by the next run" in text
    host.memory.held[str(host.log)] = "it is slow"
    assert "held since 1970" in "\n".join(tool.status_lines(host.settings, host.memory))


def test_the_settings_may_begin_with_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "logrotate.json"
    values = {"rules": rules.logrotate_settings([RULE]), "collector_unit": "u", "positions": "/p", "grace_seconds": 1}
    path.write_text("# Managed by logstead\n" + json.dumps(values))
    assert tool.Settings.read(path).rules[0].name == "shop"
