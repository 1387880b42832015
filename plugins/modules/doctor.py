#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: follow one log line on one host through one step of its way from the app to Grafana."""

from __future__ import annotations

import base64
import glob
import json
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: doctor
version_added: 1.0.0
short_description: Verify one step of the way that a log line takes from the application to Grafana
description:
  - Each call runs one O(step) on one host. The first step creates a log line, and the following ones look for it.
  - A step that finds a fault doesn't make the module fail. The result is in RV(outcome), with the cause and what to do,
    so that M(logstead.platform.doctor_report) can report on all hosts at once.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: Check mode makes no difference. The steps V(app) and V(journal) always write the log line they look for.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  step:
    description:
      - V(app) requests a trace from the demo app and reads its log files.
      - V(journal) writes a line to the systemd journal, on a host without the app.
      - Either of them creates the line that the other steps look for, RV(probe).
      - V(promtail) verifies that Promtail reads and sends, V(loki) and V(grafana) that they find the lines.
      - V(alerts) verifies that Prometheus scrapes every target, evaluates its rules, and reaches Alertmanager.
      - V(grafana_alerts) verifies that Grafana evaluates its rules.
    type: str
    choices: [app, journal, promtail, loki, grafana, alerts, grafana_alerts]
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  url:
    description: URL of the component. Unused if O(step=journal).
    type: str
    default: ""
  promtail_url:
    description: URL of the host's Promtail, if it has one. Used by O(step=app) and O(step=journal).
    type: str
    default: ""
  log_folder:
    description: Directory of the app's log files. Required if O(step=app), and used by O(step=promtail).
    type: path
  loki_url:
    description: URL that Promtail should send to. Used by O(step=promtail).
    type: str
    default: ""
  log_files:
    description:
      - The log files that Promtail should read, each a dictionary with the pattern C(path) and optionally C(exclude).
        Used by O(step=promtail).
    type: list
    elements: dict
    default: []
  probes:
    description: The RV(probe) of the first step, of one or more hosts.
    type: list
    elements: dict
    default: []
  user:
    description: Login name. Used by O(step=grafana), O(step=grafana_alerts), and O(step=loki) behind a gateway.
    type: str
    default: admin
  password:
    description: Password of O(user). Required if O(step=grafana) or O(step=grafana_alerts).
    type: str
  tenant:
    description: Tenant, if Loki is queried through a gateway. Used by O(step=loki).
    type: str
    default: ""
  ca:
    description: PEM file with the CA certificate that Loki's URL is verified against. Ignored if it doesn't exist.
    type: path
  alertmanager_url:
    description: URL of Alertmanager, if there is one. Used by O(step=alerts).
    type: str
    default: ""
  datasource:
    description: The uid of the data source. Used by O(step=grafana).
    type: str
    default: loki
  timeout:
    description: How long to wait for what is expected, in seconds.
    type: int
    default: 60
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Write a line to the journal
  logstead.platform.doctor:
    step: journal
    host: "{{ inventory_hostname }}"
    promtail_url: http://127.0.0.1:9080
  register: doctor_written

- name: Verify that Loki has it
  logstead.platform.doctor:
    step: loki
    host: "{{ inventory_hostname }}"
    url: http://127.0.0.1:3100
    probes: ["{{ doctor_written['probe'] }}"]
  register: doctor_stored
"""

RETURN = r"""
outcome:
  description: C(passed) or C(failed).
  type: str
  returned: always
detail:
  description: What the step has found. Empty if it failed.
  type: str
  returned: always
cause:
  description: What is wrong. Empty if the step passed.
  type: str
  returned: always
advice:
  description: What to do. Empty if the step passed.
  type: str
  returned: always
seconds:
  description: How long the step took.
  type: float
  returned: always
probe:
  description: The line to look for, from O(step=app) and O(step=journal). Empty otherwise.
  type: dict
  returned: always
lines:
  description: The lines that O(step=loki) and O(step=grafana) have found.
  type: list
  elements: str
  returned: always
