"""The doctor's judgement, without hosts: what it makes of files, metrics and answers, and how it reports."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.logstead.platform.plugins.action.doctor_plan import ActionModule as Plan
from ansible_collections.logstead.platform.plugins.action.doctor_step import ActionModule as StepAction
from ansible_collections.logstead.platform.plugins.module_utils import (
    doctor_app,
    doctor_common,
    doctor_grafana,
    doctor_loki,
    doctor_prometheus,
    doctor_promtail,
    log_files,
)
from ansible_collections.logstead.platform.plugins.modules import doctor
from ansible_collections.logstead.platform.plugins.plugin_utils import doctor_report as report
from ansible_collections.logstead.platform.plugins.plugin_utils import doctor_steps as steps

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

    for module in (doctor_app, doctor_common, doctor_grafana, doctor_loki, doctor_prometheus, doctor_promtail):
        monkeypatch.setattr(module, "ask", ask)
    for module in (doctor_common, doctor_promtail):
        monkeypatch.setattr(module, "output_of", lambda *_: "")
    monkeypatch.setattr(doctor_common, "POLL_SECONDS", 0)
    monkeypatch.setattr(doctor_promtail, "SEND_SECONDS", 0)
    monkeypatch.setattr(doctor_app, "WRITE_SECONDS", 0)
    return given


def examine(step: str, **parameters: Any) -> dict[str, Any]:
    defaults = {"host": "web", "url": "http://x", "probes": [PROBE], "timeout": 0, "promtail_url": ""}
    grafana = {"user": "admin", "password": "pass", "datasource": "loki", "tenant": ""}
    result: dict[str, Any] = doctor.examine({"step": step, **defaults, **grafana, **parameters})
    return result


# --- Step 1 ---


def record(**changes: Any) -> str:
    fields: dict[str, Any] = dict.fromkeys(doctor_app.CONTRACT, "x") | changes
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
    assert doctor_app.problem_of(line.encode()) == problem


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text(f'{record()}\n{record()}\n{{"half": ')
    assert doctor_app.check_records(path) == 2


def test_a_long_file_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "TAIL_BYTES", 100)
    path = tmp_path / "app.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    lines = log_files.tail_of(path)
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
        *(
            f'{doctor_promtail.PUSHES}{{host="l",status_code="{code.strip("_")}"}} {count}'
            for code, count in pushes.items()
        ),
    ]
    return "\n".join(lines)


def promtail(**parameters: Any) -> dict[str, Any]:
    return examine("promtail", **{"loki_url": "http://loki", "log_files": [], "log_folder": "/var/log/x", **parameters})


def test_metrics_are_read() -> None:
    (sample,) = doctor_promtail.read_metrics('# TYPE a counter\na_total{path="/x y",b="c\\"d"} 1.5e+06\n')
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
                "/metrics": (
                    200,
                    metrics(sent=10).replace("# HELP", "#") + f'\n{doctor_promtail.PUSHES}{{status_code="-1"}} 4',
                ),
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
    with pytest.raises(doctor_common.StepFailed) as raised:
        doctor_promtail.explain_silence({"loki_url": "http://loki"}, {code: 3.0})
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
    assert doctor_promtail.existing_files(entries) == [tmp_path / "a.log"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "link in the folder's place"])
def test_what_somebody_put_in_a_logs_place_is_named_and_not_read(answers: Answers, tmp_path: Path, kind: str) -> None:
    answers |= {"x/ready": (200, "Ready"), "/metrics": (200, metrics()), "/trace/": (200, {})}
    secret, log = tmp_path / "secret", tmp_path / "logs" / "app.log"
    secret.write_text("the secret\n")
    log.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(log)
    elif kind == "link in the folder's place":
        log.parent.rmdir()
        log.parent.symlink_to(tmp_path)
        (tmp_path / "app.log").write_text("the secret\n")
    else:
        log.symlink_to(secret if kind == "link" else tmp_path / "none")
    for result in (promtail(log_files=[{"path": str(log)}]), examine("app", log_folder=str(log.parent))):
        assert result["outcome"] == "failed"
        assert (
            "is not a regular file" in result["cause"] or "is a symbolic link, which is not followed" in result["cause"]
        )
        assert str(log if kind != "link in the folder's place" else log.parent) in result["cause"]
        assert "the secret" not in str(result)


def test_a_promtail_that_would_follow_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    proc = tmp_path / "proc"
    (proc / "7").mkdir(parents=True)
    (proc / "sys/fs").mkdir(parents=True)
    links = proc / "sys/fs/protected_hardlinks"
    links.write_text("1\n")
    mounts = proc / "7/mountinfo"
    root = "1 0 8:1 / / ro,relatime - ext4 /dev/sda rw\n"

    def check() -> None:
        doctor_promtail.check_view("7", [f"{logs}/*.log", f"{tmp_path}/none/*.log"])

    monkeypatch.setattr(
        doctor_promtail, "Path", lambda *parts: Path(*(str(part).replace("/proc", str(proc)) for part in parts))
    )
    mounts.write_text(f"{root}2 1 8:1 /logs {logs} ro,nosymfollow - ext4 /dev/sda rw\n")
    check()
    mounts.write_text(f"{root}2 1 8:1 /logs {logs}2 ro,nosymfollow - ext4 /dev/sda rw\n")
    with pytest.raises(doctor_common.StepFailed, match=f"would follow a symbolic link in {logs}"):
        check()
    mounts.write_text(f"{root}2 1 8:1 /logs {logs} ro,nosymfollow - ext4 /dev/sda rw\n")
    links.write_text("0\n")
    with pytest.raises(doctor_common.StepFailed, match="protected_hardlinks is 0"):
        check()


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
    assert result["detail"] == "1 targets are up, 1 rules are evaluated; firing: DiskFull; receivers: ops"
    assert examine("alerts", alertmanager_url="")["detail"] == "1 targets are up, 1 rules are evaluated"
    answers["/receivers"] = (200, [{"name": "nobody"}])
    assert "no receiver is configured" in examine("alerts", alertmanager_url="http://am:9093")["detail"]


def rules_of_grafana(**rule: str) -> dict[str, Any]:
    return {"data": {"groups": [{"rules": [{"name": "DiskFull", "state": "firing", "health": "ok", **rule}]}]}}


def test_the_alerts_of_grafana_are_told(answers: Answers) -> None:
    answers |= {
        "/v1/rules": (200, rules_of_grafana()),
        "/policies": (200, {"receiver": "ops", "routes": [{"receiver": "pager"}, {"receiver": "ops"}]}),
    }
    result = examine("grafana_alerts", password="hers")
    assert result["outcome"] == "passed", result
    assert result["detail"] == "1 rules are evaluated; firing: DiskFull; receivers: ops, pager"
    silent = {"receiver": "grafana-default-email", "routes": [{"receiver": "grafana-default-email"}]}
    answers["/policies"] = (200, silent)
    assert "no receiver is configured" in examine("grafana_alerts", password="hers")["detail"]
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


# --- The steps: who takes them, with what, and their numbers ---

NAMES = [step.name for step in steps.STEPS]
GROUPS = ("loki", "promtail", "grafana", "demo_app", "prometheus")
MODULE_STEPS = ["app", "promtail", "loki", "grafana", "alerts", "grafana_alerts"]


def variables(host: str = "web", groups: dict[str, list[str]] | None = None, **changed: Any) -> dict[str, Any]:
    """Return the variables of a host; the inventory has one host that runs everything, if it isn't given others."""
    members = {group: ["web"] for group in GROUPS} if groups is None else groups
    addresses = {f"{group}_http_listen_address": "127.0.0.1" for group in GROUPS}
    ports = {f"{group}_http_port": number for number, group in enumerate(GROUPS, start=9001)}
    return {
        "inventory_hostname": host,
        "groups": members,
        "group_names": [group for group, hosts in members.items() if host in hosts],
        "ansible_skip_tags": [],
        "platform_tenants_enabled": False,
        "platform_alert_engine": "none",
        "platform_alertmanager_url": "http://am:9093",
        "platform_gateway_url": "https://gate:3102",
        "platform_tenant": "prod",
        "platform_credentials": {"prod": {"read": "hers"}},
        "demo_app_log_folder": "/var/log/demo-app",
        "promtail_log_files": [],
        "promtail_loki_url": "http://127.0.0.1:9001",
        "grafana_admin_password": "secret",
        **addresses,
        **ports,
        **changed,
    }


