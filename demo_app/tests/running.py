"""The demo app under test, and its log files."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
from _pytest.logging import LogCaptureHandler

from demo_app.app import create_app
from demo_app.settings import Settings

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


class LogDir:
    """The log files of a test, read as strictly as a collector could."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, file: str) -> list[dict[str, Any]]:
        """Return the records of a file, after a look at what every record has to have."""
        content = (self.path / f"{file}.log").read_text(encoding="utf-8")
        assert content == "" or content.endswith("\n")
        # splitlines() also breaks at U+2028 and the like, as some readers do
        records = [json.loads(line, parse_constant=refuse) for line in content.splitlines()]
        for record in records:
            check_contract(record)
        return records

    def record(self, file: str) -> dict[str, Any]:
        """Return the only record of a file."""
        (record,) = self.records(file)
        return record


@contextmanager
def without_pytest() -> Iterator[None]:
    """Log without pytest's own handlers, which raise what a record's text raises."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.handlers[:] = [handler for handler in handlers if not isinstance(handler, LogCaptureHandler)]
    yield
    root.handlers[:] = handlers


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def check_contract(record: dict[str, Any]) -> None:
    assert TIMESTAMP.fullmatch(record["timestamp"])
    assert record["level"] in LEVELS
    for field in ("logger_name", "message", "service_name"):
        assert isinstance(record[field], str)
    assert re.fullmatch(r"([0-9a-f]{32})?", record["trace_id"])
    assert re.fullmatch(r"([0-9a-f]{16})?", record["span_id"])
    assert bool(record["trace_id"]) == bool(record["span_id"])
    assert isinstance(record.get("exception", ""), str)
    assert ("exception" in record) == ("exception_type" in record)


class Service:
    """The demo app with a client, in this process."""

    def __init__(self, log_dir: LogDir, level: str = "INFO") -> None:
        self.log_dir = log_dir
        settings = Settings.model_validate({"service_name": "shop", "log_dir": log_dir.path, "log_level": level})
        self.app = create_app(settings)

    async def aget(self, path: str, **options: Any) -> httpx.Response:
        """Request a path from a coroutine."""
        # A server reports the exceptions that reach it and goes on, so this one does.
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(options.pop("method", "GET"), path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Request a path."""
        return asyncio.run(self.aget(path, **options))
