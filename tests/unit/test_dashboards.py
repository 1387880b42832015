"""Grafana's dashboards: ours are fresh and sound, and what `grafana_dashboards` adds is refused when it would not work.

That their queries return what they should is tested on a real Loki, in the scenario default.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from glossary import find_phrases, glossary_rows
from panels import chosen, filled_in

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from ansible_collections.logstead.platform.plugins.filter import dashboards as filters  # noqa: E402
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES, defaults_of  # noqa: E402

import dashboards as package  # noqa: E402 - from the repository's root
from dashboards import __main__ as generator  # noqa: E402

Json = dict[str, Any]

FOLDER = generator.FOLDER
NAMES = sorted(generator.DASHBOARDS)
OURS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES}
KNOWN = ["loki", "prometheus"]
DEFAULTS = defaults_of(ROLES / "platform")
# Everything else is old, or needs something that isn't there.
PANEL_TYPES = {"row", "stat", "timeseries", "bargauge", "logs"}
GRAFANAS_OWN = {"__auto", "__range", "__rate_interval"}
MOST_QUERIES = 25
# All titles, so that a new one is read before it is added: in the trade's words, and in those of CONTRIBUTING.md.
TITLES = {
    "overview": (
        *("Status", "Targets down", "Firing alerts", "Fullest disk", "Rejected lines (1 h)", "Hosts sending logs"),
        *("Request error ratio", "Errors (10 min)", "Unit failures (1 h)", "Details", "Lines by level"),
        *("Errors by service", "Lines by host", "Scrape targets up", "Latest errors"),
    ),
    "fastapi": (
        *("Status", "Services sending logs", "Targets up", "Requests per second", "Error ratio", "p95 latency"),
        *("Errors (5 min)", "Requests", "Request rate by status", "Error ratio and alert threshold"),
        *("Latency percentiles", "Top endpoints", "Lines", "Lines by level", "Top exceptions", "Live stream"),
    ),
    "system": (
        *("In the selected time", "Unit failures", "SSH logins", "Rejected SSH logins", "sudo commands", "OOM kills"),
        *("Boots", "Units and priorities", "Lines by priority", "Lines by host", "Units with the most lines"),
        *("Units with the most errors", "Incidents", "Failed units", "SSH logins by user", "SSH logins over time"),
        *("Container lines", "Failures, OOM kills, logins, sudo and boots", "Live stream"),
    ),
    "platform-health": (
        *("Status", "Targets down", "Rejected lines (1 h)", "Log lag", "Fullest disk", "Active streams"),
        *("Time since compaction", "Ingestion", "Lines sent and received", "Ingest rate", "Rejected lines by reason"),
        *("Lines dropped by Promtail", "Push retries", "Log lag by file", "Loki and Grafana", "p95 query latency"),
        *("Responses by status", "WAL write rate", "Flush queue", "Disks and processes", "Disk usage"),
        *("Days until full", "Memory", "CPU", "Scrape targets up"),
    ),
    "trace": ("Lines", "Lines by service", "All lines of the trace"),
}
# What somebody must act on. Everything else is at most orange.
MAY_BE_RED = {
    *("Targets down", "Firing alerts", "Fullest disk", "Rejected lines (1 h)", "Hosts sending logs", "Log lag"),
    *("Services sending logs", "Targets up", "OOM kills", "Active streams", "Time since compaction", "Disk usage"),
    *("Error ratio", "Request error ratio", "Error ratio and alert threshold"),
}


def data_panels(dashboard: Json) -> Iterator[Json]:
    yield from (panel for panel in filters.panels_in(dashboard) if panel["type"] != "row")


# --- Ours -------------------------------------------------------------------------------------------------------------


def test_the_json_is_what_make_dashboards_writes(tmp_path: Path) -> None:
    assert package.__doc__
    generator.write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written == committed, "roles/grafana/files/dashboards is stale: run `make dashboards`"


def test_every_dashboard_has_a_uid_and_a_title_of_its_own() -> None:
    for key in ("uid", "title", "description"):
        values = [dashboard[key] for dashboard in OURS.values()]
        assert all(values)
        assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"logstead-[a-z-]{1,31}", dashboard["uid"]) for dashboard in OURS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_holds_nothing_of_one_grafana(name: str) -> None:
    dashboard = OURS[name]
    assert not {"id", "version", "iteration", "__inputs", "__requires", "gnetId"} & set(dashboard)
    assert not filters.unknown_datasources(dashboard, dashboard, {"prometheus"})
    references = list(filters.datasources_in(dashboard))
    assert {(it["type"], it["uid"]) for it in references} <= {("loki", "${datasource}"), ("prometheus", "prometheus")}
    assert dashboard["editable"] is False
    assert dashboard["tags"] == ["logstead"]


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_shows_in_which_unit_and_is_of_a_current_type(name: str) -> None:
    assert {panel["type"] for panel in OURS[name]["panels"]} <= PANEL_TYPES
    for panel in data_panels(OURS[name]):
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        if panel["type"] != "logs":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_platform_health_says_what_to_do_next() -> None:
    without = [panel["title"] for panel in data_panels(OURS["platform-health"]) if "Next" not in panel["description"]]
    # Nothing needs to be done about it.
    assert without == ["CPU"]


# --- How they look and read ---


@pytest.mark.parametrize("name", NAMES)
def test_titles_are_those_of_the_list_and_have_no_word_that_the_glossary_avoids(name: str) -> None:
    assert tuple(panel["title"] for panel in OURS[name]["panels"]) == TITLES[name]
    avoided = {word for _, cell, _ in glossary_rows() for word in re.findall(r"[^`,;]+", cell) if word.strip()}
    pattern = re.compile(rf"\b({'|'.join(re.escape(word.strip()) for word in avoided)})s?\b", re.IGNORECASE)
    assert pattern.search("Parts behind")
    assert [title for title in TITLES[name] if pattern.search(title)] == []


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_and_what_empty_panels_say_have_no_phrase_that_the_glossary_avoids(name: str) -> None:
    texts = [OURS[name]["description"]]
    for panel in data_panels(OURS[name]):
        texts += [panel["description"], panel["fieldConfig"]["defaults"].get("noValue", "")]
    assert list(find_phrases("\n\n".join(texts))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_loads_with_at_most_25_queries(name: str) -> None:
    dashboard = OURS[name]
    assert not any(panel.get("panels") for panel in dashboard["panels"]), "what is collapsed would not be counted"
    panels = [target for panel in data_panels(dashboard) for target in panel["targets"]]
    variables = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert len(panels) + len(variables) + len(dashboard["annotations"].get("list", [])) <= MOST_QUERIES


def colors_of(panel: Json) -> set[str]:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    overrides = [it["value"]["fixedColor"] for one in panel["fieldConfig"]["overrides"] for it in one["properties"]]
    return {step["color"] for step in steps} | set(overrides)


@pytest.mark.parametrize("name", NAMES)
def test_red_is_for_what_somebody_must_act_on_and_numbers_color_their_value_alone(name: str) -> None:
    for panel in data_panels(OURS[name]):
        assert ("red" in colors_of(panel)) == (panel["title"] in MAY_BE_RED), panel["title"]
        if panel["type"] == "stat":
            assert panel["options"]["colorMode"] == "value"
            assert panel["options"]["graphMode"] == "area"


def test_a_ranking_of_one_row_has_rows_of_the_size_of_one_of_ten() -> None:
    rankings = [panel for name in NAMES for panel in data_panels(OURS[name]) if panel["type"] == "bargauge"]
    assert len(rankings) >= 6
    for panel in rankings:
        options = panel["options"]
        assert (options["sizing"], options["orientation"]) == ("manual", "horizontal")
        assert options["minVizHeight"] == options["maxVizHeight"]
        assert options["text"] == {"titleSize": 13, "valueSize": 13}
        # A row of the grid has 30 pixels, and 8 between two; title and padding take 60, and 10 are between bars.
        assert 10 * options["maxVizHeight"] + 9 * 10 <= panel["gridPos"]["h"] * 38 - 8 - 60
        assert "topk(10," in panel["targets"][0]["expr"]


@pytest.mark.parametrize("name", NAMES)
def test_lines_have_no_points_and_empty_panels_say_why(name: str) -> None:
    for panel in data_panels(OURS[name]):
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["showPoints"] == "never"
        if panel["type"] in ("bargauge", "logs"):
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert not re.search(r"\b[Ee]mpty\b", panel["description"]), "noValue says it where the panel is empty"


@pytest.mark.parametrize("name", NAMES)
def test_log_panels_show_level_source_and_message_of_any_logger(name: str) -> None:
    for panel in data_panels(OURS[name]):
        if panel["type"] == "logs":
            expr = panel["targets"][0]["expr"]
            assert re.search(
                r"line_format `\{\{ alignLeft 8 \.level \}\} \{\{ \.(service_name|identifier) \}\}  ", expr
            )
            assert "or .message .event .msg" in expr
            assert "or .exception .stack .err_stack" in expr


def test_each_disk_counts_once_and_is_named_by_its_device() -> None:
    asked = [target for name in NAMES for panel in data_panels(OURS[name]) for target in panel["targets"]]
    disks = [target for target in asked if "node_filesystem" in target["expr"]]
    assert len(disks) == 4
    for target in disks:
        assert re.search(r"(max|min) by \(host, device\) \(", target["expr"])
        assert target.get("legendFormat", "{{device}} on {{host}}") == "{{device}} on {{host}}"


def test_deploys_and_alerts_are_annotations() -> None:
    for name in ("overview", "fastapi", "system"):
        assert [it["name"] for it in OURS[name]["annotations"]["list"]] == ["Deploys", "Firing alerts"]
    assert [it["name"] for it in OURS["platform-health"]["annotations"]["list"]] == ["Firing alerts"]


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_ids_and_places_of_their_own(name: str) -> None:
    panels = OURS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    check_places(panels)


def check_places(panels: list[Json]) -> None:
    """Assert that no panel lies on another or beyond the edge."""
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", NAMES)
def test_queries_use_the_variables_that_there_are(name: str) -> None:
    variables = {variable["name"] for variable in OURS[name]["templating"]["list"]}
    used = set()
    for event in OURS[name]["annotations"].get("list", []):
        used |= set(re.findall(r"\$\{?(\w+)", event["expr"]))
    for panel in data_panels(OURS[name]):
        for target in panel["targets"]:
            used |= set(re.findall(r"\$\{?(\w+)", target["expr"]))
    assert used <= variables | GRAFANAS_OWN
    assert variables - {"datasource"} <= used, "a variable that changes nothing"


def test_loki_and_prometheus_accept_every_query(programs: Path, tmp_path: Path) -> None:
    rules: dict[str, list[Json]] = {"loki": [], "prometheus": []}
    for dashboard in OURS.values():
        targets = [target for panel in data_panels(dashboard) for target in panel["targets"]]
        for query in (*targets, *dashboard["annotations"].get("list", [])):
            expr = re.sub(r"\$__\w+", "5m", filled_in(query["expr"], chosen(dashboard)))
            # What tells whether a query is valid takes rules, which compute numbers.
            expr = f"count_over_time({expr} [5m])" if expr.startswith("{job") else expr
            found = rules[query["datasource"]["type"]]
            found.append({"record": f"query:{len(found)}", "expr": expr})
    assert all(len(found) > 25 for found in rules.values())
    for source, command in (("loki", ("lokitool", "rules", "check")), ("prometheus", ("promtool", "check", "rules"))):
        path = tmp_path / f"{source}.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules[source]}]}))
        result = subprocess.run(
            [programs / command[0], *command[1:], path], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["fastapi", "system"])
def test_lines_can_be_chosen_by_environment_service_level_and_host_and_searched(name: str) -> None:
    variables = {variable["name"] for variable in OURS[name]["templating"]["list"]}
    assert variables >= {"environment", "service", "level", "host", "search"}
    (stream,) = (panel for panel in data_panels(OURS[name]) if panel["title"] == "Live stream")
    for variable in ("environment", "service", "level", "host", "search"):
        assert re.search(rf"\$\{{?{variable}\b", stream["targets"][0]["expr"])


def test_links_lead_to_dashboards_that_there_are() -> None:
    text = json.dumps(OURS)
    linked = set(re.findall(r'"/d/([\w-]+)', text))
    assert linked
    assert linked <= {dashboard["uid"] for dashboard in OURS.values()}


# --- What is provisioned ----------------------------------------------------------------------------------------------


def provisioned(*entries: Json, base: Path = FOLDER, datasources: list[str] = KNOWN, **site: Any) -> dict[str, Json]:
    """Return what the role's filter makes of entries, by uid."""
    site = {"noise": DEFAULTS["platform_known_noise"], "drilldown": True} | site
    found = filters.dashboards(list(entries), datasources, base, site)
    return {it["uid"]: it | {"model": json.loads(it["content"])} for it in found}


