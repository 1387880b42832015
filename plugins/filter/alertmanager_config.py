# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Filters that render Alertmanager's configuration, and the files of its secrets, from receivers and routes.

A receiver is a dict with a `name` and one or more of `email`, `webhook`, `slack` and `pagerduty`;
roles/platform/defaults/main/alerts.yml shows each. Settings: https://prometheus.io/docs/alerting/latest/configuration/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Settings = dict[str, Any]
Receiver = Mapping[str, Any]

FOLDER = "/etc/alertmanager/secrets"
# The keys of each kind of contact: those that it must have, those that it may have.
KINDS = {
    "webhook": (("url",), ("token",)),
    "slack": (("url",), ("channel",)),
    "pagerduty": (("routing_key",), ("url",)),
}
# What must not be shown: whoever knows such an address may write to it.
SECRETS = {"webhook": ("url", "token"), "slack": ("url",), "pagerduty": ("routing_key",)}
SMTP_KEYS = ("host", "from", "user", "password", "tls")
ROUTE_KEYS = ("receiver", "match", "mute", "continue")
NAME = re.compile(r"[A-Za-z][\w-]*")
NOBODY = "nobody"


def as_list(value: object) -> list[Any]:
    """Return a list as it is, and anything else as the one element of a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def secret_path(receiver: str, kind: str, key: str) -> str:
    """Return the file that holds a secret."""
    return f"{FOLDER}/{receiver}.{kind}.{key}"


# --- Settings ---


def email_config(address: str) -> Settings:
    """Return how a person is written to: in plain text, which every reader shows."""
    return {
        "to": address,
        "send_resolved": True,
        "headers": {"Subject": '{{ template "logstead.title" . }}'},
        "text": '{{ template "logstead.text" . }}',
        "html": "",
    }


def webhook_config(name: str, given: Settings) -> Settings:
    """Return the config of a webhook, which gets all labels and annotations as JSON."""
    config: Settings = {"url_file": secret_path(name, "webhook", "url"), "send_resolved": True}
    if given.get("token"):
        config["http_config"] = {"authorization": {"credentials_file": secret_path(name, "webhook", "token")}}
    return config


def slack_config(name: str, given: Settings) -> Settings:
    """Return the config of a chat that accepts Slack's webhooks."""
    channel = {"channel": given["channel"]} if given.get("channel") else {}
    return {
        "api_url_file": secret_path(name, "slack", "url"),
        **channel,
        "send_resolved": True,
        "title": '{{ template "logstead.title" . }}',
        "title_link": "{{ .CommonAnnotations.link }}",
        "text": '{{ template "logstead.text" . }}',
    }


def pagerduty_config(name: str, given: Settings) -> Settings:
    """Return the config of a service that accepts PagerDuty's events."""
    address = {"url": given["url"]} if given.get("url") else {}
    return {
        "routing_key_file": secret_path(name, "pagerduty", "routing_key"),
        **address,
        "send_resolved": True,
        "description": '{{ template "logstead.title" . }}',
        "severity": "{{ or .CommonLabels.severity `critical` }}",
        "client": "logstead",
        "client_url": "{{ .CommonAnnotations.link }}",
        "details": {"alerts": '{{ template "logstead.text" . }}'},
    }


CONFIGS: dict[str, Callable[[str, Settings], Settings]] = {
    "webhook": webhook_config,
    "slack": slack_config,
    "pagerduty": pagerduty_config,
}


def receiver_config(receiver: Receiver) -> Settings:
    """Return one of Alertmanager's receivers."""
    emails = as_list(receiver["email"]) if receiver.get("email") else []
    config: Settings = {"name": receiver["name"]}
    if emails:
        config["email_configs"] = [email_config(address) for address in emails]
    for kind, made in CONFIGS.items():
        if receiver.get(kind):
            config[f"{kind}_configs"] = [made(receiver["name"], receiver[kind])]
    return config


def matcher(label: str, values: object) -> str:
    """Return a matcher for one value of a label, or for any of several."""
    wanted = [str(value) for value in as_list(values)]
    if len(wanted) == 1:
        return f'{label}="{wanted[0]}"'
    return f'{label}=~"{"|".join(re.escape(value) for value in wanted)}"'


def route_config(route: Mapping[str, Any]) -> Settings:
    """Return one of Alertmanager's routes."""
    config: Settings = {"receiver": route["receiver"]}
    if route.get("match"):
        config["matchers"] = [matcher(label, values) for label, values in route["match"].items()]
    if route.get("mute"):
        config["mute_time_intervals"] = as_list(route["mute"])
    return {**config, **({"continue": True} if route.get("continue") else {})}


def smtp_config(smtp: Mapping[str, Any]) -> Settings:
    """Return the settings of the server for e-mail."""
    if not smtp:
        return {}
    config = {
        "smtp_smarthost": smtp["host"],
        "smtp_from": smtp["from"],
        "smtp_require_tls": bool(smtp.get("tls", True)),
    }
    if smtp.get("user"):
        config["smtp_auth_username"] = smtp["user"]
    if smtp.get("password"):
        config["smtp_auth_password_file"] = f"{FOLDER}/smtp.password"
    return config


