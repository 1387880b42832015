# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filters that make Prometheus' settings from the platform's own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ansible.plugins.filter.core import to_nice_yaml
from ansible_collections.logstead.platform.plugins.plugin_utils.components import all_components

Settings = dict[str, Any]
Targets = Mapping[str, Mapping[str, str]]  # addresses with ports, by host and component
FOLDER = "targets"  # next to the configuration, so that both are validated together
HEADER = "# Managed by logstead: changes made here are overwritten.\n"


def target_groups(targets: Targets, environment: str) -> dict[str, list[Settings]]:
    """Return the target groups of each job, with the labels `host` and `environment`."""
    names = {component.group: component.metrics_job for component in all_components()}
    jobs: dict[str, list[Settings]] = {}
    for host, parts in sorted(targets.items()):
        for part, address in parts.items():
            labels = {"host": host, "environment": environment}
            jobs.setdefault(names.get(part, part), []).append({"targets": [address], "labels": labels})
    return dict(sorted(jobs.items()))


def path_of(job: str) -> str:
    """Return the path of a job's targets file, relative to the configuration; a job may have any name."""
    return f"{FOLDER}/{quote(job, safe='')}.yml"


def scrape_jobs(targets: Targets) -> list[Settings]:
    """Return `scrape_configs` with a job for each component, which reads its targets from a file.

    Args:
        targets: Addresses with their ports, by host and then by component.
    """
    jobs = target_groups(targets, "")
    return [{"job_name": job, "file_sd_configs": [{"files": [path_of(job)]}]} for job in jobs]


def target_files(targets: Targets, environment: str, folder: str, promtool: str) -> list[Settings]:
    """Return the targets files of `scrape_jobs`, as the module systemd_app takes them.

    Args:
        targets: As for `scrape_jobs`.
        environment: Value of the label `environment`.
        folder: Directory of Prometheus' configuration.
        promtool: Path of the program that validates it.
    """
    access = {"mode": "0640", "group": "prometheus", "on_change": "none"}
    return [
        {
            "path": f"{folder}/{path_of(job)}",
            "content": HEADER + to_nice_yaml(groups, indent=2, width=200, sort_keys=False),
            # promtool reads targets only along with the configuration, which is next to their folder.
            "validate": [f"{promtool} check config %d/../config.yml"],
            **access,
        }
        for job, groups in target_groups(targets, environment).items()
    ]


class FilterModule:
    """Tells Ansible the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"scrape_jobs": scrape_jobs, "target_files": target_files}