def takers(number: int, groups: dict[str, list[str]], **changed: Any) -> list[str]:
    """Return the hosts that take a step."""
    hosts = sorted({host for members in groups.values() for host in members})
    return [host for host in hosts if steps.STEPS[number - 1].takes(variables(host, groups, **changed))]


@pytest.mark.parametrize(
    ("groups", "engine", "wanted"),
    [
        (["loki"], "none", NAMES[:4]),
        (["prometheus"], "alertmanager", NAMES[:5]),
        (["grafana"], "grafana", [*NAMES[:4], NAMES[5]]),
        (["prometheus"], "grafana", NAMES),
    ],
)
def test_there_are_as_many_steps_as_the_inventory_has(groups: list[str], engine: str, wanted: list[str]) -> None:
    host = variables(groups={group: ["web"] for group in groups}, platform_alert_engine=engine)
    assert [step.name for step in steps.steps_of(host)] == wanted


def action_of(plugin: type[Any], **arguments: Any) -> Any:
    """Return an action plugin that runs without a task queue, and whose variables are worked out already."""
    task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False)
    templar = SimpleNamespace(template=lambda value: value)
    templar.copy_with_new_env = lambda available_variables: templar  # noqa: ARG005 - called by its name
    loader = SimpleNamespace(load_from_file=lambda *_, **__: {})
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    return plugin(task, connection, SimpleNamespace(), loader, templar, None)