def alertmanager_config(
    receivers: Sequence[Receiver],
    routes: Sequence[Mapping[str, Any]],
    mute_times: Mapping[str, Any],
    smtp: Mapping[str, Any],
) -> Settings:
    """Return Alertmanager's configuration; without receivers alerts are shown, and no notification is sent.

    Raises:
        AnsibleFilterError: Something in them can't be meant; all of it is named.
    """
    if problems := receiver_problems(receivers, routes, mute_times, smtp):
        raise AnsibleFilterError(" ".join(problems))
    first = receivers[0]["name"] if receivers else NOBODY
    return {
        **({"global": smtp_config(smtp)} if smtp else {}),
        "templates": ["templates/*.tmpl"],
        "route": {
            "receiver": first,
            # One message for what goes wrong in one environment at one time.
            "group_by": ["alertname", "environment"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [route_config(route) for route in routes],
        },
        "receivers": [receiver_config(receiver) for receiver in receivers] or [{"name": NOBODY}],
        "time_intervals": [{"name": name, "time_intervals": times} for name, times in mute_times.items()],
    }


# --- Secrets ---


def alertmanager_secrets(receivers: Iterable[Receiver], smtp: Mapping[str, Any]) -> list[Settings]:
    """Return the files of secrets, as the module systemd_app takes them."""
    found = {
        secret_path(receiver["name"], kind, key): receiver[kind][key]
        for receiver in receivers
        for kind, keys in SECRETS.items()
        for key in keys
        if isinstance(receiver.get(kind), Mapping) and receiver[kind].get(key)
    }
    if smtp.get("password"):
        found[f"{FOLDER}/smtp.password"] = smtp["password"]
    access = {"mode": "0640", "group": "alertmanager", "on_change": "reload"}
    return [{"path": path, "secret": str(secret), **access} for path, secret in found.items()]


# --- Problems ---


def contact_problems(receiver: Receiver) -> Iterator[str]:
    """Find what is wrong with a receiver."""
    contacts = [kind for kind in ("email", *KINDS) if receiver.get(kind)]
    if not contacts:
        yield f"has no integration; it needs one of {', '.join(('email', *KINDS))}"
    for key in sorted(set(receiver) - {"name", "email", *KINDS}):
        yield f"has the unknown key {key}; it has name and some of {', '.join(('email', *KINDS))}"
    for kind in (kind for kind in contacts if kind in KINDS):
        required, optional = KINDS[kind]
        given = receiver[kind]
        if not isinstance(given, Mapping):
            yield f"has a {kind} that is no dict of {', '.join((*required, *optional))}"
            continue
        for key in (key for key in required if not given.get(key)):
            yield f"has a {kind} without {key}"
        for key in sorted(set(given) - {*required, *optional}):
            yield f"has a {kind} with the unknown key {key}; it has {', '.join((*required, *optional))}"
        if given.get("url") and not re.match(r"https?://\S+$", str(given["url"])):
            yield f"has a {kind} whose url is no address that begins with http:// or https://"


def route_problems(routes: Iterable[object], names: Sequence[str], mute_times: Mapping[str, Any]) -> Iterator[str]:
    """Find routes that lead nowhere."""
    for number, route in enumerate(routes, 1):
        if not isinstance(route, Mapping):
            yield f"route {number} is no dict of {', '.join(ROUTE_KEYS)}."
            continue
        for key in sorted(set(route) - set(ROUTE_KEYS)):
            yield f"route {number} has the unknown key {key}; it has {', '.join(ROUTE_KEYS)}."
        if route.get("receiver") not in names:
            yield f"route {number} leads to the unknown receiver {route.get('receiver')}; known are {', '.join(names)}."
        if route.get("match") is not None and not isinstance(route["match"], Mapping):
            yield f"the match of route {number} is no dict of labels and their values."
        for name in as_list(route.get("mute") or []):
            if name not in mute_times:
                yield f"route {number} is muted in {name}, which is none of the mute times ({', '.join(mute_times)})."


def receiver_problems(
    receivers: Sequence[object],
    routes: Sequence[object],
    mute_times: Mapping[str, Any],
    smtp: Mapping[str, Any],
) -> list[str]:
    """Return everything that is wrong with receivers, routes, mute times and the SMTP server, in sentences."""
    problems, names = [], []
    for number, receiver in enumerate(receivers, 1):
        name = str(receiver.get("name") or "") if isinstance(receiver, Mapping) else ""
        if not isinstance(receiver, Mapping) or not NAME.fullmatch(name):
            problems.append(f"receiver {number} has no name of letters, digits, - and _.")
            continue
        if name in names:
            problems.append(f"there is more than one receiver {name}.")
        names.append(name)
        problems += [f"the receiver {name} {problem}." for problem in contact_problems(receiver)]
        if receiver.get("email") and not smtp:
            problems.append(f"the receiver {name} is notified by e-mail, but platform_alert_smtp has no server.")
    if smtp:
        problems += [f"the server for e-mail lacks {key}." for key in ("host", "from") if not smtp.get(key)]
        unknown = sorted(set(smtp) - set(SMTP_KEYS))
        problems += [f"the server for e-mail has the unknown key {key}." for key in unknown]
        if smtp.get("host") and not re.fullmatch(r"\S+:\d+", str(smtp["host"])):
            problems.append("the server for e-mail has a host without a port, such as smtp.example.org:587.")
    return problems + list(route_problems(routes, names, mute_times))


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"alertmanager_config": alertmanager_config, "alertmanager_secrets": alertmanager_secrets}
