# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
"""The part of the module grafana_org that keeps Grafana's alerts in step.

By its provisioning API: a contact point in a file that Grafana doesn't like keeps it from starting, and what is taken
out of a file stays. What is made so can't be changed by hand, as Grafana shows it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ansible_collections.logstead.platform.plugins.module_utils.grafana_client import Grafana, GrafanaError

API = "/api/v1/provisioning"
FOLDER = "logstead-alerts"
# What is ours among what others have made begins so.
OURS = "logstead-"
TEMPLATE = "logstead"
# Where each data source takes a query; it is refused with 400.
QUERY_PATHS = {"loki": "/loki/api/v1/query", "prometheus": "/api/v1/query"}

Json = dict[str, Any]


def is_in(wanted: Any, present: Any) -> bool:
    """Tell whether everything that is wanted is there, whatever Grafana has added to it."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(is_in(value, present.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        is_as_long = isinstance(present, list) and len(wanted) == len(present)
        return is_as_long and all(is_in(*pair) for pair in zip(wanted, present))
    return bool(wanted == present)


def check_queries(grafana: Grafana, rules: list[Json]) -> None:
    """Have each query answered once: Grafana takes any, and would find out only when it evaluates the rule."""
    problems = []
    for rule in rules:
        asked = rule["data"][0]
        path = QUERY_PATHS.get(asked["datasourceUid"], "")
        proxy = f"/api/datasources/proxy/uid/{asked['datasourceUid']}{path}"
        status, answer = grafana.ask(f"{proxy}?query={quote(asked['model']['expr'])}")
        is_refused = status == 400 and "Authentication to data source failed" not in str(answer)
        if path and is_refused:
            problems.append(f"the rule {rule['title']} is refused by {asked['datasourceUid']}: {str(answer).strip()}")
    if problems:
        raise GrafanaError(f"No alert was changed. {'; '.join(problems)}")


def converge_mute_times(grafana: Grafana, wanted: list[Json], present: dict[str, Json]) -> None:
    """Have the times in which routes are silent."""
    for times in wanted:
        name = times["name"]
        if name not in present:
            grafana.do(f"made the times {name}", "POST", f"{API}/mute-timings", times)
        elif not is_in(times, present[name]):
            grafana.do(f"changed the times {name}", "PUT", f"{API}/mute-timings/{quote(name)}", times)


def converge_template(grafana: Grafana, wanted: str) -> None:
    """Reconcile the notification template."""
    present = {it["name"]: it["template"] for it in grafana.get(f"{API}/templates") or []}
    if present.get(TEMPLATE, "").strip() != wanted.strip():
        grafana.do("set the notification template", "PUT", f"{API}/templates/{TEMPLATE}", {"template": wanted})


def present_points(grafana: Grafana) -> dict[str, Json]:
    """Return Grafana's contact points that are ours, with their secrets, by uid."""
    exported = grafana.get(f"{API}/contact-points/export?decrypt=true&format=json")
    return {
        point["uid"]: {**point, "name": receiver["name"]}
        for receiver in exported.get("contactPoints") or []
        for point in receiver["receivers"]
        if point["uid"].startswith(OURS)
    }


def converge_points(grafana: Grafana, wanted: list[Json], present: dict[str, Json]) -> None:
    """Have the contact points; of what is retired, such as a token, nothing is left."""
    for point in wanted:
        body = {key: point[key] for key in ("uid", "name", "type")}
        body["settings"] = {**point["settings"], **(point["secrets"] or {})}
        what = f"the contact point {point['name']} ({point['type']})"
        found = present.get(point["uid"])
        if found is None:
            grafana.do(f"made {what}", "POST", f"{API}/contact-points", body)
        elif not is_in(body, found) or set(found["settings"]) - set(body["settings"]):
            grafana.do(f"changed {what}", "PUT", f"{API}/contact-points/{point['uid']}", body)


