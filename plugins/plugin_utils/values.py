# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The kinds of values that public variables have, and which variable has which.

A role's `meta/argument_specs.yml` knows types such as `str`, but not what a text has to look like. `KINDS` adds that,
by the variable's name: a memory limit has systemd's grammar, a label has Loki's. What a component itself judges
better, such as its configuration, is left to it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.logstead.platform.plugins.filter.retention import retention_problem

# Characters that end a line, or that nobody sees: no value has them, because a file on a host would read as another.
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
LINE_ENDS = re.compile(r"[\t\r\n]")
LONGEST_LINE = 1024
SHOWN = 60  # characters of a value in a message
SECRET = re.compile(r"password|secret|token|credential|_key|loki_gateway|receivers|smtp|datasources")
RESERVED_LABELS = ("job", "level", "host", "environment", "unit", "filename")
YEARS = 100  # more than any retention or interval is meant to be, and less than the programs' own integers hold


@dataclass(frozen=True)
class Kind:
    """A kind of value: whether a text is of it, and what to write in an error after `expected`."""

    expectation: str
    accepts: Callable[[str], bool]


def matching(expectation: str, pattern: str, *checks: Callable[[str], bool]) -> Kind:
    """Return the kind of the texts that match a pattern as a whole, in ASCII, and pass further checks."""
    compiled = re.compile(pattern, re.ASCII)
    return Kind(expectation, lambda text: bool(compiled.fullmatch(text)) and all(check(text) for check in checks))


def optional(kind: Kind) -> Kind:
    """Return the same kind, where an empty text is permitted."""
    return Kind(f"{kind.expectation}, or nothing", lambda text: not text or kind.accepts(text))


def between(low: int, high: int, what: str) -> Kind:
    """Return the kind of the whole numbers of a range."""
    return matching(f"{what} from {low} to {high}", r"-?\d{1,9}", lambda text: low <= int(text) <= high)


def has_no_parent(text: str) -> bool:
    """Tell whether a path never leads upwards."""
    return ".." not in text.split("/")


def is_address(text: str) -> bool:
    """Tell whether a text is an IPv4 or IPv6 address, without a zone, which may have any characters."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def has_valid_host(text: str) -> bool:
    """Tell whether a URL has a host, and a port that exists if any."""
    try:
        parts = urlsplit(text)
        return is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Tell whether a text is an IP address, or a host's name."""
    # What has an address's characters only, such as 300.1.1.1, is no name.
    is_name = len(text) < 254 and re.fullmatch(r"(?![\d.]+$)\w([\w-]*\w)?(\.\w([\w-]*\w)?)*\.?", text, re.ASCII)
    return is_address(text) or bool(is_name)


def is_endpoint(text: str) -> bool:
    """Tell whether a text is a host and a port."""
    return not re.search(r"[/?#@\\\s]", text) and bool(re.search(r":[0-9]+$", text)) and has_valid_host(f"//{text}")


def is_within_years(text: str) -> bool:
    """Tell whether a duration such as `1h30m` is more than nothing and less than the ceiling."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
    total = sum(int(number) * seconds[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))
    return 0 < total <= YEARS * seconds["y"]


def is_memory(text: str) -> bool:
    """Tell whether systemd takes a text as a limit that a process can live with."""
    if text == "infinity":
        return True
    if text.endswith("%"):
        return 0 < float(text[:-1]) <= 100
    return 1 << 20 <= bytes_of(text) < 1 << 63


def bytes_of(text: str) -> float:
    """Return a size in systemd's grammar, such as `1.5G`, in bytes."""
    number, unit = re.match(r"([\d.]+)([KMGTPE]?)", text).groups()  # type: ignore[union-attr]
    return float(number) * 1024.0 ** " KMGTPE".index(unit or " ")


def is_free_label(text: str) -> bool:
    """Tell whether a label may be set by an entry, because the platform doesn't set it itself."""
    return text not in RESERVED_LABELS


def is_line(text: str) -> bool:
    """Tell whether a text is one line that can be seen as a whole."""
    return len(text) <= LONGEST_LINE and not INVISIBLE.search(text)


def is_text(text: str) -> bool:
    """Tell whether a text has no characters that nobody sees, but for the ends of lines."""
    return not INVISIBLE.search(LINE_ENDS.sub("", text))


# --- The vocabulary ---

