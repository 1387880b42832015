# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The logs of a host: one entry of `platform_logs` says everything about a log.

The collector, logrotate and the doctor read the same entry. Whether a log is rotated is stated in it, so that a log
that is collected and never rotated is a choice and no oversight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError

Entry = Mapping[str, Any]

SOURCE_KEYS = {"job", "format", "labels", "exclude", "sampling", "rate_limit"}
KEYS = SOURCE_KEYS | {"path", "paths", "collect", "rotation"}
ROTATION_KEYS = {
    *("enabled", "frequency", "max_size", "keep", "max_age_days", "max_total_size", "compress"),
    *("owner", "group", "mode", "su", "hold", "hold_max_size", "postrotate"),
}
# What an entry says whose log this platform doesn't rotate.
NOT_OURS = ("elsewhere", "never")


def default_logs(folder: str, service: str, has_demo_app: bool) -> dict[str, Entry]:
    """Return the entries of the platform's own logs: those of the demo app."""
    owned = {"enabled": has_demo_app, "frequency": "daily", "max_age_days": 14}
    owned |= {"owner": "demo-app", "group": "adm", "mode": "0640"}
    held = {"max_size": "100M", "keep": 30, "max_total_size": "1G", "hold": True, "hold_max_size": "1G"}
    return {
        "demo-app": {
            "job": "fastapi",
            "paths": [f"{folder}/app.log", f"{folder}/access.log"],
            "format": "json",
            "labels": {"service_name": service},
            # A log that is rotated twice while the collector lags loses lines. So it waits, until it is this large.
            "rotation": {**owned, **held},
        },
        # A copy for people at the host: collecting it as well would send its records twice.
        "demo-app-errors": {
            "paths": [f"{folder}/error.log"],
            "collect": False,
            "rotation": {**owned, "max_size": "50M", "keep": 14, "max_total_size": "200M"},
        },
    }


def combine(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return one dict merged over another one, recursively."""
    merged = dict(defaults)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = combine(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def paths_of(entry: Entry) -> list[str]:
    """Return the paths of an entry: its one `path`, or its `paths`."""
    return [str(path) for path in entry.get("paths") or ([entry["path"]] if entry.get("path") else [])]


def find_problems(logs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with `platform_logs`: sentences that say what to do."""
    owners: dict[str, str] = {}
    for name, entry in logs.items():
        where = f"platform_logs: {name}"
        if not isinstance(entry, Mapping):
            yield f"{where} is {entry!r}; write such as {{path: /var/log/x.log, rotation: never}}."
            continue
        if unknown := sorted(set(entry) - KEYS):
            yield f"{where} has the unknown key {', '.join(unknown)}; the keys are {', '.join(sorted(KEYS))}."
        if not paths_of(entry) or ("path" in entry and "paths" in entry):
            yield f"{where} needs path, or paths for several logs of one kind."
        rotation = entry.get("rotation")
        if isinstance(rotation, Mapping):
            if unknown := sorted(set(rotation) - ROTATION_KEYS):
                yield f"{where}: rotation has the unknown key {', '.join(unknown)}."
        elif rotation not in NOT_OURS:
            yield (
                f"{where} doesn't say how the log is rotated: give rotation its rules, such as "
                "{frequency: daily, keep: 14}, or say elsewhere (another configuration of logrotate does it) or never."
            )
        for path in paths_of(entry):
            if (other := owners.setdefault(path, name)) != name:
                yield f"{where} and {other} both name {path}: each line would be sent twice. Keep one of them."


def require_valid(logs: Mapping[str, Any]) -> None:
    """Raise AnsibleError if an entry is invalid."""
    if problems := list(find_problems(logs)):
        raise AnsibleError(" ".join(problems))


def sources_of(logs: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return what the collector has to know: an entry for each path."""
    require_valid(logs)
    return [
        {"job": entry.get("job", name), "path": path, **{key: entry[key] for key in SOURCE_KEYS & set(entry)}}
        for name, entry in logs.items()
        if entry.get("collect", True)
        for path in paths_of(entry)
    ]


def rotations_of(logs: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Return what logrotate has to know: a rule for each entry that this platform rotates."""
    require_valid(logs)
    return [
        {"name": name, "paths": paths_of(entry), **entry["rotation"]}
        for name, entry in logs.items()
        if isinstance(entry["rotation"], Mapping)
    ]