def converge_policy(grafana: Grafana, wanted: Json) -> None:
    """Have the tree of policies, which is one for all of Grafana."""
    present = {key: value for key, value in grafana.get(f"{API}/policies").items() if key != "provenance"}
    if present != wanted:
        grafana.do("set the notification policy", "PUT", f"{API}/policies", wanted)


def converge_rules(grafana: Grafana, wanted: list[Json], present: dict[str, Json]) -> None:
    """Have the rules of each group whose rules aren't as they should be."""
    for group in wanted:
        path = f"{API}/folder/{FOLDER}/rule-groups/{quote(group['name'])}"
        body = {"title": group["name"], "folderUid": FOLDER, "interval": group["interval"], "rules": group["rules"]}
        changed = [rule["title"] for rule in changed_rules([group], present)]
        if changed:
            grafana.do(f"set the rules {', '.join(changed)}", "PUT", path, body)


def changed_rules(groups: list[Json], present: dict[str, Json]) -> list[Json]:
    """Return the rules that aren't there as they should be."""
    return [
        rule
        for group in groups
        for rule in group["rules"]
        if not is_in({**rule, "ruleGroup": group["name"]}, present.get(rule["uid"]))
    ]


def remove(grafana: Grafana, kind: str, path: str, present: dict[str, Json], kept: set[str]) -> None:
    """Remove what is ours and no longer wanted, given by uid or name."""
    for key in sorted(key for key in set(present) - kept if key.startswith(OURS)):
        name = present[key].get("title") or present[key]["name"]
        grafana.do(f"removed the {kind} {name}", "DELETE", f"{API}/{path}/{quote(key)}", None)


def remove_shared(grafana: Grafana) -> None:
    """Have the tree of policies that Grafana begins with, which makes what was in ours free to go."""
    grafana.do("removed the notification policy", "DELETE", f"{API}/policies", None)
    grafana.do("removed the notification template", "DELETE", f"{API}/templates/{TEMPLATE}", None)
    # Somebody else's rules may be in the folder; then Grafana refuses.
    if not grafana.check_mode and grafana.ask(f"/api/folders/{FOLDER}", "DELETE")[0] == 200:
        grafana.done.append("removed the folder Alerts")


def converge_alerting(grafana: Grafana, wanted: Json) -> None:
    """Have Grafana's alerts as wanted, or none of ours where nothing is.

    Each step leaves behind what works: receivers are there before the rules that notify them, and what is no longer
    used goes after what used it.

    Raises:
        GrafanaError: Something was refused; what was in force before goes on.
    """
    groups, points = wanted.get("groups") or [], wanted.get("contact_points") or []
    mutes = wanted.get("mute_times") or []
    rules = {it["uid"]: it for it in grafana.get(f"{API}/alert-rules") if it["folderUID"] == FOLDER}
    check_queries(grafana, changed_rules(groups, rules))
    known_points = present_points(grafana)
    known_mutes = {it["name"]: it for it in grafana.get(f"{API}/mute-timings") or []}

    if wanted.get("policy"):
        if FOLDER not in {it["uid"] for it in grafana.get("/api/folders?limit=1000")}:
            grafana.do("made the folder Alerts", "POST", "/api/folders", {"uid": FOLDER, "title": "Alerts"})
        converge_mute_times(grafana, mutes, known_mutes)
        converge_template(grafana, wanted["template"])
        converge_points(grafana, points, known_points)
        converge_policy(grafana, wanted["policy"])
        converge_rules(grafana, groups, rules)
    remove(grafana, "rule", "alert-rules", rules, {rule["uid"] for group in groups for rule in group["rules"]})
    if not wanted.get("policy"):
        remove_shared(grafana)
    remove(grafana, "contact point", "contact-points", known_points, {point["uid"] for point in points})
    remove(grafana, "times", "mute-timings", known_mutes, {times["name"] for times in mutes})