def test_the_steps_are_numbered_as_many_as_there_are() -> None:
    titles = [step["title"] for step in action_of(Plan).run(task_vars=variables())["steps"]]
    assert [title.partition(" | ")[0] for title in titles] == [f"Step {number} of 5" for number in range(1, 6)]


@pytest.mark.parametrize("engine", ["grafana", "alertmanager"])
def test_the_module_takes_every_step_in_the_order_of_the_way(engine: str) -> None:
    host = variables(platform_alert_engine=engine)
    given = [step.arguments(host) for step in steps.STEPS]
    assert [arguments["step"] for arguments in given] == MODULE_STEPS
    assert set(MODULE_STEPS) | {"journal"} == set(doctor.STEPS)
    assert given[4]["alertmanager_url"] == ("" if engine == "grafana" else "http://am:9093")


def test_hosts_take_the_steps_of_their_parts() -> None:
    groups = {"demo_app": ["a", "b"], "promtail": ["b", "c"], "loki": ["d"], "grafana": ["e"], "prometheus": ["f"]}
    assert [takers(number, groups) for number in range(1, 7)] == [
        ["a", "b", "c"],
        ["a", "b", "c"],
        ["d"],
        ["e"],
        ["f"],
        ["e"],
    ]
    first = steps.STEPS[0]
    assert first.arguments(variables("a", groups)) == {
        "step": "app",
        "url": "http://127.0.0.1:9004",
        "log_folder": "/var/log/demo-app",
    }
    assert first.arguments(variables("c", groups)) == {"step": "journal", "promtail_url": "http://127.0.0.1:9002"}


def test_an_app_is_no_finding_where_nobody_has_a_collector() -> None:
    assert takers(2, {"demo_app": ["a"]}) == []


def test_grafana_is_left_out_by_its_tag() -> None:
    groups = {"grafana": ["a"]}
    for number in (4, 6):
        assert takers(number, groups) == ["a"]
        assert takers(number, groups, ansible_skip_tags=["grafana"]) == []


def test_with_tenants_loki_is_asked_through_the_gateway() -> None:
    groups = {"loki": ["store"], "gateway": ["gate"], "promtail": ["a", "b"]}
    tenants: dict[str, Any] = {"platform_tenants_enabled": True}
    assert takers(3, groups, **tenants) == ["gate"]
    assert takers(3, {"promtail": ["a", "b"]}, **tenants) == ["a"]
    asked = steps.STEPS[2].arguments(variables("gate", groups, **tenants))
    assert (asked["url"], asked["user"], asked["password"]) == ("https://gate:3102", "prod-read", "hers")
    assert asked["ca"] == "/etc/gateway/ca.pem"
    elsewhere = steps.STEPS[2].arguments(variables("a", groups, **tenants, platform_credentials={}))
    assert (elsewhere["ca"], elsewhere["password"]) == ("/etc/promtail/ca.pem", "")


