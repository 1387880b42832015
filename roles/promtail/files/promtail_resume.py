"""Start Promtail exactly where Loki left off: no line is lost and none is sent twice.

Promtail's positions say what it has read, not what Loki has, and are kept by path, whatever file is there now. So
before each start this program asks Loki for the last line that it has of each file, sets the offset right behind that
line, has what is missing of rotated files sent by Promtail itself (`promtail -stdin`, with the very same stages), and
then becomes Promtail. While Loki can't be asked it waits: Promtail couldn't send anything either, and what it would
read is on disk.
docs/delivery.md says what can't be decided.

Usage: promtail_resume.py SETTINGS PROMTAIL [ARGUMENT...]

Whoever owns a log's folder may put anything there: links, pipes, files with holes of any size. So no link is followed,
nothing but regular files is read, and no line is held in memory as a whole (docs/security.md).

Where Promtail runs in a container, PROMTAIL is podman, and this program is started as root. It looks into files as
Promtail's user all the same: a child gives up root's rights, and root does nothing but run containers.
"""

from __future__ import annotations

import base64
import calendar
import contextlib
import errno
import grp
import gzip
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast

POLL_SECONDS = 0.5
QUERY_SECONDS = 30
SETTLE_SECONDS = 0.3  # a push that was cut off may still be on its way into Loki
PAGE = 5000  # entries that a query returns at most: Loki's default limit
COMPARED = 4096  # characters of a line that are compared: Loki and Promtail may have cut the rest
PROBED, SCANNED = 64, 500  # lines that are looked for at once: while searching, and around the place
FAR = 1 << 16  # bytes between probes that are near enough to scan what lies between
CHUNK = 1 << 20
LONGEST = 4 << 20  # bytes of a line that are read: what is longer can be no record
FATAL = 16 << 20  # bytes of a line that Promtail must not get to read: it holds all of it in memory
UNPACKED = 4 << 30  # bytes of a gzipped file at most
SECOND = 10**9
# Stages after which the text in Loki isn't the line in the file, or the labels can't be told from the settings.
OPAQUE_STAGES = {"output", "replace", "pack", "multiline", "cri", "docker", "decolorize", "tenant", "static_labels"}
LOSSY_STAGES = {"sampling", "drop", "limit"}
RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))")
# What the format `json` reads as well. A time without a zone is that of the host, which isn't known here.
ZONED = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:[.,]\d+)?) ?(?:Z|([+-]\d\d):?(\d\d))")
EPOCH = re.compile(r"(\d{10})(\d{3}|\d{6}|\d{9})(?:\.(\d{1,3})\d*)?|(\d{1,11})(?:\.(\d{1,18}))?")
KEY = r"""(?:[A-Za-z_]\w*|"[^"\\]+")"""
KEY_PATH = re.compile(rf"{KEY}(?:\.{KEY})*")
# A key or a value of Promtail's positions, and what YAML escapes in double quotes.
SCALAR = r"""(?:"(?:[^"\\\0]|\\.)*"|'(?:[^'\0]|'')*'|(?![?-] )[^\s"'\[{#\0][^\0]*?)"""
ESCAPES = dict(zip("0abtnvfreN_LP", "\0\a\b\t\n\v\f\r\x1b\x85\xa0\u2028\u2029"))


class LokiAwayError(Exception):
    """Loki can't be asked now; later it can."""


class LokiRefusesError(Exception):
    """Loki won't answer, however often it is asked."""


def say(level: str, message: str) -> None:
    """Write to the journal in Promtail's own format."""
    text = json.dumps(message.encode(errors="backslashreplace").decode(), ensure_ascii=False)
    print(f"level={level} component=resume msg={text}", file=sys.stderr, flush=True)


# --- Lines and files --------------------------------------------------------------------------------------------------


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading, whatever its owner may have put in its place.

    Below the path's first two folders no link is followed. doctor and logs open logs alike; a test compares.

    Raises:
        OSError: It can't be read, leads through a link, is no regular file, or is another owner's by a hard link.
    """
    flags, where = os.O_CLOEXEC | os.O_NOFOLLOW, Path(*path.parts[: min(3, len(path.parts) - 1)])
    folder = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.parts[len(where.parts) : -1]:
            where = where / name
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = below
        where, owner = path, os.fstat(folder).st_uid
        # A pipe would wait for its writer.
        file = os.open(path.name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, dir_fd=folder)
    except OSError as error:
        is_link = error.errno in (errno.ELOOP, errno.ENOTDIR) and where.is_symlink()
        problem = "a symbolic link, which is not followed" if is_link else error.strerror
        raise OSError(error.errno, problem, str(where)) from error
    finally:
        os.close(folder)
    status, problem = os.fstat(file), ""
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file"
    elif status.st_nlink > 1 and status.st_uid != owner:
        problem = "a hard link to a file of another owner"
    if problem:
        os.close(file)
        raise OSError(errno.EINVAL, problem, str(path))
    return os.fdopen(file, "rb")


def next_data(descriptor: int, offset: int) -> int | None:
    """Return where a file's next bytes are, from an offset on, behind the hole that may be there; None if nowhere."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # there is nothing but a hole
        return None
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)  # a buffered stream relies on it


