"""Jinja filters that turn a list of log files into Promtail's scrape_configs.

The labels and the structured metadata are those of the platform's contract: docs/architecture.md. Stages are documented
at https://grafana.com/docs/loki/latest/send-data/promtail/stages/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from posixpath import commonpath
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.logstead.platform.plugins.plugin_utils.formats import (
    Row,
    Rows,
    default_formats,
    entry_problems,
    expand,
    fields_of,
    format_problems,
    layouts_of,
    level_spellings,
    needs_zone,
    patterns_of,
)

Stage = dict[str, Any]

# What joins the lines of an entry, at most: Loki truncates an entry of more than 256 KB.
MOST_LINES, LONGEST_WAIT = 500, "1s"
# An empty or malformed id is no id, and an empty field no field: an empty template removes the value.
METADATA_TEMPLATES = {
    "trace_id": '{{ regexFind "^[0-9a-f]{32}$" .Value }}',
    "span_id": '{{ regexFind "^[0-9a-f]{16}$" .Value }}',
}
# The number of digits tells milli-, micro- and nanoseconds; Promtail reads seconds with a fraction.
EPOCH = r"^(?P<epoch_seconds>\d{10})(?P<epoch_fraction>\d{3}|\d{6}|\d{9})(?:\.(?P<epoch_rest>\d{1,3})\d*)?$"
EPOCH_TEMPLATE = (
    "{{ if .epoch_seconds }}{{ .epoch_seconds }}.{{ .epoch_fraction }}{{ .epoch_rest }}"
    '{{ else }}{{ or .Value "" }}{{ end }}'
)
TIME_OF_READING: list[Stage] = [
    {"template": {"source": "timestamp", "template": '{{ now | date "2006-01-02T15:04:05.999999999Z07:00" }}'}},
    {"timestamp": {"source": "timestamp", "format": "RFC3339Nano", "action_on_failure": "skip"}},
]
# An unbounded set of names, one for each log-in or one-off command, becomes one name each.
TRANSIENT_UNITS = {
    r"session-.+\.scope": "session.scope",
    r"user@\d+\.service": "user@.service",
    r"user-\d+\.slice": "user.slice",
    r"run-.+\.(service|scope|mount)": "run.$1",
    r"(libpod|docker)-.+\.scope": "$1.scope",
}
KEYS = {"job", "path", "format", "timezone", "labels", "exclude", "sampling", "rate_limit"}
WILDCARD = re.compile(r"[*?\[{]")
# Whatever is worse than these is kept in full.
SAMPLED_LEVELS = ("DEBUG", "INFO")
RATE_LIMIT_KEYS = {"lines_per_second", "burst"}
# What becomes structured metadata: the field of the journal that it comes from, and what that has to look like.
# Docker's journald driver tells the image; podman's tells it where the log tag is set to it. Docker's tag is an id.
JOURNAL_METADATA = (
    ("identifier", "syslog_identifier", "(.+)"),
    ("container_name", "container_name", "(.+)"),
    ("image_name", "container_tag", "(.+[/:].+)"),
    ("image_name", "image_name", "(.+)"),
)
JOURNAL_JOB = "systemd-journal"


def is_number(value: object) -> bool:
    """Tell whether a value is a number, which a truth value isn't."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def sampling_stages(sampling: object, where: str) -> list[Stage]:
    """Return the stages that keep a share of the lines of some levels, and mark those that they keep.

    A kept line has the share as structured metadata, `sample_rate`, so that counts can be scaled back.

    Raises:
        AnsibleFilterError: A level must not be sampled, or a share is none.
    """
    if not isinstance(sampling, Mapping):
        raise AnsibleFilterError(f"{where}: sampling is {sampling!r}; write shares by level, such as {{DEBUG: 0.1}}")
    stages: list[Stage] = []
    for level, rate in sampling.items():
        if level not in SAMPLED_LEVELS:
            raise AnsibleFilterError(
                f"{where}: lines of the level {level} can't be sampled; only those of {' and '.join(SAMPLED_LEVELS)} "
                "can, so that no warning and no error is lost"
            )
        if not is_number(rate) or not 0 < rate <= 1:
            raise AnsibleFilterError(
                f"{where}: the share of {level} is {rate!r}; it is more than 0 and at most 1, which keeps all lines"
            )
        if rate < 1:
            kept = [
                {"sampling": {"rate": rate}},
                {"template": {"source": "sample_rate", "template": f"{rate:.12f}".rstrip("0")}},
                {"structured_metadata": {"sample_rate": None}},
            ]
            stages.append({"match": {"selector": f'{{level="{level}"}}', "stages": kept}})
    return stages