def refusal(*entries: Any, base: Path = FOLDER) -> str:
    """Return how entries are refused."""
    (problem,) = filters.dashboard_problems(list(entries), KNOWN, base)
    with pytest.raises(AnsibleFilterError, match=re.escape(problem)):
        filters.dashboards(list(entries), KNOWN, base)
    return str(problem)


def titles(dashboard: Json) -> list[str]:
    return [panel["title"] for panel in dashboard["panels"]]


def test_without_further_ones_ours_are_provisioned_in_a_folder_of_their_own() -> None:
    found = provisioned()
    assert {uid: it["model"] for uid, it in found.items()} == {it["uid"]: it for it in OURS.values()}
    assert {(it["folder"], it["folder_uid"]) for it in found.values()} == {("Log platform", "logstead-log-platform")}


def test_without_prometheus_nothing_asks_it_and_no_row_is_empty() -> None:
    found = provisioned(datasources=["loki"])
    assert set(found) == {"logstead-overview", "logstead-fastapi", "logstead-system", "logstead-trace"}
    for it in found.values():
        assert {event["name"] for event in it["model"]["annotations"].get("list", [])} <= {"Deploys"}
        assert "prometheus" not in json.dumps(it["model"]["panels"]).lower().replace("promtail", "")
        rows = [number for number, panel in enumerate(it["model"]["panels"]) if panel["type"] == "row"]
        assert all(it["model"]["panels"][number + 1]["type"] != "row" for number in rows)
    assert "Targets up" not in titles(found["logstead-fastapi"]["model"])
    assert "Error ratio" in titles(found["logstead-fastapi"]["model"])


