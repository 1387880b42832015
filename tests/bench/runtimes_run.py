#!/usr/bin/env python3
"""`make bench NAME=runtimes`: a run that changes nothing, in containers beside without. It measures, it doesn't judge.

Both run the whole site.yml on a Debian 12 host of their own. Runs alternate, so that whatever else the machine does
disturbs both.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.no_change_run import Run, Side, hosts, play, run

SIDES = tuple(Side(name, f"platform_runtime: {name}", "site.yml") for name in ("systemd", "podman"))
TARGET = 1.3


def unchanged(side: Side, env: dict[str, str]) -> Run:
    """Run a side's playbook where there is nothing to do."""
    run = play(side, env)
    if run.changed:
        raise RuntimeError(f"{side.name} changed {run.changed} things, so this is no run without changes")
    return run


def measure(pairs: int, env: dict[str, str]) -> None:
    """Run everything and print what came out."""
    for side in SIDES:
        hosts("up", side, env)
        print(f"{side.name}: first run {play(side, env).seconds:.1f} s", flush=True)
        unchanged(side, env)
    ratios, seconds = [], []
    for number in range(1, pairs + 1):
        plain, contained = (unchanged(side, env) for side in SIDES)
        ratios.append(contained.seconds / plain.seconds)
        seconds.append((plain.seconds, contained.seconds))
        print(
            f"pair {number}: systemd {plain.seconds:.2f} s ({plain.tasks} tasks), podman {contained.seconds:.2f} s "
            f"({contained.tasks} tasks), ratio {ratios[-1]:.2f}, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    medians = [statistics.median(column) for column in zip(*seconds)]
    print(
        f"\nRuns of site.yml that change nothing, {pairs} pairs in turn, {os.cpu_count()} cores: "
        f"systemd {medians[0]:.1f} s, podman {medians[1]:.1f} s.\n"
        f"Ratio, median of the pairs: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}); the target is {TARGET} or less."
    )


if __name__ == "__main__":
    run("Compare runs that change nothing: in containers and without.", SIDES, measure)
