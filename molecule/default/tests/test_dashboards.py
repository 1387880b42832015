"""Grafana's dashboards show what has happened on the host: every query of every panel is asked."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from panels import (
    MAY_BE_EMPTY,
    Json,
    Question,
    ask_grafana,
    ask_query,
    chosen,
    dashboard,
    filled_in,
    questions,
    value_of,
)
from support import REPOSITORY, find_lines
from traffic import let_things_happen

OURS = sorted(path.stem for path in (REPOSITORY / "roles/grafana/files/dashboards").glob("*.json"))


@pytest.fixture(scope="module")
def trace(host: Any) -> str:
    """Let happen what the dashboards tell of; return the id of a trace of it."""
    return let_things_happen(host)


@pytest.mark.parametrize("name", OURS)
def test_every_query_of_every_panel_returns_what_the_panel_shows(host: Any, trace: str, name: str) -> None:
    uid = f"logstead-{name.removesuffix('-health')}"
    if name == "platform-health" and ask_grafana(host, "/api/datasources/uid/prometheus")[0] == 404:
        # It asks nothing else, so it isn't installed where there is no Prometheus.
        assert ask_grafana(host, f"/api/dashboards/uid/{uid}")[0] == 404
        return
    model = dashboard(host, uid)
    values = chosen(model) | {"trace_id": trace}
    asked = list(questions(model))
    assert asked
    for question in asked:
        question.await_answer(host, values)


def answer(host: Any, name: str, title: str, trace: str) -> float:
    """Return the number that a panel shows."""
    model = dashboard(host, f"logstead-{name}")
    (question,) = (it for it in questions(model) if it.panel["title"] == title)
    status, frames = question.ask(host, chosen(model) | {"trace_id": trace})
    assert status == 200, frames
    return value_of(frames)


@pytest.mark.parametrize(
    ("panel", "least", "most"),
    [
        ("fastapi: Services that log", 1, 1),
        ("fastapi: Error ratio", 0.01, 0.99),
        ("fastapi: Errors logged", 2, 1000),
        ("fastapi: 95 % are faster than", 0.001, 60_000),
        ("system: Failures of units", 1, 1000),
        ("system: Log-ins by SSH", 1, 10_000),
        ("system: Refused by SSH", 1, 1000),
        ("system: Commands by sudo", 1, 1000),
        ("system: Out of memory", 1, 1),
        ("system: Boots", 1, 1),
        ("overview: Hosts that log", 1, 1),
        ("overview: Errors in 10 minutes", 2, 10_000),
        ("overview: Failures of units in an hour", 1, 1000),
        ("trace: Lines", 2, 100),
    ],
)
def test_a_number_that_is_never_empty_counts_what_has_happened(
    host: Any, trace: str, panel: str, least: float, most: float
) -> None:
    name, _, title = panel.partition(": ")
    assert least <= answer(host, name, title, trace) <= most


def test_panels_that_are_empty_on_a_good_day_are_not_after_a_bad_one(host: Any, trace: str) -> None:
    seen = set()
    for name in ("fastapi", "system", "overview", "trace"):
        model = dashboard(host, f"logstead-{name}")
        for question in questions(model):
            if MAY_BE_EMPTY.search(question.panel["description"]):
                _, frames = question.ask(host, chosen(model) | {"trace_id": trace})
                seen |= {question.panel["title"]} if frames else set()
    assert seen >= {"Top exceptions", "Failed units", "Log-ins by person", "Latest errors", "All lines of the trace"}


def test_a_value_can_be_chosen_for_every_variable_and_the_search_finds_any_text(host: Any, trace: str) -> None:
    model = dashboard(host, "logstead-fastapi")
    values = chosen(model)
    for variable in model["templating"]["list"]:
        if variable["type"] == "query":
            selector = filled_in(variable["query"]["stream"], values)
            path = f"/api/datasources/proxy/uid/loki/loki/api/v1/label/{variable['query']['label']}/values"
            status, found = ask_grafana(host, path, "--get", "--data-urlencode", f"query={selector}")
            assert status == 200, found
            assert found["data"], variable["name"]
            values[variable["name"]] = "ERROR" if variable["name"] == "level" else found["data"][0]
    (stream,) = (it for it in questions(model) if it.panel["title"] == "Live stream")
    assert stream.problem(host, values | {"search": trace}) == ""
    status, frames = stream.ask(host, values | {"search": "no line has this"})
    assert (status, [column for frame in frames for column in frame["data"]["values"] if column]) == (200, [])


def test_a_lines_trace_id_leads_to_all_lines_of_the_trace(host: Any, trace: str) -> None:
    _, source = ask_grafana(host, "/api/datasources/uid/loki")
    (link,) = source["jsonData"]["derivedFields"]
    assert (link["matcherType"], link["matcherRegex"]) == ("label", "trace_id")
    # As Grafana's pages render it for a line's details.
    query = {"refId": "A", "datasource": {"uid": "loki"}, "queryType": "range", "maxLines": 10}
    status, frames = ask_query(host, query | {"expr": f'{{job="fastapi", level="ERROR"}} |= "{trace}"'}, {})
    assert status == 200, frames
    labels = frames[0]["data"]["values"][0][0]
    target = urlsplit(link["url"].replace("${__value.raw}", labels[link["matcherRegex"]]))
    uid, variables = target.path.split("/")[2], parse_qs(target.query)
    assert variables == {"var-trace_id": [trace]}
    model = dashboard(host, uid)
    assert "trace_id" in chosen(model)
    (lines,) = (it for it in questions(model) if it.panel["type"] == "logs")
    status, frames = lines.ask(host, chosen(model) | {"trace_id": trace})
    assert status == 200, frames
    shown = sorted(line for frame in frames for line in frame["data"]["values"][2])
    assert shown == sorted(line.text for line in find_lines(host, f'{{job=~".+"}} | trace_id="{trace}"'))
    assert len(shown) >= 2


def examples(path: str) -> list[str]:
    """Return the queries of a document, each on a line of its own."""
    blocks = re.findall(r"^```logql\n(.*?)^```", (REPOSITORY / path).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("document", ["README.md", "docs/queries.md"])
def test_every_query_of_the_documents_finds_something(host: Any, trace: str, document: str) -> None:
    found = examples(document)
    assert found
    for expr in found:
        asked = {"refId": "A", "datasource": {"uid": "loki"}, "queryType": "range", "maxLines": 10}
        query = expr.replace("4bf92f3577b34da6a3ce929d0e0e4736", trace)
        panel: Json = {"title": expr, "type": "logs" if expr.startswith("{") else "timeseries", "description": ""}
        assert Question(panel, asked | {"expr": query}).problem(host, {}) == ""