LINE = Kind(f"one line of text without control characters, at most {LONGEST_LINE} characters", is_line)
TEXT = Kind("text without control characters", is_text)
SECRET_LINE = Kind(
    "one line without control characters, and without spaces around it",
    lambda text: text == text.strip() and is_line(text),
)
SECRET_TEXT = Kind(SECRET_LINE.expectation, lambda text: bool(text) and SECRET_LINE.accepts(text))
PEM = Kind("text in PEM (-----BEGIN …)", lambda text: "-----BEGIN " in text and is_text(text))
NAME = matching(
    "a name of ASCII letters, digits and . _ / : @ -, at most 128 characters", r"[A-Za-z0-9][\w./:@-]{0,127}"
)
ENVIRONMENT = matching("a name of ASCII letters, digits, - and _, at most 63 characters", r"[A-Za-z0-9][\w-]{0,62}")
LABEL = matching(
    "a label name of ASCII letters, digits and _, which does not begin with __, and is none of those that the platform "
    f"sets ({', '.join(RESERVED_LABELS)})",
    r"(?!__)[A-Za-z_]\w{0,127}",
    is_free_label,
)
LABEL_VALUE = Kind(
    "one line of text, not empty and without control characters", lambda text: bool(text) and is_line(text)
)
ACCOUNT = matching("the name of a user or group: ASCII letters, digits and . _ -", r"[A-Za-z_][\w.-]{0,31}")
USER = matching("the name of a user, such as alice or ops@example.org", r"[A-Za-z_][\w.@-]{0,63}")
LOGIN = matching("a login name of ASCII letters, digits and . _ @ + -", r"\w[\w.@+-]{0,126}")
EMAIL = matching("an e-mail address", r"[\w.+-]+@[\w.-]+")
UID = matching("a uid of ASCII letters, digits, - and _, at most 40 characters", r"[\w-]{1,40}")
PORT = between(1, 65535, "a TCP port")
COUNT = between(0, 1_000_000, "a whole number")
RATE = matching("a number above 0", r"\d{1,9}(\.\d{1,9})?", lambda text: float(text) > 0)
LISTEN_ADDRESS = Kind(
    "an IP address to listen on. Set platform_address of this host to the IP address at which other hosts reach it",
    is_address,
)
IP_ADDRESS = Kind("an IP address", is_address)
ADDRESS = Kind("an IP address or a host's name", is_host)
ENDPOINT = Kind("an address and a port, such as 10.0.0.5:9100 or [fd00::5]:9100", is_endpoint)
URL = matching(
    "a URL, such as https://logs.example.org:3102, without spaces, quotes and other special characters",
    r"https?://[\w.~:/?#@!&+,=%\[\]-]{1,1000}",
    has_valid_host,
)
CHECKSUM = matching(
    "64 hex digits, or the URL of a file that lists the checksum",
    r"(sha256:)?[0-9A-Fa-f]{64}|https?://[\w.~:/?#@!&+,=%{}\[\]-]{1,1000}",
)
VERSION = matching(
    "a version of ASCII letters, digits, and single . _ + ~ - between them", r"(?=.{1,64}$)\w+([.+~-]\w+)*"
)
BUILD = matching("a number of digits", r"\d{1,20}")
# Such as those of a unit's ReadWritePaths=, where a % or a space would mean something else.
PATH = matching(
    "an absolute path without .., of ASCII letters, digits and . _ @ + -", r"(/[\w.@+-]+)+/?", has_no_parent
)
LOG_PATH = Kind(
    "an absolute path, where * and ** are wildcards, without .. and control characters",
    lambda text: len(text) > 1 and text[0] == "/" and text[-1] != "/" and has_no_parent(text) and is_line(text),
)
MODE = matching("an octal mode such as 0640", r"0?[0-7]{3}")
MEMORY = matching(
    "bytes with a suffix K, M, G or T (1M or more), a percentage of the host's memory, or infinity",
    r"infinity|\d{1,9}(\.\d{1,3})?%|\d{1,19}(\.\d{1,3})?[KMGT]?",
    is_memory,
)
JOURNAL_SIZE = matching(
    "bytes with a suffix K, M, G or T, such as 1G", r"[1-9]\d{0,14}[KMGT]?", lambda text: bytes_of(text) < 1 << 63
)
LOGROTATE_SIZE = matching("bytes with a suffix k, M or G, such as 100M", r"\d{1,15}[kMG]?")
DATA_SIZE = matching("a size such as 8GB, or 0 for no limit", r"0|[1-9]\d{0,8}(B|KB|MB|GB|TB|PB)")
DURATION = matching(
    f"a duration such as 15s, 1h30m or 31d, above 0 and at most {YEARS}y",
    r"(\d{1,12}(ms|[smhdwy])){1,7}",
    is_within_years,
)
TIMESPAN = matching(
    "a time span of systemd, such as 31day or 1month",
    r"[1-9]\d{0,4} ?(s|sec|seconds?|m|min|minutes?|h|hr|hours?|d|days?|w|weeks?|M|months?|y|years?)",
)
RETENTION = Kind("", lambda text: not retention_problem(text))  # `retention_problem` says what is expected
UNIT_NAME = matching("the name of a systemd service, such as promtail.service", r"[\w.@-]{1,240}\.service")
ARGUMENT = matching(
    "one command-line argument that begins with --, without spaces, quotes, backslashes, % and ${NAME}",
    r"--(?!.*\$[\w{])[!#$&(-\[\]-~]{1,1000}",
)
REGISTRY_HOST = r"(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-f:]+\])(:\d+)?"
REGISTRY = matching(
    "a registry's host, optionally with a port and a path, such as registry.example.org:5000/upstream, without https://",
    rf"{REGISTRY_HOST}(/[\w./-]*\w)?",
)
THEME = matching("light, dark or system", "light|dark|system")
TIMEZONE = matching("the name of a time zone such as Europe/Berlin", r"[A-Za-z][\w+/-]{0,63}")
WEEKDAY = matching(
    "a day of the week, such as monday", "monday|sunday|saturday|tuesday|wednesday|thursday|friday|browser"
)
UNIT = Kind("", is_line)  # `unit_problems` says what is expected