def end_of_line(descriptor: int, offset: int) -> int | None:
    """Return the offset right behind the first end of a line from an offset on; None if there is none."""
    while (place := next_data(descriptor, offset)) is not None and (chunk := os.pread(descriptor, CHUNK, place)):
        found = chunk.find(b"\n")
        if found >= 0:
            return place + found + 1
        offset = place + len(chunk)
    return None


def end_of_fatal_line(descriptor: int, offset: int, size: int) -> int | None:
    """Return the offset right behind the last line that is too long for Promtail, from a line's start on, or None."""
    found, start = None, offset
    while (place := next_data(descriptor, offset)) is not None and (chunk := os.pread(descriptor, CHUNK, place)):
        offset, first = place + len(chunk), chunk.find(b"\n")
        if first >= 0:
            if place + first - start > FATAL:
                found = place + first + 1
            start = place + chunk.rfind(b"\n") + 1
    return size if size - start > FATAL else found


def comparable(text: str) -> str:
    """Return what must be equal in a file and in Loki; programs differ in how they show bytes that aren't UTF-8."""
    return re.sub("\ufffd+", "\ufffd", text.rstrip("\r\n"))[:COMPARED]


def nanoseconds(text: object) -> int | None:
    """Return an RFC 3339 time as nanoseconds since the epoch, as Promtail's stage `timestamp` reads it."""
    found = RFC3339.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1] and hour < 24 and minute < 60):
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if found[8]:
        seconds -= int(f"{found[8]}1") * (int(found[9]) * 3600 + int(found[10]) * 60)
    return seconds * SECOND + int((found[7] or "").ljust(9, "0")[:9])


def epoch_nanoseconds(text: str) -> int | None:
    """Return seconds, milli-, micro- or nanoseconds since the epoch as nanoseconds, as Promtail does for `json`."""
    found = EPOCH.fullmatch(text)
    if not found:
        return None
    seconds, fraction = (found[1], found[2] + (found[3] or "")) if found[1] else (found[4], found[5] or "0")
    return int(seconds) * SECOND + int(float(int(fraction)) * 10.0 ** (9 - len(fraction)))