def test_a_lines_way_may_take_longer() -> None:
    asked = [steps.STEPS[2].arguments(host) for host in (variables(), variables(doctor_timeout=5))]
    assert [arguments["timeout"] for arguments in asked] == [60, 5]


# --- When to stop ---

GOOD = {"outcome": "passed", "detail": "fine", "seconds": 0.5, "probe": {}, "lines": []}
BAD = {"outcome": "failed", "cause": "it is off.", "advice": "switch it on.", "seconds": 1.0}
AWAY = {"unreachable": True, "msg": "no route"}
BROKEN = {"msg": "Traceback"}


@pytest.mark.parametrize("bad", [BAD, AWAY, BROKEN], ids=["failed", "out of reach", "broken"])
@pytest.mark.parametrize("number", range(1, 7))
def test_what_one_host_finds_stops_all_later_steps_and_no_other(number: int, bad: dict[str, Any]) -> None:
    passed = dict.fromkeys(NAMES[:number], GOOD)
    found = {"web": passed, "db": {**passed, NAMES[number - 1]: bad}, "idle": {}}
    assert [steps.is_reached(step, found) for step in steps.STEPS] == [True] * number + [False] * (6 - number)


def test_a_step_that_nobody_takes_stops_nothing() -> None:
    assert all(steps.is_reached(step, {"web": {}}) for step in steps.STEPS)


def test_only_lines_that_a_collector_reads_are_looked_for() -> None:
    found = {host: {NAMES[0]: {**GOOD, "probe": {"host": host}}} for host in ("a", "b")}
    assert steps.probes_of({**found, "c": {}, "d": {NAMES[0]: GOOD}}, ["b", "c", "d"]) == [{"host": "b"}]


def take(step: str, execute: Callable[..., dict[str, Any]], **changed: Any) -> dict[str, Any]:
    """Return the result of the action that takes a step on the host web, with a module that does as it is told."""
    action = action_of(StepAction, name=step)
    action._execute_module = execute
    host = variables(**{"ansible_play_hosts_all": ["web", "db"], "hostvars": {"web": {}, "db": {}}, **changed})
    result: dict[str, Any] = action.run(task_vars=host)
    return result


def test_a_result_is_added_to_the_earlier_ones_of_the_host() -> None:
    given: list[dict[str, Any]] = []

    def execute(name: str, arguments: dict[str, Any], **_: Any) -> dict[str, Any]:
        given.append({"name": name, **arguments})
        return {**GOOD, "ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3"}}

    probe = {"host": "web"}
    earlier = {"web": {"doctor_taken": {"taken": {NAMES[0]: {**GOOD, "probe": probe}}}}, "db": {}}
    result = take(NAMES[1], execute, hostvars=earlier)
    assert result["taken"] == {NAMES[0]: {**GOOD, "probe": probe}, NAMES[1]: GOOD}
    assert given[0]["name"] == "logstead.platform.doctor"
    assert (given[0]["host"], given[0]["probes"]) == ("web", [probe])
    assert "ansible_facts" in result


def test_a_step_after_a_failure_is_skipped_and_forgets_nothing() -> None:
    earlier = {"web": {"doctor_taken": {"taken": {NAMES[0]: GOOD}}}, "db": {"doctor_taken": {"taken": {NAMES[0]: BAD}}}}
    result = take(NAMES[1], lambda *_, **__: pytest.fail("the module has run"), hostvars=earlier)
    assert result["skipped"]
    assert result["taken"] == {NAMES[0]: GOOD}


def raises(error: Exception) -> Callable[..., dict[str, Any]]:
    def execute(*_: Any, **__: Any) -> dict[str, Any]:
        raise error

    return execute


