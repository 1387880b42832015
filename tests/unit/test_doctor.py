"""The doctor's judgement, without hosts: what it makes of files, metrics and answers, and how it reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.logstead.platform.plugins.modules import doctor
from ansible_collections.logstead.platform.plugins.modules import doctor_report as report

REPOSITORY = Path(__file__).parents[2]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PROBE = {
    "host": "web",
    "kind": "journal",
    "trace_id": TRACE_ID,
    "query": f'{{job="fastapi"}} | trace_id="{TRACE_ID}"',
    "before": {"sent": 10, "dropped": 0},
}
STREAMS = {"data": {"result": [{"stream": {}, "values": [["2", "later"], ["1", "earlier"]]}]}}
NOTHING: dict[str, Any] = {"data": {"result": []}}


Answers = dict[str, tuple[int, Any]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What addresses answer, by a part of them; the first part that fits counts, and anything else is silent."""
    given: Answers = {}

    def ask(url: str, headers: object = None, timeout: float = 10) -> tuple[int, str]:
        assert timeout
        asked = url if headers else f"{url} anonymous"
        status, body = next((answer for part, answer in given.items() if part in asked), (0, "Connection refused"))
        return status, body if isinstance(body, str) else json.dumps(body)

    monkeypatch.setattr(doctor, "ask", ask)
    monkeypatch.setattr(doctor, "output_of", lambda *_: "")
    for name in ("POLL_SECONDS", "SEND_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(doctor, name, 0)
    return given


def examine(step: str, **parameters: Any) -> dict[str, Any]:
    defaults = {"host": "web", "url": "http://x", "probes": [PROBE], "timeout": 0, "promtail_url": ""}
    grafana = {"user": "admin", "password": "pass", "datasource": "loki", "tenant": ""}
    result: dict[str, Any] = doctor.examine({"step": step, **defaults, **grafana, **parameters})
    return result


# --- Step 1 ---


def record(**changes: Any) -> str:
    fields: dict[str, Any] = dict.fromkeys(doctor.CONTRACT, "x") | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (record(), ""),
        (record(more=1), ""),
        ("INFO: plain", "is no JSON"),
        ('{"cut": ', "is no JSON"),
        ("[1]", "is no JSON object"),
        (record(span_id=None, level=None), "lacks level, span_id"),
    ],
)
def test_a_record_is_json_with_the_agreed_fields(line: str, problem: str) -> None:
    assert doctor.problem_of(line.encode()) == problem


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text(f'{record()}\n{record()}\n{{"half": ')
    assert doctor.check_records(path) == 2


def test_a_long_file_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TAIL_BYTES", 100)
    path = tmp_path / "app.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    lines = doctor.tail_of(path)
    assert lines[-1] == b"line 99"
    assert all(line.startswith(b"line ") for line in lines)


