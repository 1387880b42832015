# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The doctor looks whether Loki finds a line, through the gateway where there are tenants."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ansible_collections.logstead.platform.plugins.module_utils.doctor_common import (
    CONTEXT,
    SILENCE,
    Outcome,
    StepFailed,
    ask,
    find_lines,
    log_in,
    parsed,
    silent_unit,
    until,
)

LEAST_DAYS = 14  # that the gateway's certificate has to be valid for


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
