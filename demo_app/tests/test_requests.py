import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from running import LogDir, Service

from demo_app import logs

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def spans(service: Service) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    service.app.state.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.mark.parametrize(
    ("path", "endpoint", "status", "level"),
    [
        ("/", "/", 200, "INFO"),
        ("/health", "/health", 200, "INFO"),
        ("/trace/7", "/trace/{item_id}", 200, "INFO"),
        ("/openapi.json", "/openapi.json", 200, "INFO"),
        ("/no/such/path", "unmatched", 404, "WARNING"),
        ("/error", "/error", 500, "ERROR"),
    ],
)
def test_canonical_record(service: Service, path: str, endpoint: str, status: int, level: str) -> None:
    """Every request leaves exactly one canonical record, which groups by the route's template."""
    response = service.get(path)

    assert response.status_code == status
    record = service.log_dir.record("access")
    assert record["level"] == level
    assert record["logger_name"] == "http.access"
    assert record["message"] == f"GET {endpoint} {status}"
    assert (record["method"], record["endpoint"], record["path"]) == ("GET", endpoint, path)
    assert type(record["status_code"]) is int
    assert record["status_code"] == status
    assert type(record["duration_ms"]) is float
    assert 0 < record["duration_ms"] < 5000
    assert record["service_name"] == "shop"
    assert record["trace_id"] == response.headers["x-trace-id"]
    assert record["span_id"]
    assert "exception" not in record


def test_health(service: Service) -> None:
    """The health check says which service answers."""
    assert service.get("/health").json() == {"status": "ok", "service": "shop"}


def test_traceparent(service: Service, spans: InMemorySpanExporter) -> None:
    """A trace that began elsewhere goes on here, in the spans and in the records."""
    service.get("/", headers={"traceparent": PARENT})
    (span,) = spans.get_finished_spans()
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    ids = {"trace_id": TRACE, "span_id": f"{span.context.span_id:016x}"}
    for file in ("app", "access"):
        record = service.log_dir.record(file)
        assert {key: record[key] for key in ids} == ids


@pytest.mark.parametrize("flags", ["00", "01"])
def test_traceparent_sampling(service: Service, flags: str) -> None:
    """Records have their ids whether or not the trace is sampled."""
    service.get("/", headers={"traceparent": f"{PARENT[:-2]}{flags}"})
    assert service.log_dir.record("access")["trace_id"] == TRACE


def test_bad_traceparent(service: Service) -> None:
    """A malformed traceparent starts a new trace."""
    service.get("/", headers={"traceparent": "00-zz-1-01"})
    assert len(service.log_dir.record("access")["trace_id"]) == 32


def test_nested_spans(log_dir: LogDir) -> None:
    """The records of one request share its trace, and each names its own span."""
    response = Service(log_dir, "DEBUG").get("/trace/7")
    records = [record for record in log_dir.records("app") if record["logger_name"] == "demo_app.app"]
    assert [record["message"] for record in records] == ["loading the item", "querying", "item priced"]
    everything = [*records, log_dir.record("access")]
    assert {record["trace_id"] for record in everything} == {response.json()["trace_id"]}
    assert len({record["span_id"] for record in everything}) == 4
    assert {record["item_id"] for record in everything} == {"7"}


def test_context_ends_with_its_request(service: Service) -> None:
    """What a request binds to its context is not on the records of the next one."""

    async def two() -> None:  # within one context, as a server might run them
        await service.aget("/trace/7")
        await service.aget("/")

    asyncio.run(two())
    assert ["item_id" in record for record in service.log_dir.records("access")] == [True, False]


