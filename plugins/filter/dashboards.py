"""Jinja filters that turn `grafana_dashboards` into the files that Grafana is provisioned with.

The role's own dashboards are in files/dashboards; one of them is the template for other applications. What would not
work is refused here, on the controller: Grafana itself passes over a broken file, and says so in its log alone.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.logstead.platform.plugins.plugin_utils.noise import noise_filter

Json = dict[str, Any]

# The dashboards that come with the role.
OWN_DASHBOARDS = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"
OWN_FOLDER = "Log platform"
DEFAULT_FOLDER = "Applications"
TEMPLATE = "fastapi.json"
TEMPLATE_KEYS = {"title", "job", "uid", "folder", "panels"}
FILE_KEYS = {"file", "folder"}
PANEL_KEYS = {"title", "expr", "type", "unit", "description", "legend"}
# What a panel of the template looks like that shows the same kind of thing.
PANEL_TYPES = {
    "timeseries": "Request rate by status",
    "stat": "Requests per second",
    "bargauge": "Top endpoints",
    "logs": "Live stream",
}
SMALL = {"stat"}
UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
# Grafana's own, which aren't provisioned.
BUILT_IN_DATASOURCES = {"-- Grafana --", "-- Mixed --", "-- Dashboard --", "grafana", "__expr__"}
VARIABLE = re.compile(r"\$\{?(\w+)")
# How legends name the host.
ON_HOST = " on {{host}}"
# Logs Drilldown, a plugin. Grafana installs it unless that is disabled.
DRILLDOWN = "/a/grafana-lokiexplore-app/explore"


class DashboardError(Exception):
    """Says what is wrong with an entry, and what to do."""


def slug(text: str) -> str:
    """Return a text as a part of a uid or a path."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def panels_in(dashboard: Mapping[str, Any]) -> Iterator[Json]:
    """Yield every panel, those of collapsed rows as well."""
    for panel in dashboard.get("panels") or []:
        yield panel
        yield from panel.get("panels") or []


def datasources_in(node: Any) -> Iterator[Any]:
    """Yield every reference to a data source, however deep."""
    if isinstance(node, Mapping):
        if "datasource" in node:
            yield node["datasource"]
        for value in node.values():
            yield from datasources_in(value)
    elif isinstance(node, list):
        for element in node:
            yield from datasources_in(element)


def unknown_datasources(node: Any, dashboard: Json, known: set[str]) -> set[str]:
    """Return the uids of data sources that are referred to and that there aren't."""
    variables = {
        variable.get("name")
        for variable in (dashboard.get("templating") or {}).get("list") or []
        if variable.get("type") == "datasource"
    }
    unknown = set()
    for reference in datasources_in(node):
        uid = reference.get("uid") if isinstance(reference, Mapping) else reference
        named = VARIABLE.match(str(uid or ""))
        if not uid or uid in known or uid in BUILT_IN_DATASOURCES or (named and named[1] in variables):
            continue
        unknown.add(str(uid))
    return unknown


def remove_unusable_panels(dashboard: Json, known: set[str]) -> Json:
    """Return a dashboard of ours without what needs a data source that there isn't, and without empty rows."""
    kept: list[Json] = []
    for panel in dashboard["panels"]:
        if unknown_datasources(panel, dashboard, known):
            continue
        if panel["type"] == "row" and kept and kept[-1]["type"] == "row":
            kept.pop()
        kept.append(panel)
    if kept and kept[-1]["type"] == "row":
        kept.pop()
    events = (dashboard.get("annotations") or {}).get("list") or []
    usable = [event for event in events if not unknown_datasources(event, dashboard, known)]
    return {**dashboard, "panels": kept, **({"annotations": {"list": usable}} if events else {})}


def read_own_dashboards(folder: Path, known: set[str]) -> list[Json]:
    """Return the role's dashboards that show something with the data sources that there are."""
    found = [remove_unusable_panels(json.loads(path.read_text()), known) for path in sorted(folder.glob("*.json"))]
    return [dashboard for dashboard in found if dashboard["panels"]]


def fit_to_site(
    dashboard: Json, *, noise: Mapping[str, Any] | None = None, single_host: bool = False, drilldown: bool = False
) -> Json:
    """Return a dashboard of ours with what only the inventory tells.

    Args:
        dashboard: The dashboard.
        noise: Known noise by name, which is left out of counts of errors.
        single_host: Whether there is one host only, so that legends need not name it.
        drilldown: Whether Grafana has Logs Drilldown, which is linked.
    """
    fitted = copy.deepcopy(dashboard)
    for variable in fitted["templating"]["list"]:
        if variable["name"] == "noise":
            variable["query"] = noise_filter(noise or {})
    if not drilldown:
        fitted["links"] = [link for link in fitted["links"] if link["url"] != DRILLDOWN]
    for panel in panels_in(fitted) if single_host else ():
        for target in panel.get("targets") or []:
            if legend := target.get("legendFormat"):
                target["legendFormat"] = legend.replace(ON_HOST, "")
        defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
        if name := defaults.get("displayName"):
            defaults["displayName"] = name.replace(bar_name(ON_HOST), "")
    return fitted


