#!/usr/bin/env python3
"""`make bench NAME=delivery`: from a line in the app's file to an answer that has it. It measures, it doesn't judge.

Three ways, each with a Loki of its own, one after the other in each round, so that whatever else the machine does
disturbs all of them:

- ours: Promtail and Loki with the settings that the roles render;
- labels: Promtail with its own defaults and one label for level, service and trace each, and Loki with its own
  defaults, as many begin, the project that this one follows among them;
- push: no file and no Promtail; the records are pushed to Loki (with our settings) as JSON, a thousand at a time.

First a file of records is sent as fast as it goes: records a second, and seconds of CPU that all programs take for a
million. Then records are written at a steady rate while Loki is asked for its newest: the time from a record's own time
to the first answer that has it or a later one. All programs run here, on loopback, from the releases of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts.cache import REPO
from tests.mirror.mirror import MIRROR, program_zip, release_folder, versions

LOKI_PORT, GRPC_PORT, PROMTAIL_PORT = 13101, 19096, 19080
LOKI = f"http://127.0.0.1:{LOKI_PORT}"
QUERY = '{service_name="fastapi-demo"}'
LINES_OF_A_TRACE = 5
PUSHED_AT_ONCE = 1000
RATE = 2000
TARGET = 2.0
WAYS = {
    "ours": "file, Promtail, Loki: the roles' settings",
    "labels": "file, Promtail, Loki: defaults, the trace as a label",
    "push": "pushed to Loki by the program itself",
}
# What the roles render, with every path and address of this run.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  roles: [loki, promtail]
  tasks:
    - tags: [render]
      ansible.builtin.copy:
        content: "{{ {'loki': __loki_merged_config, 'promtail': __promtail_merged_config} | to_json }}"
        dest: "{{ rendered_to }}"
        mode: "0600"
"""


@dataclass(frozen=True)
class Way:
    """A way of a record to Loki: the settings of its programs, none of Promtail where it has no part in it."""

    loki: dict[str, Any]
    promtail: dict[str, Any] | None


@dataclass(frozen=True)
class Speed:
    """How fast a file was sent, how much of it arrived, and the seconds of CPU for all of it."""

    lines: int
    arrived: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.arrived / self.seconds

    @property
    def cpu_per_million(self) -> float:
        """Seconds of CPU for a million records that arrived."""
        return self.cpu / self.arrived * 1e6 if self.arrived else float("inf")


def our_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of Loki and Promtail as the roles make them."""
    (folder / "render.yml").write_text(PLAYBOOK, encoding="utf-8")
    (folder / "overrides.yml").write_text("overrides: {}\n", encoding="utf-8")
    (folder / "rules").mkdir()
    variables = {
        "rendered_to": str(folder / "rendered.json"),
        "ansible_python_interpreter": sys.executable,
        "__loki_data": str(folder / "loki"),
        "__loki_overrides_path": str(folder / "overrides.yml"),
        "__loki_rules_folder": str(folder / "rules"),
        "loki_http_port": LOKI_PORT,
        "loki_grpc_port": GRPC_PORT,
        "__promtail_data": str(folder),
        "promtail_http_port": PROMTAIL_PORT,
        "promtail_loki_url": LOKI,
        "promtail_environment": "bench",
        "promtail_journal_enabled": False,
        "promtail_log_files": [
            {"job": "fastapi", "path": str(folder / "app.log"), "labels": {"service_name": "fastapi-demo"}}
        ],
    }
    words = ["-i", "localhost,", "--tags", "render", "--extra-vars", json.dumps(variables), str(folder / "render.yml")]
    subprocess.run(
        ["ansible-playbook", *words],
        check=True,
        cwd=REPO,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPO / "collections"), "ANSIBLE_LOCALHOST_WARNING": "0"},
        stdout=subprocess.DEVNULL,
    )
    settings: dict[str, Any] = json.loads((folder / "rendered.json").read_text(encoding="utf-8"))
    return settings


def label_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings that leave everything at the programs' defaults, and make labels of what a record says."""
    loki = {
        "auth_enabled": False,
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": LOKI_PORT,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": GRPC_PORT,
        },
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": str(folder / "loki"),
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {
                "filesystem": {
                    "chunks_directory": str(folder / "loki/chunks"),
                    "rules_directory": str(folder / "loki/rules"),
                }
            },
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-04-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "analytics": {"reporting_enabled": False},
    }
    fields = ["level", "service_name", "trace_id"]
    stages = [
        {"json": {"expressions": {field: field for field in ["timestamp", *fields]}}},
        {"labels": dict.fromkeys(fields)},
        {"timestamp": {"source": "timestamp", "format": "RFC3339Nano"}},
    ]
    promtail = {
        "server": {"http_listen_address": "127.0.0.1", "http_listen_port": PROMTAIL_PORT, "grpc_listen_port": 0},
        "positions": {"filename": str(folder / "positions.yaml")},
        "clients": [{"url": f"{LOKI}/loki/api/v1/push"}],
        "scrape_configs": [
            {
                "job_name": "app",
                "pipeline_stages": stages,
                "static_configs": [{"labels": {"job": "fastapi", "__path__": str(folder / "app.log")}}],
            }
        ],
    }
    return loki, promtail


