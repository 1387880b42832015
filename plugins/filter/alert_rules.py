# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filters that turn the platform's one list of rules into the rule files of Loki and of Prometheus.

A rule is a dict under its name. One with `above` or `below` is an alert; one without is recorded under its name, which
then has a colon in it, such as `service:requests:rate5m`.
roles/platform/defaults/main/alerts.yml tells what the keys mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

Rule = Mapping[str, Any]
Rules = Mapping[str, Rule]
Json = dict[str, Any]

SOURCES = ("loki", "prometheus")
SEVERITIES = ("critical", "warning", "info")
COMMON_KEYS = ("source", "expr", "labels", "interval", "enabled")
TEXTS = ("summary", "description", "runbook", "link")
ALERT_KEYS = (*COMMON_KEYS, "above", "below", "when", "for", "severity", *TEXTS)
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
ALERT_NAME = re.compile(r"[A-Za-z_]\w*")
RECORD_NAME = re.compile(r"[a-z_]\w*(:\w+)+")
# `{host}` is a label of the result, `{value}` its number; the word after a colon says how the number is written.
PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
FORMATS = {
    "number": 'printf "%.4g"',
    "percentage": "humanizePercentage",
    "bytes": "humanize1024",
    "duration": "humanizeDuration",
    "days": 'printf "%.1f"',
}


def is_alert(rule: Rule) -> bool:
    """Tell whether a rule is an alert, and not a recorded series."""
    return "above" in rule or "below" in rule


def alert_query(rule: Rule) -> str:
    """Return the query that has a result exactly while the alert is to fire."""
    comparison = f"> {rule['above']}" if "above" in rule else f"< {rule['below']}"
    query = f"({rule['expr'].strip()}) {comparison}"
    return f"{query} and ({rule['when'].strip()})" if rule.get("when") else query


def as_template(text: str, for_address: bool = False, value: str = "{{{{ $value | {form} }}}}") -> str:
    """Return a text with its placeholders as Prometheus and Loki know them, or another engine by its own `value`."""

    def replaced(found: re.Match[str]) -> str:
        name, form = found[1], found[2]
        if name == "value":
            return value.format(form=FORMATS[form or "number"])
        return f"{{{{ $labels.{name} | urlquery }}}}" if for_address else f"{{{{ $labels.{name} }}}}"

    return PLACEHOLDER.sub(replaced, text.strip())


def has_text(rule: Rule, key: str) -> bool:
    """Tell whether people are told a text. A link without a Grafana begins with a slash, and leads nowhere."""
    return bool(rule.get(key)) and not (key == "link" and rule[key].strip().startswith("/"))


def alert_of(name: str, rule: Rule) -> Json:
    """Return one alert as a rule file has it."""
    return {
        "alert": name,
        "expr": alert_query(rule),
        **({"for": rule["for"]} if rule.get("for") else {}),
        "labels": {"severity": rule["severity"], **rule.get("labels", {})},
        "annotations": {key: as_template(rule[key], key == "link") for key in TEXTS if has_text(rule, key)},
    }


def record_of(name: str, rule: Rule) -> Json:
    """Return one recorded series as a rule file has it."""
    labels = {"labels": dict(rule["labels"])} if rule.get("labels") else {}
    return {"record": name, "expr": rule["expr"].strip(), **labels}


def text_problems(rule: Rule) -> Iterator[str]:
    """Find texts whose placeholders would be sent as they are."""
    for key in TEXTS:
        text = rule.get(key) or ""
        if not isinstance(text, str):
            yield f"its {key} is no text"
            continue
        for name, form in PLACEHOLDER.findall(text):
            if form and (name != "value" or form not in FORMATS):
                yield f"its {key} has {{{name}:{form}}}; a form is for {{value}} alone, one of {', '.join(FORMATS)}"
        if re.search(r"[{}]", PLACEHOLDER.sub("", text)):
            yield f"its {key} has a brace that isn't around the name of a label or of `value`"


def alert_problems(name: str, rule: Rule) -> Iterator[str]:
    """Find what keeps an alert from being one."""
    if not ALERT_NAME.fullmatch(name):
        yield "an alert's name has letters, digits and _ only"
    if "above" in rule and "below" in rule:
        yield "it has both above and below"
    for key in ("above", "below"):
        if key in rule and (isinstance(rule[key], bool) or not isinstance(rule[key], (int, float))):
            yield f"its {key} is {rule[key]!r}, which is no number"
    if rule.get("severity") not in SEVERITIES:
        yield f"its severity is {rule.get('severity')!r}; it is one of {', '.join(SEVERITIES)}"
    if not rule.get("summary"):
        yield "it has no summary: one line for whoever is told"
    yield from text_problems(rule)


def record_problems(name: str) -> Iterator[str]:
    """Find what keeps a rule from being recorded."""
    if not RECORD_NAME.fullmatch(name):
        yield (
            "it has neither above nor below, so it isn't an alert, and its name lacks the colons of a recorded series "
            "(such as service:requests:rate5m)"
        )


def problems_of_rule(name: str, rule: object) -> Iterator[str]:
    """Find everything that is wrong with one rule."""
    if not isinstance(rule, Mapping):
        yield "it is no dict of settings"
        return
    known = ALERT_KEYS if is_alert(rule) else COMMON_KEYS
    for key in sorted(set(rule) - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        yield f"{key} is no setting of it" + (f"; is {close[0]} meant?" if close else f"; they are {', '.join(known)}")
    if rule.get("source") not in SOURCES:
        yield f"its source is {rule.get('source')!r}; it is one of {', '.join(SOURCES)}"
    for key in ("expr", "when"):
        if (key == "expr" or key in rule) and not (isinstance(rule.get(key), str) and rule[key].strip()):
            yield f"its {key} is no query"
    for key in ("for", "interval"):
        if rule.get(key) and not DURATION.fullmatch(str(rule[key])):
            yield f"its {key} is {rule[key]!r}, which is no duration such as 5m"
    labels = rule.get("labels", {})
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        yield "its labels are no dict of texts"
    yield from alert_problems(name, rule) if is_alert(rule) else record_problems(name)


def is_enabled(rule: object) -> bool:
    """Tell whether a rule is in force; what is no rule at all counts, so that it is complained of."""
    return not isinstance(rule, Mapping) or bool(rule.get("enabled", True))


def rule_problems(rules: object) -> list[str]:
    """Return everything that is wrong with a list of rules, each sentence with the name of its rule."""
    if not isinstance(rules, Mapping):
        return ["the rules are no dict of rules by name"]
    return [
        f"the rule {name}: {problem}."
        for name, rule in rules.items()
        if is_enabled(rule)
        for problem in problems_of_rule(str(name), rule)
    ]


def rule_groups(rules: Rules, source: str) -> Json:
    """Return the file of rules for one engine: those of that source, in a group for each interval.

    Args:
        rules: All rules by name.
        source: `loki` or `prometheus`, which evaluates them.

    Raises:
        AnsibleFilterError: A rule is none; all of them are named.
    """
    if problems := rule_problems(rules):
        raise AnsibleFilterError(" ".join(problems))
    groups: dict[str, list[Json]] = {}
    for name, rule in rules.items():
        if rule["source"] == source and is_enabled(rule):
            made = alert_of(name, rule) if is_alert(rule) else record_of(name, rule)
            groups.setdefault(str(rule.get("interval") or ""), []).append(made)
    return {
        "groups": [
            {"name": f"logstead-{interval}", "interval": interval, "rules": found}
            if interval
            else {"name": "logstead", "rules": found}
            for interval, found in groups.items()
        ]
    }


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rule_groups": rule_groups}
