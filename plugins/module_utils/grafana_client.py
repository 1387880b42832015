# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module grafana_org that talks to Grafana's HTTP API."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url

NO_ANSWER = 0


class GrafanaError(Exception):
    """Says what Grafana answers to what, and what to do."""


class NoAnswerError(GrafanaError):
    """Says that nothing answers there."""


class Grafana:
    """Grafana's HTTP API as the administrator. In check mode, it only reads."""

    def __init__(self, url: str, user: str, password: str, check_mode: bool) -> None:
        self.url = url
        self.log_in = {"url_username": user, "url_password": password, "force_basic_auth": True}
        self.check_mode = check_mode
        self.done: list[str] = []

    def send(self, method: str, path: str, body: Any = None, **log_in: Any) -> tuple[int, Any]:
        """Send a request; return the status and the JSON."""
        try:
            with open_url(
                self.url + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **log_in.pop("headers", {})},
                timeout=30,
                use_proxy=False,
                **(log_in or self.log_in),
            ) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswerError(
                f"Grafana at {self.url} doesn't answer {method} {path} ({error}); `journalctl -u grafana` says why."
            ) from error

    def get(self, path: str, *, missing: Any = None) -> Any:
        """Return what is at a path; `missing` if there is nothing."""
        status, answer = self.send("GET", path)
        if status == 404 and missing is not None:
            return missing
        if status != 200:
            raise GrafanaError(f"Grafana answers {status} to GET {path}: {answer}")
        return answer

    def do(self, what: str, method: str, path: str, body: Any) -> Any:
        """Change something, and keep in mind what; in check mode, keep that in mind alone."""
        self.done.append(what)
        if self.check_mode:
            return {}
        status, answer = self.send(method, path, body)
        if not 200 <= status < 300:
            raise GrafanaError(f"Grafana answers {status} to {method} {path} ({what}): {answer}")
        return answer

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """Ask a Grafana that may not be there yet; return the status, NO_ANSWER where there is none, and the JSON."""
        try:
            return self.send(method, path)
        except NoAnswerError as error:
            return NO_ANSWER, str(error)

    def lets_in(self, **log_in: Any) -> bool:
        """Tell whether somebody may log in."""
        return self.send("GET", "/api/org", **log_in)[0] == 200
