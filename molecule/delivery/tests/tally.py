"""On the host: compare the numbers of a case in its files with those in Loki; print how many there are of each kind."""

from __future__ import annotations

import collections
import gzip
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

PAGE = 5000

case, since = sys.argv[1], int(sys.argv[2])
QUERY = f'{{job="app"}} |= "`{case}`"'


def ask(path: str, **parameters: object) -> list[dict[str, Any]]:
    """Return what Loki's API calls the result."""
    url = f"http://127.0.0.1:3101/loki/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url) as response:
        result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


def numbers_in_loki() -> set[tuple[int, int]]:
    """Return the numbers of all entries that a query for lines returns."""
    found: set[tuple[int, int]] = set()
    start, end = since, time.time_ns() + 10**9
    while True:
        result = ask("query_range", query=QUERY, start=start, end=end, limit=PAGE, direction="forward")
        page = [(int(when), json.loads(text)["number"]) for stream in result for when, text, *_ in stream["values"]]
        found |= set(page)
        if len(page) < PAGE:
            return found
        start = max(when for when, _ in page)


files = sorted(Path("/var/log/app").glob("app.log*"))
texts = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files]
lines = [line for text in texts for line in text.splitlines(keepends=True)]
records = [json.loads(line) for line in lines if line.endswith(b"\n") and f"`{case}`".encode() in line]
written = {record["number"] for record in records}
stored = collections.Counter(number for _, number in numbers_in_loki())
seconds = int(time.time() - since / 1e9) + 2
counted = ask("query", query=f"sum(count_over_time({QUERY} [{seconds}s]))")
count = int(counted[0]["value"][1]) if counted else 0
lost = sorted(written - set(stored))
print(
    json.dumps(
        {"written": len(written), "counted": count, "lost": len(lost), "twice": count - len(written) + len(lost)}
        | {"first_lost": lost[:1], "foreign": len(set(stored) - written)}
    )
)