def record(number: int) -> tuple[int, dict[str, Any]]:
    """Return the time of a record, now, and the record, as the demo app writes one for a request."""
    now = time.time_ns()
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return now, {
        "timestamp": f"{second}.{now % 10**9:09d}Z",
        "level": "ERROR" if number % 100 == 0 else "INFO",
        "logger_name": "demo_app.requests",
        "message": f"GET /items/{{item_id}} 200, number {number} of the measurement",
        "service_name": "fastapi-demo",
        "trace_id": f"{now - number % LINES_OF_A_TRACE:016x}{number // LINES_OF_A_TRACE:016x}"[-32:],
        "span_id": f"{number:016x}",
        "method": "GET",
        "endpoint": "/items/{item_id}",
        "status_code": 200,
        "duration_ms": 1.25,
    }


def ask(path: str, **parameters: object) -> Any:
    """Return what Loki answers to a query; None if it doesn't."""
    url = f"{LOKI}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - it is this run's Loki
            return json.load(response)
    except (OSError, ValueError):
        return None


def arrived() -> int:
    """Return how many records a query counts."""
    answer = ask("/loki/api/v1/query", query=f"sum(count_over_time({QUERY}[1h]))")
    result = answer["data"]["result"] if answer else []
    return int(result[0]["value"][1]) if result else 0


def newest() -> int:
    """Return the time of the newest record that a query finds, in nanoseconds; 0 if there is none."""
    now = time.time_ns()
    words = {"query": QUERY, "start": now - 30 * 10**9, "end": now, "limit": 1, "direction": "backward"}
    answer = ask("/loki/api/v1/query_range", **words)
    streams = answer["data"]["result"] if answer else []
    return max((int(when) for each in streams for when, *_ in each["values"]), default=0)


def push(records: list[tuple[int, dict[str, Any]]]) -> None:
    """Push records to Loki, until it has taken them."""
    streams: dict[str, list[Any]] = {}
    for when, each in records:
        ids = {name: each[name] for name in ("trace_id", "span_id")}
        streams.setdefault(each["level"], []).append([str(when), json.dumps(each), ids])
    labels = {"job": "fastapi", "service_name": "fastapi-demo"}
    body = {"streams": [{"stream": {**labels, "level": level}, "values": each} for level, each in streams.items()]}
    request = urllib.request.Request(f"{LOKI}/loki/api/v1/push", json.dumps(body).encode())  # noqa: S310 - as above
    request.add_header("Content-Type", "application/json")
    while not is_taken(request):
        time.sleep(0.1)


def is_taken(request: urllib.request.Request) -> bool:
    """Push once; tell whether Loki has taken it, or wants it to be sent again."""
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        if error.code != 429:
            raise
        return False
    return True


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


