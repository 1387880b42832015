#!/usr/bin/python
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""Ansible module: have Grafana let its administrator in, show what it was given, know people, and tell of alerts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logstead.platform.plugins.module_utils.grafana_alerting import converge_alerting
from ansible_collections.logstead.platform.plugins.module_utils.grafana_client import Grafana, GrafanaError
from ansible_collections.logstead.platform.plugins.module_utils.grafana_provisioned import converge_provisioned

DOCUMENTATION = r"""
module: grafana_org
short_description: Have Grafana let its administrator in, show what it was given, know people, and tell of alerts
description:
  - Grafana says that it is healthy before it has read what it is provisioned with, and ends a moment later if it
    can't. So this module waits until the administrator finds the data source and the dashboards.
  - Grafana reads the password of its settings only when it makes its database. If the log-in is refused, this module
    sets the password by Grafana's own command line, which reads it from its standard input.
  - Grafana keeps a folder whose dashboards it is no longer provisioned with. This module removes it when it is one of
    ours (C(logstead-…)) that nobody has put anything into.
  - It talks to Grafana's HTTP API as the administrator, in the organization that the administrator is in.
  - Whom it has made, it remembers in a file. Who is in that file and no longer listed is disabled, and can be enabled
    again with everything that is theirs. Accounts that it hasn't made are left alone.
  - Where alerts are given, it keeps rules, contact points, times, texts and the tree of policies in step, each query
    having been answered once before. What is ours and no longer given goes; the tree then is Grafana's own again.
options:
  url: {description: Address of Grafana., type: str, required: true}
  user: {description: Log-in name of the administrator., type: str, required: true}
  password: {description: The administrator's password., type: str, required: true}
  command:
    description: Command line of C(grafana cli) up to its subcommand, as the user that owns Grafana's database.
    type: str
    required: true
  timeout: {description: "How long to wait for an answer, in seconds.", type: int, default: 60}
  datasource: {description: The uid of the data source., type: str, required: true}
  dashboards: {description: The uids of the dashboards., type: list, elements: str, default: []}
  folders: {description: The uids of the folders that there are to be., type: list, elements: str, default: []}
  name: {description: Name of the organization., type: str}
  preferences:
    description: The organization's preferences; what isn't set stays.
    type: dict
    default: {}
    suboptions:
      theme: {description: C(light), C(dark) or C(system)., type: str}
      timezone: {description: "C(utc), C(browser), or a time zone's name.", type: str}
      week_start: {description: First day of the week., type: str}
      home_dashboard: {description: The uid of a dashboard., type: str}
  users:
    description: People with an account of their own.
    type: list
    elements: dict
    default: []
    suboptions:
      login: {description: Log-in name., type: str, required: true}
      email: {description: Address., type: str}
      name: {description: Name that is shown., type: str, default: ""}
      role: {description: Role in the organization., type: str, choices: [viewer, editor, admin], default: viewer}
      password: {description: Password., type: str, required: true}
  service_accounts:
    description: Accounts for programs.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      role: {description: Role in the organization., type: str, choices: [viewer, editor, admin], default: viewer}
      token_file: {description: File for a token., type: path}
  alerting:
    description: Grafana's alerts, as the filter C(to_grafana_alerting) makes them; empty if there are to be none.
    type: dict
    suboptions:
      groups:
        description: Groups of rules, each with C(name), C(interval) (seconds) and C(rules).
        type: list
        elements: dict
      contact_points:
        description: How people and programs are told.
        type: list
        elements: dict
        suboptions:
          uid: {description: Its uid., type: str, required: true}
          name: {description: Whom it is for., type: str, required: true}
          type: {description: "Kind, such as C(email).", type: str, required: true}
          settings: {description: Settings of its kind., type: dict, required: true}
          secrets: {description: Further settings that must not be shown., type: dict}
      policy: {description: The tree of policies., type: dict}
      mute_times:
        description: Times in which routes are silent, each with C(name) and C(time_intervals).
        type: list
        elements: dict
      template: {description: "Texts that people are told, by C(define).", type: str}
  memory:
    description: File in which it remembers whom it has made, and whether there are alerts.
    type: path
    required: true
author: [logstead contributors]
"""

RETURN = r"""
done: {description: "What was done, or would be in check mode.", type: list, elements: str, returned: always}
"""

PREFERENCES = {
    "theme": "theme",
    "timezone": "timezone",
    "week_start": "weekStart",
    "home_dashboard": "homeDashboardUID",
}
TOKEN_NAME = "logstead-"  # noqa: S105 - the beginning of a name


