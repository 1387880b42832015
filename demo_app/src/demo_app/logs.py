"""Log files that a log platform can use: one JSON object a line, joined with traces, exactly one record per request.

This file stands alone: copy it into any FastAPI or Starlette project that has structlog and opentelemetry-api.

    logs.configure("my-service", "/var/log/my-service", "INFO")
    app.add_middleware(logs.RequestLog)  # the last one added, as that is the outermost

From then on `structlog.get_logger()`, `logging.getLogger()`, warnings and the server's own messages end up in:

    app.log     everything that the application and its libraries say
    access.log  one canonical record per request, whatever the level
    error.log   a copy of what is ERROR or worse in the other two, for people at the host

Every record has the fields of `CONTRACT`; request records add method, endpoint, path, status_code and duration_ms.
"""

import contextlib
import errno
import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import structlog
from opentelemetry import trace
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTRACT = frozenset(
    {
        "timestamp",
        "level",
        "logger_name",
        "message",
        "service_name",
        "trace_id",
        "span_id",
        "exception",
        "exception_type",
    }
)
ACCESS, ERROR = "http.access", "http.error"
UNMATCHED = "unmatched"

# Loki refuses lines above 256 KiB by default, and a refused line is lost. One text may take at most 16 Ki characters,
# which is 96 KiB if each has to be escaped: a message and a stack trace always fit.
_MAX_TEXT = 16 * 1024
_MAX_LINE = 200 * 1024
_MAX_DEPTH = 6

# JSON escapes only what is below U+0020. Some readers also break lines at U+0085, U+2028 and U+2029, terminals obey the
# other C1 controls, and a lone surrogate has no UTF-8 form.
_UNSAFE = {char: f"\\u{char:04x}" for char in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
_UNSAFE |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")

_FIELDS = "_structured_fields"
_RECORDED = "_is_in_the_log"
_NOT_EXTRA = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "message",
    "taskName",  # on every record since Python 3.12
    "color_message",  # uvicorn's message once more, for terminals
    "otelSpanID",  # LoggingInstrumentor's names for what trace_ids() gives
    "otelTraceID",
    "otelTraceSampled",
    "otelServiceName",
}


def configure(service_name: str, log_dir: str | Path, level: str = "INFO") -> None:
    """Send every log record of this process to the files in `log_dir`, which has to exist. May be called again.

    Args:
        service_name: What the records carry as `service_name`.
        log_dir: The directory of the three files. They are created with the process's umask.
        level: What app.log leaves out below it, for instance "INFO". Request records are always written.

    Raises:
        OSError: A file can't be opened. Nothing has been changed then.
    """
    handler = _FilesHandler(service_name, Path(log_dir))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _FilesHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    # The command line `uvicorn` has given its loggers handlers that print by now; printed records would reach the
    # journal, and be collected twice.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # access.log has it, with the trace
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _to_stdlib],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def trace_ids() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the current span in W3C's hexadecimal form, empty outside a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {"trace_id": "", "span_id": ""}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