def read_file(path: Path, known: set[str]) -> Json:
    """Return the dashboard of a user's file.

    Raises:
        DashboardError: Grafana would not show it, or show it without data.
    """
    try:
        dashboard = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DashboardError(f"{path} can't be read: {error}") from error
    except ValueError as error:
        raise DashboardError(f"{path} is no JSON: {error}") from error
    if not isinstance(dashboard, dict) or "panels" not in dashboard:
        raise DashboardError(
            f"{path} is no dashboard in Grafana's classic JSON, which has panels; "
            "export it as JSON with the model Classic"
        )
    if "__inputs" in dashboard:
        raise DashboardError(f"{path} was exported for sharing (it has __inputs); export it without that")
    if not str(dashboard.get("title") or "").strip():
        raise DashboardError(f"{path} has no title")
    if not UID.fullmatch(str(dashboard.get("uid") or "")):
        raise DashboardError(
            f"{path} has the uid {dashboard.get('uid')!r}; "
            "give it one of 1 to 40 letters, digits, - and _, so that links to it last"
        )
    if unknown := unknown_datasources(dashboard, dashboard, known):
        raise DashboardError(
            f"{path} asks the unknown data source {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}. "
            "Add it to grafana_datasources, or change the dashboard"
        )
    # The number in another Grafana's database.
    return {**dashboard, "id": None}


def bar_name(legend: str) -> str:
    """Return what a bar is called by a legend such as `{{host}}`: it is a row of a table whose columns are labels."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", r"${__data.fields.\1}", legend)


def extra_panel(template: Json, entry: Any, number: int) -> Json:
    """Return a panel that looks like the template's and asks something else."""
    if not isinstance(entry, Mapping) or not {"title", "expr"} <= set(entry) or set(entry) - PANEL_KEYS:
        raise DashboardError(
            f"the panel {entry!r} has title and expr, and may have {', '.join(sorted(PANEL_KEYS - {'title', 'expr'}))}"
        )
    kind = entry.get("type", "timeseries")
    if kind not in PANEL_TYPES:
        raise DashboardError(f"the panel {entry['title']} has the type {kind!r}; it is one of {', '.join(PANEL_TYPES)}")
    panel: Json = copy.deepcopy(next(it for it in panels_in(template) if it["title"] == PANEL_TYPES[kind]))
    (target,) = panel["targets"]
    panel.update(id=number, title=str(entry["title"]), description=str(entry.get("description", "")))
    target.update(expr=str(entry["expr"]), legendFormat=str(entry.get("legend", "")))
    defaults = panel["fieldConfig"]["defaults"]
    defaults.pop("noValue", None)  # what the template's panel says when it is empty
    if kind != "logs":
        defaults["unit"] = str(entry.get("unit", "short"))
    if kind == "stat":
        target["queryType"] = "instant"
    if kind == "bargauge":
        defaults["displayName"] = bar_name(target["legendFormat"])
    return panel


