"""The demo app as a service; what it logs is tested with its package, in demo_app/tests/."""

from __future__ import annotations

import json
import secrets
from typing import Any

from support import check_service, eventually, fetch, journal

APP = "http://127.0.0.1:8001"
LOGS = "/var/log/demo-app"


def logged(host: Any, file: str, trace_id: str) -> list[str]:
    """Return the lines of a trace in a log."""
    return str(host.run(f"grep -hF {trace_id} {LOGS}/{file}").stdout).splitlines()


def test_runs_as_its_own_user_and_comes_back_at_boot(host: Any) -> None:
    check_service(host, "demo-app")


def test_answers_at_every_endpoint(host: Any) -> None:
    statuses = {path: fetch(host, APP + path)[0] for path in ("/", "/health", "/trace/42", "/error", "/none")}
    assert statuses == {"/": 200, "/health": 200, "/trace/42": 200, "/error": 500, "/none": 404}, journal(
        host, "demo-app"
    )


def test_logs_one_canonical_record_a_request_whatever_the_level(host: Any) -> None:
    trace_id = secrets.token_hex(16)
    fetch(host, f"{APP}/trace/42", "--header", f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01")
    records = eventually(lambda: logged(host, "access.log", trace_id))
    assert [json.loads(record)["endpoint"] for record in records] == ["/trace/{item_id}"]
    # The level is WARNING here.
    assert logged(host, "app.log", trace_id) == []


def test_its_logs_can_be_read_by_the_group_of_readers_and_nobody_else(host: Any) -> None:
    folder = host.file(LOGS)
    assert (folder.user, folder.group, folder.mode) == ("demo-app", "adm", 0o2750)
    for name in ("app.log", "access.log", "error.log"):
        log = host.file(f"{LOGS}/{name}")
        assert (log.user, log.group, log.mode) == ("demo-app", "adm", 0o640), name


def test_writes_nothing_to_the_journal_that_is_in_its_files(host: Any) -> None:
    fetch(host, f"{APP}/error")
    said = host.check_output("journalctl --unit demo-app --output cat --no-pager")
    assert "Traceback" not in said
    assert "trace_id" not in said


def test_goes_on_in_a_new_file_when_its_log_is_moved_away(host: Any) -> None:
    host.check_output(f"mv {LOGS}/access.log {LOGS}/access.log.moved")
    trace_id = secrets.token_hex(16)
    fetch(host, f"{APP}/", "--header", f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01")
    assert eventually(lambda: logged(host, "access.log", trace_id))
    assert logged(host, "access.log.moved", trace_id) == []
    assert host.file(f"{LOGS}/access.log").group == "adm"


def test_a_stop_is_quick_and_clean(host: Any) -> None:
    host.check_output("systemctl restart demo-app")
    eventually(lambda: fetch(host, f"{APP}/health")[0] == 200)
    assert "Failed with result" not in journal(host, "demo-app")