class RequestLog:
    """ASGI middleware that writes one canonical record per request, and the stack trace of what nobody handled.

    It has to run inside the server span: OpenTelemetry's FastAPI instrumentation puts the span around every middleware
    that is added with `app.add_middleware`, whatever the order of the calls.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        """Wrap an application; `observe` gets each request's own fields and its trace_id, such as to count it."""
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and record how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        structlog.contextvars.clear_contextvars()  # what one request binds never shows up in another
        span = trace.get_current_span()
        trace_id = trace_ids()["trace_id"]
        started = time.perf_counter()
        status = 0
        recorded = False

        def record(*, failed: bool = False) -> None:
            nonlocal recorded
            if recorded:
                return
            recorded = True
            endpoint = _endpoint(scope)
            # Without a response there is an exception or a broken application: servers answer both with 500. A response
            # that broke off after its start keeps the status that the client saw; the level tells.
            status_code = status or 500
            fields = {
                "method": scope["method"],
                "endpoint": endpoint,
                "path": scope["path"],  # without the query, where people put secrets
                "status_code": status_code,
                "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            }
            level = logging.ERROR if failed else _severity(status_code)
            # The response may be sent from within some inner span: the record belongs to the server's.
            with trace.use_span(span):
                logging.getLogger(ACCESS).log(
                    level, "%s %s %d", scope["method"], endpoint, status_code, extra={_FIELDS: fields}
                )
            if self.observe:
                self.observe(fields | {"trace_id": trace_id})

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if trace_id:
                    message.setdefault("headers", [])
                    MutableHeaders(scope=message)["x-trace-id"] = trace_id
            await send(message)
            # Not after the application has returned: background tasks run until then, maybe for minutes.
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                record()

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            name = _type_name(type(error))
            logging.getLogger(ERROR).exception("%s %s raised %s", scope["method"], _endpoint(scope), name)
            record(failed=True)
            # The exception goes on, as the span, the application's own handlers and the server need it. What the server
            # would log about it is in the log already.
            vars(error)[_RECORDED] = True
            raise
        finally:
            record()


class _FilesHandler(logging.Handler):
    """Renders each record once, and appends it to the files that it belongs to."""

    def __init__(self, service_name: str, log_dir: Path) -> None:
        super().__init__()
        self._service_name = service_name
        self._app, self._access, self._error = (_File(log_dir / f"{name}.log") for name in ("app", "access", "error"))
        self._last_ns = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = self._render(record)
        file = self._access if record.name == ACCESS else self._app
        try:
            file.write(line)
        except OSError as error:
            # For instance a full disk. The journal keeps what a service prints, so the record is not lost.
            with contextlib.suppress(Exception):
                sys.stderr.write(f"cannot write {file.baseFilename}: {error.strerror}: {line.decode()}")
        if record.levelno >= logging.ERROR:
            with contextlib.suppress(OSError):  # only a copy
                self._error.write(line)

    def close(self) -> None:
        for file in (self._app, self._access, self._error):
            file.close()
        super().close()

    def _render(self, record: logging.LogRecord) -> bytes:
        fields = {
            "timestamp": self._timestamp(record),
            "level": _level(record.levelno),
            "logger_name": _text(record.name),
            "message": _message(record),
            "service_name": self._service_name,
            **trace_ids(),
        }
        try:
            extra = structlog.contextvars.get_contextvars() | _extra(record)
            fields |= _exception(record)
            line = _encode(
                fields | {f"extra_{key}" if key in CONTRACT else key: value for key, value in _plain(extra).items()}
            )
            problem = f"extra fields left out: {len(line)} bytes" if len(line) > _MAX_LINE else ""
        except Exception as error:  # whatever an application logs, its record is written
            problem = f"extra fields left out: {_type_name(type(error))}"
        return _encode(fields | {"logging_error": problem}) if problem else line

    def _timestamp(self, record: logging.LogRecord) -> str:
        # Loki takes two lines with the same time and text for one. So time moves on with every record; only a clock
        # that has been set back by more than a millisecond is followed.
        now = int(record.created * 1e9)
        if now <= self._last_ns < now + 1_000_000:
            now = self._last_ns + 1
        self._last_ns = now
        seconds, nanoseconds = divmod(now, 1_000_000_000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


class _File(WatchedFileHandler):
    """A file that is opened again once it has been renamed, and that gets each record by one write().

    A buffered stream would cut long records into several writes, between which another process's may land.
    """

    stream: Any  # binary, unlike the base class's
    _torn = False

    def _open(self) -> Any:
        self._torn = False
        return open(self.baseFilename, "ab", buffering=0)

    def write(self, line: bytes) -> None:
        self.reopenIfNeeded()
        if self.stream is None:  # opening again has failed before
            self.stream = self._open()
            self._statstream()
        data = b"\n" + line if self._torn else line
        # On a disk that fills up, a part may be written. The next record then starts on a line of its own.
        self._torn = self.stream.write(data) < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, "only a part was written")


def _to_stdlib(_logger: Any, _method: str, event: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand a structlog event to the standard library, so that there is one way to the files.

    The fields travel as one attribute: as several, a field called `name` or `args` would be refused.
    """
    options = {key: event.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in event}
    args = event.pop("positional_args", ())
    return (event.pop("event", ""), *args), {**options, "extra": {_FIELDS: event}}


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the server's report of an exception that `RequestLog` has recorded with its trace."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or _RECORDED not in vars(error)


def _endpoint(scope: Scope) -> str:
    """Return the route's template: paths have no bound, and can't be grouped by."""
    # FastAPI keeps the route with the prefixes of its routers here, and none at all for its own routes such as /docs.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    if route is None and "endpoint" in scope:
        routes = getattr(scope.get("router"), "routes", ())
        route = next((route for route in routes if getattr(route, "endpoint", None) is scope["endpoint"]), None)
    mounted = "app_root_path" in scope
    prefix = scope["root_path"].removeprefix(scope["app_root_path"]) if mounted else ""
    template = getattr(route, "path_format", None) or ("/{path}" if mounted else None)
    return UNMATCHED if template is None else prefix + template


def _severity(status_code: int) -> int:
    if status_code >= 500:
        return logging.ERROR
    return logging.WARNING if status_code >= 400 else logging.INFO


def _level(number: int) -> str:
    """Return the closest standard level that is not above, as levels are labels and libraries invent their own."""
    return ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")[max(1, min(5, number // 10)) - 1]


def _message(record: logging.LogRecord) -> str:
    try:
        return _text(record.getMessage())
    except Exception:  # wrong arguments are no reason to lose the message
        return f"{_text(record.msg)} {_text(record.args)}"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    fields = {key: value for key, value in vars(record).items() if key not in _NOT_EXTRA}
    fields |= fields.pop(_FIELDS, {})
    return fields | ({"stack": record.stack_info} if record.stack_info else {})


def _exception(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, error, trail = record.exc_info
    return {
        "exception_type": _type_name(kind),
        "exception": _text("".join(traceback.format_exception(kind, error, trail)).rstrip()),
    }


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any, depth: int = 0) -> Any:
    """Turn anything into what JSON can express."""
    match value:
        case None | bool():
            return value
        case int() if value.bit_length() < 64:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case Mapping() if depth < _MAX_DEPTH:
            return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            return [_plain(item, depth + 1) for item in value]
        case _:
            return _text(value)


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # __str__ is the application's code
        return f"<{_type_name(type(value))} that can't be printed>"
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2  # a stack trace's ends tell the most
    return f"{text[:half]}… {len(text) - 2 * half} characters left out …{text[-half:]}"


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).translate(_UNSAFE).encode() + b"\n"