def test_unhandled_exception(service: Service, spans: InMemorySpanExporter) -> None:
    """A failing request leaves one stack trace with its trace's ids, and tells the client only where to look."""
    response = service.get("/error", headers={"traceparent": PARENT})

    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error", "trace_id": TRACE}
    error = service.log_dir.record("app")
    assert (error["level"], error["message"]) == ("ERROR", "GET /error raised RuntimeError")
    assert error["exception_type"] == "RuntimeError"
    assert error["exception"].startswith("Traceback (most recent call last):\n")
    assert error["exception"].endswith("RuntimeError: this endpoint always fails")
    access = service.log_dir.record("access")
    assert (access["level"], access["status_code"]) == ("ERROR", 500)
    assert service.log_dir.records("error") == [error, access]
    (span,) = spans.get_finished_spans()
    for record in (error, access):
        assert (record["trace_id"], record["span_id"]) == (TRACE, f"{span.context.span_id:016x}")
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_server_report_of_a_recorded_exception(service: Service) -> None:
    """What the server reports about an exception that is in the log is dropped; all else that it reports is kept."""
    recorded = asyncio.run(failure(service.app, "/error"))
    server = logging.getLogger("uvicorn.error")
    server.error("Exception in ASGI application\n", exc_info=recorded)
    server.error("Exception in ASGI application\n", exc_info=RuntimeError("of the server's own"))
    server.error("no exception at all")
    messages = [record["message"] for record in service.log_dir.records("app")]
    assert messages == ["GET /error raised RuntimeError", "Exception in ASGI application\n", "no exception at all"]


async def failure(app: FastAPI, path: str) -> Exception:
    """Request a path as a server does, and return what it raises."""
    try:
        await raw_request(app, path)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


async def raw_request(app: FastAPI, path: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    body = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in body:
            return message
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": b"/", "root_path": "", "query_string": b"", "headers": [],
        "server": ("test", 80), "client": ("test", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


def test_exception_with_slots(service: Service) -> None:
    """Exceptions that can't take attributes are recorded like any other."""

    class FrozenError(Exception):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    @service.app.get("/frozen")
    async def frozen() -> None:
        raise FrozenError

    assert service.get("/frozen").status_code == 500
    assert service.log_dir.record("app")["exception_type"].endswith("FrozenError")


def test_handled_exception(service: Service) -> None:
    """An exception that the application answers itself is no stack trace in the log."""

    @service.app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    service.get("/teapot")
    assert service.log_dir.records("app") == []
    assert service.log_dir.record("access")["level"] == "WARNING"


def test_response_that_breaks_off(service: Service, spans: InMemorySpanExporter) -> None:
    """A stream that fails halfway is recorded as an error with the status that the client saw."""

    async def rows() -> AsyncIterator[bytes]:
        yield b"one\n"
        raise RuntimeError("lost the database")

    @service.app.get("/rows")
    async def stream() -> StreamingResponse:
        return StreamingResponse(rows())

    asyncio.run(failure(service.app, "/rows"))
    error, access = service.log_dir.record("app"), service.log_dir.record("access")
    assert "lost the database" in error["exception"]
    assert (access["level"], access["status_code"], access["endpoint"]) == ("ERROR", 200, "/rows")
    assert error["trace_id"] == access["trace_id"] != ""
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def test_streaming_response(service: Service) -> None:
    """A stream is recorded once it has ended, with the server's span and the time that all of it took."""

    async def rows() -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.sleep(0.02)  # the duration to find again, not a wait
        yield b"two\n"

    @service.app.get("/rows")
    async def stream() -> StreamingResponse:
        return StreamingResponse(rows())

    assert service.get("/rows", headers={"traceparent": PARENT}).text == "one\ntwo\n"
    access = service.log_dir.record("access")
    assert access["trace_id"] == TRACE
    assert access["duration_ms"] >= 20


def test_background_task(service: Service) -> None:
    """A request is recorded when its response is complete, and a background task's failure after that."""
    seen: list[int] = []

    def work() -> None:
        seen.append(len(service.log_dir.records("access")))
        raise RuntimeError("in the background")

    @service.app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(work)

    assert service.get("/later").status_code == 200
    assert seen == [1]
    assert service.log_dir.record("access")["level"] == "INFO"
    assert "in the background" in service.log_dir.record("app")["exception"]


def test_concurrent_requests(service: Service) -> None:
    """Requests at the same time keep their trace ids and their context apart."""
    everyone = asyncio.Barrier(20)

    @service.app.get("/meet/{number}")
    async def meet(number: int) -> None:
        structlog.contextvars.bind_contextvars(number=number)
        await everyone.wait()
        structlog.stdlib.get_logger("meet").info("met")

    async def all_at_once() -> None:
        await asyncio.gather(
            *(service.aget(f"/meet/{i}", headers={"traceparent": f"00-{i + 1:032x}-{1:016x}-01"}) for i in range(20))
        )

    asyncio.run(all_at_once())
    for file in ("app", "access"):
        records = service.log_dir.records(file)
        expected = {(i, f"{i + 1:032x}") for i in range(20)}
        assert len(records) == 20
        assert {(record["number"], record["trace_id"]) for record in records} == expected


def test_sync_endpoint(service: Service) -> None:
    """Endpoints in worker threads log with the trace of their request."""

    @service.app.get("/sync")
    def sync() -> None:
        logging.getLogger("worker").info("hello")

    service.get("/sync", headers={"traceparent": PARENT})
    assert service.log_dir.record("app")["trace_id"] == TRACE


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "status"),
    [
        ("GET", "/v1/users/ada", "/v1/users/{name}", 200),
        ("DELETE", "/v1/users/ada", "/v1/users/{name}", 405),
        ("GET", "/mounted/pets/rex", "/mounted/pets/{name}", 200),
        ("GET", "/mounted/nothing", "/mounted/{path}", 404),
        ("GET", "/trace/7/", "unmatched", 307),
        ("BREW", "/", "/", 405),
    ],
)
def test_endpoint_template(service: Service, method: str, path: str, endpoint: str, status: int) -> None:
    """The endpoint is the whole template, with the prefixes of routers and mounts, and never a path of a client's."""
    users, pets = APIRouter(), FastAPI()

    @users.get("/users/{name}")
    @pets.get("/pets/{name}")
    async def show(name: str) -> str:
        return name

    service.app.include_router(users, prefix="/v1")
    service.app.mount("/mounted", pets)
    assert service.get(path, method=method).status_code == status
    record = service.log_dir.record("access")
    assert (record["method"], record["endpoint"], record["path"]) == (method, endpoint, path)


