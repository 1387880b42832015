"""Formats of log lines: what the real Promtail makes of lines as software writes them, and what is refused."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible.errors import AnsibleFilterError
from ansible_collections.logstead.platform.plugins.action import preflight_check
from ansible_collections.logstead.platform.plugins.filter.scrape_configs import file_scrape_configs
from ansible_collections.logstead.platform.plugins.plugin_utils import formats
from ansible_collections.logstead.platform.plugins.plugin_utils.topology import Topology
from push_sink import Pushed, PushSink

from roles.promtail.files import promtail_resume as resume
from tests.docs import formats as script

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LOGSTEAD_CACHE", Path.home() / ".cache/logstead"))
# Each has lines of one format, and what is to become of them: text (if another one: becomes), time (without: that of
# reading), level, metadata and labels.
CORPORA: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "formats").glob("*.yml"))
}
FORMATS = {
    **formats.default_formats(),
    **{name: row for corpus in CORPORA.values() for name, row in corpus.get("formats", {}).items()},
}
HOST_ZONE = "Europe/Berlin"
SECONDS = 90
LATER = "  later, and\nwithout a time\n"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def promtail_binary(folder: Path) -> Path:
    """Return the pinned release's binary, unpacked into a folder."""
    defaults = yaml.safe_load((REPOSITORY / "roles/promtail/defaults/main.yml").read_text())
    name = f"promtail-linux-{ {'x86_64': 'amd64', 'aarch64': 'arm64'}[platform.machine()] }"
    releases = CACHE / "mirror/github.com/grafana/loki/releases/download"
    archive = releases / f"v{defaults['promtail_version']}" / f"{name}.zip"
    if not archive.is_file():
        pytest.fail(f"{archive} isn't there: run `tests/mirror/mirror.py fill`")
    with zipfile.ZipFile(archive) as content:
        content.extract(name, folder)
    (folder / name).chmod(0o755)
    return folder / name


