"""The unit of the module systemd_app: what is decided for it, by a systemctl that only pretends."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_state as state
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_unit as module
from fake_systemd import Systemd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.modules import systemd_app

pytestmark = pytest.mark.usefixtures("systemd")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0)


UNIT = "toy.service"


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """A file that the process reads when it starts; it was put in place just now."""
    path = tmp_path / "config.yml"
    path.write_text("key: value\n")
    return str(path)


class Answers:
    """What a service answers, one after the other; the last one again and again."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str]] = [(200, "ready\n")]
        self.asked = 0
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.all[min(answers.asked, len(answers.all) - 1)]
                answers.asked += 1
                if status:
                    self.send_response(status)
                    self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ready"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def service() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


def needed(unit: str, companions: list[str], reads: list[str], restart: bool) -> list[str]:
    """Return what has to be done where nothing is remembered of the unit."""
    properties, *others = module.properties_of(unit, *companions)
    known, started = dict.fromkeys(reads, "restart"), module.started_at(properties)
    change = "restart" if restart else state.needed_change(None, "1", started, known, "restart")
    return module.needed_actions(properties, others, change)


# --- What has to be done ----------------------------------------------------------------------------------------------


def test_a_service_that_runs_what_is_on_disk_is_left_alone(systemd: Systemd, settings: str) -> None:
    systemd.started(seconds_ago=-1)
    assert needed(UNIT, [], [settings], restart=False) == []


def test_a_unit_that_systemd_does_not_know_is_loaded_enabled_and_started(systemd: Systemd, settings: str) -> None:
    systemd.has(LoadState="not-found", ActiveState="inactive", UnitFileState="", ExecMainStartTimestampMonotonic="0")
    assert needed(UNIT, [], [settings], restart=False) == ["daemon-reload", "enable", "start"]


@pytest.mark.parametrize("state", ["disabled", "linked", "enabled-runtime", "masked"])
def test_a_unit_that_would_not_come_back_at_boot_is_enabled(systemd: Systemd, state: str) -> None:
    systemd.has(UnitFileState=state)
    assert needed(UNIT, [], [], restart=False) == ["enable"]


@pytest.mark.parametrize("state", ["static", "enabled"])
def test_a_unit_that_others_start_or_that_is_enabled_is_not_enabled(systemd: Systemd, state: str) -> None:
    systemd.has(UnitFileState=state)
    assert needed(UNIT, [], [], restart=False) == []


def test_a_timer_is_as_old_as_its_activation(systemd: Systemd, settings: str) -> None:
    del systemd.properties["ExecMainStartTimestampMonotonic"], systemd.properties["NRestarts"]
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    systemd.has(ActiveEnterTimestampMonotonic=str(now - 60_000_000))
    assert needed("toy.timer", [], [settings], restart=False) == ["restart"]
    systemd.has(ActiveEnterTimestampMonotonic=str(now + 1_000_000))
    assert needed("toy.timer", [], [settings], restart=False) == []


@pytest.mark.parametrize("properties", [{"NeedDaemonReload": "yes"}, {"LoadState": "not-found"}])
def test_what_a_timer_starts_is_loaded_as_it_is_on_disk(systemd: Systemd, properties: dict[str, str]) -> None:
    systemd.others_have()
    assert needed("toy.timer", [UNIT, "toy.socket"], [], restart=False) == []
    systemd.others_have(**properties)
    assert needed("toy.timer", [UNIT, "toy.socket"], [], restart=False) == ["daemon-reload"]


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating"])
def test_a_service_that_does_not_run_is_started(systemd: Systemd, settings: str, state: str) -> None:
    systemd.has(ActiveState=state)
    assert needed(UNIT, [], [settings], restart=True) == ["start"]


def test_a_unit_file_that_systemd_has_not_read_yet_is_read(systemd: Systemd) -> None:
    systemd.has(NeedDaemonReload="yes")
    assert needed(UNIT, [], [], restart=False) == ["daemon-reload"]


def test_a_process_older_than_one_of_its_files_is_restarted(settings: str) -> None:
    assert needed(UNIT, [], ["/etc/passwd", settings], restart=False) == ["restart"]


