"""On the host: write numbered records for some seconds, as an app does that reopens its log after a rotation."""

import datetime
import json
import sys
import time
from pathlib import Path

PATH = Path("/var/log/app/app.log")
PER_TICK, TICK = 20, 0.01  # 2,000 lines a second

case, first, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
begin = time.time()
for tick in range(int(seconds / TICK)):
    time.sleep(max(0.0, begin + tick * TICK - time.time()))
    records = []
    for index in range(PER_TICK):
        when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(microseconds=index)
        number = first + tick * PER_TICK + index
        level = "ERROR" if number % 10 == 0 else "INFO"
        records.append({"timestamp": when.isoformat(), "level": level, "message": f"`{case}` \\ ☃", "number": number})
    with PATH.open("a") as stream:
        stream.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