# The kind of each variable, and of the keys of its entries: the first pattern that matches counts. What is in a dict
# that its role's specification doesn't describe further is of the dict's kind, at any depth.
KINDS: tuple[tuple[str, Kind], ...] = (
    ("*_port", PORT),
    ("*_listen_address", LISTEN_ADDRESS),
    ("loki_instance_address", IP_ADDRESS),
    ("platform_address", ADDRESS),
    ("platform_metrics_address", ADDRESS),
    ("platform_metrics_targets", ENDPOINT),
    ("prometheus_targets", ENDPOINT),
    ("prometheus_alertmanagers", ENDPOINT),
    ("*_release_url", URL),
    ("grafana_root_url", URL),
    ("grafana_org_url", URL),
    ("gateway_url", URL),
    ("*_url", optional(URL)),
    ("demo_app_otlp_endpoint", optional(URL)),
    ("loki_ruler.tenants", ENVIRONMENT),
    ("loki_ruler.*", optional(URL)),
    ("*_checksum", CHECKSUM),
    ("*_version", VERSION),
    ("grafana_build", optional(BUILD)),
    ("*_memory_max", MEMORY),
    ("*_unit_overrides", UNIT),
    # Whoever reads these takes each as one line.
    ("gateway_config_overrides", LINE),
    ("*_config_overrides", TEXT),
    # The preflight says itself what an environment is, where a host is in none.
    ("platform_environment", optional(ENVIRONMENT)),
    ("*_environment", ENVIRONMENT),
    ("platform_environments", ENVIRONMENT),
    ("platform_tenant", ENVIRONMENT),
    ("platform_image_registry", optional(REGISTRY)),
    ("platform_retention", RETENTION),
    ("loki_retention", RETENTION),
    ("prometheus_retention", DURATION),
    ("prometheus_scrape_interval", DURATION),
    ("prometheus_retention_size", DATA_SIZE),
    ("demo_app_service_name", NAME),
    ("demo_app_log_folder", PATH),
    ("demo_app_log_group", ACCOUNT),
    ("platform_local_users", USER),
    ("demo_app_python", PATH),
    ("gateway_metrics_file", optional(PATH)),
    ("promtail_groups", ACCOUNT),
    ("promtail_log_files.job", NAME),
    ("promtail_log_files.labels", LABEL_VALUE),
    ("promtail_log_files.rate_limit.*", RATE),
    ("promtail_log_files.path", LOG_PATH),
    ("promtail_log_files.exclude", LOG_PATH),
    ("promtail_log_files.format", NAME),
    ("promtail_log_files.sampling", RATE),
    ("promtail_log_files.timezone", TIMEZONE),
    ("node_exporter_arguments", ARGUMENT),
    ("logrotate_rules.name", NAME),
    ("logrotate_rules.paths", LOG_PATH),
    ("logrotate_rules.*_size", optional(LOGROTATE_SIZE)),
    ("logrotate_rules.keep", COUNT),
    ("logrotate_rules.max_age_days", COUNT),
    ("logrotate_rules.owner", ACCOUNT),
    ("logrotate_rules.group", ACCOUNT),
    ("logrotate_rules.mode", MODE),
    ("logrotate_rules.postrotate", TEXT),
    ("logrotate_interval_minutes", between(1, 1440, "minutes")),
    ("logrotate_hold_grace_seconds", between(0, 3600, "seconds")),
    ("logrotate_collector_unit", UNIT_NAME),
    ("logrotate_collector_positions", PATH),
    ("logrotate_journal_max_use", optional(JOURNAL_SIZE)),
    ("logrotate_journal_max_age", optional(TIMESPAN)),
    ("grafana_admin_user", LOGIN),
    ("grafana_org_admin_user", LOGIN),
    # `check_secrets` and `check_people` of the preflight say what is wrong with an empty one.
    ("grafana_secret_key", SECRET_LINE),
    ("grafana_admin_password", SECRET_LINE),
    ("grafana_org_admin_password", SECRET_TEXT),
    ("grafana_tracing_datasource", optional(UID)),
    ("grafana_org_datasource", UID),
    ("grafana_org_datasources", UID),
    ("grafana_org_dashboards", UID),
    ("grafana_org_folders", UID),
    ("grafana_org_preferences.theme", THEME),
    ("grafana_org_preferences.timezone", TIMEZONE),
    ("grafana_org_preferences.week_start", WEEKDAY),
    ("grafana_org_preferences.home_dashboard", UID),
    ("grafana_org_users.login", LOGIN),
    ("grafana_org_users.email", EMAIL),
    ("grafana_org_users.password", SECRET_LINE),
    ("grafana_org_service_accounts.token_file", PATH),
    # Free text, on one line: names that people read, and a command.
    ("grafana_org_name", LINE),
    ("grafana_org_users.name", LINE),
    ("grafana_org_service_accounts.name", LABEL_VALUE),
    ("grafana_org_command", LABEL_VALUE),
    # `check_images`, `check_credentials`, `check_sampling`, `check_periods` of the preflight know more of these.
    ("platform_images", LINE),
    ("*_credentials", TEXT),
    ("promtail_sampling", LINE),
    ("loki_retention_by_level", LINE),
    # Free text, on any number of lines: certificates, and what goes into YAML or JSON, which quote it.
    ("gateway_certificate", TEXT),
    ("gateway_certificate_key", TEXT),
    ("gateway_ca", optional(PEM)),
    ("platform_gateway_ca", TEXT),
    ("*_loki_gateway", TEXT),
    ("loki_tenants", TEXT),
    ("*_scrape_configs", TEXT),
    ("*_rules", TEXT),
    ("platform_logs", TEXT),
    ("platform_log_formats", TEXT),
    ("platform_known_noise", TEXT),
    ("platform_alert*", TEXT),
    ("*_receivers", TEXT),
    ("*_routes", TEXT),
    ("*_mute_times", TEXT),
    ("*_policy_overrides", TEXT),
    ("*_smtp", LINE),
    ("grafana_datasources", TEXT),
    ("*_dashboards", TEXT),
)