def texts_of(dashboard: Json, key: str) -> list[str]:
    """Return the legends, or the names of bars."""
    found = [it for panel in data_panels(dashboard) for it in (*panel["targets"], panel["fieldConfig"]["defaults"])]
    return [it[key] for it in found if key in it]


def test_legends_name_the_host_only_where_there_are_several() -> None:
    for single, named in ((True, 0), (False, 10)):
        found = [it["model"] for it in provisioned(SHOP, single_host=single).values()]
        legends = [text for model in found for text in texts_of(model, "legendFormat")]
        bars = [text for model in found for text in texts_of(model, "displayName")]
        assert sum(" on {{host}}" in text for text in legends) >= named
        assert sum("${__data.fields.host}" in text for text in bars) >= named / 10
        assert not single or not any(" on " in text for text in (*legends, *bars))
        assert "{{host}}" in legends, "what compares hosts names them in any case"


def test_known_noise_of_the_inventory_is_left_out_of_the_errors_of_overview(tmp_path: Path) -> None:
    noise = {"mine": 'harmless "\\x" (1 of *)', "ssh-probe": ""}
    model = provisioned(noise=noise)["logstead-overview"]["model"]
    (variable,) = (it for it in model["templating"]["list"] if it["name"] == "noise")
    assert variable["query"] == r'!~ "harmless \"\\\\x\" \\(1 of .*\\)"'
    assert variable["hide"] == 2
    filtered = [panel["title"] for panel in data_panels(model) if "${noise:raw}" in json.dumps(panel)]
    assert filtered == ["Errors (10 min)", "Errors by service", "Latest errors"]
    # A user's file may have a variable of that name.
    templating = {"list": [{"name": "noise", "type": "constant", "query": "x"}]}
    entry = own(tmp_path, templating=templating)
    assert provisioned(entry, base=tmp_path, noise=noise)["own"]["model"]["templating"] == templating


