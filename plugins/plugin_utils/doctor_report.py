"""The doctor's report: what its steps have found on all hosts, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ansible_collections.logstead.platform.plugins.module_utils.log_files import printable
from ansible_collections.logstead.platform.plugins.plugin_utils.doctor_steps import Found, Result, Step, results_of

MAX_LINES = 8
NAME_WIDTH = 30


def problem_of(host: str, result: Result) -> tuple[str, str, str] | None:
    """Return the host, the cause and the advice, if a host's step didn't pass."""
    if result.get("unreachable"):
        return (
            host,
            f"the host can't be reached: {result.get('msg', '')}",
            "see whether it is up, and whether ssh gets there.",
        )
    if result.get("outcome") == "failed":
        return host, str(result["cause"]), str(result["advice"])
    if result.get("outcome") != "passed":
        return (
            host,
            f"the check itself broke: {result.get('msg', result)}",
            "run it again with -- -vvv, and report what it prints.",
        )
    return None


def row_of(number: int, step: Step, results: Mapping[str, Result], failed_before: bool) -> list[str]:
    """Return the report's lines on one step."""
    head = f"{number}  {step.name:<{NAME_WIDTH}}"
    if failed_before:
        return [f"{head}not tried"]
    if not results:
        return [f"{head}nothing   {step.empty}"]
    seconds = max(result.get("seconds", 0) for result in results.values())
    problems = [host for host, result in results.items() if problem_of(host, result)]
    if problems:
        return [f"{head}FAILED    {seconds:6.2f} s  {', '.join(problems)}"]
    width = max(map(len, results))
    details = [f"{host:<{width}}  {result['detail']}" for host, result in results.items()]
    has_app = any(result.get("probe", {}).get("kind") != "journal" for result in results.values())
    return [
        f"{head}{'ok' if has_app else 'no app':<10}{seconds:6.2f} s  {details[0]}",
        *(" " * (NAME_WIDTH + 24) + detail for detail in details[1:]),
    ]


def short(line: str) -> str:
    """Return a record's most telling fields; other lines as they are, cut."""
    try:
        record = json.loads(line)
        values = (str(record[name]) for name in ("timestamp", "level", "logger_name", "message"))
        return "  ".join(values).replace("\n", "\\n")
    except (ValueError, KeyError, TypeError):
        return line[:200]


def report_of(steps: Sequence[Step], found: Found) -> tuple[str, str]:
    """Return the report and the diagnosis: the first step that failed, why, and what to do; empty if none did."""
    rows: list[str] = []
    diagnosis = ""
    ids: list[str] = []
    lines: list[str] = []
    tried = 0
    for number, step in enumerate(steps, start=1):
        results = results_of(step, found)
        rows += row_of(number, step, results, failed_before=bool(diagnosis))
        tried += len(results)
        ids += [f"{result['probe']['trace_id']}  ({host})" for host, result in results.items() if result.get("probe")]
        lines = next((result["lines"] for result in results.values() if result.get("lines")), lines)
        problems = [problem for host, result in results.items() if (problem := problem_of(host, result))]
        if problems and not diagnosis:
            host, cause, advice = problems[0]
            others = ", ".join(other for other, *_ in problems[1:])
            diagnosis = (
                f"doctor: step {number} of {len(steps)} ({step.name}) failed on {host}: {cause}"
                + f"\nWhat to do: {advice}"
                + (f"\n(The same step failed on {others} too.)" if others else "")
            )
    if not tried and not diagnosis:
        diagnosis = "doctor: there is nothing to look at: the hosts that are asked for run no part of the platform."
    if ids:
        rows += ["", f"Trace id: {ids[0]}", *(f"          {other}" for other in ids[1:MAX_LINES])]
    if lines and not diagnosis:
        rows += ["What Loki returned for it:", *(f"  {short(line)}" for line in lines[:MAX_LINES])]
        rows += [f"  … and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    if not diagnosis:
        rows += ["", "doctor: every step that was taken works."]
    # Records, journals and names of files are what any program on a host has made them.
    return printable("\n".join(rows)), printable(diagnosis)