@cache
def find_kind(name: str) -> Kind | None:
    """Return the kind of a variable, or of a key of its entries (`variable.key`); None if it has none of its own."""
    return next((kind for pattern, kind in KINDS if fnmatchcase(name, pattern)), None)


def shown(value: object, where: str) -> str:
    """Return a value as a message shows it: shortened, and not if it may be a secret."""
    if value is None:
        return "null"
    if SECRET.search(where):
        return "invalid"
    text = ascii(str(value)) if isinstance(value, str) else repr(value)
    text = re.sub(r"//[^/@]*@", "//…@", text)  # credentials of a URL
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def is_scalar(value: object) -> bool:
    """Tell whether a value can be written as a text: a text or a number."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def find_problem(where: str, value: object, kind: Kind) -> str:
    """Return a sentence if a single value isn't of a kind, else nothing."""
    if is_scalar(value) and kind.accepts(str(value)):
        return ""
    if kind is RETENTION:
        return f"{where} {retention_problem(value)}."
    return f"{where} is {shown(value, where)}; expected {kind.expectation}."


def find_problems(name: str, value: object, option: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what is wrong with a variable's value: sentences that say what is expected.

    Args:
        name: Name of the variable; of a key of its entries, `variable.key`.
        value: What it is on the host.
        option: Its specification, from the role's `meta/argument_specs.yml`.
        where: What a sentence calls it, if not by its name.
    """
    where = where or name
    kind, expected = find_kind(name), option.get("type", "str")
    if value is None:
        yield f"{where} is null; give it a value, or remove it, so that its default applies."
    elif expected == "dict" and isinstance(value, Mapping):
        yield from dict_problems(name, value, option, where)
    elif expected == "list" and is_list(value):
        element = {**option, "type": option.get("elements", "raw")}
        for number, one in enumerate(value, 1):  # type: ignore[arg-type,var-annotated]
            yield from find_problems(name, one, element, f"{where}[{number}]")
    elif expected in ("dict", "list"):
        yield f"{where} is {shown(value, where)}; expected a {expected}."
    elif expected == "raw":
        yield from leaf_problems(where, value, kind or TEXT)
    # Truth values and choices are left to Ansible's own validation.
    elif expected != "bool" and "choices" not in option:
        yield from filter(None, [find_problem(where, value, kind or (COUNT if expected == "int" else TEXT))])


def dict_problems(name: str, value: Mapping[str, Any], option: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield what is wrong with a dict: with the keys that its specification describes, or with all."""
    kind = find_kind(name)
    if kind is UNIT:
        yield from unit_problems(where, value)
    elif "options" in option:
        for key in set(option["options"]) & set(value):
            yield from find_problems(f"{name}.{key}", value[key], option["options"][key], f"{where}: {key}")
    else:
        yield from leaf_problems(where, value, kind or TEXT)


def is_list(value: object) -> bool:
    """Tell whether a value is a list."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def leaf_problems(where: str, value: object, kind: Kind) -> Iterator[str]:
    """Yield what is wrong with the keys and the single values of a dict or list, at any depth."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            if not is_line(str(key)):
                yield f"{where} has the key {shown(key, where)}; expected {LINE.expectation}."
            yield from leaf_problems(f"{where}: {key}" if is_line(str(key)) else where, below, kind)
    elif is_list(value):
        for below in value:  # type: ignore[attr-defined]
            yield from leaf_problems(where, below, kind)
    elif isinstance(value, str) or (is_scalar(value) and kind not in (TEXT, LINE)):
        problem = find_problem(where, value, kind)
        if problem:
            yield problem
    elif kind not in (TEXT, LINE):
        yield f"{where} is {shown(value, where)}; expected {kind.expectation}."


def unit_problems(where: str, unit: Mapping[str, Any]) -> Iterator[str]:
    """Yield what would make a unit's file read otherwise than meant; systemd judges the rest."""
    for section, options in unit.items():
        if not re.fullmatch(r"Unit|Service|Timer|Install|X-[\w-]+", str(section), re.ASCII):
            yield f"{where} has the section {shown(section, where)}; expected Unit, Service, Timer or Install."
        elif not isinstance(options, Mapping):
            yield f"{where}: {section} is {shown(options, where)}; expected options by name."
        else:
            for name, value in options.items():
                here = f"{where}: {section}: {shown(name, where)}"
                if not re.fullmatch(r"[A-Za-z][\w-]*", str(name), re.ASCII):
                    yield f"{here} is no name of an option."
                for one in value if is_list(value) else [value]:
                    is_valid = isinstance(one, (bool, int, float)) or (
                        isinstance(one, str) and is_line(one) and not one.endswith("\\")
                    )
                    if not is_valid:
                        yield f"{here} is {shown(one, where)}; expected one line without control characters."


def label_problems(where: str, labels: object) -> Iterator[str]:
    """Yield what is wrong with the labels of a log."""
    if not isinstance(labels, Mapping):
        yield f"{where} is {shown(labels, where)}; expected labels by name, such as {{service_name: shop}}."
        return
    for name, value in labels.items():
        problem = find_problem(f"{where}: the name", name, LABEL)
        problem = problem or find_problem(f"{where}: {name}", value, LABEL_VALUE)
        if problem:
            yield problem
