"""Metrics for Prometheus: requests, how long they took, and log records, each duration with a trace to look at.

This file stands alone: copy it into any FastAPI or Starlette project that has prometheus-client, beside logs.py.

    counts = metrics.Metrics()
    app.add_middleware(logs.RequestLog, observe=counts.observe)
    app.add_middleware(metrics.Exposition, metrics=counts)  # the last one added, as that is the outermost

A request counts with the same endpoint, status and duration as in access.log. One process has one set of counts: run
several as several targets.
"""

import logging
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, make_asgi_app
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/metrics"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Clients send what they like, and every value of a label is kept for weeks.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The counts of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        labels = ("method", "endpoint", "status_code")
        self._requests = Counter("http_requests", "Requests that were answered.", labels, registry=self.registry)
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Time until the last byte of a response.",
            ("method", "endpoint"),
            registry=self.registry,
        )
        self._records = Counter("log_records", "Records that were logged.", ("level",), registry=self.registry)
        for level in LEVELS:  # a rate needs a zero to start from
            self._records.labels(level)
        _CountingHandler(self._records).replace_on(logging.getLogger())

    def observe(self, record: Mapping[str, Any]) -> None:
        """Count a request by its canonical record: method, endpoint, status_code, duration_ms and trace_id."""
        method = record["method"] if record["method"] in _METHODS else "other"
        exemplar = {"trace_id": record["trace_id"]} if record["trace_id"] else None
        self._requests.labels(method, record["endpoint"], record["status_code"]).inc()
        self._durations.labels(method, record["endpoint"]).observe(record["duration_ms"] / 1000, exemplar)


class Exposition:
    """ASGI middleware that answers Prometheus, which is no request of a user's: it is neither logged nor counted."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        # With exemplars for who asks for OpenMetrics, as Prometheus does.
        self.answer: ASGIApp = make_asgi_app(metrics.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape, and pass on all else."""
        is_scrape = scope["type"] == "http" and scope["path"] == PATH
        await (self.answer if is_scrape else self.app)(scope, receive, send)


class _CountingHandler(logging.Handler):
    """Counts the records that logging lets through, by the levels that the log files have."""

    def __init__(self, records: Counter) -> None:
        super().__init__()
        self._count = records

    def replace_on(self, logger: logging.Logger) -> None:
        """Become the logger's only handler of this kind."""
        for old in [old for old in logger.handlers if isinstance(old, _CountingHandler)]:
            logger.removeHandler(old)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._count.labels(LEVELS[max(1, min(5, record.levelno // 10)) - 1]).inc()