@dataclass(frozen=True)
class TimeField:
    """Where the records of a file have their time: JMESPath expressions, of which the first with a value counts."""

    paths: tuple[str, ...]
    is_lenient: bool = False  # whether it has any form that the format `json` knows, or that of RFC 3339 alone

    def read(self, record: object) -> int | None:
        """Return a record's time in nanoseconds since the epoch; None if it has none, or none that can be told here.

        Loki refuses a query about a time that its 64 bits can't hold, such as that of the year 1 or 9999.
        """
        with contextlib.suppress(OverflowError):  # a number of hundreds of digits
            when = self.parse(record)
            return when if when is not None and 0 <= when < 1 << 63 else None
        return None

    def parse(self, record: object) -> int | None:
        """Return a record's time, however long ago or ahead."""
        values = (self.value(record, path) for path in self.paths)
        value = next((value for value in values if value not in (None, "", [], {}) and value is not False), None)
        if not self.is_lenient:
            return nanoseconds(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # Promtail reads each number as a float.
            value = re.sub(r"\.0$", "", f"{Decimal(repr(float(value))):f}")
        if not isinstance(value, str):
            return None
        if zoned := ZONED.fullmatch(value):
            date, clock, hours, minutes = zoned.groups()
            return nanoseconds(f"{date}T{clock}{f'{hours}:{minutes}' if hours else 'Z'}")
        return epoch_nanoseconds(value)

    def value(self, record: object, path: str) -> object:
        """Return the value that nested keys lead to; None if there is none."""
        for key in re.findall(KEY, path):
            record = record.get(key.strip('"')) if isinstance(record, dict) else None
        return record


@dataclass(frozen=True)
class Line:
    """A line of a file: where it ends, its own time if it has one, and its text."""

    start: int
    end: int
    time: int | None
    text: str


class LogFile:
    """A log file, gzipped or not, of which the complete lines are read; a rotated one's last line is complete."""

    def __init__(self, path: Path, time_field: TimeField, is_rotated: bool = False) -> None:
        self.path, self.time_field, self.is_rotated = path, time_field, is_rotated
        self.has_times = False  # whether a line with a time was seen
        stream = open_log(path)
        self.modified = os.fstat(stream.fileno()).st_mtime
        if path.suffix == ".gz":
            with stream, gzip.GzipFile(fileobj=stream) as packed:
                # On the disk, as /tmp may be memory. It lives as long as this object.
                unpacked = tempfile.TemporaryFile(dir="/var/tmp")  # noqa: SIM115
                while chunk := packed.read(CHUNK):
                    if unpacked.tell() > UNPACKED:
                        unpacked.close()
                        raise OSError(errno.EFBIG, f"unpacks to more than {UNPACKED} bytes", str(path))
                    unpacked.write(chunk)
                unpacked.flush()
            self.stream: BinaryIO = cast("BinaryIO", unpacked)
        else:
            self.stream = stream
        self.size = self.stream.seek(0, os.SEEK_END)

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def head(self) -> str:
        """Return what tells this file from others, whatever its name: a hash of its first line, if that is complete."""
        self.stream.seek(0)
        first = self.stream.readline(COMPARED)
        return hashlib.sha256(first).hexdigest() if first.endswith(b"\n") or len(first) == COMPARED else ""

    def lines(self, offset: int) -> Iterator[Line]:
        """Yield the lines from the first that starts at or behind an offset, as far as the file went when opened."""
        descriptor = self.stream.fileno()
        start = end_of_line(descriptor, offset - 1) if offset > 0 else 0
        while start is not None and start < self.size:
            self.stream.seek(start)
            raw = self.stream.readline(LONGEST)
            end: int | None = start + len(raw)
            if not raw.endswith(b"\n"):
                end = end_of_line(descriptor, start + len(raw)) or (self.size if self.is_rotated else None)
            if end is None or not raw:
                return
            is_whole = end - start == len(raw)
            text = raw.decode(errors="replace")
            try:
                record = json.loads(text) if is_whole else None
            except (ValueError, RecursionError):
                record = None
            when = self.time_field.read(record)
            self.has_times = self.has_times or when is not None
            yield Line(start, end, when, comparable(text))
            start = end

    def block(self, offset: int, count: int) -> list[Line]:
        """Return lines from an offset on, until `count` of them have a time or there are very many bytes."""
        found: list[Line] = []
        timed = 0
        for line in self.lines(offset):
            found.append(line)
            timed += line.time is not None
            if timed >= count or line.end - found[0].start > 16 * FAR:
                break
        return found

    def block_before(self, offset: int, count: int) -> list[Line]:
        """Return the last lines that end at or before an offset."""
        reach = FAR // 2
        while True:
            before = max(offset - reach, 0)
            found = []
            for line in self.lines(before):
                if line.end > offset:
                    break
                found.append(line)
            if before == 0 or sum(line.time is not None for line in found) >= count or reach >= 8 * FAR:
                return found[-count * 4 :] if len(found) > count * 4 else found
            reach *= 4

    def copy_to(self, target: BinaryIO, offset: int) -> None:
        """Write what lies behind an offset, as complete lines."""
        self.stream.seek(offset)
        shutil.copyfileobj(self.stream, target)
        target.write(b"\n")


# --- What Promtail follows --------------------------------------------------------------------------------------------


def as_regex(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for a path pattern of Promtail's: `**`, `*`, `?`, `[…]` and `{a,b}`."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")"}
    depth, out = 0, ""
    for word in re.findall(r"\*\*/|\*\*|\[[^]]+\]|.", pattern):
        depth += (word == "{") - (word == "}")
        if word == "," and depth:
            out += "|"
        elif word.startswith("[") and len(word) > 2:
            out += word.replace("[!", "[^")
        else:
            out += parts.get(word, re.escape(word))
    return re.compile(out)


def names_before_rotation(name: str) -> set[str]:
    """Return what a file may have been called before app.log.1, app.log-20261123.gz or app-20261123.log."""
    suffix = Path(name.removesuffix(".gz")).suffix
    starts = [name[: found.start()] for found in re.finditer(r"(?<=[^.])[.-]\d", name)]
    return {*starts, *(f"{start}{suffix}" for start in starts)}


WILDCARD = re.compile(r"[*?\[{]")


def is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def is_there(path: Path) -> bool:
    """Tell whether something has this name, even a link; raise OSError if that can't be told."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_regular(path: str | Path) -> bool:
    """Tell whether a path is a file itself, and neither a link nor in a folder that is closed."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


@dataclass
class Pattern:
    """What a scrape_config's files are called."""

    pattern: str
    exclude: str

    def follows(self, path: str) -> bool:
        """Tell whether Promtail follows a path."""
        return bool(as_regex(self.pattern).fullmatch(path)) and not (
            self.exclude and as_regex(self.exclude).fullmatch(path)
        )

    def has_one_path(self) -> bool:
        """Tell whether the pattern is a path itself."""
        return not WILDCARD.search(self.pattern)

    def folder(self) -> Path:
        """Return the folder below which all files are that the pattern can match."""
        return Path(WILDCARD.split(self.pattern, maxsplit=1)[0].rpartition("/")[0] or "/")

    def walk(self, closed: list[OSError] | None = None) -> Iterator[Path]:
        """Yield all paths below the pattern's folder that might match; add to `closed` what can't be read.

        A name that isn't UTF-8 can't be a position's, and Promtail doesn't read such a file.
        """
        has_folders = WILDCARD.search(self.pattern.rpartition("/")[0])
        for folder, folders, names in os.walk(self.folder(), onerror=None if closed is None else closed.append):
            if closed is not None:
                odd = [os.path.join(folder, name) for name in names if not is_text(name)]
                closed += [OSError(errno.EILSEQ, "its name is not UTF-8", name) for name in odd if self.follows(name)]
            yield from (Path(folder, name) for name in names if is_text(name))
            if not has_folders:
                folders.clear()

    def closed(self) -> list[OSError]:
        """Return why folders in which the pattern may match, or files of no proper name, can't be read."""
        errors: list[OSError] = []
        for _ in self.walk(errors):
            pass
        return [error for error in errors if not isinstance(error, FileNotFoundError)]

    def matches(self) -> list[Path]:
        """Return what is there under a name that matches, files or not."""
        if self.has_one_path():
            return [path for path in (Path(self.pattern),) if os.path.lexists(path)]
        return sorted(path for path in self.walk() if self.follows(str(path)))

    def paths(self) -> list[Path]:
        """Return the files that Promtail follows."""
        return [path for path in self.matches() if is_regular(path)]


@dataclass
class Source(Pattern):
    """A scrape_config whose files can be looked up in Loki."""

    config: dict[str, Any]
    selector: str
    time_field: TimeField
    is_lossy: bool

    def rotated_away(self, since: float) -> set[Path]:
        """Return the logs that aren't there, but were written to and rotated since a time.

        Promtail drops the position of such a log once it has noticed, and it may have begun after the last start.
        """
        wanted = {Path(self.pattern)}
        if not self.has_one_path():
            wanted = {path.with_name(name) for path in self.walk() for name in names_before_rotation(path.name)}
        return {path for path in wanted if self.follows(str(path)) and self.is_rotated_away(path, since)}

    def is_rotated_away(self, path: Path, since: float) -> bool:
        """Tell whether a log isn't there, but what it was rotated to since a time."""
        try:
            return not is_there(path) and any(other.lstat().st_mtime >= since for other in self.rotated(path))
        except OSError:  # its folder isn't there, or is closed
            return False

    def rotated(self, path: Path) -> list[Path]:
        """Return what `path` was rotated to, newest first: app.log.1, app.log-20261123.gz or app-20261123.log."""
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        names = re.compile(rf"({re.escape(path.name)}[.-]\d[^/]*|{stem}[.-]\d[\dTZ_:.-]*{suffix}(\.gz)?)")
        others = [other for other in path.parent.iterdir() if names.fullmatch(other.name) and is_regular(other)]
        # While a file is being compressed, it is there twice.
        wanted = [
            o for o in others if not self.follows(str(o)) and not (o.suffix == ".gz" and o.with_suffix("") in others)
        ]
        return sorted(wanted, key=lambda other: other.lstat().st_mtime, reverse=True)


def stages_in(stages: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the settings of each stage, also of those within `match`."""
    for stage in stages:
        for name, settings in stage.items():
            yield name, settings or {}
            if name == "match":
                yield from stages_in((settings or {}).get("stages") or [])


def patterns_of(config: dict[str, Any]) -> list[Pattern]:
    """Return the patterns of a scrape_config, whatever its stages are."""
    every = [group.get("labels") or {} for group in config.get("static_configs") or []]
    return [
        Pattern(labels["__path__"], labels.get("__path_exclude__", "")) for labels in every if labels.get("__path__")
    ]


def source_of(config: dict[str, Any], external_labels: dict[str, str]) -> Source | None:
    """Return the source that a scrape_config makes, or None if its lines can't be found in Loki by time and text."""
    groups = config.get("static_configs") or []
    stages = list(stages_in(config.get("pipeline_stages") or []))
    names = {name for name, _ in stages}
    parsed = [stage["expressions"] for name, stage in stages if name == "json"]
    fields = {key: value or key for expressions in parsed for key, value in expressions.items()}
    times = [stage for name, stage in stages if name == "timestamp"]
    is_plain = len(groups) == 1 and not config.get("relabel_configs") and not names & OPAQUE_STAGES
    if not is_plain or len(times) != 1 or times[0].get("format") not in ("RFC3339", "RFC3339Nano"):
        return None
    paths = tuple(str(fields.get(times[0].get("source"), "")).split(" || "))
    labels = groups[0]["labels"]
    changed = {label for name, stage in stages if name in ("labels", "labeldrop") for label in stage}
    known = {**external_labels, **labels}
    wanted = {name: value for name, value in known.items() if not name.startswith("__") and name not in changed}
    if not all(map(KEY_PATH.fullmatch, paths)) or not wanted or "__path__" not in labels:
        return None
    selector = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(wanted.items()))
    return Source(
        pattern=labels["__path__"],
        exclude=labels.get("__path_exclude__", ""),
        config=config,
        selector=f"{{{selector}}}",
        time_field=TimeField(paths, is_lenient="Unix" in (times[0].get("fallback_formats") or [])),
        is_lossy=bool(names & LOSSY_STAGES),
    )


# --- Loki -------------------------------------------------------------------------------------------------------------


class Loki:
    """The Loki that Promtail sends to, asked with the credentials that Promtail has."""

    def __init__(self, client: dict[str, Any], has_log_in: bool = False) -> None:
        self.has_log_in = has_log_in
        self.root = re.sub(r"/loki/api/v1/push$", "", client["url"])
        self.headers = {"Cache-Control": "no-cache", **(client.get("headers") or {})}
        if client.get("tenant_id"):
            self.headers["X-Scope-OrgID"] = client["tenant_id"]
        basic = client.get("basic_auth") or {}
        authorization = client.get("authorization") or {}
        token_file = client.get("bearer_token_file") or authorization.get("credentials_file")
        token = Path(token_file).read_text().strip() if token_file else ""
        token = token or client.get("bearer_token") or authorization.get("credentials") or ""
        if basic:
            path = basic.get("password_file")
            password = Path(path).read_text().strip() if path else basic.get("password", "")
            word = base64.b64encode(f"{basic.get('username', '')}:{password}".encode()).decode()
            self.headers["Authorization"] = f"Basic {word}"
        elif token:
            self.headers["Authorization"] = f"Bearer {token}"
        tls = client.get("tls_config") or {}
        context = ssl.create_default_context(cafile=tls.get("ca_file"), cadata=tls.get("ca"))
        if tls.get("cert_file"):
            context.load_cert_chain(tls["cert_file"], tls.get("key_file"))
        if tls.get("insecure_skip_verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
        )

    def ask(self, path: str, seconds: float = QUERY_SECONDS, **parameters: object) -> bytes:
        """Return what Loki answers."""
        query = urllib.parse.urlencode({key: str(value) for key, value in parameters.items()})
        # The root is that of Promtail's own settings.
        request = urllib.request.Request(f"{self.root}{path}?{query}", headers=self.headers)  # noqa: S310
        try:
            with self.opener.open(request, timeout=seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            problem = f"{path}: {error.code} {error.read(300).decode(errors='replace').strip()}"
            # A log-in that was given for these very queries will be known again: its password is being changed.
            if error.code >= 500 or error.code == 429 or (error.code == 401 and self.has_log_in):
                raise LokiAwayError(problem) from error
            raise LokiRefusesError(problem) from error
        except (OSError, HTTPException) as error:
            raise LokiAwayError(str(error)) from error

    def check(self, seconds: float) -> None:
        """Raise LokiAwayError unless Loki has all that was written before, which it reads back when it starts."""
        with contextlib.suppress(LokiRefusesError):  # behind a gateway that doesn't know the path
            self.ask("/ready", seconds)
        self.ask("/loki/api/v1/labels", seconds)

    def entries(self, query: str, start: int, end: int) -> set[tuple[int, str]]:
        """Return time and text of all entries from `start` up to, and not with, `end`."""
        found: set[tuple[int, str]] = set()
        while start < end:
            body = self.ask(
                "/loki/api/v1/query_range", query=query, start=start, end=end, limit=PAGE, direction="forward"
            )
            streams = json.loads(body.decode(errors="replace"))["data"]["result"]
            page = [(int(value[0]), comparable(value[1])) for stream in streams for value in stream["values"]]
            found.update(page)
            if len(page) < PAGE:
                break
            last = max(when for when, _ in page)
            start = last if last > start else last + 1
        return found

    def present(self, source: Source, lines: Iterable[Line], windows: int = 0) -> list[Line]:
        """Return those of the lines that Loki has by time and text; with `windows`, as many queries for each end."""
        timed = sorted((line for line in lines if line.time is not None), key=lambda line: line.time or 0)
        groups: list[list[Line]] = []
        for line in timed:
            if groups and (line.time or 0) - (groups[-1][-1].time or 0) < SECOND:
                groups[-1].append(line)
            else:
                groups.append([line])
        found = []
        if windows and len(groups) > 2 * windows:
            groups = groups[:windows] + groups[-windows:]
        for group in groups:
            entries = self.entries(source.selector, group[0].time or 0, (group[-1].time or 0) + 1)
            found += [line for line in group if (line.time, line.text) in entries]
        return found

    def has_text(self, source: Source, text: str, since: int) -> bool:
        """Tell whether Loki has a line without a time of its own, which was sent after `since`."""
        plain = max(re.split("[\ufffd\x00]", text), key=len)[:1000]
        query = f"{source.selector} |= {json.dumps(plain, ensure_ascii=False)}"
        return text in {found for _, found in self.entries(query, since, time.time_ns() + SECOND)}


# --- The search -------------------------------------------------------------------------------------------------------


def find_end(loki: Loki, source: Source, file: LogFile, hint: int | None = None) -> int | None:
    """Return the offset right behind the last line of a file that Loki has; None if it has none of its lines.

    What Loki has of a file is one piece, apart from lines that it refused and from what its retention removed.
    """
    count = SCANNED if source.is_lossy else PROBED

    def is_there(lines: list[Line]) -> bool:
        return bool(lines) and bool(loki.present(source, lines, windows=3))

    last = file.block_before(file.size, count)
    if not last:
        return None
    if is_there(last):
        return scan(loki, source, file, last[0].start)
    high = last[0].start
    # Back from where Promtail was, then back from the end, in growing steps.
    back = [FAR * 4**step for step in range(16)]
    places = [max(anchor - step, 0) for anchor in ([hint] if hint and hint <= file.size else []) for step in [0, *back]]
    places += [max(file.size - step, 0) for step in back]
    missing = [high]
    low = None
    for place in dict.fromkeys(places):
        lines = file.block_before(place, count) if hint and place == hint else file.block(place, count)
        if lines and is_there(lines):
            low = lines[0].start
            break
        missing.append(place)
    if low is None:
        return None
    high = min((place for place in missing if place > low), default=high)
    while high - low > FAR:
        middle = (low + high) // 2
        lines = file.block(middle, count)
        if is_there(lines) and lines[0].start < high:
            low = lines[0].start
        else:
            high = middle
    return scan(loki, source, file, low)


def scan(loki: Loki, source: Source, file: LogFile, offset: int) -> int | None:
    """Return the offset right behind the last line that Loki has, from a place on that is near before it."""
    end, since, missed = None, 0, 0
    while missed < 3 and (lines := file.block(offset, SCANNED)):
        there = loki.present(source, lines)
        missed = 0 if there else missed + 1
        if there:
            last = max(there, key=lambda line: line.end)
            end, since = last.end, last.time or 0
        offset = lines[-1].end
    if end is None:
        return None
    # Lines without a time of their own have the time at which they were read.
    for line in file.lines(end):
        if line.time is not None or (line.text and not loki.has_text(source, line.text, since)):
            break
        end = line.end
    return end


# --- What is remembered -----------------------------------------------------------------------------------------------


def read_positions(path: Path) -> dict[str, str] | None:
    """Return Promtail's positions; {} if there is no such file, None if it is none of Promtail's.

    Its file is YAML of one form, and hosts have no YAML in Python. logstead_logs.py reads it alike; a test compares.
    """
    try:
        head, *lines = path.read_text(errors="replace").rstrip("\n").split("\n")
    except FileNotFoundError:
        return {}
    except OSError:
        return None
    if not re.fullmatch(r"positions:( \{\})? *", head):
        return None
    found, key = {}, ""
    for line in lines:
        # A key of more than 128 characters has a line of its own.
        long_key = re.fullmatch(rf"  \? ({SCALAR})", line)
        pair = re.fullmatch(rf"  ({SCALAR}?|): ({SCALAR}|)", line)
        if long_key and not key:
            key = unquoted(long_key[1])
        elif pair and bool(pair[1]) != bool(key):
            found[key or unquoted(pair[1])] = unquoted(pair[2])
            key = ""
        else:
            return None
    return None if key else found


def unquoted(text: str) -> str:
    """Return a YAML scalar without its quotes."""

    def unescaped(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else ESCAPES.get(match[4], match[4])

    if text.startswith('"'):
        return re.sub(
            r"\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U(00(?:0[\da-fA-F]|10)[\da-fA-F]{4})|(.))", unescaped, text[1:-1]
        )
    return text[1:-1].replace("''", "'") if text.startswith("'") else text


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one that is complete on the disk."""
    new = path.with_name(f"{path.name}.resume")
    with new.open("w") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def quote(text: str) -> str:
    """Return YAML's double-quoted scalar: JSON's, but for characters in names that YAML takes for ends of lines."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)


def write_positions(path: Path, positions: dict[str, str]) -> None:
    """Write positions as Promtail does."""
    quoted = {
        key if re.fullmatch(r"[/\w][/\w.-]*", key) else quote(key): value for key, value in sorted(positions.items())
    }
    lines = [f"  {key}: {quote(value)}\n" for key, value in quoted.items()]
    write_atomically(path, f"positions:{''.join(['', chr(10), *lines]) if lines else ' {}' + chr(10)}")


@dataclass
class State:
    """What the last start left: when it was, the first lines of the files, and the positions of everything else."""

    time: float = 0.0
    heads: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """Return what is remembered; an unreadable file is as good as none."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()


# --- The start --------------------------------------------------------------------------------------------------------


class StandIn:
    """Answers in Promtail's place while this program waits, so that it can be told from a Promtail that doesn't run."""

    def __init__(self, address: str, port: int, message: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_ready = self.path == "/ready"
                self.send_response(200 if is_ready else 503)
                self.end_headers()
                self.wfile.write(f"{'Ready, but ' if is_ready else ''}{message}\n".encode())

            def log_message(self, *_: object) -> None:
                """Keep requests out of the journal."""

        self.server = ThreadingHTTPServer((address, port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Leave the port to Promtail."""
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def sender(command: list[str], settings: Path) -> Iterator[BinaryIO]:
    """Run Promtail with other settings for what is written to its standard input, until Loki has it."""
    with subprocess.Popen([*command, "-stdin", f"-config.file={settings}"], stdin=subprocess.PIPE) as promtail:
        stream = cast("BinaryIO", promtail.stdin)
        yield stream
        stream.close()
        if promtail.wait() != 0:
            raise LokiAwayError(f"{command[0]} -stdin ended with {promtail.returncode}")


@contextlib.contextmanager
def sender_of(root: socket.socket, settings: Path) -> Iterator[BinaryIO]:
    """Have root run that in a container."""
    reading, writing = os.pipe()
    socket.send_fds(root, [str(settings).encode()], [reading])
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        yield stream
    if root.recv(1) != b"0":
        raise LokiAwayError("the container that sends ended with an error")


class Resume:
    """One start of Promtail."""

    def __init__(self, settings: dict[str, Any], command: list[str], root: socket.socket | None = None) -> None:
        self.config, self.command, self.root = settings["promtail"], command, root
        self.max_age = float(settings.get("max_age_seconds", 7 * 86400))
        client = self.config["clients"][0]
        log_in = settings.get("queries") or {}
        self.loki = Loki({**client, **log_in}, has_log_in=bool(log_in))
        self.unsent = 4 * int(client.get("batchsize", 1 << 20))  # more than Promtail has read and not yet sent
        labels = {name: str(value) for name, value in (client.get("external_labels") or {}).items()}
        found = [source_of(config, labels) for config in self.config.get("scrape_configs") or []]
        self.sources = [source for source in found if source]
        self.patterns = [
            pattern for config in self.config.get("scrape_configs") or [] for pattern in patterns_of(config)
        ]
        self.skipped: set[str] = set()
        self.positions_path = Path(self.config["positions"]["filename"])
        self.state_path = self.positions_path.with_name("resume-state.json")
        self.state = State.read(self.state_path)
        positions = read_positions(self.positions_path)
        self.is_first = not positions and not self.state.time
        if positions is None or (self.state.others and not positions):
            say("warn", f"{self.positions_path} was unreadable, and is made anew from what Loki has")
            positions = dict(self.state.others)
        self.positions = positions
        self.heads: dict[str, str] = {}
        self.stand_in: StandIn | None = None

    def wait(self, reason: str) -> None:
        """Let some time pass; say why the first time, and answer for Promtail meanwhile."""
        if not self.stand_in:
            say("warn", f"Promtail starts once Loki at {self.loki.root} can be asked what it has: {reason}")
            self.answer(f"waiting for Loki at {self.loki.root}")
        time.sleep(POLL_SECONDS)

    def answer(self, message: str) -> None:
        """Answer for Promtail until it starts."""
        server = self.config.get("server") or {}
        address, port = server.get("http_listen_address") or "", int(server.get("http_listen_port") or 80)
        if not self.stand_in:
            try:
                self.stand_in = StandIn(address, port, message)
            except OSError as error:
                say("warn", f"can't answer on port {port} meanwhile: {error}")

    def run(self) -> None:
        """Set all positions by what Loki has, however long that can't be told."""
        self.check_files()
        while True:
            try:
                self.loki.check(2 if self.is_first else QUERY_SECONDS)
                self.resume()
                break
            except LokiAwayError as error:
                if self.is_first:  # nothing was ever sent, so there is nothing to ask
                    break
                self.wait(str(error))
        self.remember()

    def check_files(self) -> None:
        """Name what isn't read, and have Promtail go on behind lines that would kill it at each start again."""
        for pattern in self.patterns:
            for error in pattern.closed():
                say("warn", f"{error.filename} is left out, with what is in it: {error.strerror}")
            for path in pattern.matches():
                try:
                    self.skip_fatal_line(path)
                except OSError as error:  # noqa: PERF203 - one bad file mustn't stop the others
                    say("warn", f"{path} is left out: {error.strerror}: {error.filename}")
        if self.skipped:
            write_positions(self.positions_path, self.positions)

    def skip_fatal_line(self, path: Path) -> None:
        """Have Promtail go on behind the last line of a file that is too long for it."""
        name = str(path)
        with open_log(path) as file:
            size, saved = os.fstat(file.fileno()).st_size, self.positions.get(name, "")
            start = int(saved) if saved.isascii() and saved.isdigit() and int(saved) <= size else 0
            end = end_of_fatal_line(file.fileno(), start, size)
        if end is not None:
            say(
                "warn",
                f"{name}: {end - start} bytes are skipped, from {start} to {end}: a line in them is longer than "
                f"{FATAL} bytes",
            )
            self.positions[name] = str(end)
            self.skipped.add(name)

    def resume(self) -> None:
        """Set all positions by what Loki has now."""
        for source in self.sources:
            # A log that was rotated and not written to since isn't there.
            earlier = {Path(name) for name in {**self.positions, **self.state.heads} if source.follows(name)}
            for path in sorted({*source.paths(), *earlier, *source.rotated_away(self.state.time)}):
                try:
                    if is_there(path):
                        self.resume_file(source, path)
                    else:
                        self.send_rotated(source, path, self.state.heads.get(str(path), ""))
                        self.positions.pop(str(path), None)
                except (OSError, EOFError) as error:  # noqa: PERF203 - one bad file mustn't stop the others
                    say("warn", f"{path} stays at its position: {error}")
        write_positions(self.positions_path, self.positions)

    def resume_file(self, source: Source, path: Path) -> None:
        """Have the rest of a file's rotated predecessors sent, then set its position."""
        name = str(path)
        with LogFile(path, source.time_field) as file:
            known, head = self.state.heads.get(name, ""), file.head()
            if name in self.skipped:
                self.heads[name] = head
                return
            is_same = bool(head) and known == head
            saved = self.positions.get(name, "")
            hint = int(saved) if saved.isascii() and saved.isdigit() else None
            end = find_end(self.loki, source, file, hint)
            if hint is not None and end is not None and end < file.size:
                time.sleep(SETTLE_SECONDS)
                if self.loki.present(source, file.block(end, PROBED)):
                    end = find_end(self.loki, source, file, end)
            if not is_same:
                self.send_rotated(source, path, known)
            if end is None and hint is not None:
                is_trusted = is_same and hint <= file.size
                if is_trusted and (not file.has_times or hint > self.unsent or self.is_old(file, hint)):
                    say("warn", f"Loki has no line of {name} that could be recognised: it goes on at {hint}")
                    end = hint
                else:
                    end = 0
            if end is not None:
                if saved != str(end):
                    say("info", f"{name}: position {saved or 'none'} becomes {end}, of {file.size}")
                self.positions[name] = str(end)
            self.heads[name] = head

    def is_old(self, file: LogFile, offset: int) -> bool:
        """Tell whether what lies before an offset is older than what Loki takes."""
        times = [line.time for line in file.block_before(offset, PROBED) if line.time is not None]
        return bool(times) and max(times) < (time.time() - self.max_age) * SECOND

    def send_rotated(self, source: Source, path: Path, known: str) -> None:
        """Have Promtail send what Loki lacks of the files that `path` was rotated to since the last start."""
        rest: list[tuple[Path, int]] = []
        undecided: list[tuple[Path, int]] = []
        for other in source.rotated(path):
            with LogFile(other, source.time_field, is_rotated=True) as file:
                if file.modified < time.time() - self.max_age:
                    break
                is_known = bool(known) and file.head() == known
                end = find_end(self.loki, source, file)
                undecided.append((other, end or 0))
                # Without a memory of the last start, files older than the first that Loki knows aren't ours.
                is_ours = is_known or end is not None or bool(known and file.modified >= self.state.time)
                if is_ours:
                    rest += [(each, place) for each, place in undecided if place < self.size_of(each, source)]
                    undecided = []
                if is_known or (end is not None and not known):
                    break
        if rest:
            self.answer("sending the rest of rotated files")
            say("info", f"sending what Loki lacks of {', '.join(f'{each} from {place}' for each, place in rest)}")
            self.send(source, list(reversed(rest)))

    def size_of(self, path: Path, source: Source) -> int:
        """Return the size of a file's lines."""
        with LogFile(path, source.time_field) as file:
            return file.size

    def send(self, source: Source, rest: list[tuple[Path, int]]) -> None:
        """Have Promtail send the rest of files, in order; returns when Loki has it."""
        with tempfile.TemporaryDirectory() as folder:
            config = {
                **self.config,
                "scrape_configs": [source.config],
                "positions": {"filename": f"{folder}/positions.yaml"},
                "server": {"http_listen_address": "127.0.0.1", "http_listen_port": 0, "grpc_listen_port": 0},
            }
            settings = Path(folder, "config.yml")
            settings.touch(mode=0o600)
            settings.write_text(json.dumps(config))
            with self.sender(settings) as stream:
                for path, place in rest:
                    with LogFile(path, source.time_field, is_rotated=True) as file:
                        file.copy_to(stream, place)

    def sender(self, settings: Path) -> AbstractContextManager[BinaryIO]:
        """Return what sends, in this process's place."""
        return sender_of(self.root, settings) if self.root else sender(self.command[:1], settings)

    def remember(self) -> None:
        """Write down what the next start needs."""
        followed = {str(path) for source in self.sources for path in source.paths()}
        # Of files in a folder that is closed now, the first lines are known all the same.
        followed |= {name for name in self.state.heads if name in self.positions}
        state = State(
            time=time.time(),
            heads={**{name: head for name, head in self.state.heads.items() if name in followed}, **self.heads},
            others={
                name: value
                for name, value in self.positions.items()
                if not any(source.follows(name) for source in self.sources)
            },
        )
        write_atomically(self.state_path, json.dumps(vars(state)))


def set_positions(settings: dict[str, Any], command: list[str], root: socket.socket | None = None) -> None:
    """Set the positions: whatever goes wrong here must not keep Promtail from running."""
    resume = None
    try:
        resume = Resume(settings, command, root)
        resume.run()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        say("warn", f"Promtail goes on where it was, so lines may be lost or sent twice: {problem}")
    if resume and resume.stand_in:
        resume.stand_in.close()


def set_positions_as(container: dict[str, Any], settings: dict[str, Any], command: list[str]) -> None:
    """Let a child without root's rights set the positions; run the containers that it asks for."""
    user = pwd.getpwnam(container["user"])
    groups = [grp.getgrnam(name).gr_gid for name in container["groups"]]
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="promtail-resume-") as folder, ours:
        os.chown(folder, user.pw_uid, user.pw_gid)
        child = os.fork()
        if child == 0:
            ours.close()
            os.setgroups(groups)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.umask(0o027)
            tempfile.tempdir = folder
            set_positions(settings, command, theirs)
            os._exit(0)
        theirs.close()
        sending = [word.replace("%d", folder) for word in container["command"]]
        while True:
            asked, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
            if not descriptors:  # the child is done
                break
            result = subprocess.run(
                [*sending, "-stdin", f"-config.file={asked.decode()}"], stdin=descriptors[0], check=False
            )
            os.close(descriptors[0])
            ours.send(b"0" if result.returncode == 0 else b"1")
        os.waitpid(child, 0)


def zone_of_host(link: Path = Path("/etc/localtime")) -> str:
    """Return the name of the host's time zone; empty if it can't be told, which means UTC."""
    name = str(link.resolve()).partition("/zoneinfo/")[2]
    with contextlib.suppress(OSError):
        name = name or link.with_name("timezone").read_text().strip()
    return name


def main() -> None:
    """Set the positions, then become Promtail."""
    settings_path, *command = sys.argv[1:]
    try:
        text = Path(settings_path).read_text()
        settings = json.loads("\n".join(line for line in text.splitlines() if not line.startswith("#")))
        if "container" in settings:
            # Its image doesn't see the host's, in which times without a zone are.
            os.environ.setdefault("TZ", zone_of_host())
            set_positions_as(settings["container"], settings, command)
        else:
            set_positions(settings, command)
    except (OSError, ValueError, LookupError) as error:
        say("warn", f"Promtail goes on where it was, so lines may be lost or sent twice: {error}")
    os.execv(command[0], command)  # noqa: S606 - the unit's own command line; a shell has no part in it


if __name__ == "__main__":
    main()
