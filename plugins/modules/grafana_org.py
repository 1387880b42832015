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
version_added: 1.0.0
short_description: Reconcile Grafana's organization, accounts and alerting, once its provisioning is complete
description:
  - Waits until the administrator can log in and finds the data source, folders and dashboards. Grafana reports itself
    as healthy before it has read its provisioning files, and exits a moment later if they are invalid.
  - Resets the administrator's password with Grafana's command line if the login is refused, because Grafana reads
    C(admin_password) only when it creates its database. The password is passed on the standard input.
  - Removes folders of this collection (C(logstead-…)) that are no longer provisioned and that hold nothing. Grafana
    itself keeps them.
  - Works through Grafana's HTTP API as the administrator, in the administrator's current organization.
  - Records the accounts it has created in O(memory). An account in that file that is no longer listed is disabled, and
    enabled again with all its contents once it is listed again. Other accounts are left alone.
  - Reconciles the alert rules, contact points, mute timings, the message template and the notification policy tree in
    O(alerting), after each query has been evaluated once. Objects of this collection that are no longer listed are
    removed, and the policy tree is reset to Grafana's default when no alerting is left.
attributes:
  check_mode:
    description: Can run in check mode and return what it would return otherwise, without changing the host.
    support: partial
    details:
      - While Grafana doesn't answer nothing is predicted, and while it refuses the login only a new password.
      - Provisioning isn't waited for, obsolete folders aren't reported, and the password of a disabled user isn't
        verified.
  diff_mode:
    description: Returns the differences between before and after in diff mode.
    support: none
options:
  url:
    description: URL of Grafana.
    type: str
    required: true
  user:
    description: Login name of the administrator.
    type: str
    required: true
  password:
    description: Password of the administrator.
    type: str
    required: true
  command:
    description: Command line of C(grafana cli), without a subcommand, run as the user that owns Grafana's database.
    type: str
    required: true
  timeout:
    description: How long to wait for Grafana and its provisioning, in seconds.
    type: int
    default: 60
  datasource:
    description: The uid of the data source that has to be there.
    type: str
    required: true
  dashboards:
    description: The uids of the dashboards that have to be there.
    type: list
    elements: str
    default: []
  folders:
    description: The uids of the folders that are provisioned.
    type: list
    elements: str
    default: []
  name:
    description: Name of the organization. Left alone if it isn't set.
    type: str
  preferences:
    description: Preferences of the organization. Those that aren't set are left alone.
    type: dict
    default: {}
    suboptions:
      theme:
        description: C(light), C(dark) or C(system).
        type: str
      timezone:
        description: C(utc), C(browser), or the name of a time zone.
        type: str
      week_start:
        description: First day of the week, such as C(monday).
        type: str
      home_dashboard:
        description: The uid of the dashboard to start with.
        type: str
  users:
    description: User accounts.
    type: list
    elements: dict
    default: []
    suboptions:
      login:
        description: Login name.
        type: str
        required: true
      email:
        description: E-mail address. The default is C(LOGIN@localhost).
        type: str
      name:
        description: Display name.
        type: str
        default: ""
      role:
        description: Role in the organization.
        type: str
        choices: [viewer, editor, admin]
        default: viewer
      password:
        description: Password. It isn't set for users who log in by LDAP or OAuth.
        type: str
        required: true
  service_accounts:
    description: Service accounts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service account.
        type: str
        required: true
      role:
        description: Role in the organization.
        type: str
        choices: [viewer, editor, admin]
        default: viewer
      token_file:
        description:
          - File on the host for a token of the account, readable by root alone. A new token is issued if the file has
            none that is valid, and earlier ones of this module are revoked.
        type: path
  alerting:
    description:
      - Grafana's alerting, as the filter P(logstead.platform.to_grafana_alerting#filter) returns it. Empty for none.
    type: dict
    suboptions:
      groups:
        description: Rule groups, each with C(name), C(interval) in seconds and C(rules).
        type: list
        elements: dict
      contact_points:
        description: Contact points.
        type: list
        elements: dict
        suboptions:
          uid:
            description: The uid of the contact point.
            type: str
            required: true
          name:
            description: Name of the receiver it belongs to.
            type: str
            required: true
          type:
            description: Type of the contact point, such as C(email).
            type: str
            required: true
          settings:
            description: Settings of the type.
            type: dict
            required: true
          secrets:
            description: Further settings of the type that are secret.
            type: dict
      policy:
        description: The notification policy tree.
        type: dict
      mute_times:
        description: Mute timings, each with C(name) and C(time_intervals).
        type: list
        elements: dict
      template:
        description: Notification template with C(define) blocks.
        type: str
  memory:
    description: File on the host that records the accounts this module has created, and whether it manages alerting.
    type: path
    required: true
author: ["logstead contributors (@logstead)"]
"""

EXAMPLES = r"""
- name: Wait for Grafana's provisioning, and reconcile its accounts
  logstead.platform.grafana_org:
    url: http://127.0.0.1:3000
    user: admin
    password: "{{ grafana_admin_password }}"
    command: runuser -u grafana -- /opt/grafana/current/bin/grafana cli --homepath /opt/grafana/current
    datasource: loki
    dashboards: [overview]
    name: Example
    preferences: {theme: dark, timezone: utc}
    users:
      - {login: ada, email: ada@example.org, role: editor, password: "{{ vault_ada_password }}"}
    service_accounts:
      - {name: ci, role: viewer, token_file: /etc/grafana/ci.token}
    memory: /etc/grafana/accounts.json
"""

RETURN = r"""
done:
  description: What was changed, or would be changed in check mode, in order.
  type: list
  elements: str
  returned: always
  sample: [made the user ada, took the user ada in as Editor]
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
