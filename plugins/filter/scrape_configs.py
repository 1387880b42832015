"""Jinja filters that turn a list of log files into Promtail's scrape_configs.

The labels and the structured metadata are those of the platform's contract: docs/architecture.md. Stages are documented
at https://grafana.com/docs/loki/latest/send-data/promtail/stages/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

Stage = dict[str, Any]

# Programs spell levels in many ways. Whatever isn't one of these gives no label: a label's values must stay few.
LEVELS = {
    "DEBUG": ("TRACE", "DEBUG"),
    "INFO": ("INFO", "INFORMATION", "NOTICE"),
    "WARNING": ("WARN", "WARNING"),
    "ERROR": ("ERR", "ERROR", "SEVERE"),
    "CRITICAL": ("CRIT", "CRITICAL", "FATAL", "ALERT", "EMERG", "PANIC"),
}
# The first word in a plain line that is a level by itself, such as in "2026-11-01 12:00:00 [warn] …" or "level=warn".
LEVEL_IN_TEXT = r"(?i)\b(?P<level>{})\b".format("|".join(name for names in LEVELS.values() for name in names))
# An unbounded set of names, one for each log-in or one-off command, becomes one name each.
TRANSIENT_UNITS = {
    r"session-.+\.scope": "session.scope",
    r"user@\d+\.service": "user@.service",
    r"user-\d+\.slice": "user.slice",
    r"run-.+\.(service|scope|mount)": "run.$1",
    r"(libpod|docker)-.+\.scope": "$1.scope",
}
KEYS = {"job", "path", "format", "labels", "exclude", "sampling", "rate_limit"}
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


def level_stages() -> list[Stage]:
    """Return the stages that make the label `level`, in upper case, from the extracted value of that name."""
    spellings = " ".join(f'"{name}" "{level}"' for level, names in LEVELS.items() for name in names)
    return [
        {"template": {"source": "level", "template": f"{{{{ get (dict {spellings}) (.Value | ToUpper) }}}}"}},
        {"labels": {"level": None}},
    ]


def json_stages(record_names_service: bool) -> list[Stage]:
    """Return the stages for files of JSON records."""
    fields = ["timestamp", "level", "trace_id", "span_id"] + ["service_name"] * record_names_service
    return [
        {"json": {"expressions": {field: field for field in fields}}},
        *level_stages(),
        *([{"labels": {"service_name": None}}] if record_names_service else []),
        # An empty or malformed id is no id: an empty template removes the value.
        {"template": {"source": "trace_id", "template": '{{ regexFind "^[0-9a-f]{32}$" .Value }}'}},
        {"template": {"source": "span_id", "template": '{{ regexFind "^[0-9a-f]{16}$" .Value }}'}},
        {"structured_metadata": {"trace_id": None, "span_id": None}},
        # `skip` leaves the time of reading; the default would give a record without a time that of its neighbour.
        {"timestamp": {"source": "timestamp", "format": "RFC3339Nano", "action_on_failure": "skip"}},
    ]


def plain_stages() -> list[Stage]:
    """Return the stages for files of plain lines."""
    return [{"regex": {"expression": LEVEL_IN_TEXT}}, *level_stages()]


def file_scrape_config(entry: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
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
    file_format = entry.get("format", "json")
    if file_format == "json":
        stages = json_stages(record_names_service="service_name" not in labels)
    elif file_format == "plain":
        stages = plain_stages()
    else:
        raise AnsibleFilterError(
            f"promtail_log_files: {entry['path']} has the format {file_format!r}; it is json or plain"
        )
    labels.setdefault("service_name", entry["job"])
    # The path of a file says nothing that job and service_name don't, and would multiply the streams.
    where = f"promtail_log_files: {entry['path']}"
    stages = [
        *stages,
        *sampling_stages(entry.get("sampling", sampling.get(entry["job"], {})), where),
        *(rate_limit_stages(entry["rate_limit"], where) if "rate_limit" in entry else []),
        {"labeldrop": ["filename"]},
    ]
    exclude = {"__path_exclude__": entry["exclude"]} if "exclude" in entry else {}
    return {
        "job_name": entry["path"],
        "pipeline_stages": stages,
        "static_configs": [{"labels": {**labels, "job": entry["job"], "__path__": entry["path"], **exclude}}],
    }


def file_scrape_configs(
    entries: Iterable[Mapping[str, Any]], sampling: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the scrape_configs of `promtail_log_files`; `sampling` has the shares of each job.

    Raises:
        AnsibleFilterError: An entry has an unknown or a missing key, an unknown format, a path that another one has, or
            a level that must not be sampled.
    """
    configs = [file_scrape_config(entry, sampling or {}) for entry in entries]
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


def log_folders(config: Mapping[str, Any]) -> list[str]:
    """Return the folders that a container needs to read all files of Promtail's settings: such that are always there.

    A log's own folder may be made later, and then has to be seen. So this is what every host has: `/var/log`, another
    folder of `/var`, or one of the root's.
    """
    paths = [
        str((static.get("labels") or {}).get("__path__") or "")
        for scrape in config.get("scrape_configs") or []
        for static in scrape.get("static_configs") or []
    ]
    parts = [path.split("/")[1:] for path in paths if path.startswith("/")]
    return sorted({"/" + "/".join(words[: 2 if words[0] == "var" else 1]) for words in parts})


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "file_scrape_configs": file_scrape_configs,
            "journal_scrape_config": journal_scrape_config,
            "log_folders": log_folders,
        }