"""

CONTRACT = ("timestamp", "level", "logger_name", "message", "service_name", "trace_id", "span_id")
RECORDS = 200
TAIL_BYTES = 1 << 20
POLL_SECONDS = 0.3
# A line must be on its way within this time; Promtail's longest pause between two tries is 10 s.
SEND_SECONDS = 20
WRITE_SECONDS = 5
SILENCE = 0  # the status of an address that doesn't answer
CONTEXT = ssl.create_default_context()
OPENER = build_opener(ProxyHandler({}), HTTPSHandler(context=CONTEXT))  # never through the environment's proxy
LEAST_DAYS = 14  # that the gateway's certificate has to be valid for

Metrics = list[tuple[str, dict[str, str], float]]


class StepFailed(Exception):  # noqa: N818  # a finding, not an error of the module
    """Says what is wrong and what to do."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(cause)
        self.cause, self.advice = cause, advice


@dataclass
class Outcome:
    """What a step has found."""

    detail: str
    outcome: str = "passed"
    cause: str = ""
    advice: str = ""
    probe: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


# --- Asking ---


def ask(url: str, headers: dict[str, str] | None = None, timeout: float = 10) -> tuple[int, str]:
    """Return the status and the body of what an address answers; status 0 and the reason if it doesn't answer."""
    try:
        with OPENER.open(Request(url, headers=headers or {}), timeout=timeout) as response:  # noqa: S310  # http only
            return int(response.status), response.read().decode(errors="replace")
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return SILENCE, str(error.reason if isinstance(error, URLError) else error)


def parsed(body: str) -> Any:
    """Return what JSON says, or None if it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def until(look: Callable[[], bool], seconds: float) -> bool:
    """Look until it is so, or the time is over; return whether it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def output_of(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="replace").stdout.strip()


def journal_of(unit: str, lines: int = 5, matching: str = "") -> str:
    """Return the end of a unit's journal, or of its lines that match."""
    printed = output_of(
        "journalctl", "--unit", unit, "--lines", "200", "--no-pager", "--output", "cat", "--since", "-1h"
    )
    found = [line[:400] for line in printed.splitlines() if re.search(matching, line)]
    return "\n".join(f"  {line}" for line in found[-lines:]) or "  (nothing)"


def silent_unit(name: str, url: str, reason: str) -> NoReturn:
    """Fail because a component doesn't answer."""
    state = output_of("systemctl", "is-active", f"{name}.service") or "unknown"
    if output_of("systemctl", "show", "--property=LoadState", "--value", f"{name}.service") == "not-found":
        raise StepFailed(f"{name} is not installed.", "install it: ansible-playbook site.yml with this inventory.")
    if state in ("inactive", "failed"):
        raise StepFailed(
            f"{name}.service is {state}. The end of its journal:\n{journal_of(name)}",
            f"start it: ./manage.sh start {name}. If it ends again: ./manage.sh logs {name}.",
        )
    raise StepFailed(
        f"{name}.service is {state}, but {url} doesn't answer ({reason}).",
        f"read ./manage.sh logs {name}. Another address than the inventory's may be in force: then run site.yml.",
    )


# --- Step 1: the app writes, or somebody writes to the journal ---


def new_probe(host: str, kind: str, trace_id: str, query: str, promtail_url: str) -> dict[str, Any]:
    """Return the line to look for, and what Promtail had sent before it was written."""
    metrics = metrics_of(promtail_url) if promtail_url else None
    before = None if metrics is None else {"sent": total(metrics, SENT), "dropped": total(metrics, DROPPED)}
    return {"host": host, "kind": kind, "trace_id": trace_id, "query": query, "before": before}


