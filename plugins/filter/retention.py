"""Jinja filters for periods of retention, and for what is different for a tenant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

PERIOD = re.compile(r"([0-9]{1,12})([hdwy])")
SHORTEST_HOURS = 24
LONGEST_YEARS = 100  # Loki counts nanoseconds, which end after 292 years
HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
# Loki's own spelling of a duration, which settings merged over the role's may have.
LOKI_HOURS = {**HOURS, "ms": 1 / 3_600_000, "s": 1 / 3600, "m": 1 / 60}
COLLECTOR_ASKS = 5000  # entries at once, where Promtail is told from what Loki has where to go on
TENANT_KEYS = ("retention", "retention_by_level", "limits")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def retention_problem(period: object) -> str:
    """Return why Loki can't keep lines for a period, in words that follow its name; nothing if it can."""
    match = PERIOD.fullmatch(str(period))
    if not match:
        return f"is {period!r}, which is no period: write a number and h, d, w or y, such as 31d"
    hours = int(match[1]) * HOURS[match[2]]
    if hours > LONGEST_YEARS * HOURS["y"]:
        return f"is {period!r}: the longest retention is {LONGEST_YEARS}y"
    return f"is {period!r}: Loki keeps every line for {SHORTEST_HOURS}h at least" if hours < SHORTEST_HOURS else ""


def duration_hours(duration: str) -> int:
    """Return a period such as `36h`, `31d`, `4w` or `1y` in hours.

    Raises:
        AnsibleFilterError: It is none, or shorter than the 24 hours that Loki demands.
    """
    match = PERIOD.fullmatch(str(duration))
    if not match or retention_problem(duration):
        raise AnsibleFilterError(f"a retention period {retention_problem(duration)}")
    return int(match[1]) * HOURS[match[2]]


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


def kind_of(value: object) -> str:
    """Return what a limit's value is, in the words of an error."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if re.fullmatch(r"\d+(\.\d+)?[KMG]?B", str(value)):
        return "a size such as 4MB"
    return "a duration such as 30s" if re.fullmatch(r"(\d+(ms|[smhdwy]))+", str(value)) else "a text"


def tenant_limits(tenants: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return Loki's overrides for tenants, such as `{"dev": {"retention": "7d", "limits": {"ingestion_rate_mb": 8}}}`.

    What a tenant doesn't say is as in `common`, Loki's `limits_config` for all. Loki itself looks at overrides only
    when it runs, so limits have to be there for all as well, where it has looked, and be of the same kind.

    Raises:
        AnsibleFilterError: A key or a limit is unknown, or a value isn't of its kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for tenant, wanted in tenants.items():
        where = f"loki_tenants: {tenant}"
        unknown = sorted(set(wanted) - set(TENANT_KEYS))
        if unknown:
            raise AnsibleFilterError(
                f"{where} has the unknown key {', '.join(unknown)}; keys are {', '.join(TENANT_KEYS)}"
            )
        for name, value in wanted.get("limits", {}).items():
            if name not in common:
                raise AnsibleFilterError(
                    f"{where}: there is no limit {name} for all tenants; set it in "
                    "loki_config_overrides.limits_config, where Loki checks it"
                )
            if kind_of(value) != kind_of(common[name]):
                raise AnsibleFilterError(f"{where}: {name} is {value!r}; it has to be {kind_of(common[name])}")
            if name == "max_entries_limit_per_query" and value < COLLECTOR_ASKS:
                raise AnsibleFilterError(
                    f"{where}: {name} is {value}; it has to be {COLLECTOR_ASKS} at least, "
                    "which promtail_resume.py asks for"
                )
        limits: dict[str, Any] = {}
        if "retention" in wanted:
            limits["retention_period"] = f"{duration_hours(wanted['retention'])}h"
        if "retention" in wanted or "retention_by_level" in wanted:
            limits["retention_stream"] = retention_streams(wanted.get("retention_by_level", {}))
            periods = [limits.get("retention_period", common["retention_period"])]
            hours = [
                loki_hours(period) for period in [*periods, *(each["period"] for each in limits["retention_stream"])]
            ]
            # The longest period, as for all: what is kept can be asked for. None is for ever.
            limits["max_query_lookback"] = "0s" if None in hours else f"{max(filter(None, hours))}h"
        found[tenant] = {**limits, **wanted.get("limits", {})}
    return found


def hours_of(limits: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the periods in limits: hours by level, None for ever, and `other` for the rest."""
    hours = {"other": loki_hours(limits.get("retention_period", 0))}
    for rule in limits.get("retention_stream") or []:
        level = re.fullmatch(r'\{\s*level\s*=\s*"(\w+)"\s*\}', rule["selector"])
        hours[level[1] if level else rule["selector"]] = loki_hours(rule["period"])
    return hours


def retention_hours(
    config: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, float | None]:
    """Return the periods that Loki's settings put in force: hours by level, None for ever, and `other` for the rest.

    They are read from the finished settings, so that no override goes unnoticed. A rule whose selector isn't one of a
    level counts under its selector. Those of a tenant that has its own follow, each as `<tenant>: <level>`.
    """
    if not config.get("compactor", {}).get("retention_enabled"):
        return {"other": None}
    common = config.get("limits_config", {})
    hours = hours_of(common)
    for tenant, limits in (overrides or {}).items():
        hours |= {f"{tenant}: {level}": period for level, period in hours_of({**common, **limits}).items()}
    return hours


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "duration_hours": duration_hours,
            "retention_hours": retention_hours,
            "retention_streams": retention_streams,
            "tenant_limits": tenant_limits,
        }