def test_a_process_older_than_the_link_to_its_release_is_restarted(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("/etc")
    assert needed(UNIT, [], [str(link)], restart=False) == ["restart"]


def test_what_counts_is_when_a_file_was_put_in_place_and_not_its_own_date(settings: str) -> None:
    os.utime(settings, (1, 1))
    assert needed(UNIT, [], [settings], restart=False) == ["restart"]


def test_a_file_that_is_not_there_asks_for_nothing() -> None:
    assert needed(UNIT, [], ["/no/such/file"], restart=False) == []


def test_a_restart_that_is_asked_for_happens(systemd: Systemd) -> None:
    systemd.started(seconds_ago=-1)
    assert needed(UNIT, [], [], restart=True) == ["restart"]


# --- How it is done ---------------------------------------------------------------------------------------------------


def test_a_start_gives_a_unit_that_gave_up_a_fresh_count_of_tries(systemd: Systemd) -> None:
    module.carry_out(UNIT, "start")
    assert systemd.asked() == [f"reset-failed {UNIT}", f"restart {UNIT}"]


def test_a_start_that_fails_is_told_of_with_the_end_of_the_journal(systemd: Systemd) -> None:
    systemd.refuses("restart")
    with pytest.raises(module.UnitError) as raised:
        module.carry_out(UNIT, "restart")
    assert "`systemctl restart toy.service` failed: refused by the test" in str(raised.value)
    assert "what is left of the journal of toy.service" in str(raised.value)


# --- Ready ------------------------------------------------------------------------------------------------------------


def test_a_service_that_answers_as_it_should_is_ready(service: Answers) -> None:
    module.wait_until_ready(UNIT, service.url, "^ready", timeout=0)
    assert service.asked == 1


def test_a_service_is_asked_until_it_is_ready(service: Answers) -> None:
    service.all = [(503, "Ingester not ready"), (200, "still starting"), (200, "ready\n")]
    module.wait_until_ready(UNIT, service.url, "^ready", timeout=30)
    assert service.asked == 3


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (200, "<title>Another program</title>", "Another program"),
        (200, "not ready", "not ready"),
        (503, "ready", "503: ready"),
        (404, "ready", "404: ready"),
        (0, "ready", "no answer"),
        (0, "SSH-2.0-OpenSSH_9.2\r\n", "no answer"),
    ],
)
def test_what_answers_something_else_is_not_ready(
    service: Answers,
    status: int,
    body: str,
    shown: str,
) -> None:
    service.all = [(status, body)]
    with pytest.raises(module.UnitError) as raised:
        module.wait_until_ready(UNIT, service.url, "^ready", timeout=0)
    assert f"toy.service is not ready after 0 s: {service.url} should answer /^ready/" in str(raised.value)
    assert shown in str(raised.value)
    assert "what is left of the journal of toy.service" in str(raised.value)


def test_no_answer_is_not_ready_whatever_is_looked_for(service: Answers) -> None:
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(module.UnitError, match="no answer"):
        module.wait_until_ready(UNIT, service.url, "answer|refused|", timeout=0)


def test_a_unit_that_has_failed_is_told_of_at_once(systemd: Systemd, service: Answers) -> None:
    service.all = [(503, "")]
    systemd.has(ActiveState="failed", Result="exit-code")
    with pytest.raises(module.UnitError, match=r"toy.service keeps ending \(result: exit-code\).*\n.*what is left"):
        module.wait_until_ready(UNIT, service.url, "^ready", timeout=10)


