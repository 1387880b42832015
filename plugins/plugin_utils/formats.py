# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Formats of log lines: rows of formats.yml and of `platform_log_formats`, and what makes a row invalid.

What a collector does with a row is not decided here: plugins/filter/scrape_configs.py renders it for Promtail.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from ansible.errors import AnsibleError

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

# Programs spell levels in many ways. Whatever isn't one of these, or of the row's own `levels`, gives no label: a
# label's values must stay few.
LEVELS = {
    "DEBUG": ("TRACE", "DEBUG", "VERBOSE", "SILLY", "FINE", "FINER", "FINEST"),
    "INFO": ("INFO", "INFORMATION", "INFORMATIONAL", "NOTICE", "CONFIG"),
    "WARNING": ("WARN", "WARNING"),
    "ERROR": ("ERR", "ERROR", "SEVERE"),
    "CRITICAL": ("CRIT", "CRITICAL", "FATAL", "ALERT", "EMERG", "EMERGENCY", "PANIC", "DPANIC"),
}
ROW_KEYS = {
    *("about", "sample", "pattern", "keys", "container", "layouts", "levels", "metadata", "first_line"),
}
# What extracts the fields of a line: a row has one of these.
EXTRACTORS = ("keys", "pattern", "container")
# Names of fields with a meaning of their own, which can't be metadata, and labels of the platform.
RESERVED = {
    *("timestamp", "level", "level_in_any_case", "priority", "line"),
    *("job", "service_name", "environment", "host", "unit", "filename", "sample_rate"),
}
# Layouts for times as of ISO 8601 and RFC 3339. Go reads a fraction after the seconds, with a comma or a point, whether
# or not the layout has one.
ISO_LAYOUTS = (
    "RFC3339Nano",
    *("2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02T15:04:05Z0700"),
    *(f"2006-01-02 15:04:05{zone}" for zone in ("Z07:00", "Z0700", " Z07:00", " Z0700")),
    *(f"2006-01-02T15:04:05{zone}" for zone in (" Z07:00", " Z0700")),
)
# Layouts by a name of ours; Unix has seconds, milli-, micro- or nanoseconds, which the number of digits tells.
NAMED_LAYOUTS = {"iso": ISO_LAYOUTS, "RFC3339": ("RFC3339Nano",), "Unix": ("Unix",)}
# The chunks of a Go layout: what each stands for, and how it looks.
CHUNKS = {
    "2006": ("year", r"\d{4}"),
    "06": ("year", r"\d\d"),
    "January": ("month", "[A-Z][a-z]+"),
    "Jan": ("month", "[A-Z][a-z]{2}"),
    "01": ("month", r"\d\d"),
    "1": ("month", r"\d\d?"),
    "02": ("day", r"\d\d"),
    "_2": ("day", r" ?\d\d?"),
    "2": ("day", r"\d\d?"),
    "Monday": ("weekday", "[A-Z][a-z]+"),
    "Mon": ("weekday", "[A-Z][a-z]{2}"),
    "15": ("hour", r"\d\d?"),
    "03": ("half hour", r"\d\d"),
    "3": ("half hour", r"\d\d?"),
    "PM": ("half", "[AP]M"),
    "pm": ("half", "[ap]m"),
    "04": ("minute", r"\d\d"),
    "4": ("minute", r"\d\d?"),
    "05": ("second", r"\d\d(?:[.,]\d+)?"),
    "5": ("second", r"\d\d?(?:[.,]\d+)?"),
    "MST": ("zone", "[A-Z]{3,5}"),
    "Z07:00": ("zone", r"(?:Z|[+-]\d\d:\d\d)"),
    "Z0700": ("zone", r"(?:Z|[+-]\d{4})"),
    "Z07": ("zone", r"(?:Z|[+-]\d\d)"),
    "-07:00": ("zone", r"[+-]\d\d:\d\d"),
    "-0700": ("zone", r"[+-]\d{4}"),
    "-07": ("zone", r"[+-]\d\d"),
}
CHUNK = re.compile("|".join(map(re.escape, sorted(CHUNKS, key=len, reverse=True))))
NAMED_SHAPES = {
    "RFC3339Nano": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)"),
    "Unix": re.compile(r"\d{10}(?:\d{3}|\d{6}|\d{9})?(?:\.\d+)?"),
}
# Python's expressions are a superset of RE2's in what matters here. What it has and RE2 lacks:
NOT_RE2 = {
    r"\(\?<?[=!]": "lookaround",
    r"\(\?P=|\\[1-9]": "a back reference",
    r"\(\?>|[*+?}]\+": "a possessive or atomic part",
    r"\(\?\(": "a condition",
    r"\(\?#": "a comment",
    r"\(\?[a-zA-Z]*[axuL]": "a flag other than i, m and s",
    r"\\[ZuUN]": "an escape of Python's",
}
LARGEST_REPEAT = 1000  # RE2's
# A JMESPath expression of nested keys: log.level, t."$date"
KEY_PATH = re.compile(r'(?:[A-Za-z_]\w*|"[^"\\]+")(?:\.(?:[A-Za-z_]\w*|"[^"\\]+"))*')