def rate_limit_stages(limit: object, where: str) -> list[Stage]:
    """Return the stage that sends no more than so many lines a second; the others wait, and none is dropped.

    Raises:
        AnsibleFilterError: It isn't made of two numbers that Promtail can wait for.
    """
    if not isinstance(limit, Mapping) or set(limit) != RATE_LIMIT_KEYS:
        raise AnsibleFilterError(f"{where}: rate_limit is {limit!r}; it has lines_per_second and burst")
    rate, burst = limit["lines_per_second"], limit["burst"]
    # With a burst of less than one line, Promtail would not wait at all.
    if not is_number(rate) or rate <= 0 or not isinstance(burst, int) or isinstance(burst, bool) or burst < 1:
        raise AnsibleFilterError(
            f"{where}: rate_limit is {dict(limit)}; lines_per_second is more than 0, and burst a whole number from 1 on"
        )
    return [{"limit": {"rate": rate, "burst": burst, "drop": False}}]


def level_stages(row: Row | None = None) -> list[Stage]:
    """Return the stages that make the label `level`, in upper case, from the extracted value of that name."""
    fields = fields_of(row or {})
    spellings = " ".join(
        f"{json.dumps(name)} {json.dumps(level)}" for name, level in level_spellings(row or {}).items()
    )
    spelling = '(or .level .level_in_any_case "" | ToUpper)' if "level_in_any_case" in fields else "(.Value | ToUpper)"
    severity = "{{ if .priority }}{{ mod (int .priority) 8 }}{{ end }}"  # of syslog
    return [
        *([{"template": {"source": "level", "template": severity}}] if "priority" in fields else []),
        {"template": {"source": "level", "template": f"{{{{ get (dict {spellings}) {spelling} }}}}"}},
        {"labels": {"level": None}},
    ]


def timestamp_stages(row: Row, timezone: str) -> list[Stage]:
    """Return the stages that give an entry its own time; `timezone` is for times without a zone."""
    layout, *others = layouts_of(row)
    stages: list[Stage] = []
    if "Unix" in (layout, *others):
        stages = [
            {"regex": {"source": "timestamp", "expression": EPOCH}},
            {"template": {"source": "timestamp", "template": EPOCH_TEMPLATE}},
        ]
    stage: Stage = {"source": "time" if row.get("container") else "timestamp", "format": layout}
    if others:
        stage["fallback_formats"] = others
    if needs_zone(row):
        stage["location"] = timezone
    # `skip` leaves the time of reading; the default would give an entry without a time that of its neighbour.
    return [*stages, {"timestamp": {**stage, "action_on_failure": "skip"}}]


def metadata_stages(row: Row, labels: Mapping[str, Any]) -> list[Stage]:
    """Return the stages that make structured metadata of whatever isn't a label of the entry."""
    names = [name for name in row.get("metadata") or [] if name not in labels]
    anything = '{{ with .Value }}{{ if ne . "-" }}{{ . }}{{ end }}{{ end }}'
    return [
        *({"template": {"source": name, "template": METADATA_TEMPLATES.get(name, anything)}} for name in names),
        *([{"structured_metadata": dict.fromkeys(names)}] if names else []),
    ]


def container_stages(formats: Rows, labels: Mapping[str, Any]) -> list[Stage]:
    """Return the stages for what a container wrote, which is JSON or text."""

    def within(filter_: str, name: str) -> Stage:
        row = {key: value for key, value in formats[name].items() if key not in ("layouts", "first_line")}
        return {
            "match": {
                "selector": f'{{job=~".+"}} {filter_} "^\\\\s*[{{]"',
                "stages": row_stages(row, "", formats, labels),
            }
        }

    return [within("|~", "json"), within("!~", "plain")]