@pytest.fixture
def app(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Examine an app that answers, with the given lines in its files."""
    monkeypatch.setattr("secrets.token_hex", lambda size: TRACE_ID[: 2 * size])
    answers["/trace/"] = (200, {})

    def run(**files: str) -> dict[str, Any]:
        for name, text in files.items():
            (tmp_path / f"{name}.log").write_text(text)
        return examine("app", log_folder=str(tmp_path))

    return run


def test_an_app_that_writes_passes(app: Callable[..., dict[str, Any]]) -> None:
    result = app(app=record() + "\n", access=record(trace_id=TRACE_ID) + "\n")
    assert result["outcome"] == "passed", result
    assert result["probe"]["query"] == PROBE["query"]


def test_an_app_that_leaves_no_record_fails(app: Callable[..., dict[str, Any]]) -> None:
    assert "access.log has no record of the request" in app(app="", access=record() + "\n")["cause"]


def test_an_app_without_a_file_fails(app: Callable[..., dict[str, Any]]) -> None:
    cause = app(app="")["cause"]
    assert "access.log isn't there" in cause
    assert "app.log" not in cause


def test_a_line_that_breaks_the_contract_fails(app: Callable[..., dict[str, Any]]) -> None:
    result = app(app="Traceback\n", access=record(trace_id=TRACE_ID) + "\n")
    assert "app.log is no JSON: Traceback" in result["cause"]


def test_a_stranger_on_the_port_fails(answers: Answers) -> None:
    answers["/trace/"] = (404, "nothing here")
    assert "answers 404: nothing here" in examine("app", log_folder="/none")["cause"]


# --- Step 2 ---


def metrics(sent: int = 12, dropped: int = 0, **pushes: int) -> str:
    lines = [
        "# HELP promtail_sent_entries_total Number",
        f'promtail_sent_entries_total{{host="loki:3101"}} {sent}',
        f'promtail_dropped_entries_total{{host="loki:3101",reason="rate_limited",tenant=""}} {dropped}',
        *(f'{doctor.PUSHES}{{host="l",status_code="{code.strip("_")}"}} {count}' for code, count in pushes.items()),
    ]
    return "\n".join(lines)


def promtail(**parameters: Any) -> dict[str, Any]:
    return examine("promtail", **{"loki_url": "http://loki", "log_files": [], "log_folder": "/var/log/x", **parameters})


def test_metrics_are_read() -> None:
    (sample,) = doctor.read_metrics('# TYPE a counter\na_total{path="/x y",b="c\\"d"} 1.5e+06\n')
    assert sample == ("a_total", {"path": "/x y", "b": 'c\\"d'}, 1.5e6)


def test_a_sender_passes(answers: Answers) -> None:
    answers |= {"x/ready": (200, "Ready"), "/metrics": (200, metrics(_204=3))}
    result = promtail()
    assert result["outcome"] == "passed", result
    assert "2 lines sent" in result["detail"]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "promtail.service is unknown, but http://x doesn't answer (Connection refused)"),
        ({"x/ready": (200, "<html>")}, "instead of Ready"),
        ({"x/ready": (200, "Ready"), "/metrics": (200, metrics(sent=10))}, "has sent nothing since the probe"),
        (
            {"x/ready": (200, "Ready"), "/metrics": (200, metrics(dropped=4))},
            "throws lines away (since its start, rate_l",
        ),
        (
            {
                "x/ready": (200, "Ready"),
                "/metrics": (200, metrics(sent=10).replace("# HELP", "#") + f'\n{doctor.PUSHES}{{status_code="-1"}} 4'),
            },
            "can't reach Loki at http://loki (Connection refused)",
        ),
        (
            {"x/ready": (200, "Ready, but waiting for Loki at http://loki")},
            "can't reach Loki at http://loki (Connection refused)",
        ),
    ],
    ids=["silent", "stranger", "idle", "dropping", "Loki away", "Loki away before it starts"],
)
def test_a_bad_sender_is_explained(answers: Answers, given: Answers, cause: str) -> None:
    answers |= given
    result = promtail()
    assert result["outcome"] == "failed"
    assert cause in result["cause"]
    assert result["advice"]


@pytest.mark.parametrize(
    ("code", "advice"), [("429", "ingestion_rate_mb"), ("400", "timedatectl"), ("404", "promtail_loki_url")]
)
@pytest.mark.usefixtures("answers")
def test_refused_pushes_have_their_own_advice(code: str, advice: str) -> None:
    with pytest.raises(doctor.StepFailed) as raised:
        doctor.explain_silence({"loki_url": "http://loki"}, {code: 3.0})
    assert f"answers Promtail's pushes with {code}" in raised.value.cause
    assert advice in raised.value.advice


def test_a_file_that_is_not_read_is_named(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("x\n")
    answers |= {
        "x/ready": (200, "Ready"),
        "/metrics": (200, metrics() + '\npromtail_file_bytes_total{path="/other"} 1'),
    }
    result = promtail(log_files=[{"path": f"{tmp_path}/*.log"}])
    assert f"doesn't read {tmp_path}/app.log; it reads /other" in result["cause"]


def test_a_path_that_no_entry_matches_is_named(answers: Answers, tmp_path: Path) -> None:
    answers |= {"x/ready": (200, "Ready"), "/metrics": (200, metrics())}
    result = promtail(log_folder=str(tmp_path), probes=[{**PROBE, "kind": "app"}])
    assert f"no entry of promtail_log_files matches {tmp_path}/app.log" in result["cause"]


def test_excluded_files_are_not_expected(tmp_path: Path) -> None:
    for name in ("a.log", "b.old.log"):
        (tmp_path / name).touch()
    entries = [{"path": f"{tmp_path}/**/*.log", "exclude": f"{tmp_path}/*.old.log"}]
    assert doctor.existing_files(entries) == [tmp_path / "a.log"]


# --- Steps 3 and 4 ---

LABELS = {"data": ["job", "service_name", "host"]}


def test_loki_passes_with_the_line(answers: Answers) -> None:
    answers |= {"/ready": (200, "ready\n"), "/labels": (200, LABELS), "/query_range": (200, STREAMS)}
    result = examine("loki")
    assert result["outcome"] == "passed", result
    assert result["lines"] == ["earlier", "later"]


GATEWAY = {"/health": (200, "logstead gateway\n"), "/labels anonymous": (401, "")}


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "the gateway at http://x doesn't answer as it should"),
        ({"/health": (200, ""), "/labels": (200, LABELS)}, "answers 200 to somebody who hasn't logged in"),
        ({**GATEWAY, "/ready": (401, "")}, "the gateway doesn't let dev-read in"),
        ({**GATEWAY, "/ready": (502, "")}, "the gateway can't reach Loki"),
    ],
    ids=["silent", "open", "unknown credential", "Loki away"],
)
def test_a_bad_gateway_is_explained(answers: Answers, given: Answers, cause: str) -> None:
    answers |= given
    result = examine("loki", tenant="dev", user="dev-read")
    assert result["outcome"] == "failed"
    assert cause in result["cause"]
    assert result["advice"]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "doesn't answer"),
        ({"/ready": (503, "Ingester not ready")}, "answers 503: Ingester not ready"),
        ({"/ready": (200, "ready"), "/query_range": (200, NOTHING)}, "no line of this job in the last hour at all"),
        (
            {"/ready": (200, "ready"), "trace_id": (200, NOTHING), "/query_range": (200, STREAMS)},
            "other lines of this job",
        ),
        ({"/ready": (200, "ready"), "/query_range": (200, STREAMS), "/labels": (200, {"data": ["a"]})}, "is missing"),
    ],
    ids=["silent", "not ready", "no line", "other lines", "labels"],
)
def test_loki_without_the_line_is_explained(answers: Answers, given: Answers, cause: str) -> None:
    answers |= given
    assert cause in examine("loki")["cause"]


HEALTHY: Answers = {"/api/health": (200, {"database": "ok"}), "/api/org": (200, {})}
SOURCE = (200, {"name": "Loki", "url": "http://loki:3101"})


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "doesn't answer"),
        ({"/api/health": (200, "<html>")}, "answers 200"),
        ({**HEALTHY, "/api/org": (401, "Invalid username or password")}, "doesn't let admin log in (401: Invalid"),
        ({**HEALTHY, "uid/loki": (404, {})}, "no data source with the uid loki (404)"),
        (
            {"uid/loki/health": (400, {"message": "Unable to connect"}), **HEALTHY, "uid/loki": SOURCE},
            "Unable to connect",
        ),
        (
            {"proxy/uid/loki": (200, NOTHING), "uid/loki/health": (200, {}), **HEALTHY, "uid/loki": SOURCE},
            "finds nothing for",
        ),
    ],
    ids=["silent", "stranger", "log-in", "no data source", "unhealthy", "another Loki"],
)
def test_a_bad_grafana_is_explained(answers: Answers, given: Answers, cause: str) -> None:
    answers |= given
    result = examine("grafana")
    assert cause in result["cause"]
    assert "pass" not in result["cause"].replace("password", "")


def test_grafana_passes_with_the_line(answers: Answers) -> None:
    answers |= {"proxy/uid/loki": (200, STREAMS), "uid/loki/health": (200, {}), **HEALTHY, "uid/loki": SOURCE}
    assert examine("grafana")["outcome"] == "passed"


# --- Step 5 ---

UP = {"health": "up", "labels": {"job": "loki", "host": "web"}}
DOWN = {
    "health": "down",
    "labels": {"job": "node", "host": "db"},
    "lastError": "refused",
    "scrapeUrl": "http://db:9100",
}
FOUND = {"data": {"activeAlertmanagers": [{"url": "http://am:9093/api/v2/alerts"}]}}
METRICS: Answers = {
    "/-/ready": (200, "Prometheus Server is Ready."),
    "/targets": (200, {"data": {"activeTargets": [UP]}}),
    "/v1/rules": (200, {"data": {"groups": [{"rules": [{"name": "TargetDown", "health": "ok"}]}]}}),
    "/alertmanagers": (200, FOUND),
    "/receivers": (200, [{"name": "ops"}]),
    "/v2/alerts": (200, [{"labels": {"alertname": "DiskFull"}}]),
}


def test_metrics_and_alerts_pass(answers: Answers) -> None:
    answers |= METRICS
    result = examine("alerts", alertmanager_url="http://am:9093")
    assert result["outcome"] == "passed", result
    assert result["detail"] == "1 targets are up, 1 rules are evaluated; firing: DiskFull; told: ops"
    assert examine("alerts", alertmanager_url="")["detail"] == "1 targets are up, 1 rules are evaluated"
    answers["/receivers"] = (200, [{"name": "nobody"}])
    assert "nobody is told of alerts" in examine("alerts", alertmanager_url="http://am:9093")["detail"]


def rules_of_grafana(**rule: str) -> dict[str, Any]:
    return {"data": {"groups": [{"rules": [{"name": "DiskFull", "state": "firing", "health": "ok", **rule}]}]}}


def test_the_alerts_of_grafana_are_told(answers: Answers) -> None:
    answers |= {
        "/v1/rules": (200, rules_of_grafana()),
        "/policies": (200, {"receiver": "ops", "routes": [{"receiver": "pager"}, {"receiver": "ops"}]}),
    }
    result = examine("grafana_alerts", password="hers")
    assert result["outcome"] == "passed", result
    assert result["detail"] == "1 rules are evaluated; firing: DiskFull; told: ops, pager"
    silent = {"receiver": "grafana-default-email", "routes": [{"receiver": "grafana-default-email"}]}
    answers["/policies"] = (200, silent)
    assert "nobody is told of alerts" in examine("grafana_alerts", password="hers")["detail"]
    for rules, cause in (
        ({"data": {"groups": []}}, "Grafana has no rules for alerts."),
        (rules_of_grafana(health="error", lastError="no"), "Grafana can't evaluate the rule DiskFull: no"),
        ("<html>", "answers 200: <html>"),
    ):
        answers["/v1/rules"] = (200, rules)
        result = examine("grafana_alerts", password="hers")
        assert result["outcome"] == "failed"
        assert cause in result["cause"], result


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"/-/ready": (0, "Connection refused")}, "doesn't answer"),
        ({"/targets": (200, "<html>")}, "answers 200: <html>"),
        ({"/targets": (200, {"data": {"activeTargets": [UP, DOWN]}})}, "can't scrape node on db: refused"),
        (
            {
                "/v1/rules": (
                    200,
                    {"data": {"groups": [{"rules": [{"name": "A", "health": "err", "lastError": "no"}]}]}},
                )
            },
            "can't evaluate the rule A: no",
        ),
        ({"/receivers": (0, "Connection refused")}, "Alertmanager at http://am:9093 answers 0: Connection refused"),
        ({"/alertmanagers": (200, {"data": {"activeAlertmanagers": []}})}, "doesn't send alerts to http://am:9093"),
    ],
    ids=["silent", "stranger", "target down", "broken rule", "no alertmanager", "not found"],
)
def test_metrics_or_alerts_that_fail_are_explained(answers: Answers, changed: Answers, cause: str) -> None:
    answers |= {**METRICS, **changed}
    result = examine("alerts", alertmanager_url="http://am:9093")
    assert result["outcome"] == "failed"
    assert cause in result["cause"]
    assert result["advice"]


# --- The report ---

GOOD = {"outcome": "passed", "detail": "fine", "seconds": 0.5, "probe": {}, "lines": []}
BAD = {"outcome": "failed", "cause": "it is off.", "advice": "switch it on.", "seconds": 1.0}
SKIPPED = {"skipped": True}


def summed(*results: dict[str, Any]) -> tuple[str, str]:
    steps = [{"name": f"Part {i}", "empty": "no host", "results": result} for i, result in enumerate(results, 1)]
    text, diagnosis = report.report_of(steps)
    return text, diagnosis


def test_all_good() -> None:
    line = json.dumps({"timestamp": "T", "level": "INFO", "logger_name": "a", "message": "hello"})
    text, diagnosis = summed({"web": {**GOOD, "probe": {"trace_id": TRACE_ID}}}, {"web": {**GOOD, "lines": [line]}})
    assert diagnosis == ""
    assert f"Trace id: {TRACE_ID}" in text
    assert "T  INFO  a  hello" in text


def test_the_first_failure_is_the_diagnosis() -> None:
    text, diagnosis = summed({"web": GOOD}, {"web": BAD, "db": BAD, "log": SKIPPED}, {"web": BAD})
    assert diagnosis == (
        "doctor: step 2 of 3 (Part 2) failed on web: it is off.\nWhat to do: switch it on.\n"
        "(The same step failed on db too.)"
    )
    assert [line.split()[3] for line in text.splitlines()] == ["ok", "FAILED", "not"]


def test_an_empty_group_has_not_passed() -> None:
    text, diagnosis = summed({"web": GOOD}, {"web": SKIPPED})
    assert diagnosis == ""
    assert "nothing   no host" in text


def test_a_line_in_the_journal_is_not_a_working_app() -> None:
    text, diagnosis = summed({"web": {**GOOD, "probe": PROBE}})
    assert diagnosis == ""
    assert "no app" in text
    assert " ok " not in text


def test_nothing_to_look_at_is_a_failure() -> None:
    assert "nothing to look at" in summed({}, {})[1]


def test_a_host_out_of_reach_is_a_finding() -> None:
    assert (
        "failed on web: the host can't be reached: no route"
        in summed({"web": {"unreachable": True, "msg": "no route"}})[1]
    )


def test_other_lines_are_shown_as_they_are() -> None:
    assert report.short("plain") == "plain"
    assert report.short("[1]") == "[1]"
