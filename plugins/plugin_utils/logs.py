# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The logs of a host: one entry of `platform_logs` says everything about a log.

The collector, logrotate and the doctor read the same entry. Whether a log is rotated is stated in it, so that a log
that is collected and never rotated is a choice and no oversight.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.logstead.platform.plugins.module_utils.log_paths import paths_meet
from ansible_collections.logstead.platform.plugins.plugin_utils.values import (
    LOG_PATH,
    NAME,
    find_kind,
    find_problem,
    label_problems,
)

Entry = Mapping[str, Any]

SOURCE_KEYS = {"job", "format", "timezone", "labels", "exclude", "sampling", "rate_limit"}
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
    paths = entry.get("paths") or ([entry["path"]] if entry.get("path") else [])
    return [str(path) for path in ([paths] if isinstance(paths, str) else paths)]


def find_problems(logs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with `platform_logs`: sentences that say what to do."""
    for name, entry in logs.items():
        where = f"platform_logs: {name}"
        if problem := find_problem("platform_logs: the name", name, NAME):
            yield problem
        if not isinstance(entry, Mapping):
            yield f"{where} is {entry!r}; write such as {{path: /var/log/x.log, rotation: never}}."
            continue
        if unknown := sorted(set(map(str, entry)) - KEYS):
            yield f"{where} has the unknown key {', '.join(unknown)}; the keys are {', '.join(sorted(KEYS))}."
        if not paths_of(entry) or ("path" in entry and "paths" in entry):
            yield f"{where} needs path, or paths for several logs of one kind."
        yield from find_problems_of_values(where, entry)
        rotation = entry.get("rotation")
        if isinstance(rotation, Mapping):
            if unknown := sorted(set(map(str, rotation)) - ROTATION_KEYS):
                yield f"{where}: rotation has the unknown key {', '.join(unknown)}."
            for key in ROTATION_KEYS & set(rotation):
                kind = find_kind(f"logrotate_rules.{key}")
                if kind and (problem := find_problem(f"{where}: rotation: {key}", rotation[key], kind)):
                    yield problem
        elif rotation not in NOT_OURS:
            yield (
                f"{where} doesn't say how the log is rotated: give rotation its rules, such as "
                "{frequency: daily, keep: 14}, or say elsewhere (another configuration of logrotate does it) or never."
            )
    yield from find_double_claims({name: entry for name, entry in logs.items() if isinstance(entry, Mapping)})


def find_problems_of_values(where: str, entry: Entry) -> Iterator[str]:
    """Yield what is wrong with what the collector reads of an entry."""
    yield from filter(None, (find_problem(f"{where}: path", path, LOG_PATH) for path in paths_of(entry)))
    for key, kind in (("job", NAME), ("exclude", LOG_PATH)):
        if key in entry and (problem := find_problem(f"{where}: {key}", entry[key], kind)):
            yield problem
    if "labels" in entry:
        yield from label_problems(f"{where}: labels", entry["labels"])


def find_double_claims(logs: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a sentence for each two entries that may name one file, in whatever spelling.

    Two patterns are compared as such: what one host has no file for today, another has, or has tomorrow. An entry may
    rotate what another one only collects.
    """
    claims = [(name, entry, path) for name, entry in logs.items() for path in paths_of(entry)]
    for (name, entry, path), (other_name, other, other_path) in combinations(claims, 2):
        is_sent_twice = entry.get("collect", True) and other.get("collect", True)
        is_rotated_twice = isinstance(entry.get("rotation"), Mapping) and isinstance(other.get("rotation"), Mapping)
        own, others = plain_path(path), plain_path(other_path)
        if not (is_sent_twice or is_rotated_twice) or not paths_meet(own, others):
            continue
        if is_excluded(others, entry) or is_excluded(own, other):
            continue
        who = f"{other_name} and {name} both name" if name != other_name else f"{name} names twice"
        same = path if path == other_path else f"what may be one file, {path} and {other_path}"
        effect = "each line would be sent twice" if is_sent_twice else "the log would be rotated twice"
        yield f"platform_logs: {who} {same}: {effect}. Keep one of them."


def plain_path(path: str) -> str:
    """Return the one spelling of a path that has no superfluous slashes and dots."""
    return "/" + posixpath.normpath(path).lstrip("/")


def is_excluded(path: str, entry: Entry) -> bool:
    """Tell whether an entry leaves out a path, or some of what it matches."""
    return bool(entry.get("exclude")) and paths_meet(path, plain_path(str(entry["exclude"])))


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
