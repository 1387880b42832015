"""What happens on a host so that its dashboards have something to show."""

from __future__ import annotations

import secrets
import subprocess
from functools import partial
from typing import Any

from support import eventually, fetch, find_lines, journal

APP = "http://127.0.0.1:8000"


def let_things_happen(host: Any) -> str:
    """Let happen what the dashboards tell of, good and bad; return the id of a trace of it, once Loki has it all."""
    trace_id = secrets.token_hex(16)
    for path in ("/", "/health", "/trace/1", "/trace/2", "/error", "/none"):
        fetch(host, APP + path)
    fetch(host, f"{APP}/error", "--header", f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01")
    host.run("systemd-run --wait --unit logstead-probe /bin/false; systemctl reset-failed logstead-probe")
    host.check_output("logger -t sudo 'probe : PWD=/ ; USER=root ; COMMAND=/bin/true'")
    host.check_output("logger -t kernel -p err 'Out of memory: Killed process 4242 (probe)'")
    host.check_output("logger -t not-systemd -p err 'This is no oom-kill'")
    # Nobody has that name.
    refused = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    address = host.check_output("hostname -I").split()[0]
    subprocess.run([*refused, f"intruder@{address}", "true"], check=False, capture_output=True, timeout=30)
    for query in (
        f'{{job="fastapi"}} | trace_id="{trace_id}"',
        '{job="systemd-journal"} |= "logstead-probe.service: Failed with result"',
        '{job="systemd-journal"} | identifier=~"sshd.*" |= "intruder"',
        '{job="systemd-journal"} | identifier="kernel" |= "4242"',
        '{job="systemd-journal"} | identifier="not-systemd" |= "This is no oom-kill"',
    ):
        eventually(partial(find_lines, host, query), otherwise=lambda: journal(host, "promtail", "loki"))
    return trace_id
