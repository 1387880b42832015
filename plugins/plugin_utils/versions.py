# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""What is known of releases, from docs/versions.yml: until when they are supported, and their vulnerabilities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

import yaml
from ansible_collections.logstead.platform.plugins.plugin_utils.components import COLLECTION, ROLES, defaults_of

Software = Mapping[str, Any]  # one entry of the data
DATA = COLLECTION / "docs/versions.yml"


@cache
def load_software() -> tuple[Software, ...]:
    """Return the entries of the data."""
    return tuple(yaml.safe_load(DATA.read_text())["software"])


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with, for comparison: (12, 4, 11) of `12.4.11+security-01`."""
    return tuple(int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version.removeprefix("v"))[0]))  # type: ignore[index]


def default_of(variable: str) -> str:
    """Return the default of a role's `…_version`."""
    return str(defaults_of(ROLES / variable.removesuffix("_version"))[variable])


def end_of_support(software: Software, version: str) -> date | None:
    """Return when the support of a version's line ends; None if no date is known."""
    found = numbers_of(version)
    ends = {numbers_of(line): end for line, end in (software.get("lines") or {}).items()}
    lines = [line for line in ends if line and found[: len(line)] == line]
    return ends[max(lines, key=len)] if lines else None


def holes_of(software: Software, version: str) -> list[Mapping[str, Any]]:
    """Return the vulnerabilities of a version."""
    found = numbers_of(version)
    return [
        hole
        for hole in software.get("holes") or []
        for first, last in (affected.split(" - ") for affected in hole["affected"])
        if numbers_of(first) <= found <= numbers_of(last)
    ]


def override_warnings(variables: Mapping[str, Any], today: date) -> Iterator[str]:
    """Yield a sentence for each version that a user sets and that is unsupported or vulnerable."""
    for software in (each for each in load_software() if "variable" in each):
        name = software["variable"]
        version, default = str(variables.get(name) or ""), default_of(name)
        if not version or version == default:
            continue
        end, holes = end_of_support(software, version), holes_of(software, version)
        # Of Promtail, no line is supported.
        has_better = (end_of_support(software, default) or today) >= today
        reasons = [f"its support ended on {end}"] if end and end < today and has_better else []
        reasons += [f"{hole['id']}: {hole['what']}" for hole in holes]
        if reasons:
            yield f"{name} is {version}: {'; '.join(reasons)}. The default is {default} (docs/versions.md)."