@contextmanager
def program(name: str, binary: Path, settings: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with settings; what it says goes to a file."""
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with (folder / f"{name}.txt").open("wb") as said:
        process = subprocess.Popen([str(binary), f"-config.file={path}"], stdout=said, stderr=said)
    try:
        yield process
    except RuntimeError:
        print((folder / f"{name}.txt").read_text(encoding="utf-8")[-3000:], file=sys.stderr)
        raise
    finally:
        process.kill()
        process.wait()


def write_file(path: Path, lines: int) -> None:
    """Write records as fast as it goes."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record(number)[1]) + "\n" for number in range(lines))


def measure_speed(way: Way, binaries: dict[str, Path], folder: Path, lines: int, patience: float) -> Speed:
    """Send a file, or push records, as fast as it goes; end once all can be counted, or no more come."""
    with program("loki", binaries["loki"], way.loki, folder) as loki:
        until(lambda: ask("/loki/api/v1/labels") is not None, 60, "Loki answers")
        if way.promtail is None:
            records = [record(number) for number in range(lines)]
            before, own, started = cpu_of(loki), time.process_time(), time.monotonic()
            for first in range(0, lines, PUSHED_AT_ONCE):
                push(records[first : first + PUSHED_AT_ONCE])
            cpu = time.process_time() - own
            until(lambda: arrived() >= lines, patience, "all that was pushed is found")
            return Speed(lines, lines, time.monotonic() - started, cpu + cpu_of(loki) - before)
        log = folder / "app.log"
        write_file(log, 1)
        write_file(folder / "rest", lines - 1)
        with program("promtail", binaries["promtail"], way.promtail, folder) as promtail:
            until(lambda: arrived() > 0, 60, "the first record is found")
            before, started = cpu_of(promtail) + cpu_of(loki), time.monotonic()
            with log.open("ab") as file:
                file.write((folder / "rest").read_bytes())
            count, changed = 0, started
            while count < lines and time.monotonic() - changed < patience:
                now = arrived()
                if now > count:
                    count, changed = now, time.monotonic()
                time.sleep(0.1)
            return Speed(lines, count, changed - started, cpu_of(promtail) + cpu_of(loki) - before)


def write_steadily(way: Way, log: Path, seconds: float, times: list[int]) -> None:
    """Write or push records at the rate, and note their times."""
    started = time.monotonic()
    number = 0
    with log.open("a", encoding="utf-8", buffering=1 << 20) as file:
        while (passed := time.monotonic() - started) < seconds:
            records = [record(each) for each in range(number, int(passed * RATE))]
            number += len(records)
            if way.promtail is None:
                if records:
                    push(records)
            else:
                file.writelines(json.dumps(each) + "\n" for _, each in records)
                file.flush()
            times += [when for when, _ in records]
            time.sleep(0.01)


def measure_delay(way: Way, binaries: dict[str, Path], folder: Path, seconds: float) -> list[float]:
    """Return, for each record that is written, the seconds until a query finds it; infinite if none does."""
    log = folder / "app.log"
    log.touch()
    times: list[int] = []
    delays: list[float] = []
    with program("loki", binaries["loki"], way.loki, folder):
        until(lambda: ask("/loki/api/v1/labels") is not None, 60, "Loki answers")
        with program("promtail", binaries["promtail"], way.promtail, folder) if way.promtail else nullcontext():
            warm_up: list[int] = []
            write_steadily(way, log, 1, warm_up)
            until(lambda: newest() >= warm_up[-1], 60, "the first records are found")
            writer = threading.Thread(target=write_steadily, args=(way, log, seconds, times))
            writer.start()
            deadline = time.monotonic() + seconds + 10
            while time.monotonic() < deadline and (writer.is_alive() or len(delays) < len(times)):
                last = newest()
                now = time.time_ns()
                known = len(times)
                while len(delays) < known and times[len(delays)] <= last:
                    delays.append((now - times[len(delays)]) / 1e9)
            writer.join()
    return delays + [float("inf")] * (len(times) - len(delays))


def percentile(values: list[float], share: float) -> float:
    """Return the value that a share of all doesn't exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def in_seconds(value: float) -> str:
    """Return a time as people read it."""
    return "never" if value == float("inf") else f"{value:.2f} s"


def unpack(folder: Path) -> dict[str, Path]:
    """Return the programs, unpacked from the releases of the tests."""
    found = {}
    for name in ("loki", "promtail"):
        with zipfile.ZipFile(MIRROR / release_folder(versions()[f"{name}_version"]) / program_zip(name)) as archive:
            found[name] = Path(archive.extract(archive.namelist()[0], folder))
        found[name].chmod(0o755)
    return found


def way_called(name: str, folder: Path) -> Way:
    """Return one of the three that are compared, with this folder for all that its programs write."""
    if name == "labels":
        return Way(*label_settings(folder))
    ours = our_settings(folder)
    return Way(ours["loki"], ours["promtail"] if name == "ours" else None)


def measure(options: argparse.Namespace) -> None:
    """Run everything and print what came out."""
    speeds: dict[str, list[Speed]] = {}
    delays: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="logstead-bench-") as unpacked:
        binaries = unpack(Path(unpacked))
        for number in range(1, options.rounds + 1):
            for name in WAYS:
                with tempfile.TemporaryDirectory(prefix="logstead-bench-") as run:
                    way = way_called(name, Path(run))
                    speed = measure_speed(way, binaries, Path(run), options.lines, options.patience)
                with tempfile.TemporaryDirectory(prefix="logstead-bench-") as run:
                    way = way_called(name, Path(run))
                    times = measure_delay(way, binaries, Path(run), options.seconds)
                speeds.setdefault(name, []).append(speed)
                delays.setdefault(name, []).extend(times)
                print(
                    f"round {number}, {name}: {speed.arrived} of {speed.lines} records in {speed.seconds:.1f} s "
                    f"({speed.rate:.0f}/s), {speed.cpu_per_million:.0f} s of CPU a million; at {RATE}/s found after "
                    f"{in_seconds(percentile(times, 0.5))} (p50), {in_seconds(percentile(times, 0.99))} (p99); "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    print(
        f"\n{options.rounds} rounds; files of {options.lines} records, {LINES_OF_A_TRACE} of them a trace; "
        f"{options.seconds:.0f} s at {RATE}/s; {os.cpu_count()} cores.\n\n"
        "| | arrived | records/s: median | CPU s a million: median | found after: p50 | p99 |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, each in speeds.items():
        print(
            f"| {WAYS[name]} | {min(s.arrived for s in each)} of {options.lines} "
            f"| {statistics.median(s.rate for s in each):.0f} "
            f"| {statistics.median(s.cpu_per_million for s in each):.0f} "
            f"| {in_seconds(percentile(delays[name], 0.5))} | {in_seconds(percentile(delays[name], 0.99))} |"
        )
    for other in ("labels", "push"):
        ratios = [ours.rate / theirs.rate for ours, theirs in zip(speeds["ours"], speeds[other], strict=True)]
        cpus = [
            ours.cpu_per_million / theirs.cpu_per_million
            for ours, theirs in zip(speeds["ours"], speeds[other], strict=True)
        ]
        print(
            f"ours / {other}, median of the rounds: records/s {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}), CPU {statistics.median(cpus):.2f} "
            f"({min(cpus):.2f}-{max(cpus):.2f})"
        )
    print(f"ours found after (p99): {in_seconds(percentile(delays['ours'], 0.99))}; wanted: less than {TARGET:.0f} s")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description="Measure the way of a record from a file to an answer.")
    parser.add_argument("-n", dest="rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--lines", type=int, default=100_000, help="records in a file (default: 100000)")
    parser.add_argument("--seconds", type=float, default=20, help="seconds at a steady rate (default: 20)")
    parser.add_argument("--patience", type=float, default=15, help="seconds without a new record (default: 15)")
    options = parser.parse_args()
    try:
        measure(options)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
