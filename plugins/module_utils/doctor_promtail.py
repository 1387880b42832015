# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The doctor looks whether Promtail reads and sends."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import (
    SILENCE,
    Outcome,
    StepFailed,
    ask,
    journal_of,
    output_of,
    silent_unit,
    until,
)
from ansible_collections.logstead.platform.plugins.module_utils.log_files import (
    WILDCARD,
    matches_of,
    problem_of_log,
)

# A line must be on its way within this time; Promtail's longest pause between two tries is 10 s.
SEND_SECONDS = 20
SENT, DROPPED, PUSHES = (
    "promtail_sent_entries_total",
    "promtail_dropped_entries_total",
    "promtail_request_duration_seconds_count",
)
SAMPLE = re.compile(r"^([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Metrics = list[tuple[str, dict[str, str], float]]


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
    found = {path for entry in entries for path in matches_of(str(entry["path"]), str(entry.get("exclude") or ""))}
    check_kinds(found)
    return [path for path in sorted(found) if path.is_file()]


def check_kinds(paths: Iterable[Path]) -> None:
    """Fail if something has a log's name that nobody reads: whoever owns the folder may have put it there."""
    for path in paths:
        if problem := problem_of_log(path):
            raise StepFailed(
                f"{problem}. It may have been put there to have another file read.",
                f"see who made it (ls -l {path.parent}), and remove it. If it is meant, name the path that it leads to "
                "in platform_logs.",
            )


def check_view(pid: str, paths: Iterable[str]) -> None:
    """Check that Promtail's process follows no link below the folders of logs, and nobody can link others' files."""
    mounts = [line.split() for line in Path("/proc", pid, "mountinfo").read_text().splitlines()]
    flags = {fields[4].replace(r"\040", " "): fields[5].split(",") for fields in mounts}
    folders = [WILDCARD.split(path, maxsplit=1)[0].rpartition("/")[0] or "/" for path in paths]
    for folder in folders:
        if not Path(folder).is_dir():
            continue
        places = [place for place in flags if folder == place or folder.startswith(f"{place.rstrip('/')}/")]
        if "nosymfollow" not in flags[max(places, key=len)]:
            raise StepFailed(
                f"Promtail would follow a symbolic link in {folder} to whatever file it may read.",
                "restart it, if the folder is new: ./manage.sh restart promtail. If that doesn't help, its unit is "
                "another than the platform's: docs/security.md.",
            )
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "0":
        raise StepFailed(
            "every user can link others' files into a folder of logs (fs.protected_hardlinks is 0).",
            "set fs.protected_hardlinks=1 in /etc/sysctl.d, the default of Debian and Ubuntu, and run sysctl --system.",
        )


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


def check_readable(pid: str, files: Iterable[Path]) -> None:
    """Try to read each file with the rights that Promtail's process has."""
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
            "add it to platform_logs, or set demo_app_log_folder right; then run site.yml.",
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
    if pid := process_of("promtail"):
        check_view(pid, [str(entry["path"]) for entry in parameters["log_files"]])
        check_readable(pid, files)
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
