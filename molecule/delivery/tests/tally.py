"""On the host: compare the numbers of a case in the app's files with those in Loki; print how many there are of a kind.

It looks again until Loki has all of them, for so many seconds at most. With `count`, it waits for as many only.

Usage: tally.py compare|count CASE SINCE_NANOSECONDS SECONDS [LOKI]
"""

from __future__ import annotations

import collections
import gzip
import json
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOGS = Path("/var/log/demo-app")
WINDOW = 10 * 10**9  # nanoseconds
PAGE = 10000  # the role's max_entries_limit_per_query

what, case, since, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
LOKI = sys.argv[5] if len(sys.argv) > 5 else "http://127.0.0.1:3101"
QUERY = f'{{job="fastapi"}} |= "`{case}`"'


def ask(path: str, **parameters: object) -> list[dict[str, Any]]:
    """Return what Loki's API calls the result."""
    url = f"{LOKI}/loki/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url) as response:  # noqa: S310 - a test host's own address
        result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


def count_in_loki() -> int:
    """Return how many there are by a query that counts: what is there twice counts twice."""
    seconds = int(time.time() - since / 1e9) + 2
    result = ask("query", query=f"sum(count_over_time({QUERY} [{seconds}s]))")
    return int(result[0]["value"][1]) if result else 0


def numbers_in_loki() -> set[tuple[int, int]]:
    """Return the times and numbers of all entries that queries for lines return."""
    found: set[tuple[int, int]] = set()
    # Loki reads all of what a query might return, so each asks for little.
    for begin in range(since, time.time_ns() + WINDOW, WINDOW):
        start, page = begin, [(0, 0)] * PAGE
        while len(page) == PAGE:
            result = ask("query_range", query=QUERY, start=start, end=begin + WINDOW, limit=PAGE, direction="forward")
            page = [(int(when), json.loads(text)["number"]) for stream in result for when, text, *_ in stream["values"]]
            found |= set(page)
            start = max((when for when, _ in page), default=0)
    return found


def numbers_in_files() -> Iterator[int]:
    """Yield the numbers of all records that were written; what a power cut has torn is none."""
    for path in LOGS.glob("a*.log*"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for line in lines:
                if f"`{case}`".encode() in line and line.startswith(b"{") and line.endswith(b"}\n"):
                    yield json.loads(line)["number"]


def compare() -> dict[str, Any]:
    """Return the figures, as they are now."""
    count, stored = count_in_loki(), collections.Counter(number for _, number in numbers_in_loki())
    lost = sorted(written - set(stored))
    return {
        "written": len(written),
        "lost": len(lost),
        "twice": count - len(written) + len(lost),
        "foreign": len(set(stored) - written),
        "first and last lost": [*lost[:1], *lost[-1:]],
    }


written = set(numbers_in_files())
deadline = time.monotonic() + patience
while True:
    is_last = time.monotonic() > deadline
    try:
        if is_last or count_in_loki() >= len(written):
            figures = {"lost": 0} if what == "count" else compare()
            if is_last or figures["lost"] == 0:
                print(json.dumps(figures))
                break
    except OSError as error:  # Loki can't be asked, or won't answer
        if is_last:
            raise
        print(error, file=sys.stderr)
    time.sleep(0.3)
