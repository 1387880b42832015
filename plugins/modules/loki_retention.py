#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: refuse periods of retention that would make Loki delete what it keeps now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: loki_retention
short_description: Refuse periods of retention that would make Loki delete what it keeps now
description:
  - Compares the periods that are asked for with those that the host remembers to be in force. Loki holds all lines
    against the periods of the day, so that a shorter one deletes lines that are there.
  - It changes nothing, in check mode or out of it.
options:
  record: {description: File in which the role has written the periods in force., type: path, required: true}
  config:
    description: Loki's settings as the role writes them, for a host that has no record yet.
    type: path
    required: true
  hours:
    description: The periods asked for, in hours by level; V(null) is for ever, and C(other) is for all other lines.
      A tenant's own are called C(<tenant>: <level>).
    type: dict
    required: true
  confirmed: {description: Whether deleting is meant., type: bool, default: false}
author: [logstead contributors]
"""

RETURN = r"""
hours: {description: The periods asked for, which are accepted., type: dict, returned: success}
shortened: {description: The periods that become shorter, in words., type: list, returned: success}
"""

Hours = Mapping[str, Optional[float]]
CONFIRM = "-e loki_retention_shortening_confirmed=true"


class RetentionError(Exception):
    """Says why the periods in force are not known."""


def hours_of_config(text: str) -> dict[str, float | None]:
    """Return the periods in settings that the role wrote before it kept a record."""
    overall = re.search(r"^ *retention_period: (\d+)h$", text, re.MULTILINE)
    rules = re.findall(r"selector: '?\{level=\"(\w+)\"\}'?\s+priority: \d+\s+period: (\d+)h$", text, re.MULTILINE)
    hours: dict[str, float | None] = {"other": float(overall[1])} if overall else {}
    return {**hours, **{level: float(period) for level, period in rules}} if overall else {}


def hours_in_force(record: Path, config: Path) -> dict[str, float | None]:
    """Return what the host remembers; nothing on a host without Loki."""
    try:
        lines = [line for line in record.read_text().splitlines() if not line.startswith("#")]
        hours = json.loads("\n".join(lines))
        found = {str(level): None if value is None else float(value) for level, value in hours.items()}
        return {"other": found.pop("other"), **found}
    except FileNotFoundError:
        return hours_of_config(config.read_text()) if config.is_file() else {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RetentionError(f"{record} can't be understood ({error!r})") from error


def in_words(hours: float | None) -> str:
    """Return a period as people write it."""
    if hours is None:
        return "for ever"
    return f"{hours / 24:g}d" if hours % 24 == 0 else f"{hours:g}h"


def is_shorter(new: float | None, old: float | None) -> bool:
    """Tell whether a period is shorter than another; None is for ever."""
    return new is not None and (old is None or new < old)


def period_of(hours: Hours, name: str) -> float | None:
    """Return the period of a level, or of a tenant's level (`dev: DEBUG`).

    A level without a period of its own has that of `other`; a tenant without any has those of all.
    """
    tenant, _, level = name.rpartition(": ")
    names = [name, f"{tenant}: other"] if tenant else []
    return next(hours[each] for each in [*names, level, "other"] if each in hours)


def shortened(old: Hours, new: Hours) -> list[str]:
    """Return the periods that become shorter, each in words, with what goes."""
    if not old:
        return []
    found = []
    for name in sorted({*old, *new}, key=lambda name: (name == "other", name)):
        before, after = period_of(old, name), period_of(new, name)
        if is_shorter(after, before):
            lines = f"{name.removesuffix('other')}all other lines" if name.endswith("other") else f"{name} lines"
            found.append(
                f"{name} {in_words(before)} -> {in_words(after)} ({lines} that are older than {in_words(after)})"
            )
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "hours": {"type": "dict", "required": True},
            "confirmed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    confirmed = module.params["confirmed"]
    try:
        new = {level: None if hours is None else float(hours) for level, hours in module.params["hours"].items()}
        found = shortened(hours_in_force(Path(module.params["record"]), Path(module.params["config"])), new)
    except (RetentionError, OSError, LookupError, ValueError) as error:
        if not confirmed:
            module.fail_json(
                msg=f"Nothing was changed. What Loki keeps now is not known: {error}. If the periods asked for may "
                f"delete lines, run again with {CONFIRM}."
            )
        found = []
    if found and not confirmed:
        module.fail_json(
            msg="Nothing was changed. Loki would delete, within hours and for good, lines that it keeps now, because "
            f"these periods become shorter: {'; '.join(found)}. If that is meant, run again with {CONFIRM}; if not, "
            "set platform_retention, loki_retention, loki_retention_by_level or loki_tenants to the old periods."
        )
    module.exit_json(changed=False, shortened=found, hours=module.params["hours"])


if __name__ == "__main__":
    main()
