# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The doctor's first step: the app writes, or somebody writes to the journal."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import (
    SILENCE,
    Outcome,
    StepFailed,
    ask,
    silent_unit,
    until,
)
from ansible_collections.logstead.platform.plugins.module_utils.doctor_promtail import (
    DROPPED,
    SENT,
    check_kinds,
    metrics_of,
    total,
)
from ansible_collections.logstead.platform.plugins.module_utils.log_files import tail_of

CONTRACT = ("timestamp", "level", "logger_name", "message", "service_name", "trace_id", "span_id")
RECORDS = 200
WRITE_SECONDS = 5


def new_probe(host: str, kind: str, trace_id: str, query: str, promtail_url: str) -> dict[str, Any]:
    """Return the line to look for, and what Promtail had sent before it was written."""
    metrics = metrics_of(promtail_url) if promtail_url else None
    before = None if metrics is None else {"sent": total(metrics, SENT), "dropped": total(metrics, DROPPED)}
    return {"host": host, "kind": kind, "trace_id": trace_id, "query": query, "before": before}


def problem_of(line: bytes) -> str:
    """Return what is wrong with a record, or nothing."""
    try:
        record = json.loads(line)
    except ValueError:
        return "is no JSON"
    if not isinstance(record, dict):
        return "is no JSON object"
    missing = [name for name in CONTRACT if name not in record]
    return f"lacks {', '.join(missing)}" if missing else ""


def check_records(path: Path) -> int:
    """Check the end of a log file; return how many records were looked at."""
    lines = tail_of(path)[-RECORDS:]
    for line in lines:
        problem = problem_of(line)
        if problem:
            raise StepFailed(
                f"a line of {path} {problem}: {line[:200].decode(errors='replace')}",
                "have only the app's own logging write to this file, one JSON object a line: docs/adopt-logging.md.",
            )
    return len(lines)


def check_app(parameters: dict[str, Any]) -> Outcome:
    """Ask the demo app for a trace, and read its files."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    query = f'{{job="fastapi"}} | trace_id="{trace_id}"'
    probe = new_probe(parameters["host"], "app", trace_id, query, parameters["promtail_url"])
    url = f"{parameters['url']}/trace/{int(trace_id[:4], 16)}"
    status, body = ask(url, {"traceparent": f"00-{trace_id}-{span_id}-01"})
    if status == SILENCE:
        silent_unit("demo-app", url, body)
    if status != 200:
        raise StepFailed(
            f"{url} answers {status}: {body[:200]}",
            "look for the error: ./manage.sh logs demo-app. A 404 means that another program has this port.",
        )
    folder = Path(parameters["log_folder"])
    files = [folder / "app.log", folder / "access.log"]
    check_kinds(files)
    wanted = trace_id.encode()
    found = 0

    def is_written() -> bool:
        nonlocal found
        found = sum(wanted in line for file in files if file.exists() for line in tail_of(file))
        return files[1].exists() and any(wanted in line for line in tail_of(files[1]))

    if not until(is_written, WRITE_SECONDS):
        missing = [str(file) for file in files if not file.exists()]
        what = f"{' and '.join(missing)} isn't there" if missing else f"{files[1]} has no record of the request"
        raise StepFailed(
            f"the app answers, but {what} (trace {trace_id}).",
            f"look whether the disk is full (df {folder}), whether demo-app may write there (ls -l {folder}), and what "
            "the app says: ./manage.sh logs demo-app. ./manage.sh restart demo-app opens the files again.",
        )
    checked = sum(check_records(file) for file in files if file.exists())
    return Outcome(
        f"{found} records of the probe; the last {checked} lines are all JSON with the agreed fields", probe=probe
    )


def write_to_journal(parameters: dict[str, Any]) -> Outcome:
    """Write a line to the journal."""
    trace_id = secrets.token_hex(16)
    # The whole line, as Ansible logs its modules' parameters to the journal too, and the id is among them.
    query = f'{{job="systemd-journal"}} |~ "^probe {trace_id}$"'
    probe = new_probe(parameters["host"], "journal", trace_id, query, parameters["promtail_url"])
    subprocess.run(["logger", "-t", "logstead-doctor", f"probe {trace_id}"], check=True)
    return Outcome("no demo app here; the probe was written to the journal", probe=probe)