def test_access_log_at_any_level(log_dir: LogDir) -> None:
    """Requests are recorded whatever the level, as they are what is counted."""
    service = Service(log_dir, "CRITICAL")
    service.get("/")
    service.get("/nope")
    assert log_dir.records("app") == []
    assert [record["level"] for record in log_dir.records("access")] == ["INFO", "WARNING"]


@pytest.mark.parametrize(
    "path", ["/line\nbreak", "/lone\udc80surrogate", "/" + "x" * 60_000], ids=["lf", "utf8", "long"]
)
def test_hostile_path(service: Service, path: str) -> None:
    """No path makes a record invalid or gets it lost."""
    asyncio.run(raw_request(service.app, path))
    record = service.log_dir.record("access")
    assert record["status_code"] == 404
    assert record["path"][:5] == path[:5]


def test_query_is_not_recorded(service: Service) -> None:
    """Queries stay out of the logs, as people put secrets there."""
    service.get("/?token=hunter2")
    assert "hunter2" not in (service.log_dir.path / "access.log").read_text()


def test_response_without_headers(service: Service) -> None:
    """ASGI lets an application leave its headers out; the trace id is added all the same."""

    async def bare(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    service.app.mount("/bare", bare)
    response = service.get("/bare")
    assert response.headers["x-trace-id"] == service.log_dir.record("access")["trace_id"]


def test_without_tracing(log_dir: LogDir) -> None:
    """The middleware also works in an application that isn't traced."""
    logs.configure("bare", log_dir.path)
    app = FastAPI()
    app.add_middleware(logs.RequestLog)
    (start, _body) = asyncio.run(raw_request(app, "/openapi.json"))
    assert b"x-trace-id" not in dict(start["headers"])
    assert log_dir.record("access")["trace_id"] == ""