@cache
def _document() -> dict[str, Any]:
    """Return the content of formats.yml."""
    document: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    return document


def default_formats() -> dict[str, Row]:
    """Return the rows that come with the platform, by name."""
    return dict(_document()["formats"])


@cache
def expand(pattern: str) -> str:
    """Return a pattern with its fragments, %{NAME}, in place."""
    fragments = _document()["fragments"]
    while found := re.search(r"%\{(\w+)\}", pattern):
        if found[1] not in fragments:
            raise AnsibleError(f"the pattern fragment {found[0]} is unknown; there are {', '.join(fragments)}.")
        pattern = pattern.replace(found[0], str(fragments[found[1]]))
    return pattern


def patterns_of(row: Row) -> list[str]:
    """Return the patterns of a row; each is searched, and a field of a later one replaces that of an earlier one."""
    value = row.get("pattern") or []
    return [expand(str(pattern)) for pattern in (value if isinstance(value, list) else [value])]


def fields_of(row: Row) -> set[str]:
    """Return the names of what a row extracts from a line."""
    if row.get("container"):
        return {"timestamp", "stream"}
    return set(row.get("keys") or ()) | {
        name for pattern in patterns_of(row) for name in re.findall(r"\(\?P<(\w+)>", pattern)
    }


def layouts_of(row: Row) -> list[str]:
    """Return the layouts of a row in Go's notation, or Go's name for one."""
    return [each for layout in row.get("layouts") or [] for each in NAMED_LAYOUTS.get(str(layout), (str(layout),))]


def needs_zone(row: Row) -> bool:
    """Tell whether a time of this format may lack its zone, or name it by an abbreviation that many zones have."""
    return any(
        layout not in NAMED_SHAPES and not any(chunk[:3] in ("Z07", "-07") for chunk in CHUNK.findall(layout))
        for layout in layouts_of(row)
    )


def level_spellings(row: Row) -> dict[str, str]:
    """Return the level that each spelling stands for, in upper case."""
    common = {spelling: level for level, spellings in LEVELS.items() for spelling in spellings}
    return {**common, **{str(spelling).upper(): str(level) for spelling, level in (row.get("levels") or {}).items()}}


def find_format(name: object, formats: Rows) -> Row:
    """Return the row of a name.

    Raises:
        AnsibleError: There is none; the message says which name was probably meant.
    """
    if isinstance(name, str) and name in formats:
        return formats[name]
    close = difflib.get_close_matches(str(name), formats, n=1)
    hint = f"did you mean {close[0]}? The" if close else "the"
    raise AnsibleError(f"{hint} formats are {', '.join(sorted(formats))}")


# --- What makes a row invalid -----------------------------------------------------------------------------------------