def row_stages(row: Row, timezone: str, formats: Rows, labels: Mapping[str, Any]) -> list[Stage]:
    """Return the stages for lines of a format; `labels` are those of the entry."""
    stages: list[Stage] = []
    fields = fields_of(row)
    if row.get("first_line"):
        joined = {"firstline": expand(row["first_line"]), "max_lines": MOST_LINES, "max_wait_time": LONGEST_WAIT}
        stages.append({"multiline": joined})
    if row.get("container"):
        # The stage joins what the runtime has split, and makes a label of the stream.
        stages += [{row["container"]: {}}, {"labeldrop": ["stream"]}]
    if "keys" in row:
        is_named = "service_name" in labels
        expressions = {name: " || ".join(map(str, paths)) for name, paths in row["keys"].items()}
        stages.append(
            {"json": {"expressions": {k: v for k, v in expressions.items() if k != "service_name" or not is_named}}}
        )
    stages += [{"regex": {"expression": pattern}} for pattern in patterns_of(row)]
    if fields & {"level", "level_in_any_case", "priority"}:
        stages += level_stages(row)
    if "service_name" in fields and "service_name" not in labels:
        stages.append({"labels": {"service_name": None}})
    stages += metadata_stages(row, labels)
    if row.get("layouts"):
        stages += timestamp_stages(row, timezone)
    if "line" in fields:
        stages += [
            {"template": {"source": "line", "template": '{{ TrimSuffix .Value "\\n" }}'}},
            {"output": {"source": "line"}},
        ]
    if row.get("first_line"):
        # The stage `multiline` gives what doesn't follow an entry at once the time of that entry, however old it is.
        others = f'{{job=~".+"}} !~ {json.dumps(expand(row["first_line"]))}'
        stages.append({"match": {"selector": others, "stages": TIME_OF_READING}})
    return stages + (container_stages(formats, labels) if row.get("container") or "line" in fields else [])


def not_utf8(path: str) -> list[str]:
    """Return patterns of the paths that match a pattern and aren't UTF-8.

    Promtail panics when it meets one, and whoever may write to the folder may make one. Go reads a byte that isn't
    UTF-8 as the replacement character, but only in a class.
    """
    words, odd = path.split("/"), "*[\ufffd]*"
    return [
        "/".join(
            [*words[: place + 1], odd, *words[place:]] if word == "**" else [*words[:place], odd, *words[place + 1 :]]
        )
        for place, word in enumerate(words)
        if WILDCARD.search(word)
    ]


def any_of(patterns: list[str]) -> str:
    """Return one pattern for several: Promtail takes one, and looks for files below its folder without wildcards."""
    if len(patterns) == 1:
        return patterns[0]
    folder = commonpath(WILDCARD.split(pattern, maxsplit=1)[0].rpartition("/")[0] or "/" for pattern in patterns)
    prefix, alternatives = f"{folder.rstrip('/')}/", []
    for pattern in patterns:
        depth, text = 0, ""
        for char in pattern[len(prefix) :]:
            depth += (char == "{") - (char == "}")
            text += "?" if char == "," and not depth else char  # any character, the comma too
        alternatives.append(text)
    return f"{prefix}{{{','.join(alternatives)}}}"


def file_scrape_config(entry: Mapping[str, Any], sampling: Mapping[str, Any], formats: Rows) -> dict[str, Any]:
    """Return the scrape_config of one entry of `promtail_log_files`; its own sampling beats that of its job."""
    unknown, missing = set(entry) - KEYS, {"job", "path"} - set(entry)
    if unknown or missing:
        problem = (
            f"has the unknown key {', '.join(sorted(unknown))}" if unknown else f"lacks {', '.join(sorted(missing))}"
        )
        raise AnsibleFilterError(
            f"promtail_log_files: {dict(entry)} {problem}; "
            f"an entry has job and path, and may have {', '.join(sorted(KEYS - {'job', 'path'}))}"
        )
    labels = dict(entry.get("labels", {}))
    where = f"promtail_log_files: {entry['path']}"
    if problems := list(entry_problems(where, entry, formats)):
        raise AnsibleFilterError(" ".join(problems))
    stages = row_stages(formats[entry.get("format", "json")], entry.get("timezone", "Local"), formats, labels)
    labels.setdefault("service_name", entry["job"])
    # The path of a file says nothing that job and service_name don't, and would multiply the streams.
    stages = [
        *stages,
        *sampling_stages(entry.get("sampling", sampling.get(entry["job"], {})), where),
        *(rate_limit_stages(entry["rate_limit"], where) if "rate_limit" in entry else []),
        {"labeldrop": ["filename"]},
    ]
    unread = [*([entry["exclude"]] if "exclude" in entry else []), *not_utf8(entry["path"])]
    exclude = {"__path_exclude__": any_of(unread)} if unread else {}
    return {
        "job_name": entry["path"],
        "pipeline_stages": stages,
        "static_configs": [{"labels": {**labels, "job": entry["job"], "__path__": entry["path"], **exclude}}],
    }