def converge_organization(grafana: Grafana, name: str | None, preferences: dict[str, Any]) -> int:
    """Have the organization's name and preferences as wanted; return its id."""
    organization = grafana.get("/api/org")
    if name and organization["name"] != name:
        grafana.do("named the organization", "PUT", "/api/org", {"name": name})
    wanted = {PREFERENCES[key]: value for key, value in preferences.items() if value is not None}
    present = grafana.get("/api/org/preferences") if wanted else {}
    changed = {key: value for key, value in wanted.items() if present.get(key, "") != value}
    if changed:
        grafana.do(f"set {', '.join(sorted(changed))}", "PATCH", "/api/org/preferences", changed)
    return int(organization["id"])


def converge_user(grafana: Grafana, wanted: dict[str, Any], organization: int) -> None:
    """Have one person's account as wanted, in the organization with this id."""
    login, role = wanted["login"], wanted["role"].capitalize()
    shown = {"login": login, "name": wanted["name"], "email": wanted["email"] or f"{login}@localhost"}
    found = grafana.get(f"/api/users/lookup?loginOrEmail={quote(login)}", missing={})
    if not found:
        made = grafana.do(
            f"made the user {login}", "POST", "/api/admin/users", {**shown, "password": wanted["password"]}
        )
        found = {"id": made.get("id"), **shown}
        if grafana.check_mode:
            return
    if found.get("isDisabled"):
        grafana.do(f"enabled the user {login}", "POST", f"/api/admin/users/{found['id']}/enable", {})
    if any(found.get(key, "") != value for key, value in shown.items()):
        grafana.do(f"changed the user {login}", "PUT", f"/api/users/{found['id']}", shown)
    roles = {it["orgId"]: it["role"] for it in grafana.get(f"/api/users/{found['id']}/orgs")}
    if organization not in roles:
        body = {"loginOrEmail": login, "role": role}
        grafana.do(f"took the user {login} in as {role}", "POST", "/api/org/users", body)
    elif roles[organization] != role:
        grafana.do(f"made the user {login} {role}", "PATCH", f"/api/org/users/{found['id']}", {"role": role})
    # Whoever comes by LDAP or OAuth has the password there. In check mode, who is disabled can't be asked.
    if found.get("isExternal") or (found.get("isDisabled") and grafana.check_mode):
        return
    if not grafana.lets_in(url_username=login, url_password=wanted["password"], force_basic_auth=True):
        path = f"/api/admin/users/{found['id']}/password"
        grafana.do(f"set the password of the user {login}", "PUT", path, {"password": wanted["password"]})


def converge_token(grafana: Grafana, name: str, ident: int | None, path: Path) -> None:
    """Have a token of a service account that works in a file."""
    token = path.read_text().strip() if path.is_file() else ""
    if token and grafana.lets_in(headers={"Authorization": f"Bearer {token}"}):
        return
    tokens = f"/api/serviceaccounts/{ident}/tokens"
    # Those that were lost should not stay valid.
    for old in grafana.get(tokens) if ident else []:
        if old["name"].startswith(TOKEN_NAME):
            grafana.do(f"withdrew a token of {name}", "DELETE", f"{tokens}/{old['id']}", None)
    made = grafana.do(f"made a token of {name}", "POST", tokens, {"name": f"{TOKEN_NAME}{time.time_ns()}"})
    if not grafana.check_mode:
        write(path, made["key"] + "\n")


def converge_service_account(grafana: Grafana, wanted: dict[str, Any], present: dict[str, Any]) -> None:
    """Have one service account as wanted; `present` has all by name."""
    name, role = wanted["name"], wanted["role"].capitalize()
    body = {"name": name, "role": role, "isDisabled": False}
    found = present.get(name)
    if found is None:
        found = grafana.do(f"made the service account {name}", "POST", "/api/serviceaccounts", body)
    elif found["role"] != role or found["isDisabled"]:
        grafana.do(f"changed the service account {name}", "PATCH", f"/api/serviceaccounts/{found['id']}", body)
    if wanted["token_file"]:
        converge_token(grafana, name, found.get("id"), Path(wanted["token_file"]))


