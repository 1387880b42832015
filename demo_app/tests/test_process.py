"""The service as systemd runs it: a process of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running import LogDir

import demo_app
from demo_app import logs
from demo_app.__main__ import main

SOURCE = Path(demo_app.__file__).parents[1]
GUIDE = SOURCE.parents[1] / "docs" / "adopt-logging.md"
Value = TypeVar("Value")


def command(
    *arguments: str, log_dir: Path, variables: dict[str, str] | None = None, path: Path = SOURCE
) -> dict[str, Any]:
    """Return what to start: a Python with nothing of this process's environment that could change its behaviour."""
    return {
        "args": [sys.executable, *arguments],
        "env": {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(path),
            "DEMO_APP_LOG_DIR": str(log_dir),
            "DEMO_APP_PORT": "0",
            **(variables or {}),
        },
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


@contextmanager
def running(start: dict[str, Any], log_dir: LogDir) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a service on any free port, and give its process and address."""
    with subprocess.Popen(**start) as process:
        try:
            port = wait_for(lambda: find_port(log_dir), process)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def find_port(log_dir: LogDir) -> str | None:
    file = log_dir.path / "app.log"
    found = re.search(r"http://127\.0\.0\.1:(\d+)", file.read_text()) if file.exists() else None
    return found[1] if found else None


def wait_for(condition: Callable[[], Value | None], process: subprocess.Popen[str]) -> Value:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if value := condition():
            return value
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("not in time")


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
    """Stop a service, which has to end cleanly and must have printed nothing."""
    process.send_signal(number)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def test_life_of_the_service(log_dir: LogDir) -> None:
    """The service starts, answers, fails once and ends cleanly; its files tell all of it once."""
    start = command("-m", "demo_app", log_dir=log_dir.path, variables={"DEMO_APP_LOG_LEVEL": "DEBUG"})
    with running(start, log_dir) as (process, address):
        assert httpx.get(f"{address}/health").json() == {"status": "ok", "service": "fastapi-demo"}
        failed = httpx.get(f"{address}/error")
        assert failed.status_code == 500
        (log_dir.path / "access.log").rename(log_dir.path / "access-1.log")
        httpx.get(f"{address}/trace/1")
        stop(process)

    (error,) = [record for record in log_dir.records("app") if record["level"] == "ERROR"]
    assert error["trace_id"] == failed.json()["trace_id"]
    assert [record["endpoint"] for record in log_dir.records("access-1")] == ["/health", "/error"]
    assert [record["endpoint"] for record in log_dir.records("access")] == ["/trace/{item_id}"]
    messages = [record["message"] for record in log_dir.records("app")]
    assert messages[-1].startswith("Finished server process")
    stamps = [record["timestamp"] for record in log_dir.records("app")]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    ("variables", "status", "message"),
    [
        (
            {"DEMO_APP_LOG_LEVEL": "LOUD", "DEMO_APP_PORT": "99999"},
            2,
            r"DEMO_APP_LOG_LEVEL=LOUD: .*'DEBUG'.*\nDEMO_APP_PORT=99999: .*65535",
        ),
        ({"DEMO_APP_OTLP_ENDPOINT": "localhost"}, 2, r"DEMO_APP_OTLP_ENDPOINT=localhost: .*URL"),
        ({"DEMO_APP_LOG_DIR": "/nowhere"}, 1, r"demo-app can't start: .*No such file or directory: '/nowhere/app.log'"),
    ],
    ids=["level and port", "endpoint", "directory"],
)
def test_bad_settings(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variables: dict[str, str],
    status: int,
    message: str,
) -> None:
    """Settings that can't work end the start with one clear line each, and without a stack trace."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main() == status
    printed = capfd.readouterr()
    assert re.fullmatch(message + ".*\n", printed.err)
    assert printed.out == ""


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken ends the start with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = subprocess.run(
            **command("-m", "demo_app", log_dir=tmp_path, variables={"DEMO_APP_PORT": port}), check=False
        )
    assert process.returncode == 1
    assert re.fullmatch(rf"demo-app can't start: .*Address already in use.*{port}.*\n", process.stderr)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OTLP collector's address, and what it receives."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def test_export(log_dir: LogDir, collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    """With an endpoint, the spans are exported, at the latest when the service stops, under the logs' ids."""
    endpoint, received = collector
    start = command("-m", "demo_app", log_dir=log_dir.path, variables={"DEMO_APP_OTLP_ENDPOINT": endpoint})
    with running(start, log_dir) as (process, address):
        httpx.get(f"{address}/trace/1")
        stop(process)

    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert (attributes["service.name"], attributes["deployment.environment.name"]) == ("fastapi-demo", "dev")
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"GET /trace/{item_id}", "load item", "query database", "price item"}
    assert {span.trace_id.hex() for span in spans} == {log_dir.record("access")["trace_id"]}


def test_no_export(log_dir: LogDir, collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    """Without an endpoint nothing is exported, whatever OpenTelemetry's own variables say; an empty one is none."""
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector[0], "DEMO_APP_OTLP_ENDPOINT": ""}
    start = command("-m", "demo_app", log_dir=log_dir.path, variables=own)
    with running(start, log_dir) as (process, address):
        httpx.get(f"{address}/trace/1")
        stop(process, signal.SIGINT)  # Ctrl-C is as clean an end as systemd's SIGTERM
    assert collector[1] == []
    assert log_dir.record("access")["trace_id"]


def test_guide_for_other_projects(log_dir: LogDir, tmp_path: Path) -> None:
    """The guide's example works as it stands, with logs.py alone and with uvicorn's own command line."""
    project = tmp_path / "shop"
    project.mkdir()
    shutil.copy(logs.__file__, project)
    (example,) = re.findall(r"```python\n(# main\.py.*?)```", GUIDE.read_text(), re.DOTALL)
    assert "/var/log/shop" in example
    extra = "import warnings; warnings.warn('old')\n@app.get('/boom')\ndef boom(): 1 / 0\n"
    (project / "main.py").write_text(example.replace("/var/log/shop", str(log_dir.path)) + extra)

    start = command("-m", "uvicorn", "main:app", "--port", "0", log_dir=log_dir.path, path=project)
    with running(start, log_dir) as (process, address):
        assert httpx.get(f"{address}/orders/17").status_code == 200
        assert httpx.get(f"{address}/boom").status_code == 500
        process.terminate()
        assert process.communicate(timeout=10) == ("", "")

    assert [(r["endpoint"], r["status_code"]) for r in log_dir.records("access")] == [
        ("/orders/{order_id}", 200),
        ("/boom", 500),
    ]
    by_logger = {record["logger_name"]: record for record in log_dir.records("app")}
    assert set(by_logger) == {"uvicorn.error", "py.warnings", "main", "http.error"}
    assert by_logger["main"]["trace_id"] == log_dir.records("access")[0]["trace_id"] != ""
    assert [record["logger_name"] for record in log_dir.records("error")] == ["http.error", "http.access"]