def test_logs_drilldown_is_linked_only_where_grafana_has_it() -> None:
    for has, linked in ((True, {"logstead-overview", "logstead-fastapi", "logstead-system"}), (False, set())):
        found = provisioned(drilldown=has)
        assert {uid for uid, it in found.items() if "grafana-lokiexplore-app" in it["content"]} == linked


SHOP = {
    "title": "Shop",
    "job": "shop",
    "panels": [
        {"title": "Orders", "expr": 'sum(count_over_time({job="shop"} |= "ordered" [$__auto]))', "unit": "none"},
        {"title": "Paid", "expr": 'sum(count_over_time({job="shop"} |= "paid" [5m]))', "type": "stat"},
        {"title": "Refunds", "expr": '{job="shop"} |= "refund"', "type": "logs", "description": "All of them."},
    ],
}


def test_an_applications_dashboard_is_made_from_the_template() -> None:
    it = provisioned(SHOP)["app-shop"]
    assert (it["folder"], it["path"]) == ("Applications", "applications/app-shop.json")
    model = it["model"]
    assert model["title"] == "Shop"
    assert [variable["query"] for variable in model["templating"]["list"] if variable["name"] == "job"] == ["shop"]
    assert "fastapi" not in it["content"].lower()
    assert "demo" not in it["content"].lower()
    assert titles(model)[-4:] == ["Shop", "Orders", "Paid", "Refunds"]
    orders, paid, refunds = model["panels"][-3:]
    assert (orders["type"], orders["fieldConfig"]["defaults"]["unit"]) == ("timeseries", "none")
    assert (paid["type"], paid["targets"][0]["queryType"]) == ("stat", "instant")
    assert not any("noValue" in panel["fieldConfig"]["defaults"] for panel in model["panels"][-3:])
    assert (refunds["type"], refunds["description"]) == ("logs", "All of them.")
    assert [panel["targets"][0]["expr"] for panel in model["panels"][-3:]] == [it["expr"] for it in SHOP["panels"]]  # type: ignore[index]
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    check_places(model["panels"])


