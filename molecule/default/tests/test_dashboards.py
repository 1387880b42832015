"""Grafana's dashboards show what has happened on the host: every query of every panel is asked."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from panels import (
    Json,
    Question,
    ask_grafana,
    ask_query,
    chosen,
    dashboard,
    events,
    filled_in,
    lines_shown,
    number_shown,
    questions,
    why_empty,
)
from support import REPOSITORY, eventually, find_lines, journal, unique
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
    return number_shown(question.panel, frames)


@pytest.mark.parametrize(
    ("panel", "least", "most"),
    [
        ("fastapi: Services sending logs", 1, 1),
        ("fastapi: Error ratio", 0.01, 0.99),
        ("fastapi: Errors (5 min)", 2, 1000),
        ("fastapi: p95 latency", 0.001, 60_000),
        ("system: Unit failures", 1, 1000),
        ("system: SSH logins", 1, 10_000),
        ("system: Rejected SSH logins", 1, 1000),
        ("system: sudo commands", 1, 1000),
        ("system: OOM kills", 1, 1),
        ("system: Boots", 1, 1),
        ("overview: Hosts sending logs", 1, 1),
        ("overview: Errors (10 min)", 2, 10_000),
        ("overview: Unit failures (1 h)", 1, 1000),
        ("trace: Lines", 2, 100),
    ],
)
def test_a_number_that_is_never_empty_counts_what_has_happened(
    host: Any, trace: str, panel: str, least: float, most: float
) -> None:
    name, _, title = panel.partition(": ")
    assert least <= answer(host, name, title, trace) <= most


def test_panels_that_are_empty_on_a_good_day_are_not_after_a_bad_one(host: Any, trace: str) -> None:
    empty = set()
    for name in ("fastapi", "system", "overview", "trace"):
        model = dashboard(host, f"logstead-{name}")
        for question in questions(model):
            if why_empty(question.panel):
                _, frames = question.ask(host, chosen(model) | {"trace_id": trace})
                empty |= set() if frames else {question.panel["title"]}
    # Only a host that runs something in containers has lines of them.
    assert empty <= {"Container lines"}


def test_the_run_is_marked_as_a_deploy_and_every_annotation_can_be_queried(host: Any) -> None:
    for name in ("overview", "fastapi", "system"):
        model = dashboard(host, f"logstead-{name}")
        found = {event.panel["title"]: event.ask(host, chosen(model), "now-24h") for event in events(model)}
        assert all(status == 200 for status, _ in found.values()), found
        deploys = lines_shown(found["Deploys"][1])
        for unit in ("loki", "grafana", "demo-app"):
            assert any(re.match(rf"(start|restart|reload)ed {unit}\.service", line) for line in deploys), deploys


def stream_of(host: Any, name: str, title: str, **values: str) -> list[str]:
    """Return the lines that a panel of logs shows."""
    model = dashboard(host, f"logstead-{name}")
    (question,) = (it for it in questions(model) if it.panel["title"] == title)
    status, frames = question.ask(host, chosen(model) | values)
    assert status == 200, frames
    return lines_shown(frames)


@pytest.mark.usefixtures("trace")
def test_records_of_other_loggers_are_shown_and_found_as_their_text(host: Any) -> None:
    word, trace_id = unique("probe"), unique("").strip("-")
    records: list[Json] = [
        # As structlog writes it by default, with LoggingInstrumentor.
        {"event": f"订单已付款 {word}", "logger": "shop", "level": "info", "trace_id": trace_id, "span_id": "0" * 16},
        {"msg": f"request completed {word}", "level": "ERROR", "status": 503, "duration": 12.5, "trace_id": trace_id},
        {"message": f"boom {word}", "level": "ERROR", "exception": 'Traceback:\n  File "x.py", line 1'},
        # No request, and without a text of its own.
        {"level": "DEBUG", "status": "ok", "note": word},
    ]
    for record in records:
        host.check_output(f"echo {shlex.quote(json.dumps(record))} >> /var/log/demo-app/app.log")
    eventually(
        lambda: len(find_lines(host, f'{{job="fastapi"}} |= "{word}"')) == len(records),
        otherwise=lambda: journal(host, "promtail", "loki"),
    )
    shown = stream_of(host, "fastapi", "Live stream", search=word)
    assert sorted(shown) == sorted(
        [
            f"INFO     fastapi-demo  订单已付款 {word}",
            f"ERROR    fastapi-demo  request completed {word}  (12.5)",
            f'ERROR    fastapi-demo  boom {word}\nTraceback:\n  File "x.py", line 1',
            f"DEBUG    fastapi-demo  {json.dumps(records[-1])}",
        ]
    )
    assert stream_of(host, "fastapi", "Live stream", search=f"已付款 {word}") == [
        shown for shown in shown if "订" in shown
    ]
    assert any("GET /" in line for line in stream_of(host, "fastapi", "Live stream")), "an empty search finds all"
    assert stream_of(host, "trace", "All lines of the trace", trace_id=trace_id)[-1].endswith(word)
    model = dashboard(host, "logstead-fastapi")
    (requests,) = (it for it in questions(model) if it.panel["title"] == "Request rate by status")

    def statuses() -> set[str]:
        _, frames = requests.ask(host, chosen(model))
        return {frame["schema"]["fields"][-1]["labels"]["status_code"] for frame in frames}

    # Loki computes the newest point when its 15 seconds are over.
    eventually(lambda: "503" in statuses(), otherwise=lambda: str(statuses()))
    assert not {"ok", ""} & statuses()

    def has_rotated() -> bool:
        host.check_output("logstead-logs run --force")
        return bool(host.run("ls /var/log/demo-app/app.log-2*").rc == 0)

    # The doctor expects the app's own records alone in its log.
    eventually(has_rotated, otherwise=lambda: journal(host, "logstead-logrotate", "promtail"))


def test_disk_usage_lists_each_disk_once(host: Any) -> None:
    if ask_grafana(host, "/api/datasources/uid/prometheus")[0] == 404:
        return
    model = dashboard(host, "logstead-platform")
    (usage,) = (it for it in questions(model) if it.panel["title"] == "Disk usage")
    status, frames = usage.ask(host, chosen(model))
    assert status == 200, frames
    disks = [frame["schema"]["fields"][-1]["labels"]["device"] for frame in frames]
    assert disks
    assert len(disks) == len(set(disks)), disks


def test_known_noise_is_stored_and_left_out_of_the_errors_of_overview(host: Any) -> None:
    word = unique("noise")
    # The first is of the platform's own list, the second of this scenario's inventory.
    for line in ("Unable to open env file: /etc/default/locale", "harmless [probe] of 10.0.0.7 ended", "real error"):
        host.check_output(f"logger -t sshd -p err '{line} {word}'")
    query = f'{{job="systemd-journal", level="ERROR"}} |= "{word}"'
    eventually(lambda: len(find_lines(host, query)) == 3, otherwise=lambda: journal(host, "promtail", "loki"))
    errors = [line for line in stream_of(host, "overview", "Latest errors") if word in line]
    assert [line[line.index("real") :] for line in errors] == [f"real error {word}"], errors


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
    shown = lines_shown(frames)
    records = [line.record for line in find_lines(host, f'{{job=~".+"}} | trace_id="{trace}"')]
    assert len(shown) == len(records) >= 2
    for record in records:
        start = f"{record['level']:8} {record['service_name']}  {record['message']}"
        (line,) = (one for one in shown if one.startswith(start))
        assert line.endswith(record.get("exception", ""))
        assert not line.startswith("{"), "as the live stream shows it"


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
