#!/usr/bin/python3
# Managed by logstead: changes made here are overwritten.
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Rotate the platform's logs without losing a line, and keep what is rotated within its limits.

    logstead-logs run       rotate what is due, then remove what is over a limit; the timer calls this
    logstead-logs status    tell how each log is
    logstead-logs hold LOG  succeed if LOG may be rotated now; logrotate calls this

A collector that follows a file by its name reads a renamed file to its end, but only one: what is renamed a second time
before it has come along is never read. So a log of a rule with `hold` waits until the collector has read all of it.

Whoever owns a log's folder may swap anything in it at any time, for a link or a pipe too. So files are read and removed
with the rights of the rule's owner, as logrotate does, and a rule that hangs is ended and stops no other.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, cast

SETTINGS = Path("/etc/logstead/logrotate.json")
RULES = Path("/etc/logstead/logrotate.conf")
FOLDER = Path("/var/lib/logstead-logrotate")
LOGROTATE = "/usr/sbin/logrotate"

# What `dateformat` in the rules makes.
STAMP = re.compile(r"-(\d{8}-\d{6})(\.gz)?$")
STAMP_GLOB = "-" + "[0-9]" * 8 + "-" + "[0-9]" * 6
POLL_SECONDS = 0.2
LONGEST_LINE = 256 * 1024  # of which nothing but a beginning may be unread
DAY_SECONDS = 86400
RULE_SECONDS = 15 * 60  # that logrotate may take for a rule, compression included
# A key or a value of Promtail's positions, and what YAML escapes in double quotes.
SCALAR = r"""(?:"(?:[^"\\\0]|\\.)*"|'(?:[^'\0]|'')*'|(?![?-] )[^\s"'\[{#\0][^\0]*?)"""
ESCAPES = dict(zip("0abtnvfreN_LP", "\0\a\b\t\n\v\f\r\x1b\x85\xa0\u2028\u2029"))

NOTICE, WARNING, ERROR = 5, 4, 3


@dataclass(frozen=True)
class Rule:
    """What is asked for of some logs. Sizes are bytes; 0 is no limit."""

    name: str
    paths: list[str]
    due: str
    max_size: int
    max_age_days: int = 0
    max_total_size: int = 0
    hold: bool = False
    hold_max_size: int = 0
    owner: str = "root"
    group: str = "root"

    def logs(self) -> list[Path]:
        """Return the logs that are there."""
        found = {Path(name) for pattern in self.paths for name in glob.glob(pattern) if not STAMP.search(name)}
        return sorted(path for path in found if is_regular(path))

    def rotated(self) -> list[Path]:
        """Return the rotated files, the oldest first; also of logs that are no more."""
        patterns = [pattern + STAMP_GLOB + ending for pattern in self.paths for ending in ("", ".gz")]
        found = {Path(name) for pattern in patterns for name in glob.glob(pattern)}
        return sorted((path for path in found if is_regular(path)), key=lambda path: (stamp_of(path), path))


@dataclass(frozen=True)
class Settings:
    """The role's settings, as it has written them."""

    rules: list[Rule]
    collector_unit: str
    positions: Path
    grace_seconds: float

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read the settings; lines that begin with # are comments."""
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        values = json.loads(text)
        return cls(
            rules=[Rule(**rule) for rule in values["rules"]],
            collector_unit=values["collector_unit"],
            positions=Path(values["positions"]),
            grace_seconds=values["grace_seconds"],
        )

    def rule_of(self, log: Path) -> Rule:
        """Return the rule that a log belongs to."""
        for rule in self.rules:
            if log in rule.logs():
                return rule
        raise LookupError(f"{log} belongs to no rule in {SETTINGS}")


@dataclass
class Handover:
    """A rotation that the collector may not have noticed: positions from `low` to `high` may be the old file's."""

    inode: int
    low: int
    high: int
    invocation: str