def nanoseconds(text: str) -> int:
    """Return a time as nanoseconds since the epoch; `year` stands for that in which Promtail takes the time to be."""
    now = datetime.now(tz=timezone.utc)
    month = text[5:7]
    # Around New Year it is the nearest.
    year = now.year - (month == "12" and now.month == 1) + (month == "01" and now.month == 12)
    whole, _, fraction = text.replace("year", str(year)).removesuffix("Z").partition(".")
    since = datetime.fromisoformat(f"{whole}+00:00") - EPOCH
    return (since.days * 86400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0") or "0")


def as_seen(entry: dict[str, Any], key: str = "text") -> str:
    """Return the text of an entry as it arrives, where bytes that aren't UTF-8 are replaced."""
    text: str = entry.get(key, entry["text"])
    return text.encode(entry.get("encoding", "utf-8")).decode(errors="replace")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, list[Pushed]], int, int]]:
    """What one Promtail pushes that reads all corpora, by corpus, and when it began and ended."""
    folder = tmp_path_factory.mktemp("formats")
    sink = PushSink()
    logs = []
    for name, corpus in CORPORA.items():
        path = folder / f"{name}.log"
        path.write_bytes(
            b"".join(entry["text"].encode(entry.get("encoding", "utf-8")) + b"\n" for entry in corpus["entries"])
        )
        zone = {"timezone": corpus["timezone"]} if "timezone" in corpus else {}
        logs.append({"job": name, "path": str(path), "format": corpus["format"], **zone})
    settings = {
        "server": {"http_listen_address": "127.0.0.1", "http_listen_port": 0, "grpc_listen_port": 0},
        "clients": [{"url": sink.url, "batchwait": "100ms"}],
        "positions": {"filename": f"{folder}/positions.yaml"},
        "target_config": {"sync_period": "1s"},
        "scrape_configs": file_scrape_configs(logs, {}, FORMATS),
    }
    (folder / "config.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
    begin = time.time_ns()
    wanted = sum(len(corpus["entries"]) for corpus in CORPORA.values())
    with (folder / "promtail.txt").open("w") as journal:
        promtail = subprocess.Popen(
            [str(promtail_binary(folder)), f"-config.file={folder}/config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TZ": HOST_ZONE},
        )
        deadline = time.monotonic() + SECONDS
        while len(sink.entries) < wanted and promtail.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        end = time.time_ns()
        # What comes later, without a first line.
        with (folder / "plain.log").open("a") as log:
            log.write(LATER)
        while len(sink.entries) < wanted + 1 and promtail.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        promtail.terminate()
        promtail.wait(timeout=30)
    print((folder / "promtail.txt").read_text()[-4000:])
    found: dict[str, list[Pushed]] = {name: [] for name in CORPORA}
    for entry in sink.entries:
        found[entry.labels["job"]].append(entry)
    yield found, begin, end
    sink.close()


@pytest.mark.parametrize("name", CORPORA)
def test_lines_as_software_writes_them_have_their_time_level_and_metadata(
    run: tuple[dict[str, list[Pushed]], int, int], name: str
) -> None:
    found_by_corpus, begin, end = run
    pushed = [entry for entry in found_by_corpus[name] if entry.text != LATER.rstrip("\n")]
    wanted = {
        as_seen(entry, "becomes"): {
            "time": nanoseconds(entry["time"]) if "time" in entry else "that of reading",
            "level": entry.get("level"),
            "metadata": entry.get("metadata", {}),
            "labels": {"job": name, "service_name": name, **entry.get("labels", {})},
        }
        for entry in CORPORA[name]["entries"]
    }
    found = {
        entry.text: {
            "time": "that of reading" if begin <= entry.time <= end else entry.time,
            "level": entry.labels.get("level"),
            "metadata": entry.metadata,
            "labels": {key: value for key, value in entry.labels.items() if key != "level"},
        }
        for entry in pushed
    }
    assert found == wanted
    assert len(pushed) == len(CORPORA[name]["entries"])


def test_lines_that_come_late_have_the_time_of_reading_and_not_that_of_the_entry_before(
    run: tuple[dict[str, list[Pushed]], int, int],
) -> None:
    pushed, _, end = run
    (late,) = [entry for entry in pushed["plain"] if entry.text == LATER.rstrip("\n")]
    assert end <= late.time <= end + SECONDS * 10**9


@pytest.mark.parametrize("name", ["json", "mongodb"])
def test_the_program_that_resumes_reads_times_as_promtail_does(
    run: tuple[dict[str, list[Pushed]], int, int], name: str, tmp_path: Path
) -> None:
    pushed, begin, end = run
    (config,) = file_scrape_configs([{"job": name, "path": "/x", "format": CORPORA[name]["format"]}])
    source = resume.source_of(config, {})
    assert source is not None
    found = {}
    for entry in CORPORA[name]["entries"]:
        path = tmp_path / "x.log"
        path.write_bytes(entry["text"].encode(entry.get("encoding", "utf-8")) + b"\n")
        with resume.LogFile(path, source.time_field) as file:
            (line,) = file.lines(0)
        found[as_seen(entry)] = line.time
    seen = {entry.text: None if begin <= entry.time <= end else entry.time for entry in pushed[name]}
    # Without a zone, a time is none to it: such a log stays at its position.
    local = {as_seen(entry): None for entry in CORPORA[name]["entries"] if entry.get("is_local")}
    assert found == {**seen, **local}


# --- What is refused --------------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {
    "sample": "26.11.2026 03:04:05|ERROR|no",
    "pattern": r"^(?P<timestamp>\S+ \S+?)\|(?P<level>\w+)\|",
    "layouts": ["02.01.2006 15:04:05"],
}
KEYS: dict[str, Any] = {
    "sample": '{"when": "2026-11-26T03:04:05Z"}',
    "keys": {"timestamp": ["when"]},
    "layouts": ["iso"],
}


def problems(row: object) -> str:
    return " ".join(formats.all_problems({}, {**formats.default_formats(), "own": row}))  # type: ignore[dict-item]


