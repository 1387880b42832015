#!/usr/bin/env python3
"""`make bench NAME=fleet`: what a run without changes costs for each further host. It measures, it doesn't judge.

A hub with Loki, Prometheus and Alertmanager, and 1, 5 and 10 hosts with a collector and node_exporter. The runs of the
three sizes alternate, so that whatever else the machine does disturbs all of them.
"""

from __future__ import annotations

import resource
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.no_change_run import Side, hosts, run, timed

FLEET = Side("fleet", "site.yml", "site.yml")
SIZES = (1, 5, 10)
TARGET = 0.6  # seconds of the controller's CPU for each further host


def play(size: int, env: dict[str, str]) -> tuple[float, float]:
    """Run the playbook on the hub and so many hosts; return the seconds of wall time and of the controller's CPU."""
    names = ",".join(f"fleet-{number}" for number in range(1, size + 2))
    inventories = ["-i", "tests/hosts/inventory", "-i", FLEET.inventory]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, output = timed(["ansible-playbook", *inventories, FLEET.playbook, "--limit", names], env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "changed=0" not in output:
        print("(the first run of this size)", flush=True)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int, env: dict[str, str]) -> None:
    """Run everything and print what came out."""
    hosts("up", FLEET, env)
    play(max(SIZES), env)
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            found[size].append(play(size, env))
            seconds, cpu = found[size][-1]
            print(f"{size} hosts and the hub: {seconds:.1f} s, {cpu:.1f} s of CPU", flush=True)
    for column, name in enumerate(("wall time", "CPU of the controller")):
        median = {size: statistics.median(one[column] for one in found[size]) for size in SIZES}
        slope = (median[SIZES[-1]] - median[SIZES[0]]) / (SIZES[-1] - SIZES[0])
        values = ", ".join(f"{size} hosts {median[size]:.1f} s" for size in SIZES)
        print(f"{name}: {values}; {slope:.2f} s for each further host")
    print(f"The target is {TARGET} s of CPU or less.")


if __name__ == "__main__":
    run("Measure what each further host costs a run without changes.", (FLEET,), measure)
