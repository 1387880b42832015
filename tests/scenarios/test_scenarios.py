"""Every molecule scenario, each a test: molecule's own words are shown where one fails."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# The longest come first, so that none is left to run alone; each with a short one, because a worker takes two at first.
FIRST = ("containers", "bad_input", "delivery", "two_hosts", "default", "loki", "logrotate", "gateway")
SCENARIOS = sorted(
    (path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml")),
    key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name),
)
# The stand-in has no pages.
NEED_GENUINE_GRAFANA = ("browser",)
MINUTES = 20


@cache
def grafana_kind() -> str:
    """Return whether the scenarios' Grafana is a genuine one."""
    command = ["python", "tests/mirror/mirror.py", "grafana-kind"]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()


def title(scenario: str) -> str:
    """Return the scenario's name for the report, with the kind of Grafana where it has one."""
    uses_grafana = "grafana" in "".join(
        path.read_text() for path in (REPOSITORY / "molecule" / scenario).rglob("*.yml")
    )
    return f"{scenario}, {grafana_kind()} Grafana" if uses_grafana else scenario


@pytest.mark.parametrize("scenario", SCENARIOS, ids=title)
def test_scenario(scenario: str) -> None:
    if scenario in NEED_GENUINE_GRAFANA and grafana_kind() != "genuine":
        pytest.skip("there is no genuine Grafana here; GRAFANA_ARCHIVE=/path/to/grafana.tar.gz names one")
    command = ["molecule", "test", "--scenario-name", scenario]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60 * MINUTES,
    )
    assert result.returncode == 0, result.stdout
    counts = re.findall(r"=+ (.*) in [\d.]+s", result.stdout)
    assert counts, f"no test has run:\n{result.stdout}"
    print(f"{scenario}: {counts[-1]}")
    # Nothing may hide behind this one test's success.
    assert re.fullmatch(r"\d+ passed", counts[-1]), result.stdout
