"""Jinja filters for periods of retention."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


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
    """Return Loki's `limits_config.retention_stream` for periods by level, such as `{"DEBUG": "3d"}`."""
    return [
        {"selector": f'{{level="{level}"}}', "priority": 1, "period": f"{duration_hours(period)}h"}
        for level, period in by_level.items()
    ]


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"duration_hours": duration_hours, "retention_streams": retention_streams}
