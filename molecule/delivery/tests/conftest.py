"""The figures of each case belong to the report, also where all is well."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print each case's figures, also of those that pass."""
    terminalreporter.section("delivery", sep="-")
    for reports in (terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed")):
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {name}: {value}")
