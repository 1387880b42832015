"""On the host: write numbered records as the demo app does, until it is told to stop.

Most go to app.log and every tenth to access.log. Each has a time in nanoseconds and a trace of its own. Files are
opened anew after a rotation. /run/written has how many records there are so far.

Usage: writer.py CASE FIRST_NUMBER RECORDS_PER_SECOND
"""

from __future__ import annotations

import datetime
import signal
import sys
import time
from pathlib import Path

LOGS = Path("/var/log/demo-app")
TICK = 0.01
RECORD = (
    '{{"timestamp": "{when}.{fraction:09d}Z", "level": "{level}", "logger_name": "load", "message": "`{case}` \\\\ ☃", '
    '"service_name": "fastapi-demo", "trace_id": "{number:032x}", "span_id": "{number:016x}", "number": {number}}}\n'
)

is_over = False


def end(*_: object) -> None:
    """Have the loop end behind a whole record."""
    global is_over  # noqa: PLW0603 - a signal handler has nothing else to tell
    is_over = True


def append(path: Path, records: list[str]) -> None:
    """Write records at once: they end up in one file, whatever it is called by then."""
    with path.open("ab", buffering=0) as stream:
        stream.write("".join(records).encode())


def main() -> None:
    """Write."""
    signal.signal(signal.SIGTERM, end)
    case, first, per_second = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    begin, count, last = time.time(), 0, 0
    with Path("/run/written").open("w") as written:
        while not is_over:
            app: list[str] = []
            access: list[str] = []
            for _ in range(int((time.time() - begin) * per_second) - count):
                last = max(time.time_ns(), last + 1)
                when = datetime.datetime.fromtimestamp(last // 10**9, datetime.timezone.utc)
                number = first + count
                is_access = number % 10 == 0
                record = RECORD.format(
                    when=f"{when:%Y-%m-%dT%H:%M:%S}",
                    fraction=last % 10**9,
                    level="ERROR" if number % 10 == 1 else "INFO",
                    case=case,
                    number=number,
                )
                (access if is_access else app).append(record)
                count += 1
            append(LOGS / "app.log", app)
            append(LOGS / "access.log", access)
            written.seek(0)
            written.write(str(count))
            written.flush()
            time.sleep(TICK)


main()
