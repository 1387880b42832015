"""promtail_resume: where Promtail goes on, by a Loki that only pretends."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter.scrape_configs import file_scrape_configs

from roles.promtail.files import promtail_resume as resume

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = time.time_ns() // 10**9 * 10**9 - 3600 * 10**9
PROGRAM = REPOSITORY / "roles/promtail/files/promtail_resume.py"


class FakeLoki:
    """Knows entries by time and text, and answers queries about them."""

    def __init__(self, port: int = 0) -> None:
        self.entries: list[tuple[int, str]] = []
        self.queries: list[str] = []
        self.log_ins: list[str | None] = []
        self.status = 200
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                fake.log_ins.append(self.headers["Authorization"])
                body = fake.answer(dict(urllib.parse.parse_qsl(url.query))) if "query" in url.path else b"{}"
                self.send_response(fake.status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, parameters: dict[str, str]) -> bytes:
        """Answer a query for lines, as far as these tests make any."""
        self.queries.append(parameters["query"])
        wanted = json.loads(parameters["query"].partition(" |= ")[2] or '""')
        start, end, limit = (int(parameters[name]) for name in ("start", "end", "limit"))
        found = sorted(entry for entry in self.entries if start <= entry[0] < end and wanted in entry[1])[:limit]
        values = [[str(when), text] for when, text in found]
        body = json.dumps({"data": {"result": [{"stream": {}, "values": values}]}}, ensure_ascii=False)
        return body.encode("utf-8", "surrogateescape")

    def has(self, lines: Iterable[bytes]) -> None:
        """Let it have lines, under their own time."""
        for line in lines:
            text = line.decode("utf-8", "surrogateescape").rstrip("\n")
            when = resume.nanoseconds(json.loads(line.decode(errors="replace"))["timestamp"])
            assert when is not None
            self.entries.append((when, text))


@pytest.fixture
def loki() -> Iterator[FakeLoki]:
    """A Loki without entries."""
    fake = FakeLoki()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def records(count: int, first: int = 0, gap: int = 10**6, **fields: Any) -> list[bytes]:
    """Return numbered records, with a millisecond between two of them."""
    return [
        (json.dumps({"timestamp": stamp(BASE + number * gap), "number": number, **fields}) + "\n").encode()
        for number in range(first, first + count)
    ]


class Start:
    """A folder with logs, and starts of Promtail that end before Promtail itself would run."""

    def __init__(self, folder: Path, loki: FakeLoki, **entry: Any) -> None:
        self.log = folder / "logs" / "app.log"
        self.log.parent.mkdir()
        self.positions = folder / "positions.yaml"
        self.sent = folder / "sent"
        promtail = folder / "promtail"
        promtail.write_text(f'#!/bin/sh\necho "$2" >> {folder}/called\nexec cat >> {self.sent}\n')
        promtail.chmod(0o755)
        self.command = [str(promtail)]
        entry = {"path": str(self.log), "job": "app", "labels": {"service_name": 'a"b'}, **entry}
        self.log_in: dict[str, Any] = {}
        self.config: dict[str, Any] = {
            "server": {"http_listen_address": "127.0.0.1", "http_listen_port": 0},
            "positions": {"filename": str(self.positions)},
            "clients": [{"url": f"{loki.url}/loki/api/v1/push", "external_labels": {"host": "h1"}}],
            "scrape_configs": file_scrape_configs([entry]),
        }

    def write(self, lines: Iterable[bytes]) -> None:
        """Write the log anew."""
        self.log.write_bytes(b"".join(lines))

    def resume(self) -> resume.Resume:
        """Do what is done before Promtail starts."""
        start = resume.Resume({"promtail": self.config, "queries": self.log_in}, self.command)
        start.run()
        if start.stand_in:
            start.stand_in.close()
        return start

    def position(self, path: Path | None = None) -> int | None:
        """Return where Promtail goes on."""
        found = (resume.read_positions(self.positions) or {}).get(str(path or self.log))
        return None if found is None else int(found)


@pytest.fixture
def start(tmp_path: Path, loki: FakeLoki) -> Start:
    return Start(tmp_path, loki)


def length(lines: Iterable[bytes]) -> int:
    return sum(map(len, lines))


# --- The place --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [1, 63, 64, 65, 1000, 19_990, 20_000])
@pytest.mark.parametrize("saved", [None, 0, 1_000_000, 99_999_999])
def test_it_goes_on_right_behind_the_last_line_that_loki_has(
    loki: FakeLoki, start: Start, known: int, saved: int | None
) -> None:
    lines = records(20_000)
    start.write(lines)
    loki.has(lines[:known])
    if saved is not None:
        resume.write_positions(start.positions, {str(start.log): str(saved)})
    start.resume()
    assert start.position() == length(lines[:known])
    assert len(loki.queries) <= 60


def test_it_asks_little_where_all_is_in_order(loki: FakeLoki, start: Start) -> None:
    lines = records(20_000)
    start.write(lines)
    loki.has(lines)
    start.resume()
    loki.queries.clear()
    start.resume()
    assert start.position() == length(lines)
    assert len(loki.queries) <= 3


def test_lines_that_loki_refused_are_no_end(loki: FakeLoki, start: Start) -> None:
    lines = records(10_000)
    start.write(lines)
    loki.has(line for number, line in enumerate(lines[:7_000]) if number % 50 and not 6_900 <= number < 6_990)
    resume.write_positions(start.positions, {str(start.log): str(length(lines[:9_000]))})
    start.resume()
    assert start.position() == length(lines[:7_000])


def test_sampled_lines_are_no_end(tmp_path: Path, loki: FakeLoki) -> None:
    start = Start(tmp_path, loki, sampling={"INFO": 0.1})
    lines = records(10_000)
    start.write(lines)
    kept = sorted(random.Random(7).sample(range(7_000), 700))  # noqa: S311
    loki.has(lines[number] for number in kept)
    resume.write_positions(start.positions, {str(start.log): str(length(lines[:8_000]))})
    start.resume()
    assert start.position() == length(lines[: kept[-1] + 1])


def test_what_loki_no_longer_keeps_is_not_sent_again(loki: FakeLoki, start: Start) -> None:
    lines = records(20_000)
    start.write(lines)
    loki.has(lines[15_000:18_000])
    resume.write_positions(start.positions, {str(start.log): str(length(lines[:19_000]))})
    start.resume()
    assert start.position() == length(lines[:18_000])


def test_lines_of_the_same_time_are_told_apart_by_their_text(loki: FakeLoki, start: Start) -> None:
    lines = records(9_000, gap=0)
    start.write(lines)
    loki.has(lines[:4_000])
    start.resume()
    assert start.position() == length(lines[:4_000])


@pytest.mark.parametrize("known", [0, 1, 3])
def test_lines_without_a_time_are_found_by_their_text(loki: FakeLoki, start: Start, known: int) -> None:
    lines = records(100)
    trace = [b'Traceback "x" `y` \\z\n', b"\n", b"  raise \xff\xfe Error\n"]
    start.write([*lines, *trace, *records(50, first=200)])
    loki.has(lines)
    for index, line in enumerate(trace[:known]):
        loki.entries.append((time.time_ns() + index, line.decode("utf-8", "surrogateescape").rstrip("\n")))
    start.resume()
    # The empty line behind the first is never sent.
    assert start.position() == length(lines) + length(trace[: {0: 0, 1: 2, 3: 3}[known]])


def test_odd_texts_are_recognised(loki: FakeLoki, start: Start) -> None:
    odd = ['`"\\ {}', "☃ \u2028", "x" * 300_000]
    lines = [line for index, text in enumerate(odd) for line in records(1, first=index, message=text)]
    lines.append(records(1, first=9)[0].replace(b'"number"', b'"\xff\xfe\xc3"'))
    start.write([*lines, *records(5, first=20)])
    loki.has(lines)
    when, text = loki.entries[2]
    loki.entries[2] = (when, text[: 256 * 1024 - 11] + "[truncated]")
    start.resume()
    assert start.position() == length(lines)


def test_a_line_that_is_still_being_written_is_left_for_later(loki: FakeLoki, start: Start) -> None:
    lines = records(10)
    start.write([*lines, b'{"timestamp": "20'])
    loki.has(lines)
    start.resume()
    assert start.position() == length(lines)


def test_a_file_of_which_loki_has_nothing_begins_anew_unless_it_is_too_old(start: Start) -> None:
    lines = records(100)
    start.write(lines)
    resume.write_positions(start.positions, {str(start.log): "5000"})
    start.resume()
    assert start.position() == 0
    start.write([line.replace(b'"timestamp": "20', b'"timestamp": "19') for line in lines])
    start.resume()  # remembers its first line
    resume.write_positions(start.positions, {str(start.log): "5000"})
    start.resume()
    assert start.position() == 5000


def test_selectors_are_quoted_and_name_nothing_that_a_line_decides(loki: FakeLoki, start: Start) -> None:
    start.write(records(1))
    start.resume()
    assert loki.queries[0] == '{host="h1", job="app", service_name="a\\"b"}'
    (config,) = file_scrape_configs([{"path": "/x", "job": "app"}])
    source = resume.source_of(config, {"host": "h1"})
    assert source is not None
    assert source.selector == '{host="h1", job="app"}'


def test_plain_files_are_left_alone(tmp_path: Path, loki: FakeLoki) -> None:
    start = Start(tmp_path, loki, format="plain")
    start.write([b"plain\n"])
    resume.write_positions(start.positions, {str(start.log): "6", "cursor-journal": "s=1;i=2"})
    start.resume()
    assert resume.read_positions(start.positions) == {str(start.log): "6", "cursor-journal": "s=1;i=2"}


@pytest.mark.parametrize(
    "fields",
    [
        {"@timestamp": "2026-11-26T03:04:05.678+0100"},
        {"time": 1795658645678},
        {"time": None, "ts": "2026-11-26 03:04:05,678+01:00"},
        {"timestamp": "", "timeUnixNano": "1795658645678000000"},
    ],
)
def test_records_with_other_keys_and_forms_of_a_time_are_found_in_loki(
    loki: FakeLoki, start: Start, fields: dict[str, Any]
) -> None:
    lines = [f"{json.dumps({**fields, 'number': number})}\n".encode() for number in range(10)]
    start.write(lines)
    loki.entries = [(1795658645678 * 10**6, line.decode().rstrip()) for line in lines[:7]]
    start.resume()
    resume.write_positions(start.positions, {str(start.log): "0"})
    start.resume()
    assert start.position() == sum(map(len, lines[:7]))


def test_a_time_in_another_form_is_none_where_promtail_reads_rfc_3339_alone() -> None:
    (config,) = file_scrape_configs([{"path": "/x", "job": "app"}])
    strict = {"json": {"expressions": {"timestamp": None}}}, {"timestamp": {"source": "timestamp", "format": "RFC3339"}}
    source = resume.source_of({**config, "pipeline_stages": [*strict]}, {})
    assert source is not None
    assert source.time_field.read({"timestamp": "1970-01-01T00:00:01Z"}) == 10**9
    assert source.time_field.read({"timestamp": 1795658645678}) is None
    assert source.time_field.read({"time": "1970-01-01T00:00:01Z"}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01.5Z", 15 * 10**8),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1970-01-01T00:00:00-01:30", 5400 * 10**9),
        ("1970-02-30T00:00:00Z", None),
        ("1970-01-01 00:00:00Z", None),
        (7, None),
    ],
)
def test_times_are_read_as_promtail_does(text: object, expected: int | None) -> None:
    assert resume.nanoseconds(text) == expected


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/v/*.log", "/v/a.log", True),
        ("/v/*.log", "/v/d/a.log", False),
        ("/v/**/*.log", "/v/d/e/a.log", True),
        ("/v/**/*.log", "/v/a.log", True),
        ("/v/{a,b}.log", "/v/b.log", True),
        ("/v/a,b.log", "/v/a,b.log", True),
        ("/v/[!a]?.log", "/v/bc.log", True),
        ("/v/[!a]?.log", "/v/ac.log", False),
    ],
)
def test_patterns_match_as_promtails_do(pattern: str, path: str, matches: bool) -> None:
    assert bool(resume.as_regex(pattern).fullmatch(path)) is matches


@pytest.mark.parametrize(
    ("path", "own", "exclude"),
    [
        ("/v/a.log", None, None),
        ("/v/a.log", "/v/b,c", "/v/b,c"),
        ("/v/*.log", None, "/v/*[\ufffd]*"),
        ("/v/*.log", "/v/{b,c}", "/v/{{b,c},*[\ufffd]*}"),
        ("/v/*.log", "/v/x/b,c", "/v/{x/b?c,*[\ufffd]*}"),
        ("/v/*.log", "/w/*", "/{w/*,v/*[\ufffd]*}"),
        ("/v/**/*.log", None, "/v/{**/*[\ufffd]*/**/*.log,**/*[\ufffd]*}"),
        ("/v/*/a.log", None, "/v/*[\ufffd]*/a.log"),
    ],
)
def test_promtail_reads_no_file_whose_name_it_would_panic_at(path: str, own: str | None, exclude: str | None) -> None:
    entry = {"path": path, "job": "app", **({"exclude": own} if own else {})}
    (config,) = file_scrape_configs([entry])
    found = config["static_configs"][0]["labels"].get("__path_exclude__")
    assert found == exclude
    if found and "*" in path:  # Promtail reads such a byte as the replacement character
        assert resume.as_regex(found).fullmatch(path.replace("**", "a/b").replace("*", "\ufffd"))
        assert not resume.as_regex(found).fullmatch("/v/a/d/a.log")


def test_a_file_with_few_lines_far_apart_is_searched_as_well(loki: FakeLoki, start: Start) -> None:
    for known in (1, 5, 40, 99):
        lines = records(100, gap=25 * 10**9)
        start.write(lines)
        loki.entries.clear()
        loki.has(lines[:known])
        resume.write_positions(start.positions, {str(start.log): str(length(lines[:99]))})
        start.resume()
        assert start.position() == length(lines[:known])


# --- Rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("app.log.2", "app.log.1"),
        ("app.log.2.gz", "app.log.1"),
        ("app.log-20261123-015914.gz", "app.log-20261123-020000"),
        ("app-20261122.log", "app-20261123.log"),
    ],
)
@pytest.mark.parametrize("knows_first_line", [True, False])
def test_the_rest_of_rotated_files_is_sent_before_promtail_starts(
    loki: FakeLoki, start: Start, names: tuple[str, str], knows_first_line: bool
) -> None:
    oldest, older, newer, live = (records(500, first=first) for first in (0, 500, 1000, 1500))
    start.write(older)
    loki.has([*oldest, *older[:200]])
    start.resume()
    if not knows_first_line:
        start.positions.with_name("resume-state.json").unlink()
    now = time.time()
    for age, (name, lines) in enumerate(zip(("app.log.3", *names), (oldest, older, newer))):
        packed = gzip.compress(b"".join(lines)) if name.endswith(".gz") else b"".join(lines)
        start.log.with_name(name).write_bytes(packed)
        os.utime(start.log.with_name(name), (now, now - 10 + age))
    start.write(live)
    start.resume()
    sent = [line for line in start.sent.read_bytes().splitlines(keepends=True) if line != b"\n"]
    assert sent == older[200:] + newer
    assert start.position() == 0


def test_rotated_files_that_were_never_followed_are_not_sent(loki: FakeLoki, start: Start) -> None:
    start.log.with_name("app.log.1").write_bytes(b"".join(records(500)))
    start.write(records(10, first=500))
    start.resume()
    assert not start.sent.exists()
    assert start.position() is None
    loki.has(records(10, first=500))
    start.resume()
    assert not start.sent.exists()


def test_the_rest_of_a_rotated_file_is_sent_though_there_is_no_new_one(loki: FakeLoki, start: Start) -> None:
    lines = records(500)
    start.write(lines)
    loki.has(lines[:200])
    start.resume()
    start.log.rename(start.log.with_name("app.log.1"))
    start.resume()
    assert start.sent.read_bytes().rstrip(b"\n") == b"".join(lines[200:]).rstrip(b"\n")
    assert start.position() is None


@pytest.mark.parametrize("pattern", ["app.log", "*.log", "**/*.log"])
@pytest.mark.parametrize("name", ["app.log.1", "app-20261123.log.gz"])
def test_a_log_that_was_rotated_before_promtail_had_saved_its_position_is_sent_once(
    tmp_path: Path, loki: FakeLoki, pattern: str, name: str
) -> None:
    start = Start(tmp_path, loki, path=str(tmp_path / "logs" / pattern))
    start.resume()
    # What was rotated before the last start was dealt with by that.
    old, lines = records(10), records(500, first=100)
    start.log.with_name("other.log.1").write_bytes(b"".join(old))
    start.log.with_name(".1").touch()
    os.utime(start.log.with_name("other.log.1"), (time.time() - 60,) * 2)
    loki.has([*old[:5], *lines[:200]])
    content = b"".join(lines)
    start.log.with_name(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    start.resume()
    assert start.sent.read_bytes().rstrip(b"\n") == b"".join(lines[200:]).rstrip(b"\n")
    start.sent.unlink()
    start.resume()
    assert not start.sent.exists()


def test_a_rotated_file_that_loki_has_is_not_sent_again(loki: FakeLoki, start: Start) -> None:
    lines = records(500)
    start.write(lines)
    loki.has(lines)
    start.resume()
    start.log.rename(start.log.with_name("app.log.1"))
    start.write(records(10, first=500))
    start.resume()
    assert not start.sent.exists()
    assert start.position() == 0


# --- Positions --------------------------------------------------------------------------------------------------------


def test_positions_are_kept_as_promtail_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "positions.yaml"
    long = "/" + "x" * 140
    path.write_text(f'positions:\n  cursor-journal: s=1;i=2;b=3\n  /a: "5"\n  "/b\\"": "6"\n  ? {long}\n  : "7"\n')
    found = resume.read_positions(path)
    assert found == {"cursor-journal": "s=1;i=2;b=3", "/a": "5", '/b"': "6", long: "7"}
    resume.write_positions(path, found)
    assert resume.read_positions(path) == found
    resume.write_positions(path, {})
    assert path.read_text() == "positions: {}\n"
    assert resume.read_positions(path) == {}


@pytest.mark.parametrize("damage", [b"", b"\0" * 200, b'positions:\n  /a: "5', b"positions:\n\xff", None])
def test_lost_positions_are_made_anew_and_the_journals_is_remembered(
    loki: FakeLoki, start: Start, damage: bytes | None
) -> None:
    lines = records(1000)
    start.write(lines)
    loki.has(lines[:400])
    resume.write_positions(start.positions, {"cursor-journal": "s=1"})
    start.resume()
    if damage is None:
        start.positions.unlink()
    else:
        start.positions.write_bytes(damage)
    start.resume()
    assert start.position() == length(lines[:400])
    assert (resume.read_positions(start.positions) or {})["cursor-journal"] == "s=1"


def test_positions_of_names_that_anybody_may_give_are_kept(tmp_path: Path) -> None:
    names = [
        f"/logs/{name}.log" for name in ("a\nb", "a\u2028b", "a\x85b", "a\x1b[2J", "a\ufeff", 'a": "1', "\U0001f600")
    ]
    path = tmp_path / "positions.yaml"
    resume.write_positions(path, dict.fromkeys(names, "5"))
    assert resume.read_positions(path) == dict.fromkeys(names, "5")
    assert yaml.safe_load(path.read_text())["positions"] == dict.fromkeys(names, "5")


# --- Hostile folders --------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path, loki: FakeLoki) -> Start:
    """All logs of a folder, of which good.log is half in Loki."""
    start = Start(tmp_path, loki, path=f"{tmp_path}/logs/**/*.log")
    start.log = start.log.with_name("good.log")
    lines = records(100)
    start.write(lines)
    loki.has(lines[:50])
    return start


def check_good(start: Start) -> None:
    """Check that the good log is resumed, whatever is beside it."""
    assert start.position() == length(records(50))


def sparse(path: Path, size: int) -> None:
    """Make a file with a hole, and a line before and behind it."""
    with path.open("wb") as file:
        file.write(records(1, first=900)[0])
        file.truncate(size)
        file.seek(size)
        file.write(b"\n" + records(1, first=901)[0])


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "rotated link", "rotated pipe"])
def test_what_is_no_file_is_named_and_the_others_are_resumed(
    many: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    secret, bad = tmp_path / "secret", many.log.with_name("bad.log.1" if kind.startswith("rotated") else "bad.log")
    secret.write_bytes(b"".join(records(10, secret=True)))
    if kind.endswith("pipe"):
        os.mkfifo(bad)
    else:
        bad.symlink_to(tmp_path if kind == "link to a folder" else secret)
    many.resume()
    check_good(many)
    assert many.position(bad) is None
    assert not many.sent.exists()
    if not kind.startswith("rotated") and kind != "link to a folder":
        assert f"{bad} is left out: " in capsys.readouterr().err


def test_a_file_that_becomes_a_link_is_not_read(many: Start, tmp_path: Path) -> None:
    secret, bad = tmp_path / "secret", many.log.with_name("bad.log")
    secret.write_bytes(b"".join(records(10)))
    bad.symlink_to(secret)
    with pytest.raises(OSError, match="a symbolic link, which is not followed"):
        resume.LogFile(bad, resume.TimeField(("timestamp",)))
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/bad.log").write_bytes(b"".join(records(10)))
    (many.log.parent / "sub").symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match="a symbolic link, which is not followed"):
        resume.LogFile(many.log.parent / "sub/bad.log", resume.TimeField(("timestamp",)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_hard_link_to_a_file_of_another_is_not_read(many: Start, capsys: pytest.CaptureFixture[str]) -> None:
    os.chown(many.log.parent, 65534, 65534)
    bad = many.log.with_name("bad.log")
    bad.hardlink_to(many.log) if hasattr(bad, "hardlink_to") else os.link(many.log, bad)
    many.resume()
    assert f"{bad} is left out: a hard link to a file of another owner: {bad}" in capsys.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="root has to become another user, who may not enter every folder")
def test_a_folder_that_is_closed_is_named_and_the_others_are_resumed(loki: FakeLoki) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = Start(Path(folder), loki, path=f"{folder}/logs/**/*.log")
        for name in ("closed", "open"):
            (start.log.parent / name).mkdir()
        lines = records(100)
        start.log = start.log.parent / "open/app.log"
        start.write(lines)
        loki.has(lines[:50])
        closed = start.log.parent.with_name("closed")
        (closed / "app.log").write_bytes(b"".join(lines))
        one_path = file_scrape_configs([{"path": f"{closed}/app.log", "job": "one"}])
        start.config["scrape_configs"] += [
            *one_path,
            *file_scrape_configs([{"path": f"{closed}/p", "job": "p", "format": "plain"}]),
        ]
        resume.write_positions(start.positions, {str(closed / "app.log"): "7", str(start.log): "9"})
        start.positions.with_name("resume-state.json").write_text(
            json.dumps({"time": 1.0, "heads": {str(closed / "app.log"): "known"}, "others": {}})
        )
        closed.chmod(0o700)
        for path in Path(folder).rglob("*"):
            if closed not in (path, *path.parents):
                os.chown(path, 65534, 65534)
        os.chown(folder, 65534, 65534)
        result = run_as_nobody(start, Path(folder))
        assert result.stdout == "promtail runs\n", result.stderr
        assert "lines may be lost" not in result.stderr
        assert f"{closed} is left out, with what is in it: Permission denied" in result.stderr
        assert start.position() == length(lines[:50])
        assert start.position(closed / "app.log") == 7
        state = json.loads(start.positions.with_name("resume-state.json").read_text())
        assert state["heads"][str(closed / "app.log")] == "known"


def run_as_nobody(start: Start, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a user who is not root."""
    settings = folder / "resume.json"
    settings.write_text(json.dumps({"promtail": start.config}))
    settings.chmod(0o644)
    program = folder / "program.py"
    program.write_text(PROGRAM.read_text())
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", str(program)]
    return subprocess.run(
        [*words, str(settings), "/bin/echo", "promtail runs"], capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize("size", [3 << 30, 1 << 40], ids=["3 GiB", "1 TiB"])
@pytest.mark.parametrize("file_format", ["json", "plain"])
def test_a_hole_is_skipped_and_named_with_little_memory(
    tmp_path: Path, loki: FakeLoki, size: int, file_format: str
) -> None:
    start = Start(tmp_path, loki, path=f"{tmp_path}/logs/*.log", format=file_format)
    start.log = start.log.with_name("good.log")
    lines = records(100)
    start.write(lines)
    loki.has(lines[:50])
    bad = start.log.with_name("bad.log")
    sparse(bad, size)
    sparse(bad.with_name("bad.log.1"), size)
    for _ in range(2):
        settings = tmp_path / "resume.json"
        settings.write_text(json.dumps({"promtail": start.config}))
        words = ["prlimit", f"--as={300 << 20}", sys.executable, str(PROGRAM), str(settings), "/bin/echo", "runs"]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
        assert result.stdout == "runs\n", result.stderr
        assert "MemoryError" not in result.stderr
        assert start.position(bad) == size + 1
        if file_format == "json":
            check_good(start)
    assert "are skipped" not in result.stderr  # the second time, it has nothing to skip


def test_a_long_line_without_a_hole_is_skipped_and_what_follows_is_not(many: Start) -> None:
    bad = many.log.with_name("bad.log")
    bad.write_bytes(records(1, first=900)[0] + b"x" * (resume.FATAL + 1) + b"\n" + records(1, first=901)[0])
    many.resume()
    assert many.position(bad) == bad.stat().st_size - length(records(1, first=901))
    check_good(many)


def test_a_line_that_promtail_can_bear_is_not_skipped(many: Start, loki: FakeLoki) -> None:
    long = many.log.with_name("long.log")
    lines = [*records(2, first=900), b"x" * (resume.LONGEST + 5) + b"\n", *records(2, first=902)]
    long.write_bytes(b"".join(lines))
    loki.has([*lines[:2], lines[3]])
    many.resume()
    assert many.position(long) == length(lines[:4])


def test_a_small_file_that_unpacks_to_a_large_one_is_left_out(
    many: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resume, "UNPACKED", 1 << 20)
    bomb = many.log.with_name("bad.log.1.gz")
    bomb.write_bytes(gzip.compress(bytes(8 << 20)))
    many.log.with_name("bad.log").write_bytes(b"".join(records(3)))
    many.resume()
    check_good(many)
    assert "unpacks to more than" in capsys.readouterr().err


def test_names_that_are_no_text_are_left_out(many: Start, capsys: pytest.CaptureFixture[str]) -> None:
    Path(os.fsdecode(os.fsencode(many.log.parent) + b"/\xff.log")).write_bytes(records(1)[0])
    odd = many.log.with_name("a\nb\u2028.log")
    odd.write_bytes(b"".join(records(3)))
    many.resume()
    check_good(many)
    assert "ff.log is left out, with what is in it: its name is not UTF-8" in capsys.readouterr().err
    many.resume()
    check_good(many)


# --- The start --------------------------------------------------------------------------------------------------------


def run_program(
    start: Start, tmp_path: Path, python: str = sys.executable, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run the program as the unit does, with a Promtail that says that it runs."""
    settings = tmp_path / "resume.json"
    settings.write_text("# Managed by logstead\n" + json.dumps({"promtail": start.config, **more}))
    command = [python, str(PROGRAM), str(settings), "/bin/echo", "promtail runs"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)


def test_it_becomes_promtail_at_once_where_nothing_was_ever_sent(start: Start, tmp_path: Path) -> None:
    start.write(records(10))
    start.config["clients"] = [{"url": "http://127.0.0.1:9/loki/api/v1/push"}]
    begin = time.monotonic()
    result = run_program(start, tmp_path)
    assert result.stdout == "promtail runs\n"
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("status", [503, 401], ids=["Loki is away", "the log-in for queries is being changed"])
def test_it_waits_for_loki_and_answers_meanwhile(loki: FakeLoki, start: Start, status: int) -> None:
    start.log_in = {"basic_auth": {"username": "dev-read", "password": "x"}} if status == 401 else {}
    start.config["server"] = {"http_listen_address": "127.0.0.1", "http_listen_port": free_port()}
    lines = records(10)
    start.write(lines)
    resume.write_positions(start.positions, {str(start.log): str(length(lines))})
    loki.status = status
    thread = threading.Thread(target=start.resume)
    thread.start()
    url = f"http://127.0.0.1:{start.config['server']['http_listen_port']}"
    answer = ""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{url}/ready") as response:  # noqa: S310
                answer = response.read().decode()
            break
        except OSError:
            time.sleep(0.05)
    assert answer.startswith("Ready, but waiting for Loki at http://127.0.0.1:")
    assert start.position() == length(lines)
    loki.has(lines[:4])
    loki.status = 200
    thread.join(10)
    assert start.position() == length(lines[:4])


def test_queries_have_a_log_in_of_their_own(loki: FakeLoki, start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    start.config["clients"][0]["basic_auth"] = {"username": "dev-write", "password": "another"}
    start.log_in = {"basic_auth": {"username": "dev-read", "password_file": str(tmp_path / "password")}}
    start.write(records(3))
    start.resume()
    assert set(loki.log_ins) == {"Basic " + base64.b64encode(b"dev-read:secret").decode()}


def free_port() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    return int(server.server_address[1])


def test_promtail_starts_where_it_was_if_loki_will_not_be_asked(loki: FakeLoki, start: Start, tmp_path: Path) -> None:
    lines = records(10)
    start.write(lines)
    resume.write_positions(start.positions, {str(start.log): "7"})
    loki.status = 403
    result = run_program(start, tmp_path)
    assert result.stdout == "promtail runs\n"
    assert "level=warn component=resume" in result.stderr
    assert start.position() == 7


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up root's rights")
def test_beside_a_container_it_reads_as_promtails_user_and_root_runs_what_sends(
    loki: FakeLoki, start: Start, tmp_path: Path
) -> None:
    for folder in (tmp_path, start.log.parent, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o777)
    lines = records(20)
    loki.has(lines[:5])
    # What is missing of a rotated file is sent by the container, and the new one is read from its beginning.
    start.log.with_name("app.log.1").write_bytes(b"".join(lines[:10]))
    start.write(lines[10:])
    resume.write_positions(start.positions, {str(start.log): "7"})
    start.positions.chmod(0o666)
    podman = tmp_path / "podman"
    podman.write_text(
        f'#!/bin/sh\nid -un > {tmp_path}/sender\necho "$@" >> {tmp_path}/sender\nexec cat > {start.sent}\n'
    )
    podman.chmod(0o755)
    container = {"user": "nobody", "groups": ["adm"], "command": [str(podman), "run", "--volume=%d:%d"]}
    # Another user may not be able to read the tests' own Python.
    result = run_program(start, tmp_path, "/usr/bin/python3", container=container)
    assert result.stdout == "promtail runs\n", result.stderr
    assert "may be lost" not in result.stderr
    assert start.sent.read_bytes().rstrip() == b"".join(lines[5:10]).rstrip()
    user, words = (tmp_path / "sender").read_text().splitlines()
    assert user == "root"
    private = words.split("--volume=")[1].partition(":")[0]
    assert words == f"run --volume={private}:{private} -stdin -config.file={words.rpartition('=')[2]}"
    assert words.rpartition("=")[2].startswith(f"{private}/")
    assert not Path(private).exists()
    assert start.positions.owner() == "nobody"
    assert start.position() == 0


def test_promtail_starts_even_if_the_settings_are_broken(start: Start, tmp_path: Path) -> None:
    start.config["clients"] = []
    result = run_program(start, tmp_path)
    assert result.stdout == "promtail runs\n"
    assert "lines may be lost or sent twice" in result.stderr


@pytest.mark.parametrize(
    "when", [10**400, 1e300, -1, 99999999999, "9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1" * 99]
)
def test_a_time_about_which_loki_cannot_be_asked_is_none(when: object) -> None:
    for is_lenient in (True, False):
        assert resume.TimeField(("time",), is_lenient=is_lenient).read({"time": when}) is None


def test_the_time_zone_of_the_host_has_a_name(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert resume.zone_of_host(link) == ""
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert resume.zone_of_host(link) == "Europe/Berlin"
    link.unlink()
    link.write_bytes(b"TZif2")
    (tmp_path / "timezone").write_text("Asia/Kathmandu\n")
    assert resume.zone_of_host(link) == "Asia/Kathmandu"