@dataclass
class Memory:
    """What is remembered between two runs, by path of the log."""

    path: Path
    intended: dict[str, Handover] = field(default_factory=dict)
    handovers: dict[str, Handover] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    held_since: dict[str, float] = field(default_factory=dict)
    overrun: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Memory:
        """Read what there is; what can't be read is forgotten."""
        memory = cls(folder / "memory.json")
        try:
            values = json.loads(memory.path.read_text())
            memory.intended = {log: Handover(**value) for log, value in values["intended"].items()}
            memory.handovers = {log: Handover(**value) for log, value in values["handovers"].items()}
            memory.held, memory.held_since = values["held"], values["held_since"]
            memory.overrun = values["overrun"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as error:
            say(WARNING, f"{memory.path} can't be read and is begun anew: {error}")
            memory = cls(memory.path)
        return memory

    def write(self) -> None:
        """Keep all of it, or none."""
        values = {name: value for name, value in asdict(self).items() if name != "path"}
        unfinished = self.path.with_suffix(".new")
        unfinished.write_text(json.dumps(values, indent=1))
        unfinished.replace(self.path)


@dataclass(frozen=True)
class Collector:
    """The service that reads the logs."""

    is_installed: bool
    is_running: bool
    invocation: str

    @classmethod
    def look(cls, unit: str) -> Collector:
        """Ask systemd."""
        if not unit:
            return cls(is_installed=False, is_running=False, invocation="")
        command = ["systemctl", "show", unit, "--property=LoadState,ActiveState,InvocationID"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return cls(
            is_installed=values["LoadState"] not in ("not-found", "masked"),
            is_running=values["ActiveState"] in ("active", "reloading"),
            invocation=values.get("InvocationID", ""),
        )


def say(level: int, text: str) -> None:
    """Print a line; the journal gets its level as well. A file's name may hold anything, the end of a line too."""
    prefix = f"<{level}>" if "JOURNAL_STREAM" in os.environ else ""
    print(prefix + printable(text), flush=True)


def printable(text: str) -> str:
    """Return a text with escapes for what isn't printable."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@contextlib.contextmanager
def rights_of(rule: Rule) -> Iterator[None]:
    """Do something with the rights of a rule's owner.

    Raises:
        LookupError: The host has no such user or group.
    """
    user, group = pwd.getpwnam(rule.owner).pw_uid, grp.getgrnam(rule.group).gr_gid
    if os.geteuid() != 0 or user == 0:
        yield
        return
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def open_regular(path: Path) -> int:
    """Open a file for reading; no link, and no pipe, which would wait for its writer.

    Raises:
        OSError: It can't be read, or is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def is_regular(path: Path) -> bool:
    """Tell whether a path is a file itself: a program may put links into its own folder, which root must not follow."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def stamp_of(path: Path) -> str:
    """Return the time in a rotated file's name, which sorts."""
    match = STAMP.search(path.name)
    return match[1] if match else ""


def inode_of(path: Path) -> int:
    """Return a file's inode; 0 if there is none."""
    try:
        return path.lstat().st_ino
    except OSError:
        return 0


def size_of(path: Path) -> int:
    """Return a file's size; 0 if there is none."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def for_people(size: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


# --- Where the collector is -------------------------------------------------------------------------------------------


def read_positions(path: Path) -> dict[str, str] | None:
    """Return Promtail's positions; {} if there is no such file, None if it is none of Promtail's.

    Its file is YAML of one form, and hosts have no YAML in Python. promtail_resume.py reads it alike; a test compares.
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


def position_of(log: Path, positions: dict[str, str] | None) -> int | None:
    """Return the collector's offset in a log; None if it has none."""
    value = (positions or {}).get(str(log), "")
    return int(value) if value.isascii() and value.isdigit() else None


def is_of_this_file(offset: int, size: int, handover: Handover | None, invocation: str) -> bool:
    """Tell whether a position is surely that of the log that is there now, and not of the one that was renamed before.

    Positions have no inode. But that of the renamed file was at least `low`, and never gets beyond `high`, its end.
    Whoever was started since has opened the log that is there now.
    """
    if offset > size:
        return False
    if handover is None or handover.invocation != invocation:
        return True
    return offset < handover.low or offset > handover.high


def has_read(log: Path, offset: int, target: int) -> bool:
    """Tell whether nothing is unread before `target`, but maybe the beginning of a line."""
    if offset >= target:
        return True
    if target - offset > LONGEST_LINE:
        return False
    with os.fdopen(open_regular(log), "rb") as file:
        file.seek(offset)
        return b"\n" not in file.read(target - offset)


def unread(log: Path, rule: Rule, offset: int, target: int) -> str:
    """Return what is unread before `target`, or that it can't be told."""
    try:
        with rights_of(rule):
            is_read = has_read(log, offset, target)
    except (OSError, LookupError) as error:
        return f"it can't be read by {rule.owner}: {error}"
    return "" if is_read else f"has yet to read {target - offset} of {target} bytes"


def await_collector(log: Path, settings: Settings, handover: Handover | None) -> tuple[int | None, str]:
    """Wait until the collector has read what the log has now; return its position, or None and what it lacks."""
    deadline = time.monotonic() + settings.grace_seconds
    target, rule = size_of(log), settings.rule_of(log)
    while True:
        collector = Collector.look(settings.collector_unit)
        if not collector.is_running:
            return None, f"{settings.collector_unit} isn't running"
        positions = read_positions(settings.positions)
        offset = position_of(log, positions)
        if positions is None:
            problem = f"{settings.positions} can't be read as {settings.collector_unit}'s positions"
        elif offset is None:
            problem = f"{settings.collector_unit} hasn't begun to read it"
        elif not is_of_this_file(offset, size_of(log), handover, collector.invocation):
            problem = f"{settings.collector_unit} may still be reading the file that was rotated before"
        elif rest := unread(log, rule, offset, target):
            problem = rest if rest.startswith("it ") else f"{settings.collector_unit} {rest}"
        else:
            return offset, ""
        if time.monotonic() >= deadline:
            return None, problem
        time.sleep(POLL_SECONDS)


def decide(log: Path, settings: Settings, memory: Memory) -> bool:
    """Return whether a log may be rotated now, and remember why not, or at what price."""
    rule, key = settings.rule_of(log), str(log)
    collector = Collector.look(settings.collector_unit)
    for reasons in (memory.held, memory.overrun, memory.intended):
        reasons.pop(key, None)
    if not (rule.hold and collector.is_installed):
        return True
    position, problem = await_collector(log, settings, memory.handovers.get(key))
    size = size_of(log)
    if position is not None:
        memory.handovers.pop(key, None)
    elif not 0 < rule.hold_max_size <= size:
        memory.held[key] = problem
        return False
    else:
        memory.overrun[key] = f"{problem}, but its {size} bytes are over hold_max_size ({rule.hold_max_size})"
        position = position_of(log, read_positions(settings.positions))
    if position is not None:
        memory.intended[key] = Handover(inode_of(log), position, max(size, position), collector.invocation)
    return True


def settle(settings: Settings, memory: Memory) -> None:
    """Turn what was intended into what has happened, now that logrotate is done or was interrupted."""
    for key, intended in memory.intended.items():
        if inode_of(Path(key)) != intended.inode:
            earlier = memory.handovers.get(key)
            low = min(intended.low, earlier.low) if earlier else intended.low
            high = max(intended.high, earlier.high) if earlier else intended.high
            # A collector that was started before the log was renamed may have opened it by its old name.
            invocation = Collector.look(settings.collector_unit).invocation
            memory.handovers[key] = replace(intended, low=low, high=high, invocation=invocation)
    memory.intended = {}
    for key, handover in memory.handovers.items():
        # The program may have written to the end of the renamed file after it was looked at.
        for path in Path(key).parent.glob(glob.escape(Path(key).name) + STAMP_GLOB):
            if inode_of(path) == handover.inode:
                handover.high = max(handover.high, size_of(path))


# --- What goes --------------------------------------------------------------------------------------------------------


def excess(rule: Rule, now: float) -> Iterator[tuple[Path, str]]:
    """Yield the rotated files that a rule has too many, the oldest first, each with the reason."""
    files = [(path, path.lstat()) for path in rule.rotated()]
    total = sum(status.st_size for _, status in files)
    for path, status in files:
        if rule.max_age_days and status.st_mtime < now - rule.max_age_days * DAY_SECONDS:
            yield path, f"it is older than {rule.max_age_days} days"
        elif rule.max_total_size and total > rule.max_total_size:
            yield (
                path,
                f"those of rule {rule.name} have {total} bytes, over max_total_size ({rule.max_total_size})",
            )
        else:
            continue
        total -= status.st_size


def half_compressed(rule: Rule) -> Iterator[tuple[Path, str]]:
    """Yield what an interrupted compression has left: its source is there as long as it isn't finished."""
    for path in rule.rotated():
        if path.suffix == ".gz" and is_regular(path.with_suffix("")):
            yield path, "its compression was interrupted and is done again"


def pipes(rule: Rule) -> Iterator[tuple[Path, str]]:
    """Yield the pipes with a rotated file's name, which logrotate would wait for when it compresses them."""
    for pattern in rule.paths:
        for path in map(Path, glob.glob(pattern + STAMP_GLOB)):
            if path.is_fifo() and not path.is_symlink():
                yield path, "it is a pipe and no file"


def remove(rules: Iterable[Rule], choose: Callable[[Rule], Iterable[tuple[Path, str]]]) -> int:
    """Remove what is chosen of each rule, with its owner's rights, and say so; return the exit code."""
    code = 0
    for rule in rules:
        try:
            with rights_of(rule):
                for path, reason in choose(rule):
                    size = size_of(path)
                    path.unlink()
                    say(NOTICE, f"removed {path} ({size} bytes): {reason}")
        except (OSError, LookupError) as error:  # noqa: PERF203 - one rule mustn't stop the others
            say(ERROR, f"rule {rule.name}: {error}")
            code = 1
    return code


# --- The commands -----------------------------------------------------------------------------------------------------


def keep_times(before: str, after: str, logs: Iterable[str]) -> str:
    """Return logrotate's status with the earlier times of some logs.

    logrotate 3.21 notes a log that its script has refused as rotated, and would not look at its age again for a day.
    """
    wanted = tuple(f'"{log}" ' for log in logs)
    # Names may hold whatever else ends a line; logrotate escapes the newline.
    kept = {line.rsplit(" ", 1)[0]: line for line in before.split("\n") if line.startswith(wanted)}
    return "\n".join(kept.get(line.rsplit(" ", 1)[0], line) for line in after.split("\n"))


def keep_entries(before: str, after: str, logs: Iterable[Path]) -> str:
    """Return logrotate's status with the earlier entries of some logs that it has dropped.

    It forgets what is older than a year, unless the rule that it works on has it.
    """
    wanted = tuple(f'"{log}" ' for log in logs)
    present = {line.rsplit(" ", 1)[0] for line in after.split("\n")}
    dropped = [line for line in before.split("\n") if line.startswith(wanted) and line.rsplit(" ", 1)[0] not in present]
    return after + "".join(f"{line}\n" for line in dropped)


def write_status(status: Path, text: str) -> None:
    """Write logrotate's status whole or not at all."""
    unfinished = status.with_name("status.new")
    unfinished.write_text(text, errors="surrogateescape")
    unfinished.chmod(0o640)
    unfinished.replace(status)


def problems_in(output: str, held: Iterable[str]) -> list[str]:
    """Return what logrotate says, without what is known: that a log was held."""
    known = tuple(f"error: error running non-shared prerotate script for {log} of " for log in held)
    return [line for line in output.splitlines() if line.strip() and not line.startswith(known)]


def read_text(path: Path) -> str:
    """Return a file's text; that of a file which isn't there is empty."""
    try:
        return path.read_text(errors="surrogateescape")  # names may be no text
    except FileNotFoundError:
        return ""


def sections_of(text: str) -> list[str]:
    """Return the rules of a configuration as the role writes them, each by itself."""
    return [section for section in re.split(r"\n(?=# )", text) if "{" in section]


def rotate_section(section: str, folder: Path, *, force: bool) -> tuple[int, str]:
    """Let logrotate do its work for a rule; return its exit code and what it says.

    Each rule by itself: the owner of a log can make logrotate wait for ever, by a pipe where it expects a file.
    """
    config = folder / "rule.conf"
    config.write_text(section)
    config.chmod(0o600)
    command = [LOGROTATE, "--state", str(folder / "status"), *(["--force"] if force else []), str(config)]
    process = subprocess.Popen(
        command,
        # Local time has an hour twice a year, and a name must not be given twice.
        env={**os.environ, "TZ": "UTC"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=RULE_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()  # not for its children, which may be the log's owner's: systemd ends those with the unit
        cast("IO[str]", process.stdout).close()
        return 1, f"error: {section.splitlines()[0]}: logrotate was ended, as it took more than {RULE_SECONDS} s"
    return process.returncode, output


def rotate(settings: Settings, folder: Path, *, force: bool) -> int:
    """Let logrotate do its work, and say what it has done; return the exit code."""
    memory = Memory.read(folder)
    settle(settings, memory)
    memory.held, memory.overrun = {}, {}
    memory.write()
    logs = {log: inode_of(log) for rule in settings.rules for log in rule.logs()}
    status = folder / "status"
    before = read_text(status)
    results = []
    for section in sections_of(RULES.read_text()):
        results.append(rotate_section(section, folder, force=force))
        after = read_text(status)
        if after and (kept := keep_entries(before, after, logs)) != after:
            write_status(status, kept)
    memory = Memory.read(folder)
    settle(settings, memory)
    since = memory.held_since
    memory.held_since = {log: since.get(log, time.time()) for log in memory.held}
    memory.write()
    if memory.held and status.exists():
        write_status(status, keep_times(before, read_text(status), memory.held))
    for log, inode in logs.items():
        if inode_of(log) != inode:
            cost = memory.overrun.get(str(log))
            say(WARNING if cost else NOTICE, f"rotated {log}" + (f", lines may be lost: {cost}" if cost else ""))
    for key, reason in memory.held.items():
        if key not in since:
            say(WARNING, f"held {key}: {reason}")
    for key in since.keys() - memory.held.keys():
        say(NOTICE, f"{key} is held no longer")
    problems = problems_in("\n".join(output for _, output in results), memory.held)
    for line in problems:
        say(ERROR, line)
    return 1 if any(code != 0 for code, _ in results) and (problems or not memory.held) else 0


def run(settings: Settings, folder: Path, *, force: bool) -> int:
    """Rotate what is due, then remove what is over a limit. Runs never overlap."""
    folder.mkdir(mode=0o700, exist_ok=True)  # as the unit has it; a run by hand may be the first
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = int(time.time())
        code = remove(settings.rules, half_compressed) | remove(settings.rules, pipes)
        code |= rotate(settings, folder, force=force)
        code |= remove(settings.rules, lambda rule: excess(rule, time.time()))
        # The next run's names are those of another second.
        while int(time.time()) == started:
            time.sleep(0.02)
    return code


def hold(settings: Settings, folder: Path, log: Path) -> int:
    """Return 0 if a log may be rotated now."""
    memory = Memory.read(folder)
    may_go = decide(log, settings, memory)
    memory.write()
    return 0 if may_go else 1


def next_action(log: Path, rule: Rule, memory: Memory) -> str:
    """Return what happens to a log next, in words."""
    if str(log) in memory.held:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(memory.held_since.get(str(log), 0)))
        return f"held since {since}: {memory.held[str(log)]}"
    if size_of(log) == 0:
        return "nothing: it is empty"
    if rule.max_size and size_of(log) >= rule.max_size:
        return "is rotated by the next run"
    at_size = f" or at {for_people(rule.max_size)}" if rule.max_size else ""
    return f"is rotated {rule.due}{at_size}"


def status_lines(settings: Settings, memory: Memory) -> Iterator[str]:
    """Yield what people want to know of each rule."""
    for rule in settings.rules:
        rotated = rule.rotated()
        total = sum(size_of(path) for path in rotated)
        limit = f" of {for_people(rule.max_total_size)}" if rule.max_total_size else ""
        oldest = f", the oldest of {stamp_of(rotated[0])}" if rotated else ""
        yield f"{rule.name}: {len(rotated)} rotated, {for_people(total)}{limit}{oldest}"
        for log in rule.logs():
            yield f"  {log}  {for_people(size_of(log))}  {next_action(log, rule, memory)}"
        if not rule.logs():
            yield f"  no log yet: {', '.join(rule.paths)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="logstead-logs", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="rotate what is due, and remove what is over a limit")
    runner.add_argument("--force", action="store_true", help="rotate all that isn't held, due or not")
    holder = commands.add_parser("hold", help="succeed if a log may be rotated now")
    holder.add_argument("log", type=Path)
    commands.add_parser("status", help="tell how each log is")
    options = parser.parse_args(arguments)
    settings = Settings.read(SETTINGS)
    if os.geteuid() == 0:
        os.setgroups([])  # those of root, which a rule's owner hasn't
    if options.command == "run":
        return run(settings, FOLDER, force=options.force)
    if options.command == "hold":
        return hold(settings, FOLDER, options.log)
    for line in status_lines(settings, Memory.read(FOLDER)):
        print(printable(line))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:
        say(ERROR, f"{type(error).__name__}: {error}")  # the unit leaves a traceback, which has no level, out
        raise
