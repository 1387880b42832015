"""Jinja filters for periods of retention."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
# Loki's own spelling of a duration, which settings merged over the role's may have.
LOKI_HOURS = {**HOURS, "ms": 1 / 3_600_000, "s": 1 / 3600, "m": 1 / 60}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def duration_hours(duration: str) -> int:
    """Return a period such as `36h`, `31d`, `4w` or `1y` in hours.

    Raises:
        AnsibleFilterError: It is none, or shorter than the 24 hours that Loki demands.
    """
    match = re.fullmatch(r"(\d+)([hdwy])", str(duration))
    hours = int(match[1]) * HOURS[match[2]] if match else 0
    if not match:
        raise AnsibleFilterError(f"{duration!r} is not a period: write a number and h, d, w or y, such as 31d")
    if hours < 24:
        raise AnsibleFilterError(f"{duration!r} is too short: Loki keeps every line for 24h at least")
    return hours


def retention_streams(by_level: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return Loki's `limits_config.retention_stream` for periods by level, such as `{"DEBUG": "3d"}`.

    Raises:
        AnsibleFilterError: A level is none of the five that lines have, or its period is none.
    """
    unknown = [level for level in by_level if level not in LEVELS]
    if unknown:
        raise AnsibleFilterError(
            f"loki_retention_by_level has the unknown level {', '.join(map(str, unknown))}; "
            f"levels are {', '.join(LEVELS)}"
        )
    return [
        {"selector": f'{{level="{level}"}}', "priority": 1, "period": f"{duration_hours(period)}h"}
        for level, period in by_level.items()
    ]


def loki_hours(duration: object) -> float | None:
    """Return a duration as Loki writes it (`744h0m0s`, `31d`) in hours; None, for ever, if it is zero."""
    pairs = re.findall(r"(\d+)(ms|[smhdwy])", str(duration))
    hours = sum(int(number) * LOKI_HOURS[unit] for number, unit in pairs)
    return (int(hours) if hours == int(hours) else hours) or None


def retention_hours(config: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the periods that Loki's settings put in force: hours by level, None for ever, and `other` for the rest.

    They are read from the finished settings, so that no override goes unnoticed. A rule whose selector isn't one of a
    level counts under its selector.
    """
    if not config.get("compactor", {}).get("retention_enabled"):
        return {"other": None}
    limits = config.get("limits_config", {})
    hours = {"other": loki_hours(limits.get("retention_period", 0))}
    for rule in limits.get("retention_stream") or []:
        level = re.fullmatch(r'\{\s*level\s*=\s*"(\w+)"\s*\}', rule["selector"])
        hours[level[1] if level else rule["selector"]] = loki_hours(rule["period"])
    return hours


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "duration_hours": duration_hours,
            "retention_hours": retention_hours,
            "retention_streams": retention_streams,
        }
