import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import LogDir, Service

from demo_app import logs


@pytest.fixture
def log_dir(tmp_path: Path) -> Iterator[LogDir]:
    """A log directory, and the standard library's logging as before once the test is over."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client is no part of the service
    path = tmp_path / "logs"
    path.mkdir()
    yield LogDir(path)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def logging_to(log_dir: LogDir) -> LogDir:
    """A log directory that logging writes to, at the level DEBUG."""
    logs.configure("shop", log_dir.path, "DEBUG")
    return log_dir


@pytest.fixture
def service(log_dir: LogDir) -> Service:
    return Service(log_dir)
