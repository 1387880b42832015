"""The application: four endpoints that show what the platform makes of a service's logs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from opentelemetry.trace import Tracer

from . import logs, metrics, tracing
from .settings import Settings

log = structlog.stdlib.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the application. From here on, this process logs to files.

    Raises:
        OSError: A log file can't be opened.
    """
    logs.configure(settings.service_name, settings.log_dir, settings.log_level)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        log.info("started", environment=settings.environment)
        yield
        await run_in_threadpool(provider.shutdown)  # exports the last spans, which may take seconds
        log.info("stopped")

    app = FastAPI(title=settings.service_name, lifespan=lifespan)
    provider = tracing.instrument(
        app,
        service_name=settings.service_name,
        environment=settings.environment,
        endpoint=str(settings.otlp_endpoint) if settings.otlp_endpoint else None,
    )
    app.state.tracer_provider = provider
    app.include_router(_routes(settings.service_name, provider.get_tracer(__name__)))
    app.add_exception_handler(Exception, _internal_error)
    counts = metrics.Metrics()
    app.add_middleware(logs.RequestLog, observe=counts.observe)
    app.add_middleware(metrics.Exposition, metrics=counts)
    return app


def _routes(service_name: str, tracer: Tracer) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    async def index() -> dict[str, str]:
        """Greet, and leave an ordinary record."""
        log.info("greeting a visitor")
        return {"service": service_name, "message": "Every request leaves a record in access.log."}

    @router.get("/error")
    async def error() -> None:
        """Fail on purpose, to show an exception in the logs next to its trace."""
        raise RuntimeError("this endpoint always fails")

    @router.get("/trace/{item_id}")
    async def item(item_id: str) -> dict[str, str]:
        """Do some work in nested spans: its records share one trace_id, and each names its own span."""
        structlog.contextvars.bind_contextvars(item_id=item_id)  # on every further record of this request
        with tracer.start_as_current_span("load item"):
            log.info("loading the item")
            with tracer.start_as_current_span("query database"):
                log.debug("querying", table="items")
        with tracer.start_as_current_span("price item") as span:
            span.set_attribute("item.price", 42)
            log.info("item priced", price=42)
        return {"item_id": item_id, "trace_id": logs.trace_ids()["trace_id"]}

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Tell that the service answers."""
        return {"status": "ok", "service": service_name}

    return router


async def _internal_error(_request: Request, _error: Exception) -> JSONResponse:
    """Give the client what support needs to find the failure in the logs, and nothing of its inside."""
    trace_id = logs.trace_ids()["trace_id"]
    return JSONResponse({"detail": "Internal Server Error", "trace_id": trace_id}, 500, {"x-trace-id": trace_id})