@pytest.mark.parametrize(
    ("execute", "seen"),
    [
        (raises(AnsibleConnectionFailure("no route")), {"unreachable": True, "msg": "no route"}),
        (raises(AnsibleError("no python")), {"msg": "no python"}),
        (lambda *_, **__: {"failed": True, "msg": "Traceback", "rc": 1}, {"msg": "Traceback"}),
        (raises(KeyError("promtail_http_port")), {"msg": "the variable 'promtail_http_port' is not set"}),
    ],
    ids=["out of reach", "no module", "broken module", "no variable"],
)
def test_whatever_happens_is_a_finding_and_no_end(execute: Callable[..., dict[str, Any]], seen: dict[str, Any]) -> None:
    result = take(NAMES[0], execute)
    assert result["taken"] == {NAMES[0]: seen}
    assert not result.get("failed")


# --- The playbook, with hosts that are this one, and with one server as all of their parts ---


class Parts:
    """Answers as Promtail and as Loki, which finds every line; keeps what is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        sent = itertools.count(10)
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            """The first part of a path tells who is asked."""

            def do_GET(self) -> None:
                asked.append(unquote(self.path))
                part, _, path = self.path.lstrip("/").partition("/")
                body = {
                    "ready": "Ready" if part == "promtail" else "ready",
                    "metrics": f"promtail_sent_entries_total {next(sent)}",
                    "loki/api/v1/query_range": json.dumps(STREAMS),
                    "loki/api/v1/labels": json.dumps(LABELS),
                }[path.partition("?")[0]]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def parts() -> Iterator[Parts]:
    found = Parts()
    with found.server:
        threading.Thread(target=found.server.serve_forever, daemon=True).start()
        yield found
        found.server.shutdown()


@pytest.fixture
def run(parts: Parts, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run the playbook with two collectors, a and b, and a Loki; return the exit code and what is printed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "journalctl", "logger"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    shared = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "promtail_http_port": f"{parts.server.server_port}/promtail",
        "promtail_http_listen_address": "127.0.0.1",
        "promtail_loki_url": f"http://127.0.0.1:{parts.server.server_port}/loki",
        "promtail_log_files": [],
        "loki_http_port": f"{parts.server.server_port}/loki",
        "loki_http_listen_address": "127.0.0.1",
        "platform_tenants_enabled": False,
        "platform_alert_engine": "none",
    }

    def play(*options: str, **more: dict[str, Any]) -> tuple[int, str]:
        members = {"promtail": ["a", "b"], "loki": ["store"], "grafana": ["store"]}
        groups = {group: {"hosts": {host: more.get(host, {}) for host in hosts}} for group, hosts in members.items()}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": shared, "children": groups}}))
        run = subprocess.run(
            ["ansible-playbook", "-i", tmp_path / "hosts.json", "playbooks/doctor.yml", *options],
            cwd=REPOSITORY,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return run.returncode, run.stdout

    return play


def test_the_lines_of_all_hosts_are_looked_for(run: Callable[..., tuple[int, str]], parts: Parts) -> None:
    code, printed = run("--skip-tags", "grafana")
    assert code == 0, printed
    assert "doctor: every step that was taken works." in printed
    assert "4  Grafana's datasource answers  nothing   no host is in the group grafana, or it is left out" in printed
    assert "Step 4 of 4 | Grafana finds it" in printed
    queries = {path.partition("query=")[2].partition("&")[0] for path in parts.asked if "query_range" in path}
    assert len(queries) == 2, queries


def test_of_hosts_that_are_left_out_nothing_is_said(run: Callable[..., tuple[int, str]]) -> None:
    code, printed = run("--limit", "a", "--check")
    assert code == 0, printed
    assert "3  Loki finds the line           nothing   no host is in the group loki, or in gateway" in printed


AWAY_BY_SSH = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.mark.parametrize(
    ("broken", "failure", "rows"),
    [
        (
            {"a": AWAY_BY_SSH},
            "1 of 4 (The app writes JSON) failed on a: the host can't be reached",
            "FAILED not not not",
        ),
        ({"store": AWAY_BY_SSH}, "3 of 4 (Loki finds the line) failed on store: the host", "no ok FAILED not"),
        (
            {"b": {"promtail_log_files": "{{ missing }}"}},
            "2 of 4 (Promtail sends) failed on b: the check itself broke: ",
            "no FAILED not not",
        ),
        (
            {"store": {"loki_http_port": 1}},
            "3 of 4 (Loki finds the line) failed on store: loki.service is unknown",
            "no ok FAILED not",
        ),
    ],
    ids=["collector away", "Loki's host away", "no variable", "Loki silent"],
)
def test_there_is_a_report_whatever_fails(
    run: Callable[..., tuple[int, str]], broken: dict[str, Any], failure: str, rows: str
) -> None:
    code, printed = run(**broken)
    assert code == 2, printed
    assert f"doctor: step {failure}" in printed
    shown = [line.strip() for line in printed.splitlines() if line.strip()[:3] in ("1  ", "2  ", "3  ", "4  ")]
    assert [line[33:].split()[0] for line in shown] == rows.split()


# --- The report ---


def summed(*results: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Return the report on as many steps; a host that has no result has not taken the step."""
    all_steps = [replace(steps.STEPS[0], name=f"Part {i}", empty="no host") for i, _ in enumerate(results, 1)]
    hosts = dict.fromkeys(host for result in results for host in result)
    found = {
        host: {step.name: result[host] for step, result in zip(all_steps, results) if host in result} for host in hosts
    }
    return report.report_of(all_steps, found)


