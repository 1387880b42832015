# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What the steps of the doctor share: questions to a part of the platform, and what they find."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

POLL_SECONDS = 0.3
SILENCE = 0  # the status of an address that doesn't answer
CONTEXT = ssl.create_default_context()
OPENER = build_opener(ProxyHandler({}), HTTPSHandler(context=CONTEXT))  # never through the environment's proxy


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


def log_in(parameters: dict[str, Any]) -> dict[str, str]:
    """Return the header with which the user logs in."""
    pair = base64.b64encode(f"{parameters['user']}:{parameters['password']}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def find_lines(api: str, query: str, headers: dict[str, str] | None = None) -> tuple[int, str, list[str]]:
    """Return the status, the body and the lines of a query for the last hour."""
    now = time.time_ns()
    span = {"start": str(now - 3600 * 10**9), "end": str(now + 600 * 10**9), "limit": "20", "direction": "forward"}
    status, body = ask(f"{api}/query_range?{urlencode({'query': query, **span})}", headers)
    data = (parsed(body) or {}).get("data", {}) if status == 200 else {}
    lines = [(int(stamp), line) for stream in data.get("result", []) for stamp, line, *_ in stream["values"]]
    return status, body, [line for _, line in sorted(lines)]