def file_scrape_configs(
    entries: Iterable[Mapping[str, Any]], sampling: Mapping[str, Any] | None = None, formats: Rows | None = None
) -> list[dict[str, Any]]:
    """Return the scrape_configs of `promtail_log_files`.

    Args:
        entries: Logs, each with a job and a path.
        sampling: Shares of the lines to keep, by job and level.
        formats: Rows by name, as `formats.yml` has them; by default those.

    Raises:
        AnsibleFilterError: An entry has an unknown or a missing key, an unknown format, a path that another one has, or
            a level that must not be sampled; or a row of the formats is invalid.
    """
    rows = default_formats() if formats is None else formats
    if problems := list(format_problems(rows)):
        raise AnsibleFilterError(" ".join(problems))
    configs = [file_scrape_config(entry, sampling or {}, rows) for entry in entries]
    names = [config["job_name"] for config in configs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise AnsibleFilterError(
            f"promtail_log_files names {', '.join(sorted(twice))} more than once: each line would be sent as often"
        )
    return configs


def journal_scrape_config(sampling: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the scrape_config of the systemd journal; `sampling` has the shares of each job."""
    unit, metadata = "__journal__systemd_unit", dict.fromkeys(name for name, *_ in JOURNAL_METADATA)
    return {
        "job_name": "journal",
        "journal": {"max_age": "168h", "labels": {"job": JOURNAL_JOB, "service_name": "journal"}},
        "relabel_configs": [
            {"source_labels": [unit], "target_label": "unit"},
            *(
                {"source_labels": [unit], "regex": regex, "target_label": "unit", "replacement": name}
                for regex, name in TRANSIENT_UNITS.items()
            ),
            {"source_labels": ["unit"], "regex": r"(.+)\.[a-z]+", "target_label": "service_name", "replacement": "$1"},
            {"source_labels": ["__journal_priority_keyword"], "target_label": "level"},
            *(
                {"source_labels": [f"__journal_{field}"], "regex": regex, "target_label": name}
                for name, field, regex in JOURNAL_METADATA
            ),
        ],
        "pipeline_stages": [
            *level_stages(),
            # Anybody can log under any name, so none can be a label. What is extracted stays when the label goes.
            {"labeldrop": list(metadata)},
            {"structured_metadata": metadata},
            *sampling_stages((sampling or {}).get(JOURNAL_JOB, {}), f"promtail_sampling: {JOURNAL_JOB}"),
        ],
    }


def log_folders(config: Mapping[str, Any], depth: int = 1) -> list[str]:
    """Return the folders that Promtail needs to read all files of its settings: such that are always there.

    A log's own folder may be made later, and then has to be seen. So this is what every host has: `/var/log`, another
    folder of `/var`, or one of the root's. With a depth of 2, it is one below those, which may come later.
    """
    paths = [
        str((static.get("labels") or {}).get("__path__") or "")
        for scrape in config.get("scrape_configs") or []
        for static in scrape.get("static_configs") or []
    ]
    # Up to the first wildcard, and without the file's name.
    folders = [WILDCARD.split(path, maxsplit=1)[0].split("/")[1:-1] for path in paths if path.startswith("/")]
    return sorted({"/" + "/".join(words[: 2 if words[0] == "var" else depth]) for words in folders if words})


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "file_scrape_configs": file_scrape_configs,
            "journal_scrape_config": journal_scrape_config,
            "log_folders": log_folders,
        }