def pattern_problem(pattern: str) -> str:
    """Return what keeps RE2, the expressions of Promtail, from compiling a pattern; nothing if nothing does."""
    try:
        pattern = expand(pattern)
        re.compile(pattern, re.ASCII)
    except (re.error, AnsibleError, OverflowError) as error:
        return str(error)
    bare = re.sub(r"(\\\\)|(?<!\\)\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)  # in a class, all is literal
    for construct, name in NOT_RE2.items():
        if re.search(construct, bare):
            return f"it has {name}, which RE2 lacks"
    counts = [int(number) for found in re.findall(r"\{(\d+)(?:,(\d*))?\}", bare) for number in found if number]
    return f"RE2 repeats at most {LARGEST_REPEAT} times" if max(counts, default=0) > LARGEST_REPEAT else ""


def layout_problem(layout: str) -> str:
    """Return why a layout can't be that of a time; nothing if it can."""
    if layout in NAMED_LAYOUTS:
        return ""
    if "%" in layout or not CHUNK.search(layout):
        return (
            "it is not in Go's notation, which writes the time Mon Jan 2 15:04:05 2006 -0700 as the log would, such as "
            f"2006-01-02 15:04:05; or one of {', '.join(NAMED_LAYOUTS)}"
        )
    found = {CHUNKS[chunk][0] for chunk in CHUNK.findall(layout)}
    missing = sorted({"month", "day", "minute", "half" if "half hour" in found else "hour"} - found)
    # The year may be missing: Promtail takes the one in which the time is nearest.
    return f"it lacks the {' and the '.join(missing)}" if missing else ""


def shape_of(layout: str) -> re.Pattern[str]:
    """Return how a time of a layout looks, which is less than Go demands: that hours end at 23 is not checked."""
    if layout in NAMED_SHAPES:
        return NAMED_SHAPES[layout]
    shape, place = "", 0
    for found in CHUNK.finditer(layout):
        shape += re.sub(r"(\\ )+", " +", re.escape(layout[place : found.start()])) + CHUNKS[found[0]][1]
        place = found.end()
    return re.compile(shape + re.escape(layout[place:]))


def extract(row: Row, sample: str) -> dict[str, str]:
    """Return the fields of an entry, as the collector finds them."""
    found: dict[str, str] = {}
    if "keys" in row:
        try:
            record = json.loads(sample)
        except ValueError:
            return {}
        for name, paths in row["keys"].items():
            values = [value for value in (value_at(record, path) for path in paths) if value not in (None, "")]
            found.update({name: str(values[0])} if values else {})
    for pattern in patterns_of(row):
        match = re.search(pattern, sample, re.ASCII)
        found.update({name: value for name, value in (match.groupdict() if match else {}).items() if value})
    return found


def value_at(record: Any, path: str) -> Any:
    """Return the value that nested keys lead to; None if there is none."""
    for quoted, plain in re.findall(r'"([^"]+)"|([A-Za-z_]\w*)', path):
        record = record.get(quoted or plain) if isinstance(record, Mapping) else None
    return record


def row_problems(name: str, row: object) -> Iterator[str]:
    """Yield what is wrong with a row: sentences that say what to do."""
    where = f"platform_log_formats: {name}"
    if not isinstance(row, Mapping):
        yield f"{where} is {row!r}; write such as {{sample: …, pattern: …, layouts: […]}}."
        return
    for key in sorted(set(row) - ROW_KEYS):
        close = difflib.get_close_matches(key, ROW_KEYS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(sorted(ROW_KEYS))}."
        yield f"{where} has the unknown key {key}; {hint}"
    if len([key for key in EXTRACTORS if row.get(key)]) != 1:
        yield f"{where} needs one of {', '.join(EXTRACTORS)}, and no other of these."
        return
    if not isinstance(row.get("sample"), str) or not row["sample"]:
        yield f"{where} needs sample, an entry as the software writes it, by which the row is checked."
        return
    if problems := [*shape_problems(where, row), *key_problems(where, row), *level_problems(where, row)]:
        yield from problems
        return
    if row.get("container"):
        if row["container"] != "cri":
            yield f"{where}: container is {row['container']!r}; it can be cri."
        return
    yield from sample_problems(where, row)


def shape_problems(where: str, row: Row) -> Iterator[str]:
    """Yield what is wrong with a row's patterns, layouts and metadata, each by itself."""
    for key in ("pattern", "first_line"):
        value = row.get(key, [])
        for pattern in value if isinstance(value, list) and key == "pattern" else [value] if value else []:
            problem = pattern_problem(pattern) if isinstance(pattern, str) else "it is no text"
            if problem:
                yield f"{where}: the {key} {pattern!r} is invalid: {problem}."
                return
    for key in ("layouts", "metadata"):
        if not isinstance(row.get(key, []), list):
            yield f"{where}: {key} is {row[key]!r}; it is a list."
            return
    for layout in row.get("layouts", []):
        if problem := layout_problem(str(layout)):
            yield f"{where}: the layout {layout!r} is invalid: {problem}."
    fields = fields_of(row)
    if bool(row.get("layouts")) != ("timestamp" in fields):
        yield f"{where} needs both a field timestamp and its layouts, or neither."
    for name in row.get("metadata", []):
        if name in RESERVED:
            yield f"{where}: {name} can't be metadata, because the name has a meaning of its own: choose another one."
        elif name not in fields:
            yield f"{where}: metadata has {name}, which no key and no group of the pattern has."


def key_problems(where: str, row: Row) -> Iterator[str]:
    """Yield what is wrong with the keys of a row."""
    keys = row.get("keys") or {}
    if not isinstance(keys, Mapping):
        yield f"{where}: keys is {keys!r}; write such as {{timestamp: [time, ts], level: [level]}}."
        return
    owners: dict[str, str] = {}
    for name, paths in keys.items():
        if not re.fullmatch(r"[a-zA-Z_]\w*", str(name)):
            yield f"{where}: keys has {name}; a name is made of letters, digits and underscores."
        if not isinstance(paths, list) or not paths:
            yield f"{where}: keys has {paths!r} for {name}; it is a list, of which the first key with a value counts."
            continue
        for path in map(str, paths):
            if not KEY_PATH.fullmatch(path):
                yield (
                    f"{where}: keys has {path!r} for {name}; nested keys are joined by a point, and one with other "
                    "characters than letters, digits and underscores stands in double quotes: '\"@timestamp\"'."
                )
            if path in owners:
                yield f"{where}: keys has {path} twice, for {owners[path]} and for {name}: keep one of them."
            owners[path] = str(name)


def level_problems(where: str, row: Row) -> Iterator[str]:
    """Yield what is wrong with the levels of a row."""
    levels = row.get("levels") or {}
    if not isinstance(levels, Mapping):
        yield f"{where}: levels is {levels!r}; write such as {{NOTE: INFO}}."
        return
    for spelling, level in levels.items():
        if level not in LEVELS:
            yield f"{where}: levels has {level!r} for {spelling}; levels are {', '.join(LEVELS)}."


def sample_problems(where: str, row: Row) -> Iterator[str]:
    """Yield what a row makes of its own sample that it can't be meant to."""
    found = extract(row, row["sample"])
    if not found:
        yield f"{where}: {'keys' if 'keys' in row else 'pattern'} finds nothing in its sample."
        return
    layouts = layouts_of(row)
    if layouts and "timestamp" not in found:
        yield f"{where}: its sample has no timestamp that {'keys' if 'keys' in row else 'pattern'} finds."
    elif layouts and not any(shape_of(layout).fullmatch(found["timestamp"]) for layout in layouts):
        yield f"{where}: the time {found['timestamp']!r} of its sample has none of the layouts."
    spelling = found.get("level") or found.get("level_in_any_case") or ""
    if spelling and spelling.upper() not in level_spellings(row):
        yield f"{where}: the level {spelling!r} of its sample is unknown: add it to levels."
    if row.get("first_line"):
        first, *others = row["sample"].split("\n")
        begin = re.compile(expand(row["first_line"]), re.ASCII)
        if not begin.search(first):
            yield f"{where}: first_line doesn't match the first line of its sample."
        elif again := [line for line in others if begin.search(line)]:
            yield f"{where}: first_line matches {again[0]!r} as well, which is in the middle of its sample."


def format_problems(formats: Mapping[str, object]) -> Iterator[str]:
    """Yield what is wrong with the rows that differ from the platform's."""
    known = default_formats()
    for name, row in formats.items():
        if known.get(name) != row:
            yield from row_problems(name, row)


def entry_problems(where: str, entry: Mapping[str, Any], formats: Rows) -> Iterator[str]:
    """Yield what is wrong with the format and the time zone of a log's entry."""
    name, zone = entry.get("format", "json"), entry.get("timezone")
    try:
        row = find_format(name, formats)
    except AnsibleError as error:
        yield f"{where} has the unknown format {name!r}; {error}."
        return
    if zone is None:
        return
    try:
        ZoneInfo(str(zone))
    except (ValueError, OSError, KeyError):
        yield f"{where} has the unknown timezone {zone!r}; it is a name such as Europe/Berlin or UTC."
    if isinstance(row, Mapping) and not needs_zone(row):
        yield f"{where} has a timezone, but times of the format {name} have theirs or there are none: remove it."


def all_problems(logs: Mapping[str, Any], formats: Rows) -> Iterator[str]:
    """Yield what is wrong with the formats of a host, and with the entries of `platform_logs` that name them."""
    yield from format_problems(formats)
    for name, entry in logs.items():
        if isinstance(entry, Mapping):
            yield from entry_problems(f"platform_logs: {name}", entry, formats)