def test_rows_of_the_platform_and_of_ones_own_are_valid() -> None:
    assert [problem for name, row in FORMATS.items() for problem in formats.row_problems(name, row)] == []
    assert problems(ROW) == problems(KEYS) == ""


def test_each_format_has_lines_for_which_it_is_tested() -> None:
    lines = {corpus["format"]: 0 for corpus in CORPORA.values()}
    for corpus in CORPORA.values():
        lines[corpus["format"]] += len("\n".join(entry["text"] for entry in corpus["entries"]).split("\n"))
    assert set(lines) == set(FORMATS)
    assert [name for name, count in lines.items() if count < 8] == ["billing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("text", "own is 'text'; write such as"),
        ({"patern": "x"}, "has the unknown key patern; did you mean pattern?"),
        ({"keys": {"timestamp": ["x"]}}, "needs one of keys, pattern, container, and no other of these"),
        ({"pattern": None}, "needs one of keys, pattern, container"),
        ({"sample": ""}, "needs sample"),
        # What RE2 lacks, or nothing compiles.
        ({"pattern": "(?=x)"}, "it has lookaround, which RE2 lacks"),
        ({"pattern": "(?<!x)y"}, "it has lookaround"),
        ({"pattern": r"(?P<a>x)\1"}, "it has a back reference"),
        ({"pattern": r"(?P<a>x)(?P=a)"}, "it has a back reference"),
        ({"pattern": "x++y"}, "it has a possessive or atomic part"),
        ({"pattern": "(?>x)"}, "it has a possessive or atomic part"),
        ({"pattern": "(?x) y"}, "it has a flag other than i, m and s"),
        ({"pattern": r"x\Z"}, "it has an escape of Python's"),
        ({"pattern": "x{1001}"}, "RE2 repeats at most 1000 times"),
        ({"pattern": "(x"}, "the pattern '(x' is invalid: missing )"),
        ({"pattern": "%{NOTHING}"}, "fragment %{NOTHING} is unknown"),
        ({"pattern": ["x", 7]}, "the pattern 7 is invalid: it is no text"),
        ({"first_line": "(?=x)"}, "the first_line '(?=x)' is invalid"),
        # Layouts.
        ({"layouts": ["%d.%m.%Y %H:%M:%S"]}, "it is not in Go's notation"),
        ({"layouts": ["dd.MM.yyyy"]}, "it is not in Go's notation"),
        ({"layouts": ["02.01.2006"]}, "it lacks the hour and the minute"),
        ({"layouts": ["15:04:05"]}, "it lacks the day and the month"),
        ({"layouts": ["02.01.2006 03:04:05"]}, "it lacks the half"),
        ({"layouts": ["2006-01-02 15:04:05"]}, "of its sample has none of the layouts"),
        ({"layouts": []}, "needs both a field timestamp and its layouts, or neither"),
        ({"layouts": "iso"}, "layouts is 'iso'; it is a list"),
        ({"pattern": r"\|(?P<level>\w+)\|"}, "needs both a field timestamp and its layouts"),
        # What the sample shows.
        ({"sample": "something else"}, "pattern finds nothing in its sample"),
        ({"sample": "26.11.2026 03:04:05|SCHWER|no"}, "the level 'SCHWER' of its sample is unknown"),
        ({"first_line": "^Traceback"}, "first_line doesn't match the first line of its sample"),
        ({"first_line": "[a-z]", "sample": ROW["sample"] + "\nmore"}, "first_line matches 'more' as well"),
        # Levels and metadata.
        ({"levels": {"SCHWER": "LOUD"}}, "levels has 'LOUD' for SCHWER; levels are DEBUG"),
        ({"levels": ["ERROR"]}, "levels is ['ERROR']"),
        ({"metadata": ["order"]}, "metadata has order, which no key and no group"),
        ({"metadata": ["level"]}, "level can't be metadata"),
        ({"metadata": ["job"]}, "job can't be metadata"),
        # Keys.
        ({**KEYS, "pattern": None, "keys": {"timestamp": ["when", "when"]}}, "keys has when twice"),
        ({**KEYS, "pattern": None, "keys": {"timestamp": ["when"], "x": ["when"]}}, "for timestamp and for x"),
        ({**KEYS, "pattern": None, "keys": {"timestamp": ["@time"]}}, "stands in double quotes"),
        ({**KEYS, "pattern": None, "keys": {"timestamp": "when"}}, "keys has 'when' for timestamp; it is a list"),
        ({**KEYS, "pattern": None, "keys": {"time-stamp": ["when"]}}, "a name is made of letters"),
        ({**KEYS, "pattern": None, "keys": {"timestamp": ["then"]}}, "keys finds nothing in its sample"),
        ({**KEYS, "pattern": None, "keys": ["when"]}, "keys is ['when']"),
        ({**KEYS, "pattern": None, "sample": "no JSON"}, "keys finds nothing in its sample"),
        ({"pattern": None, "container": "lxc"}, "container is 'lxc'; it can be cri"),
    ],
)
def test_a_row_that_cannot_work_is_refused_by_name(change: Any, message: str) -> None:
    found = problems({**ROW, **change} if isinstance(change, dict) else change)
    assert found.startswith("platform_log_formats: own")
    assert message in found


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "postgres"}, "shop has the unknown format 'postgres'; did you mean postgresql? The formats are"),
        ({"format": 7}, "shop has the unknown format 7; the formats are"),
        ({"format": "python", "timezone": "Europe/Berln"}, "shop has the unknown timezone 'Europe/Berln'"),
        ({"format": "python", "timezone": "../../etc/passwd"}, "has the unknown timezone"),
        ({"format": "nginx_access", "timezone": "UTC"}, "has a timezone, but times of the format nginx_access have"),
        ({"format": "uvicorn", "timezone": "UTC"}, "has a timezone, but times of the format uvicorn have"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_by_name(entry: Any, message: str) -> None:
    given = {"group_names": ["promtail"], "platform_logs": {"shop": {"path": "/x", "rotation": "never", **entry}}}
    (problem,) = preflight_check.check_logs(given)
    assert problem.startswith("platform_logs: shop")
    assert message in problem
    with pytest.raises(AnsibleFilterError, match="promtail_log_files: /x has"):
        file_scrape_configs([{"job": "shop", "path": "/x", **entry}])


def test_the_preflight_knows_the_formats_of_the_inventory() -> None:
    given = {
        "group_names": ["promtail"],
        "platform_logs": {"shop": {"path": "/x", "rotation": "never", "format": "own"}},
    }
    rows = {**formats.default_formats(), "own": ROW}
    assert list(preflight_check.check_logs({**given, "platform_log_formats": rows})) == []
    assert len(list(preflight_check.check_logs(given))) == 1
    (problem,) = preflight_check.check_logs(
        {**given, "platform_log_formats": {**rows, "own": {**ROW, "layouts": ["x"]}}}
    )
    assert problem.startswith("platform_log_formats: own: the layout 'x' is invalid")


def test_a_part_of_a_row_can_be_changed_and_the_rest_stays() -> None:
    own = {"platform_log_formats_shop": {"json": {"keys": {"timestamp": ["when"]}}}}
    rows = Topology("h", {"all": ["h"]}, {"h": own}).log_formats()
    assert rows["json"]["keys"]["timestamp"] == ["when"]
    assert rows["json"]["keys"]["level"] == formats.default_formats()["json"]["keys"]["level"]
    assert rows["plain"] == formats.default_formats()["plain"]


def test_a_label_of_the_entry_stays_a_label() -> None:
    (config,) = file_scrape_configs([{"job": "a", "path": "/x", "format": "nginx_access", "labels": {"method": "any"}}])
    (names,) = [stage["structured_metadata"] for stage in config["pipeline_stages"] if "structured_metadata" in stage]
    assert list(names) == ["status_code"]


def test_the_table_of_the_documentation_is_that_of_the_formats() -> None:
    assert script.DOCUMENT.read_text() == script.document(), "docs/formats.md is stale: run `make docs`"