@pytest.mark.parametrize("number", range(1, 7))
def test_the_report_names_whichever_step_fails_by_its_number(number: int) -> None:
    found = {"web": {**dict.fromkeys(NAMES[: number - 1], GOOD), NAMES[number - 1]: BAD}}
    text, diagnosis = report.report_of(steps.STEPS, found)
    assert diagnosis.startswith(f"doctor: step {number} of 6 ({NAMES[number - 1]}) failed on web: it is off.")
    rows = text.splitlines()
    assert [row[33:].split()[0] for row in rows] == ["ok"] * (number - 1) + ["FAILED"] + ["not"] * (6 - number)
    assert [row[:33].rstrip() for row in rows] == [f"{i}  {name}" for i, name in enumerate(NAMES, 1)]


def test_all_good() -> None:
    line = json.dumps({"timestamp": "T", "level": "INFO", "logger_name": "a", "message": "hello"})
    text, diagnosis = summed({"web": {**GOOD, "probe": {"trace_id": TRACE_ID}}}, {"web": {**GOOD, "lines": [line]}})
    assert diagnosis == ""
    assert f"Trace id: {TRACE_ID}" in text
    assert "T  INFO  a  hello" in text


def test_the_first_failure_is_the_diagnosis() -> None:
    text, diagnosis = summed({"web": GOOD}, {"web": BAD, "db": BAD}, {})
    assert diagnosis == (
        "doctor: step 2 of 3 (Part 2) failed on web: it is off.\nWhat to do: switch it on.\n"
        "(The same step failed on db too.)"
    )
    assert [line.split()[3] for line in text.splitlines()] == ["ok", "FAILED", "not"]


def test_an_empty_group_has_not_passed() -> None:
    text, diagnosis = summed({"web": GOOD}, {})
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
    assert "failed on web: the host can't be reached: no route" in summed({"web": AWAY})[1]


def test_a_check_that_breaks_is_a_finding() -> None:
    assert "failed on web: the check itself broke: Traceback" in summed({"web": BROKEN})[1]


def test_what_a_program_writes_does_nothing_to_a_terminal_and_makes_no_lines_of_the_report() -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"
    line = json.dumps({"timestamp": "T", "level": "INFO", "logger_name": "a", "message": f"{hostile}\ndoctor: fine"})
    text, _ = summed(
        {"web": {**GOOD, "detail": hostile, "probe": {"trace_id": TRACE_ID}}}, {"web": {**GOOD, "lines": [line]}}
    )
    _, diagnosis = summed({"web": {**BAD, "cause": hostile}})
    for shown in (text, diagnosis):
        assert r"\x1b]0;title\x07\x1b[2J\x9b31m\u202e" in shown
        assert not [char for char in shown if not char.isprintable() and char != "\n"]
    assert "\ndoctor: fine" not in text


def test_other_lines_are_shown_as_they_are() -> None:
    assert report.short("plain") == "plain"
    assert report.short("[1]") == "[1]"