def own(folder: Path, **changed: Any) -> Json:
    """Write a dashboard of a user's, and return its entry."""
    panel = {"type": "stat", "title": "One", "datasource": {"type": "loki", "uid": "loki"}}
    model = {"id": 7, "uid": "own", "title": "Own", "panels": [panel], **changed}
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(model))
    return {"file": path.name}


def test_a_users_file_is_taken_as_it_is_but_for_its_number_in_another_grafana(tmp_path: Path) -> None:
    it = provisioned({**own(tmp_path), "folder": "Team Ä"}, base=tmp_path)["own"]
    assert it["model"] == json.loads((tmp_path / "0.json").read_text()) | {"id": None}
    assert (it["folder"], it["folder_uid"], it["path"]) == ("Team Ä", "logstead-team", "team/own.json")


@pytest.mark.parametrize(
    "reference", [None, "loki", {"uid": "prometheus"}, {"uid": "-- Grafana --"}, "${source}", {"uid": "$source"}]
)
def test_a_users_file_may_ask_what_there_is(tmp_path: Path, reference: Any) -> None:
    variable = {"type": "datasource", "name": "source", "query": "loki"}
    entry = own(tmp_path, panels=[{"datasource": reference}], templating={"list": [variable]})
    assert "own" in provisioned(entry, base=tmp_path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"uid": ""}, "has the uid ''; give it one of 1 to 40 letters"),
        ({"uid": "a b"}, "has the uid 'a b'"),
        ({"title": " "}, "has no title"),
        ({"__inputs": []}, "was exported for sharing"),
        ({"panels": [{"targets": [{"datasource": {"uid": "P123"}}]}]}, "asks the unknown data source P123"),
        ({"panels": [{"panels": [{"datasource": "Old name"}]}]}, "asks the unknown data source Old name"),
        ({"panels": [{"datasource": "${DS_LOKI}"}]}, "asks the unknown data source ${DS_LOKI}"),
        ({"uid": "logstead-overview"}, "has the uid logstead-overview, which Overview has already"),
    ],
)
def test_a_file_that_grafana_would_not_show_rightly_is_refused(tmp_path: Path, changed: Json, told: str) -> None:
    assert told in refusal(own(tmp_path, **changed), base=tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "is no dashboard in Grafana's classic JSON"),
        ('{"apiVersion": "dashboard.grafana.app/v2", "spec": {}}', "is no dashboard in Grafana's classic JSON"),
    ],
)
def test_what_is_no_dashboard_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert told in refusal({"file": "x.json"}, base=tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "can't be read" in refusal({"file": "none.json"}, base=tmp_path)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([{"title": "A"}], "is neither a dashboard made from the template"),
        ([{"file": "a.json", "job": "a"}], "is neither"),
        (["a.json"], "is neither"),
        ([{"title": "A", "job": "a", "uid": "ä"}], "has the uid 'ä'"),
        ([{"title": "A", "job": "a"}, {"title": "B", "job": "a"}], "has the uid app-a, which A has already"),
        ([{"title": "A", "job": "a"}, {"title": "A", "job": "b"}], "has the title A, which A has already"),
        ([{"title": "A", "job": "a", "folder": "log platform"}], "is too much like Log platform"),
        ([{"title": "A", "job": "a", "folder": "/"}], "a folder's name has letters or digits"),
        ([{"title": "A", "job": "a", "panels": [{"title": "x"}]}], "has title and expr, and may have"),
        (
            [{"title": "A", "job": "a", "panels": [{"title": "x", "expr": "y", "type": "graph"}]}],
            "has the type 'graph'",
        ),
    ],
)
def test_an_entry_that_can_t_be_meant_is_refused(entries: list[Any], told: str) -> None:
    assert told in refusal(*entries)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    problems = filters.dashboard_problems([{"file": "a"}, {"file": "b"}], KNOWN, tmp_path)
    assert len(problems) == 2


def test_each_folder_has_a_provider_and_each_dashboard_a_file() -> None:
    found = filters.dashboards([SHOP], KNOWN, FOLDER)
    providers = filters.dashboard_providers(found, "/etc/grafana/dashboards")
    assert [(it["folder"], it["folderUid"], it["options"]["path"]) for it in providers] == [
        ("Log platform", "logstead-log-platform", "/etc/grafana/dashboards/log-platform"),
        ("Applications", "logstead-applications", "/etc/grafana/dashboards/applications"),
    ]
    paths = {it["path"] for it in filters.dashboard_files(found, "/etc/grafana/dashboards")}
    assert len(paths) == len(found)
    assert "/etc/grafana/dashboards/applications/app-shop.json" in paths