def test_a_unit_that_restarts_by_itself_again_and_again_is_told_of_early(
    systemd: Systemd, service: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.all = [(503, "")]
    monkeypatch.setattr("time.sleep", lambda _: systemd.has(NRestarts=str(int(systemd.properties["NRestarts"]) + 1)))
    with pytest.raises(module.UnitError, match="keeps ending"):
        module.wait_until_ready(UNIT, service.url, "^ready", timeout=10)
    assert service.asked == 4


def test_restarts_of_earlier_days_do_not_count_as_failing_now(systemd: Systemd, service: Answers) -> None:
    systemd.has(NRestarts="17")
    service.all = [(503, "busy"), (200, "ready")]
    module.wait_until_ready(UNIT, service.url, "^ready", timeout=30)


# --- The module as a whole --------------------------------------------------------------------------------------------


def run_main(
    service: Answers, capsys: pytest.CaptureFixture[str], check_mode: bool = False, **parameters: Any
) -> dict[str, Any]:
    """Run the module as Ansible does; return its result."""
    given = {"unit": UNIT, "ready_url": service.url, "ready_body": "^ready", "ready_timeout": 0, **parameters}
    with patch_module_args({**given, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        systemd_app.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_run_does_what_is_needed_in_order_and_says_so(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.has(LoadState="not-found", ActiveState="inactive", UnitFileState="")
    result = run_main(service, capsys)
    assert (result["changed"], result["actions"]) == (True, ["daemon-reload", "enable", "start"])
    assert systemd.asked() == ["daemon-reload", f"enable {UNIT}", f"reset-failed {UNIT}", f"restart {UNIT}"]


def test_a_run_with_nothing_to_do_still_asks_whether_the_service_is_ready(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_main(service, capsys)
    assert (result["changed"], result["actions"], systemd.asked(), service.asked) == (False, [], [], 1)
    service.all = [(500, "broken")]
    assert run_main(service, capsys)["failed"] is True


def test_check_mode_says_what_would_be_done_and_does_nothing(
    systemd: Systemd, service: Answers, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_main(service, capsys, check_mode=True, reads=[settings])
    assert (result["changed"], result["actions"]) == (True, ["restart"])
    assert (systemd.asked(), service.asked) == ([], 0)


def test_a_systemctl_that_fails_ends_the_run_with_its_words(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.refuses("enable")
    systemd.has(UnitFileState="disabled")
    result = run_main(service, capsys)
    assert result["failed"] is True
    assert result["msg"] == "`systemctl enable toy.service` failed: refused by the test"


# --- Files and unit together ------------------------------------------------------------------------------------------


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    """A file as the module takes it, for the user who runs the tests."""
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    return {"path": str(tmp_path / "etc/toy.conf"), "content": "text\n", "owner": owner, "group": group}


def test_a_file_that_was_moved_in_restarts_the_process_that_is_older(
    service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    result = run_main(service, capsys, files=[wanted])
    assert (result["changed"], result["actions"]) == (True, ["restart"])
    assert Path(wanted["path"]).read_text() == "text\n"


def test_a_file_that_is_read_at_once_restarts_nothing(
    service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    result = run_main(service, capsys, files=[{**wanted, "on_change": "none"}])
    assert (result["changed"], result["actions"]) == (True, [])


def test_a_run_that_was_interrupted_before_the_restart_is_made_up_for(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systemd_app, "carry_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            systemd_app.converge(parameters_with(wanted), check_mode=False)
    result = run_main(service, capsys, files=[wanted])
    assert (result["diff"], result["actions"]) == ([], ["restart"])
    systemd.started(seconds_ago=-1)
    assert run_main(service, capsys, files=[wanted])["changed"] is False


def test_a_refused_file_leaves_the_unit_alone(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    systemd.has(ActiveState="inactive")
    result = run_main(service, capsys, files=[{**wanted, "validate": ["false %s"]}])
    assert (result["failed"], service.asked) == (True, 0)
    assert "was refused by `false %s`" in result["msg"]
    assert not (systemd.folder / "asked").exists()
    assert not Path(wanted["path"]).exists()


def test_check_mode_tells_of_the_restart_that_a_file_would_bring(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    systemd.started(seconds_ago=-1)
    result = run_main(service, capsys, check_mode=True, files=[wanted])
    assert (result["changed"], result["actions"], len(result["diff"])) == (True, ["restart"], 1)
    assert (systemd.asked(), service.asked, Path(wanted["path"]).exists()) == ([], 0, False)


def test_only_unit_files_among_the_files_are_looked_at_as_units(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    monkeypatch.setattr(systemd_app, "UNIT_FOLDER", tmp_path)
    files = [{**wanted, "path": str(tmp_path / name)} for name in ("toy.service", "toy.timer", "sub/toy.conf")]
    systemd_app.converge({**parameters_with(*files), "unit": "toy.timer"}, check_mode=True)
    (shown,) = (line for line in (systemd.folder / "asked").read_text().splitlines() if line.startswith("show "))
    assert shown.split()[1:-1] == ["toy.timer", "toy.service"]


def test_without_an_address_nothing_is_waited_for(service: Answers, wanted: dict[str, Any]) -> None:
    assert systemd_app.converge(parameters_with(wanted), check_mode=False)["changed"] is True
    assert service.asked == 0


# --- What the process has loaded --------------------------------------------------------------------------------------


CHECK = {"success_metric": "toy_reload_successful", "timestamp_metric": "toy_reload_seconds"}
BEFORE = (200, "toy_reload_successful 1\ntoy_reload_seconds 1.5e+09\nready\n")
TAKEN = (200, "toy_reload_successful 1\ntoy_reload_seconds 1.7e+09\nready\n")
REFUSED = (200, "toy_reload_successful 0\ntoy_reload_seconds 1.5e+09\nready\n")


def run_reload(service: Answers, capsys: pytest.CaptureFixture[str], *answers: tuple[int, str], **file: Any) -> Any:
    """Run the module with a file that is reloaded; it asks for the metrics, then for whether the service is ready."""
    service.asked, service.all = 0, [*answers]
    check = {**CHECK, "url": service.url}
    return run_main(service, capsys, files=[{**file, "on_change": "reload"}], reload_check=check, ready_body="ready")


@pytest.fixture
def loaded(service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]) -> dict[str, Any]:
    """The file of a service that has loaded it."""
    assert run_reload(service, capsys, BEFORE, TAKEN, **wanted)["actions"] == ["reload"]
    return wanted


def test_a_changed_file_that_is_reloaded_restarts_nothing(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], loaded: dict[str, Any]
) -> None:
    result = run_reload(service, capsys, BEFORE, TAKEN, **{**loaded, "content": "new\n"})
    assert (result["changed"], result["actions"]) == (True, ["reload"])
    assert systemd.asked() == [f"reload {UNIT}"] * 2
    assert run_reload(service, capsys, TAKEN, **{**loaded, "content": "new\n"})["changed"] is False


@pytest.mark.parametrize(
    ("answer", "words"),
    [(REFUSED, "refuses its new files"), (BEFORE, "has not taken within 0 s its new files")],
)
def test_what_a_service_does_not_take_is_put_back_and_reloaded(
    *,
    systemd: Systemd,
    service: Answers,
    capsys: pytest.CaptureFixture[str],
    loaded: dict[str, Any],
    answer: tuple[int, str],
    words: str,
) -> None:
    result = run_reload(service, capsys, BEFORE, answer, **{**loaded, "content": "new\n"})
    assert result["failed"] is True
    assert words in result["msg"]
    assert "What ran before was put back" in result["msg"]
    assert Path(loaded["path"]).read_text() == "text\n"
    assert systemd.asked()[1:] == [f"reload {UNIT}", "daemon-reload", f"reload {UNIT}"]


def test_a_stopped_service_that_does_not_get_ready_has_its_old_files_back_and_is_stopped(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], loaded: dict[str, Any]
) -> None:
    systemd.has(ActiveState="inactive")
    service.all = [(500, "broken")]
    result = run_main(service, capsys, files=[{**loaded, "content": "new\n"}])
    assert "What was there before was put back, and the service is stopped as it was." in result["msg"]
    assert Path(loaded["path"]).read_text() == "text\n"
    assert systemd.asked()[-2:] == ["daemon-reload", f"stop {UNIT}"]


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_first_start_that_fails_leaves_the_files_to_look_at(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any], state: str
) -> None:
    systemd.has(ActiveState=state)
    service.all = [(500, "broken")]
    result = run_main(service, capsys, files=[wanted])
    assert result["failed"] is True
    assert "put back" not in result["msg"]
    assert Path(wanted["path"]).read_text() == "text\n"


def test_a_run_that_was_interrupted_before_the_reload_is_made_up_for(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], loaded: dict[str, Any]
) -> None:
    new = {**loaded, "content": "new\n"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systemd_app, "carry_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            systemd_app.converge(parameters_with({**new, "on_change": "reload"}), check_mode=False)
    result = run_reload(service, capsys, BEFORE, TAKEN, **new)
    assert (result["diff"], result["actions"]) == ([], ["reload"])
    assert systemd.asked() == [f"reload {UNIT}"] * 2


def test_a_restart_is_enough_where_another_file_needs_one(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    other = {**wanted, "path": wanted["path"] + "2"}
    result = run_main(service, capsys, files=[{**wanted, "on_change": "reload"}, other])
    assert (result["actions"], systemd.asked()) == (["restart"], [f"reset-failed {UNIT}", f"restart {UNIT}"])


def test_new_workers_tell_that_a_reload_was_taken(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd.has(MainPID=str(os.getpid()))
    found = [{"1"}, {"1"}, {"1", "2"}]
    monkeypatch.setattr(module, "children_of", lambda _: found.pop(0))
    module.ReloadWatch(UNIT, {"workers": True}).wait(5)
    assert found == []


def test_children_are_those_of_the_process_alone() -> None:
    with subprocess.Popen(["sleep", "9"]) as child:
        assert str(child.pid) in module.children_of(str(os.getpid()))
        assert str(child.pid) not in module.children_of("1")
        child.kill()


def test_a_clock_that_was_set_back_restarts_nothing(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    run_main(service, capsys, files=[wanted])
    # Every file is now younger than the process. So it is for one that the host has started since.
    for seconds in (None, 3600):
        if seconds:
            systemd.started(seconds_ago=seconds)
        assert run_main(service, capsys, files=[wanted])["actions"] == []


def test_a_file_written_again_with_its_own_text_restarts_nothing(
    service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    run_main(service, capsys, files=[wanted])
    Path(wanted["path"]).write_text("by hand\n")
    Path(wanted["path"]).write_text("text\n")
    assert run_main(service, capsys, files=[wanted])["actions"] == []


def test_a_process_that_somebody_started_with_other_files_is_restarted(
    systemd: Systemd, service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    run_main(service, capsys, files=[wanted])
    Path(wanted["path"]).write_text("by hand\n")
    systemd.started(seconds_ago=0)
    Path(wanted["path"]).write_text("text\n")
    assert run_main(service, capsys, files=[wanted])["actions"] == ["restart"]
    assert run_main(service, capsys, files=[wanted])["actions"] == []


def test_a_file_that_goes_is_made_up_for(
    service: Answers, capsys: pytest.CaptureFixture[str], tmp_path: Path, loaded: dict[str, Any]
) -> None:
    (tmp_path / "etc/old").touch()
    gone = {**parameters_with({**loaded, "on_change": "reload"}), "absent": [str(tmp_path / "etc/o*")]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systemd_app, "carry_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            systemd_app.converge(gone, check_mode=False)
    assert run_reload(service, capsys, BEFORE, TAKEN, **loaded)["actions"] == ["reload"]


def test_a_watched_file_that_is_removed_asks_nothing_of_the_unit(
    service: Answers, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any], tmp_path: Path
) -> None:
    watched = {"path": str(tmp_path / "etc/watched/a"), "content": "text\n", "on_change": "none"}
    run_main(service, capsys, files=[wanted, watched])
    (tmp_path / "etc/watched/old").touch()
    result = run_main(service, capsys, files=[wanted, watched], absent=[str(tmp_path / "etc/watched/*")])
    assert (result["changed"], result["actions"]) == (True, [])
    assert run_main(service, capsys, files=[wanted, watched])["actions"] == []


def test_what_is_remembered_is_for_root_alone(states: Path, loaded: dict[str, Any]) -> None:
    assert (states / f"{UNIT}.json").stat().st_mode & 0o777 == 0o600
    assert loaded["path"] in (states / f"{UNIT}.json").read_text()
    assert [path.name for path in states.iterdir()] == [f"{UNIT}.json"]


def parameters_with(*files: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module that waits for nothing."""
    unset: dict[str, Any] = {
        "secret": None,
        "mode": "0644",
        "validate": [],
        "apply": None,
        "on_change": "restart",
        "read_by": None,
    }
    given = [{**unset, **file} for file in files]
    return {
        "unit": UNIT,
        "files": given,
        "absent": [],
        "reads": [],
        "image": None,
        "root": "/none",
        "ready_url": None,
        "reload_check": None,
        "upgrade_timeout": 0,
        "databases": [],
    }
