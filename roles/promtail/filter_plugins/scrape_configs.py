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
}
KEYS = {"job", "path", "format", "labels", "exclude"}


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


def file_scrape_config(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scrape_config of one entry of `promtail_log_files`."""
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
    stages = [*stages, {"labeldrop": ["filename"]}]
    exclude = {"__path_exclude__": entry["exclude"]} if "exclude" in entry else {}
    return {
        "job_name": entry["path"],
        "pipeline_stages": stages,
        "static_configs": [{"labels": {**labels, "job": entry["job"], "__path__": entry["path"], **exclude}}],
    }


def file_scrape_configs(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the scrape_configs of `promtail_log_files`.

    Raises:
        AnsibleFilterError: An entry has an unknown or a missing key, an unknown format, or a path that another one has.
    """
    configs = [file_scrape_config(entry) for entry in entries]
    names = [config["job_name"] for config in configs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise AnsibleFilterError(
            f"promtail_log_files names {', '.join(sorted(twice))} more than once: each line would be sent as often"
        )
    return configs


def journal_scrape_config(_: object = None) -> dict[str, Any]:
    """Return the scrape_config of the systemd journal."""
    unit = "__journal__systemd_unit"
    return {
        "job_name": "journal",
        "journal": {"max_age": "168h", "labels": {"job": "systemd-journal", "service_name": "journal"}},
        "relabel_configs": [
            {"source_labels": [unit], "target_label": "unit"},
            *(
                {"source_labels": [unit], "regex": regex, "target_label": "unit", "replacement": name}
                for regex, name in TRANSIENT_UNITS.items()
            ),
            {"source_labels": ["unit"], "regex": r"(.+)\.[a-z]+", "target_label": "service_name", "replacement": "$1"},
            {"source_labels": ["__journal_priority_keyword"], "target_label": "level"},
            {"source_labels": ["__journal_syslog_identifier"], "target_label": "identifier"},
        ],
        "pipeline_stages": [
            *level_stages(),
            # Anybody can log under any name, so it can't be a label. What is extracted stays when the label goes.
            {"labeldrop": ["identifier"]},
            {"structured_metadata": {"identifier": None}},
        ],
    }


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"file_scrape_configs": file_scrape_configs, "journal_scrape_config": journal_scrape_config}
