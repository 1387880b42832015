#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: refuse periods of retention that would make Loki delete what it keeps now."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.check_memory import remember

DOCUMENTATION = r"""
module: loki_retention
version_added: 1.0.0
short_description: Refuse a shorter retention period that would make Loki delete lines it still keeps
description:
  - Compares the retention periods that are requested with those in force on the host. Loki applies the current periods
    to all lines, so a shorter one deletes lines that are already stored.
  - Fails if a period becomes shorter, or if the periods in force are unknown, unless O(confirmed) is set.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: full
    details: The module changes nothing on the host but what it remembers of itself, and in check mode not even that.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  record:
    description: File in which the role P(logstead.platform.loki#role) has recorded the periods in force, as JSON.
    type: path
    required: true
  config:
    description: Loki's configuration file, from which the periods are read on a host that has no O(record) yet.
    type: path
    required: true
  hours:
    description:
      - The requested periods in hours, by level. V(null) means that lines are kept for ever, and the key C(other) is
        for all lines without a level of their own here.
      - "The periods of a single tenant have the keys C(TENANT: LEVEL)."
      - The filter P(logstead.platform.retention_hours#filter) returns them in this form.
    type: dict
    required: true
  confirmed:
    description: Whether the deletion of stored lines is intended.
    type: bool
    default: false
  fingerprint:
    description:
      - Digest of all other options, which the action plugin of this name adds. With it, the host remembers that the
        check was passed, and the check isn't run again as long as the files that it read stay as they are.
    type: str
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Refuse to delete stored lines unintentionally
  logstead.platform.loki_retention:
    record: /etc/loki/retention.json
    config: /etc/loki/loki.yml
    hours: {other: 744, DEBUG: 72}

- name: Accept a shorter period for the tenant dev
  logstead.platform.loki_retention:
    record: /etc/loki/retention.json
    config: /etc/loki/loki.yml
    hours: {other: null, "dev: other": 168}
    confirmed: true
"""

RETURN = r"""
hours:
  description: The periods that were accepted.
  type: dict
  returned: success
  sample: {other: 744, DEBUG: 72}
shortened:
  description: The periods that become shorter, one sentence for each with the lines that Loki will delete.
  type: list
  elements: str
  returned: success
  sample: ["DEBUG 7d -> 3d (DEBUG lines that are older than 3d)"]
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
            "fingerprint": {"type": "str"},
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
    result = {"shortened": found, "hours": module.params["hours"]}
    read = [module.params["record"], module.params["config"]]
    # On a host without Loki the preflight leaves nothing behind.
    if module.params["fingerprint"] and any(map(os.path.exists, read)) and not module.check_mode:
        remember("loki", "loki_retention", module.params["fingerprint"], read, result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