def fill_template(template: Json, entry: Mapping[str, Any]) -> Json:
    """Return the dashboard of an application, with its extra panels at the end."""
    dashboard = copy.deepcopy(template)
    title, job = str(entry["title"]), str(entry["job"])
    uid = str(entry.get("uid") or f"app-{slug(job)}")
    if not UID.fullmatch(uid):
        raise DashboardError(f"{title} has the uid {uid!r}; a uid has 1 to 40 letters, digits, - and _")
    dashboard.update(uid=uid, title=title, description=f"Requests, errors and lines of {title}, from its log alone.")
    for variable in dashboard["templating"]["list"]:
        if variable["name"] == "job":
            variable["query"] = job
    # Is it up? That is asked of the demo app alone.
    dashboard["panels"] = [panel for panel in dashboard["panels"] if "demo_app" not in json.dumps(panel)]
    panels = dashboard["panels"]
    first = max(panel["id"] for panel in panels) + 1
    y = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    x = row_height = 0
    extra = entry.get("panels") or []
    if extra:
        panels.append(
            {"id": first, "type": "row", "title": title, "collapsed": False, "panels": []}
            | {"gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
        )
        y += 1
    for number, wanted in enumerate(extra, start=first + 1):
        panel = extra_panel(template, wanted, number)
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > 24:
            x, y, row_height = 0, y + row_height, 0
        panel["gridPos"] = {"h": height, "w": width, "x": x, "y": y}
        x, row_height = x + width, max(row_height, height)
        panels.append(panel)
    return dashboard


def build_dashboard(entry: Any, template: Json, known: set[str], base: Path) -> tuple[str, Json]:
    """Return the folder's title and the dashboard of one entry of `grafana_dashboards`."""
    if isinstance(entry, Mapping) and "file" in entry and not set(entry) - FILE_KEYS:
        dashboard = read_file(base / str(entry["file"]), known)
    elif isinstance(entry, Mapping) and {"title", "job"} <= set(entry) <= TEMPLATE_KEYS:
        dashboard = fill_template(template, entry)
    else:
        raise DashboardError(
            f"{entry!r} is neither a dashboard made from the template "
            "(title and job, and maybe uid, folder and panels) nor one of yours (file, and maybe folder)"
        )
    folder = str(entry.get("folder", DEFAULT_FOLDER)).strip()
    if not slug(folder):
        raise DashboardError(f"{entry!r} has the folder {folder!r}; a folder's name has letters or digits")
    return folder, remove_unusable_panels(dashboard, known) if "job" in entry else dashboard


def conflict_of(folder: str, dashboard: Json, others: Sequence[tuple[str, Json]]) -> str:
    """Return what a dashboard has in common with another one that Grafana takes once; empty if nothing."""
    for at, other in others:
        for what in ("uid", "title"):
            if other[what] == dashboard[what] and (what == "uid" or at == folder):
                return (
                    f"{dashboard['title']} has the {what} {dashboard[what]}, which {other['title']} has already; "
                    "give each its own"
                )
        if slug(at) == slug(folder) and at != folder:
            return f"the folder {folder} is too much like {at}; write both alike"
    return ""


def collect_dashboards(
    entries: Sequence[Any], datasources: Sequence[str], base: Path, fit: Callable[[Json], Json] = copy.deepcopy
) -> tuple[list[tuple[str, Json]], list[str]]:
    """Return all dashboards, each with its folder's title, and what is wrong with the entries. `fit` changes ours."""
    known = set(datasources)
    found = [(OWN_FOLDER, fit(dashboard)) for dashboard in read_own_dashboards(OWN_DASHBOARDS, known)]
    template = fit(json.loads((OWN_DASHBOARDS / TEMPLATE).read_text()))
    problems = []
    for entry in entries:
        try:
            folder, dashboard = build_dashboard(entry, template, known, base)
        except DashboardError as error:
            problems.append(f"grafana_dashboards: {error}.")
            continue
        if conflict := conflict_of(folder, dashboard, found):
            problems.append(f"grafana_dashboards: {conflict}.")
            continue
        found.append((folder, dashboard))
    return found, problems


def dashboard_problems(entries: Sequence[Any], datasources: Sequence[str], base: str | Path = ".") -> list[str]:
    """Return what is wrong with `grafana_dashboards`: sentences that say what to do.

    Args:
        entries: The variable.
        datasources: Uids of the data sources that there are.
        base: Folder that relative paths start from.
    """
    return collect_dashboards(entries, datasources, Path(base))[1]


def dashboards(
    entries: Sequence[Any],
    datasources: Sequence[str],
    base: str | Path = ".",
    site: Mapping[str, Any] | None = None,
) -> list[Json]:
    """Return every dashboard as `uid`, `folder` (title), `folder_uid`, `path` (relative) and `content` (its JSON).

    Args:
        entries: `grafana_dashboards`.
        datasources: Uids of the data sources that there are.
        base: Folder that relative paths start from.
        site: What `fit_to_site` needs to know.

    Raises:
        AnsibleFilterError: An entry would not work.
    """

    def fit(dashboard: Json) -> Json:
        return fit_to_site(dashboard, **(site or {}))

    found, problems = collect_dashboards(entries, datasources, Path(base), fit)
    if problems:
        raise AnsibleFilterError(" ".join(problems))
    return [
        {
            "uid": dashboard["uid"],
            "folder": folder,
            "folder_uid": f"logstead-{slug(folder)}",
            "path": f"{slug(folder)}/{dashboard['uid']}.json",
            "content": json.dumps(dashboard, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        }
        for folder, dashboard in found
    ]


def dashboard_files(dashboards: Sequence[Mapping[str, str]], folder: str) -> list[Json]:
    """Return the files of dashboards, below a folder. Grafana reads them again by itself."""
    access = {"mode": "0640", "group": "grafana", "on_change": "none"}
    return [{"path": f"{folder}/{it['path']}", "content": it["content"], **access} for it in dashboards]


def dashboard_providers(dashboards: Sequence[Mapping[str, str]], folder: str) -> list[Json]:
    """Return Grafana's settings of where dashboards are: a provider for each folder, whose uid so stays the same."""
    titles = {it["folder_uid"]: (it["folder"], it["path"].partition("/")[0]) for it in dashboards}
    return [
        {
            "name": uid,
            "type": "file",
            "folder": title,
            "folderUid": uid,
            "allowUiUpdates": False,
            "disableDeletion": False,
            "updateIntervalSeconds": 10,
            "options": {"path": f"{folder}/{below}"},
        }
        for uid, (title, below) in titles.items()
    ]


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "dashboards": dashboards,
            "dashboard_files": dashboard_files,
            "dashboard_providers": dashboard_providers,
        }
