"""Traces by OpenTelemetry: a server span around every request, continued from W3C's `traceparent`."""

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from . import metrics


def instrument(app: FastAPI, *, service_name: str, environment: str, endpoint: str | None = None) -> TracerProvider:
    """Give the app a tracer provider, whose `shutdown()` the caller owes.

    Args:
        app: The application, before its first request.
        service_name: The same name as in the logs, so that the two can be joined.
        environment: For instance "prod".
        endpoint: An OTLP/HTTP collector such as http://127.0.0.1:4318. Without one, spans only give logs their ids.

    Returns:
        The provider. It is not made OpenTelemetry's global one, as that can be set only once in a process.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": service_name, "deployment.environment.name": environment}),
        shutdown_on_exit=False,
    )
    if endpoint:
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    # One span per ASGI message says nothing that the server span doesn't, and one per scrape says nothing at all.
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, exclude_spans=["receive", "send"], excluded_urls=f"{metrics.PATH}$"
    )
    # logs.py reads the current span itself. This stamps the ids onto the standard library's records as well, for other
    # handlers (Sentry, a test's caplog); it is one per process. No second way for logs: the files are collected.
    logging_instrumentor = LoggingInstrumentor()
    if not logging_instrumentor.is_instrumented_by_opentelemetry:
        logging_instrumentor.instrument(
            tracer_provider=provider, inject_trace_context=True, enable_log_auto_instrumentation=False
        )
    return provider
