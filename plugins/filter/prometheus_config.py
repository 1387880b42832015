# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filters that make Prometheus' settings from the platform's own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.logstead.platform.plugins.plugin_utils.components import all_components

Settings = dict[str, Any]


def scrape_jobs(targets: Mapping[str, Mapping[str, str]], environment: str) -> list[Settings]:
    """Return `scrape_configs` with a job for each part, whose targets have the labels `host` and `environment`.

    Args:
        targets: Addresses with their ports, by host and then by part.
        environment: Value of the label `environment`.
    """
    names = {component.group: component.metrics_job for component in all_components()}
    jobs: dict[str, list[Settings]] = {}
    for host, parts in sorted(targets.items()):
        for part, address in parts.items():
            labels = {"host": host, "environment": environment}
            jobs.setdefault(names.get(part, part), []).append({"targets": [address], "labels": labels})
    return [{"job_name": job, "static_configs": static} for job, static in sorted(jobs.items())]


class FilterModule:
    """Tells Ansible the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"scrape_jobs": scrape_jobs}