def write(path: Path, text: str) -> None:
    """Write a file for root alone, whole or not at all."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)


def recall(path: Path) -> dict[str, Any]:
    """Return whom this module has made before, and whether it has made alerts."""
    known: dict[str, Any] = {"users": [], "service_accounts": [], "alerting": False}
    if path.is_file():
        known.update(json.loads(path.read_text()))
    return known


def remember(grafana: Grafana, path: Path, users: set[str], accounts: set[str], alerting: bool) -> None:
    """Keep in mind whom this module has made, and whether it has made alerts."""
    known = {"users": sorted(users), "service_accounts": sorted(accounts), "alerting": alerting}
    if known != recall(path) and not grafana.check_mode:
        write(path, json.dumps(known, indent=2) + "\n")


def converge(grafana: Grafana, parameters: dict[str, Any]) -> None:
    """Have everything as it is listed."""
    memory = Path(parameters["memory"])
    known = recall(memory)
    users = {user["login"]: user for user in parameters["users"]}
    accounts = {account["name"]: account for account in parameters["service_accounts"]}
    alerting = parameters["alerting"] or {}
    has_alerts = bool(alerting.get("policy"))
    # First, as an interrupted run has made somebody maybe.
    remember(
        grafana,
        memory,
        set(known["users"]) | set(users),
        set(known["service_accounts"]) | set(accounts),
        known["alerting"] or has_alerts,
    )

    organization = converge_organization(grafana, parameters["name"], parameters["preferences"])
    for user in users.values():
        converge_user(grafana, user, organization)
    for login in sorted(set(known["users"]) - set(users)):
        found = grafana.get(f"/api/users/lookup?loginOrEmail={quote(login)}", missing={})
        if found and not found.get("isDisabled"):
            grafana.do(f"disabled the user {login}", "POST", f"/api/admin/users/{found['id']}/disable", {})

    if accounts or known["service_accounts"]:
        found = grafana.get("/api/serviceaccounts/search?perpage=1000")["serviceAccounts"]
        present = {account["name"]: account for account in found}
        for account in accounts.values():
            converge_service_account(grafana, account, present)
        for name in sorted(set(known["service_accounts"]) - set(accounts)):
            if name in present and not present[name]["isDisabled"]:
                path = f"/api/serviceaccounts/{present[name]['id']}"
                grafana.do(f"disabled the service account {name}", "PATCH", path, {"isDisabled": True})
    # Others' alerts are left alone where there have never been any of ours.
    if has_alerts or known["alerting"]:
        converge_alerting(grafana, alerting)
    remember(grafana, memory, set(users), set(accounts), has_alerts)


def foresee(grafana: Grafana, parameters: dict[str, Any]) -> None:
    """Find what a run would do. There may be no Grafana yet, or it can't be asked as its password is another."""
    status = grafana.ask("/api/org")[0]
    if status == 401:
        grafana.done.append("set the administrator's password")
    elif status == 200:
        converge(grafana, parameters)


def main() -> None:
    """Run the module."""
    role = {"type": "str", "choices": ["viewer", "editor", "admin"], "default": "viewer"}
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "command": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 60},
            "datasource": {"type": "str", "required": True},
            "dashboards": {"type": "list", "elements": "str", "default": []},
            "folders": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str"},
            "preferences": {
                "type": "dict",
                "default": {},
                "options": {name: {"type": "str"} for name in PREFERENCES},
            },
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "login": {"type": "str", "required": True},
                    "email": {"type": "str"},
                    "name": {"type": "str", "default": ""},
                    "role": role,
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
            "service_accounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "role": role,
                    "token_file": {"type": "path", "no_log": False},
                },
            },
            "alerting": {
                "type": "dict",
                "options": {
                    "groups": {"type": "list", "elements": "dict"},
                    "contact_points": {
                        "type": "list",
                        "elements": "dict",
                        "options": {
                            "uid": {"type": "str", "required": True},
                            "name": {"type": "str", "required": True},
                            "type": {"type": "str", "required": True},
                            "settings": {"type": "dict", "required": True},
                            "secrets": {"type": "dict", "no_log": True},
                        },
                    },
                    "policy": {"type": "dict"},
                    "mute_times": {"type": "list", "elements": "dict"},
                    "template": {"type": "str"},
                },
            },
            "memory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    grafana = Grafana(parameters["url"], parameters["user"], parameters["password"], module.check_mode)
    try:
        if module.check_mode:
            foresee(grafana, parameters)
        else:
            converge_provisioned(grafana, parameters)
            converge(grafana, parameters)
    except (GrafanaError, OSError) as error:
        module.fail_json(msg=str(error), done=grafana.done)
    module.exit_json(changed=bool(grafana.done), done=grafana.done)


if __name__ == "__main__":
    main()