def tail_of(path: Path) -> list[bytes]:
    """Return the last whole lines of a file."""
    with path.open("rb") as file:
        file.seek(0, 2)
        start = max(0, file.tell() - TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    # What follows the last end of a line is being written.
    return [line for line in lines[1 if start else 0 : -1] if line.strip()]


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


# --- Step 2: Promtail sends ---

SENT, DROPPED, PUSHES = (
    "promtail_sent_entries_total",
    "promtail_dropped_entries_total",
    "promtail_request_duration_seconds_count",
)
SAMPLE = re.compile(r"^([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def read_metrics(text: str) -> Metrics:
    """Return the samples of Prometheus' text format."""
    matches = (SAMPLE.match(line) for line in text.splitlines())
    return [(found[1], dict(LABEL.findall(found[2] or "")), float(found[3])) for found in matches if found]


def metrics_of(url: str) -> Metrics | None:
    """Return Promtail's metrics, or None if it doesn't answer."""
    status, body = ask(f"{url}/metrics")
    return read_metrics(body) if status == 200 else None


def total(metrics: Metrics, name: str) -> float:
    """Return the sum of all samples of a name."""
    return sum(value for sample, _, value in metrics if sample == name)


def by_label(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    """Return the samples of a name by one of their labels."""
    values: dict[str, float] = {}
    for sample, labels, value in metrics:
        if sample == name:
            values[labels.get(label, "")] = values.get(labels.get(label, ""), 0) + value
    return values


def existing_files(entries: Iterable[dict[str, Any]]) -> list[Path]:
    """Return the files that there are for Promtail to read."""
    found: set[str] = set()
    for entry in entries:
        excluded = glob.glob(str(entry.get("exclude", "")), recursive=True)
        found |= set(glob.glob(str(entry["path"]), recursive=True)) - set(excluded)
    return [path for path in map(Path, sorted(found)) if path.is_file()]


def credentials_of(pid: str) -> dict[str, Any]:
    """Return the user and the groups of a process, as subprocess takes them."""
    status = Path("/proc", pid, "status").read_text()
    ids = {
        name: [int(word) for word in words.split()]
        for name, words in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.M)
    }
    return {"user": ids["Uid"][1], "group": ids["Gid"][1], "extra_groups": ids["Groups"]}


def process_of(name: str) -> str:
    """Return the number of a part's process, empty if it doesn't run: not podman's, which is a container's unit's."""
    contained = output_of("podman", "inspect", "--format={{.State.Pid}}", name) if shutil.which("podman") else ""
    pid = contained or output_of("systemctl", "show", "--property=MainPID", "--value", f"{name}.service")
    return pid if pid != "0" else ""


def check_readable(files: Iterable[Path]) -> None:
    """Try to read each file with the rights that Promtail's process has."""
    pid = process_of("promtail")
    if not pid:
        return
    for file in files:
        # An already opened file would be read on until the next restart, so what Promtail says can't tell.
        test = subprocess.run(["test", "-r", str(file)], check=False, cwd="/", **credentials_of(pid))
        if test.returncode != 0:
            found = output_of("namei", "--long", str(file))
            raise StepFailed(
                f"Promtail may not read {file}:\n{found}",
                "give the file and the folders above it a group that Promtail is in (promtail_groups; adm by default), "
                f"and a mode that lets it read: chgrp adm {file}; chmod 0640 {file}.",
            )


def check_tailed(url: str, files: list[Path], app_files: list[Path]) -> Metrics:
    """Check that each file is read to its end; return Promtail's metrics."""
    metrics: Metrics = []

    def behind() -> list[str]:
        nonlocal metrics
        metrics = metrics_of(url) or metrics
        sizes, positions = (
            by_label(metrics, name, "path") for name in ("promtail_file_bytes_total", "promtail_read_bytes_total")
        )
        wanted = [str(file) for file in files if file.stat().st_size]
        return [file for file in wanted if file not in sizes or positions.get(file, 0) < sizes[file]]

    if not until(lambda: not behind(), SEND_SECONDS):
        tailed = by_label(metrics, "promtail_file_bytes_total", "path")
        ignored = [file for file in behind() if file not in tailed]
        errors = journal_of("promtail", matching=r"level=(error|warn)")
        if ignored:
            raise StepFailed(
                f"Promtail doesn't read {', '.join(ignored)}; it reads {', '.join(sorted(tailed)) or 'no file'}. "
                f"The last errors in its journal:\n{errors}",
                "run site.yml, so that its settings are those of promtail_log_files.",
            )
        raise StepFailed(
            f"Promtail is behind in {', '.join(behind())}. The last errors in its journal:\n{errors}",
            "if it can't send, mend that; if it is only slow, wait and run doctor again.",
        )
    unmatched = [str(file) for file in app_files if file not in files]
    if unmatched:
        raise StepFailed(
            f"no entry of promtail_log_files matches {', '.join(unmatched)}.",
            "add it there (group_vars/all/logs.yml), or set demo_app_log_folder right; then run site.yml.",
        )
    return metrics


def loki_is_away(loki: str) -> NoReturn:
    """Fail because Promtail can't reach Loki."""
    _, reason = ask(f"{loki}/ready")
    errors = journal_of("promtail", lines=3, matching=r"level=(error|warn).*(batch|client|push|Loki)")
    raise StepFailed(
        f"Promtail can't reach Loki at {loki} ({reason.strip()[:100]}). The last errors in its journal:\n{errors}",
        "start Loki (./manage.sh start loki), or look for a firewall between the two; ./manage.sh status tells "
        "whether it runs. Promtail keeps trying, and sends what has gathered.",
    )


def explain_silence(parameters: dict[str, Any], failures: dict[str, float]) -> NoReturn:
    """Fail because nothing is sent, with the reason that the status of the pushes gives."""
    errors = journal_of("promtail", lines=3, matching=r"level=(error|warn).*(batch|client|push)")
    loki = parameters["loki_url"]
    if "-1" in failures:
        loki_is_away(loki)
    advice = {
        "429": "raise ingestion_rate_mb or per_stream_rate_limit by loki_config_overrides, or log less.",
        "400": "the lines are too old, too far in the future (see timedatectl), or have too many labels.",
        "401": "Loki, or a proxy before it, wants a log-in: set promtail_loki_gateway.",
        "503": "Loki isn't ready, or the gateway doesn't know Promtail's user: run site.yml here and where it is.",
        "404": f"{loki} is not Loki's address: set promtail_loki_url.",
    }
    statuses = ", ".join(sorted(failures))
    raise StepFailed(
        (
            f"Loki answers Promtail's pushes with {statuses}"
            if failures
            else "Promtail reads, but has sent nothing since the probe"
        )
        + f". The last errors in its journal:\n{errors}",
        next(
            (text for status, text in advice.items() if status in failures),
            "read ./manage.sh logs loki and ./manage.sh logs promtail.",
        ),
    )


def check_sent(parameters: dict[str, Any], before: dict[str, float]) -> None:
    """Check that something has been sent since the probe was written, and nothing dropped."""
    metrics = metrics_of(parameters["url"]) or []
    at_first = by_label(metrics, PUSHES, "status_code")
    failures: dict[str, float] = {}

    def is_clear() -> bool:
        nonlocal metrics, failures
        metrics = metrics_of(parameters["url"]) or metrics
        pushes = by_label(metrics, PUSHES, "status_code")
        failures = {code: count for code, count in pushes.items() if code[:1] != "2" and count > at_first.get(code, 0)}
        # Loki may just have come back; if it hasn't, there is nothing to wait for.
        is_gone = "-1" in pushes and ask(f"{parameters['loki_url']}/ready", timeout=3)[0] == SILENCE
        failures.update({"-1": pushes["-1"]} if is_gone else {})
        return total(metrics, SENT) > before["sent"] or is_gone

    if not until(is_clear, SEND_SECONDS) or total(metrics, SENT) <= before["sent"]:
        explain_silence(parameters, failures)
    if total(metrics, DROPPED) > before["dropped"]:
        reasons = [f"{reason}: {count:.0f}" for reason, count in by_label(metrics, DROPPED, "reason").items() if count]
        errors = journal_of("promtail", matching="level=(error|warn)")
        raise StepFailed(
            f"Promtail throws lines away (since its start, {', '.join(reasons)}). "
            f"The last errors in its journal:\n{errors}",
            "for rate_limited or stream_limited raise Loki's limits by loki_config_overrides; for line_too_long, "
            "Promtail's max_line_size by promtail_config_overrides.",
        )


def check_promtail(parameters: dict[str, Any]) -> Outcome:
    """Look whether Promtail reads what it should and sends it."""
    url = parameters["url"]
    status, body = ask(f"{url}/ready")
    if status == SILENCE:
        silent_unit("promtail", url, body)
    if not body.startswith("Ready"):
        raise StepFailed(
            f"{url}/ready answers {status} {body[:200]!r} instead of Ready.",
            "look what has this port (ss -ltnp), and what Promtail says: ./manage.sh logs promtail.",
        )
    if "waiting for Loki" in body:  # what it has to know before it starts: docs/delivery.md
        loki_is_away(parameters["loki_url"])
    probe = next((probe for probe in parameters["probes"] if probe["host"] == parameters["host"]), None)
    files = existing_files(parameters["log_files"])
    check_readable(files)
    is_app = probe is not None and probe["kind"] == "app"
    app_files = [Path(parameters["log_folder"], name) for name in ("app.log", "access.log")] if is_app else []
    # Without its answer at the first step, everything that it has sent since its start counts.
    before = (probe or {}).get("before") or {"sent": 0, "dropped": 0}
    # What it can't send, it doesn't read on either: so this is looked at first.
    check_sent(parameters, before)
    metrics = check_tailed(url, files, app_files)
    sent = total(metrics, SENT) - before["sent"]
    targets = total(metrics, "promtail_targets_active_total")
    return Outcome(
        f"{targets:.0f} targets, {len(files)} files read to the end, {sent:.0f} lines sent and none dropped since then"
    )


# --- Steps 3 and 4: Loki and Grafana find the line ---


def find_lines(api: str, query: str, headers: dict[str, str] | None = None) -> tuple[int, str, list[str]]:
    """Return the status, the body and the lines of a query for the last hour."""
    now = time.time_ns()
    span = {"start": str(now - 3600 * 10**9), "end": str(now + 600 * 10**9), "limit": "20", "direction": "forward"}
    status, body = ask(f"{api}/query_range?{urlencode({'query': query, **span})}", headers)
    data = (parsed(body) or {}).get("data", {}) if status == 200 else {}
    lines = [(int(stamp), line) for stream in data.get("result", []) for stamp, line, *_ in stream["values"]]
    return status, body, [line for _, line in sorted(lines)]


def missing_line(api: str, probe: dict[str, Any], timeout: int, headers: dict[str, str]) -> NoReturn:
    """Fail because Loki doesn't have a line."""
    selector = probe["query"].partition("}")[0]
    _, _, others = find_lines(api, f'{selector}, host="{probe["host"]}"}}', headers)
    rest = "other lines of this job in the last hour" if others else "no line of this job in the last hour at all"
    raise StepFailed(
        f"Loki answers, but hasn't the line of {probe['host']} after {timeout} s: {probe['query']} finds nothing, "
        f"while that host has {rest}.",
        "compare the clocks of the hosts (timedatectl), and the job and the format of that file in promtail_log_files; "
        f"./manage.sh logs promtail -l {probe['host']} shows what Promtail was answered.",
    )


def log_in(parameters: dict[str, Any]) -> dict[str, str]:
    """Return the header with which the user logs in."""
    pair = base64.b64encode(f"{parameters['user']}:{parameters['password']}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def check_gateway(parameters: dict[str, Any]) -> None:
    """Look whether the gateway lets in who has a credential, nobody else, and has a certificate for a while."""
    url, tenant = parameters["url"], parameters["tenant"]
    status, body = ask(f"{url}/health")
    if status == SILENCE:
        if Path("/etc/systemd/system/gateway.service").exists():
            silent_unit("gateway", url, body)
        raise StepFailed(
            f"the gateway at {url} doesn't answer as it should ({body}).",
            "look for a firewall, or whether platform_gateway_url and platform_gateway_ca are those of the gateway; "
            "./manage.sh status in its inventory tells whether it runs.",
        )
    status, _ = ask(f"{url}/loki/api/v1/labels")
    if status != 401:
        raise StepFailed(
            f"{url} answers {status} to somebody who hasn't logged in, instead of 401.",
            "run site.yml where the gateway is; another program may have its port (ss -ltnp).",
        )
    status, body = ask(f"{url}/ready", log_in(parameters))
    if status == 401:
        raise StepFailed(
            f"the gateway doesn't let {parameters['user']} in.",
            f"give the gateway the platform_credentials['{tenant}'] of this inventory, and run site.yml there.",
        )
    if status == 502:
        raise StepFailed("the gateway can't reach Loki.", "start it: ./manage.sh start loki, where the gateway is.")
    address = urlsplit(url)
    host, port = str(address.hostname), address.port or 443
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        CONTEXT.wrap_socket(plain, server_hostname=host) as tls,
    ):
        certificate = tls.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    if days < LEAST_DAYS:
        raise StepFailed(
            f"the gateway's certificate ends in {days:.0f} days.",
            "run site.yml where the gateway is, with a new gateway_certificate if it has one.",
        )


def check_loki(parameters: dict[str, Any]) -> Outcome:
    """Look whether Loki is ready, has labels, and finds every probe."""
    url, probes = parameters["url"], list(parameters["probes"])
    api = f"{url}/loki/api/v1"
    headers = {}
    if parameters["tenant"]:
        check_gateway(parameters)
        headers = log_in(parameters)
    status, body = ask(f"{url}/ready", headers)
    if status == SILENCE:
        silent_unit("loki", url, body)
    if not body.startswith("ready"):
        raise StepFailed(
            f"{url}/ready answers {status}: {body[:200].strip()}",
            "wait if it has just been started; else read ./manage.sh logs loki, and see what has this port (ss -ltnp).",
        )
    lines: list[str] = []

    def is_found() -> bool:
        for probe in list(probes):
            found = find_lines(api, probe["query"], headers)[2]
            if found:
                lines.extend(found)
                probes.remove(probe)
        return not probes

    if not until(is_found, parameters["timeout"]):
        missing_line(api, probes[0], parameters["timeout"], headers)
    status, body = ask(f"{api}/labels", headers)
    labels = (parsed(body) or {}).get("data") or []
    if parameters["probes"] and not {"job", "service_name", "host"} <= set(labels):
        raise StepFailed(
            f"{api}/labels answers {status}: {', '.join(labels) or 'no label'}; job, service_name or host is missing.",
            "run site.yml, so that Promtail's settings are those of the platform.",
        )
    if not parameters["probes"]:
        return Outcome("it is ready, but nobody has sent a line to look for")
    return Outcome(f"{len(lines)} lines by the trace id, labels: {', '.join(sorted(labels))}", lines=lines)


def check_grafana(parameters: dict[str, Any]) -> Outcome:
    """Look whether Grafana lets in, and its data source finds a probe."""
    url, uid = parameters["url"], quote(parameters["datasource"], safe="")
    headers = {**log_in(parameters), "Accept": "application/json"}
    status, body = ask(f"{url}/api/health")
    if status == SILENCE:
        silent_unit("grafana", url, body)
    if (parsed(body) or {}).get("database") != "ok":
        raise StepFailed(
            f"{url}/api/health answers {status}: {body[:200]!r}",
            "read ./manage.sh logs grafana, and look what has this port (ss -ltnp).",
        )
    status, body = ask(f"{url}/api/org", headers)
    if status != 200:
        raise StepFailed(
            f"Grafana doesn't let {parameters['user']} log in ({status}: {body[:200]}).",
            "run site.yml, which sets the password to grafana_admin_password. Wrong tries lock a user for a while.",
        )
    status, body = ask(f"{url}/api/datasources/uid/{uid}", headers)
    source = parsed(body) if status == 200 else None
    if not isinstance(source, dict):
        raise StepFailed(f"Grafana has no data source with the uid {uid} ({status}).", "run site.yml --tags grafana.")
    status, body = ask(f"{url}/api/datasources/uid/{uid}/health", headers, timeout=60)
    if status != 200:
        raise StepFailed(
            f"Grafana's data source {source.get('name')} can't ask Loki at {source.get('url')}: "
            f"{(parsed(body) or {}).get('message') or body[:200]}",
            "if that address is wrong, run site.yml --tags grafana, with another grafana_loki_url if need be; else "
            f"look for a firewall: curl {source.get('url')}/ready on Grafana's host.",
        )
    if not parameters["probes"]:
        return Outcome("log-in and data source work, but there is no line to look for")
    probe = parameters["probes"][0]
    status, body, lines = find_lines(f"{url}/api/datasources/proxy/uid/{uid}/loki/api/v1", probe["query"], headers)
    if not lines:
        host = urlsplit(str(source.get("url"))).netloc
        raise StepFailed(
            f"Grafana's data source works, but finds nothing for {probe['query']} ({status}: {body[:200].strip()}).",
            f"look whether {host} is the Loki that Promtail sends to: grafana_loki_url and promtail_loki_url.",
        )
    return Outcome(
        f"log-in works, the data source is healthy and finds {len(lines)} lines by the trace id", lines=lines
    )


# --- Step 5: metrics and alerts ---


def ask_prometheus(url: str, path: str) -> Any:
    """Return what Prometheus' API calls data."""
    status, body = ask(f"{url}/api/v1/{path}")
    answer = parsed(body) if status == 200 else None
    if not isinstance(answer, dict) or "data" not in answer:
        raise StepFailed(
            f"{url}/api/v1/{path} answers {status}: {body[:200].strip()}",
            "read ./manage.sh logs prometheus, and see what has this port (ss -ltnp).",
        )
    return answer["data"]


def check_alertmanager(url: str, alertmanager: str) -> str:
    """Look whether Prometheus reaches Alertmanager; tell how many alerts it has, and whether anybody is told."""
    status, body = ask(f"{alertmanager}/api/v2/receivers")
    receivers = parsed(body) if status == 200 else None
    if not isinstance(receivers, list):
        raise StepFailed(
            f"Alertmanager at {alertmanager} answers {status}: {body[:200].strip()}",
            "./manage.sh status says whether it runs; start it, or read ./manage.sh logs alertmanager.",
        )
    found = [urlsplit(one["url"]).netloc for one in ask_prometheus(url, "alertmanagers")["activeAlertmanagers"]]
    if urlsplit(alertmanager).netloc not in found:
        raise StepFailed(
            f"Prometheus doesn't send alerts to {alertmanager}, but to {', '.join(found) or 'nobody'}.",
            "run site.yml --tags prometheus.",
        )
    status, body = ask(f"{alertmanager}/api/v2/alerts?active=true")
    alerts = sorted({str(alert["labels"].get("alertname")) for alert in parsed(body) or []}) if status == 200 else []
    names = [str(one.get("name")) for one in receivers]
    told = "nobody is told of alerts (platform_alert_receivers)" if names == ["nobody"] else f"told: {', '.join(names)}"
    return f"firing: {', '.join(alerts) or 'nothing'}; {told}"


def check_alerts(parameters: dict[str, Any]) -> Outcome:
    """Look whether Prometheus scrapes every part, evaluates its rules, and reaches Alertmanager."""
    url = parameters["url"]
    status, body = ask(f"{url}/-/ready")
    if status == SILENCE:
        silent_unit("prometheus", url, body)
    targets = ask_prometheus(url, "targets?state=active")["activeTargets"]
    down = [target for target in targets if target["health"] == "down"]
    if down:
        labels = [f"{target['labels'].get('job')} on {target['labels'].get('host')}" for target in down]
        raise StepFailed(
            f"Prometheus can't scrape {', '.join(labels)}: {down[0].get('lastError')}",
            f"does it run (./manage.sh status), and can {parameters['host']} reach {down[0].get('scrapeUrl')}?",
        )
    rules = [rule for group in ask_prometheus(url, "rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule.get("health") == "err":
            raise StepFailed(
                f"Prometheus can't evaluate the rule {rule['name']}: {rule.get('lastError')}",
                "mend it in platform_alert_rules or platform_alert_overrides, and run site.yml.",
            )
    detail = f"{len(targets)} targets are up, {len(rules)} rules are evaluated"
    alertmanager = parameters["alertmanager_url"]
    return Outcome(f"{detail}; {check_alertmanager(url, alertmanager)}" if alertmanager else detail)


def ask_grafana(parameters: dict[str, Any], path: str) -> Any:
    """Return the JSON that Grafana answers its administrator."""
    status, body = ask(parameters["url"] + path, {**log_in(parameters), "Accept": "application/json"})
    answer = parsed(body) if status == 200 else None
    if not isinstance(answer, dict):
        raise StepFailed(
            f"{parameters['url']}{path} answers {status}: {body[:200].strip()}", "read ./manage.sh logs grafana."
        )
    return answer


def check_grafana_alerts(parameters: dict[str, Any]) -> Outcome:
    """Look whether Grafana evaluates rules; tell which alerts fire, and who is told."""
    groups = ask_grafana(parameters, "/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    if not rules:
        raise StepFailed("Grafana has no rules for alerts.", "run site.yml --tags grafana.")
    for rule in rules:
        if rule.get("health") in ("err", "error"):
            raise StepFailed(
                f"Grafana can't evaluate the rule {rule['name']}: {rule.get('lastError')}",
                "see whether what it asks answers (./manage.sh status); if it does, mend the rule in "
                "platform_alert_rules or platform_alert_overrides, and run site.yml.",
            )
    firing = sorted(rule["name"] for rule in rules if rule.get("state") == "firing")
    policy = ask_grafana(parameters, "/api/v1/provisioning/policies")
    routes = [policy, *policy.get("routes", [])]
    names = list(dict.fromkeys(route["receiver"] for route in routes if route.get("receiver")))
    is_nobody = names == ["grafana-default-email"]
    told = "nobody is told of alerts (platform_alert_receivers)" if is_nobody else f"told: {', '.join(names)}"
    return Outcome(f"{len(rules)} rules are evaluated; firing: {', '.join(firing) or 'nothing'}; {told}")


STEPS = {
    "app": check_app,
    "journal": write_to_journal,
    "promtail": check_promtail,
    "loki": check_loki,
    "grafana": check_grafana,
    "alerts": check_alerts,
    "grafana_alerts": check_grafana_alerts,
}


def examine(parameters: dict[str, Any]) -> dict[str, Any]:
    """Take one step; return the module's result."""
    began = time.monotonic()
    try:
        outcome = STEPS[parameters["step"]](parameters)
    except StepFailed as problem:
        outcome = Outcome("", outcome="failed", cause=problem.cause, advice=problem.advice)
    return {**asdict(outcome), "seconds": round(time.monotonic() - began, 2)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": list(STEPS), "required": True},
            "host": {"type": "str", "required": True},
            "url": {"type": "str", "default": ""},
            "promtail_url": {"type": "str", "default": ""},
            "log_folder": {"type": "path"},
            "loki_url": {"type": "str", "default": ""},
            "log_files": {"type": "list", "elements": "dict", "default": []},
            "probes": {"type": "list", "elements": "dict", "default": []},
            "user": {"type": "str", "default": "admin"},
            "password": {"type": "str", "no_log": True},
            "tenant": {"type": "str", "default": ""},
            "ca": {"type": "path"},
            "alertmanager_url": {"type": "str", "default": ""},
            "datasource": {"type": "str", "default": "loki"},
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[
            ("step", "app", ["log_folder"]),
            ("step", "grafana", ["password"]),
            ("step", "grafana_alerts", ["password"]),
        ],
        supports_check_mode=True,
    )
    ca = module.params["ca"]
    if ca and Path(ca).is_file():
        CONTEXT.load_verify_locations(ca)
    module.exit_json(changed=False, **examine(module.params))


if __name__ == "__main__":
    main()
