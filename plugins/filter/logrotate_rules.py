"""Jinja filters that turn `logrotate_rules` into logrotate's format and the settings of `logstead-logs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

SIZE = re.compile(r"(\d+)([kMG]?)")
FACTORS = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3}
# Names sort by time, hold a second only once (the tool sees to it, and runs in UTC), and don't end in `.log`.
DATE_FORMAT = "-%Y%m%d-%H%M%S"
GLOB = re.compile(r"[*?\[]")

Rule = Mapping[str, Any]


def bytes_of(rule: Rule, key: str) -> int:
    """Return the size that a rule has under a key, in bytes; 0 if it has none."""
    text = str(rule.get(key) or "0")
    match = SIZE.fullmatch(text)
    if not match:
        raise AnsibleFilterError(
            f"logrotate_rules: {rule['name']} has {key}: {text!r}, which is no size: write a number, and k, M or G."
        )
    return int(match[1]) * FACTORS[match[2]]


def problems_of(rules: Iterable[Rule]) -> Iterable[str]:
    """Find what logrotate would take and do otherwise than meant."""
    names = [rule["name"] for rule in rules]
    yield from (
        f"the name {name} is given twice." for name in sorted({name for name in names if names.count(name) > 1})
    )
    for rule in rules:
        name = rule["name"]
        if not rule["paths"]:
            yield f"{name} has no paths."
        for path in rule["paths"]:
            if not path.startswith("/") or re.search(r'["\'{}\\\s]', path) or "/../" in path or "**" in path:
                yield f"{name}: {path!r} is no absolute path without quotes, braces, backslashes, spaces, .. and **."
            if path.endswith("*"):
                yield f"{name}: {path} would match its own rotated files; let it end in .log or the like."
            if GLOB.search(str(PurePosixPath(path).parent)):
                yield f"{name}: {path} has a wildcard in a folder's name; give each folder a path of its own."
        if rule.get("hold") and not bytes_of(rule, "hold_max_size"):
            yield f"{name} has hold without hold_max_size, so a dead collector would fill the disk."
        if bytes_of(rule, "hold_max_size") and bytes_of(rule, "hold_max_size") <= bytes_of(rule, "max_size"):
            yield f"{name}: hold_max_size has to be above max_size."


def active(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules that this host has logs for, if they can be carried out."""
    chosen = [rule for rule in rules if rule.get("enabled", True)]
    problems = list(problems_of(chosen))
    if problems:
        raise AnsibleFilterError("logrotate_rules: " + " ".join(problems))
    return chosen


def owner_of(rule: Rule) -> dict[str, str]:
    """Return with whose rights a rule's files are rotated."""
    has_owner = rule.get("su", True)
    return {
        "owner": rule.get("owner", "root") if has_owner else "root",
        "group": rule.get("group", "adm") if has_owner else "root",
    }


def section(rule: Rule, tool: str) -> list[str]:
    """Return the lines of one rule."""
    owner, group = rule.get("owner", "root"), rule.get("group", "adm")
    lines = [rule.get("frequency", "daily")]
    if bytes_of(rule, "max_size"):
        # `size` would make logrotate forget about time.
        lines.append(f"maxsize {bytes_of(rule, 'max_size')}")
    lines.append(f"rotate {rule.get('keep', 14)}")
    if rule.get("max_age_days"):
        lines.append(f"maxage {rule['max_age_days']}")
    lines += ["missingok", "notifempty", "dateext", f"dateformat {DATE_FORMAT}"]
    lines += ["compress", "delaycompress"] if rule.get("compress", True) else ["nocompress"]
    lines.append(f"create {rule.get('mode', '0640')} {owner} {group}")
    if rule.get("su", True):
        lines.append(f"su {owner} {group}")
    # Each log by itself: what holds one must not hold its neighbour.
    lines.append("nosharedscripts")
    if rule.get("hold"):
        lines += ["prerotate", f'    {tool} hold "$1"', "endscript"]
    if rule.get("postrotate"):
        lines += ["postrotate", f"    {rule['postrotate']}", "endscript"]
    return lines


def logrotate_config(rules: Iterable[Rule], tool: str) -> str:
    """Return the rules in logrotate's format."""
    texts = []
    for rule in active(rules):
        paths = " ".join(f'"{path}"' for path in rule["paths"])
        body = "".join(f"    {line}\n" for line in section(rule, tool))
        texts.append(f"# {rule['name']}\n{paths} {{\n{body}}}\n")
    return "\n".join(texts)


def logrotate_settings(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Return what the tool has to know of the rules."""
    return [
        {
            "name": rule["name"],
            "paths": list(rule["paths"]),
            "due": rule.get("frequency", "daily"),
            "max_size": bytes_of(rule, "max_size"),
            "max_age_days": int(rule.get("max_age_days") or 0),
            "max_total_size": bytes_of(rule, "max_total_size"),
            "hold": bool(rule.get("hold", False)),
            "hold_max_size": bytes_of(rule, "hold_max_size"),
            **owner_of(rule),
        }
        for rule in active(rules)
    ]


def logrotate_claims(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Return who claims which logs."""
    return [{"name": rule["name"], "paths": list(rule["paths"])} for rule in active(rules)]


def logrotate_folders(rules: Iterable[Rule]) -> list[str]:
    """Return the folders in which the rules write."""
    return sorted({str(PurePosixPath(path).parent) for rule in active(rules) for path in rule["paths"]})


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "logrotate_claims": logrotate_claims,
            "logrotate_config": logrotate_config,
            "logrotate_folders": logrotate_folders,
            "logrotate_settings": logrotate_settings,
        }
