import logging
import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from running import LogDir, without_pytest

from demo_app import logs

log = structlog.stdlib.get_logger("shop.orders")
library = logging.getLogger("some.library")


class PaymentError(Exception):
    """What an application may raise."""


def fail(message: str) -> NoReturn:
    raise PaymentError(message) from KeyError("inner")


def test_structlog_record(logging_to: LogDir) -> None:
    """A structlog event becomes a record with the contract's fields and its own."""
    before = datetime.now(UTC)
    log.info("order paid", order=17, amounts=[1.5, None], paid=True)

    record = logging_to.record("app")
    assert list(record)[:7] == [
        "timestamp", "level", "logger_name", "message", "service_name", "trace_id", "span_id",
    ]  # fmt: skip
    assert abs((datetime.fromisoformat(record.pop("timestamp")) - before).total_seconds()) < 5
    assert record == {
        "level": "INFO",
        "logger_name": "shop.orders",
        "message": "order paid",
        "service_name": "shop",
        "trace_id": "",
        "span_id": "",
        "order": 17,
        "amounts": [1.5, None],
        "paid": True,
    }
    assert logging_to.records("access") == []
    assert logging_to.records("error") == []


def test_stdlib_record(logging_to: LogDir) -> None:
    """A record of the standard library differs in nothing but who wrote it."""
    library.warning("retry %d of %d", 1, 3, extra={"host": "db1"})

    record = logging_to.record("app")
    assert (record["level"], record["logger_name"], record["message"]) == ("WARNING", "some.library", "retry 1 of 3")
    assert set(record) == {*logs.CONTRACT, "host"} - {"exception", "exception_type"}


def test_ids_of_the_current_span(logging_to: LogDir) -> None:
    """Records name the span that they were written in, whichever library wrote them."""
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        log.info("from structlog")
        library.info("from logging")

    context = span.get_span_context()
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    assert [{key: record[key] for key in ids} for record in logging_to.records("app")] == [ids, ids]


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (5, "DEBUG"),
        (10, "DEBUG"),
        (20, "INFO"),
        (25, "INFO"),
        (30, "WARNING"),
        (40, "ERROR"),
        (50, "CRITICAL"),
        (99, "CRITICAL"),
    ],
)
def test_levels(logging_to: LogDir, number: int, level: str) -> None:
    """Levels that libraries invented become the standard one below, as levels are labels."""
    logging.getLogger().setLevel(1)
    library.log(number, "hello")
    assert logging_to.record("app")["level"] == level
    assert len(logging_to.records("error")) == (number >= 40)


def test_level_filter(log_dir: LogDir) -> None:
    """Records below the configured level are left out, from both libraries."""
    logs.configure("shop", log_dir.path, "WARNING")
    for logger in (log, library):
        logger.info("no")
        logger.warning("yes")
    assert [record["message"] for record in log_dir.records("app")] == ["yes", "yes"]


def test_error_copy(logging_to: LogDir) -> None:
    """error.log has the same bytes as the record that it copies."""
    log.info("fine")
    log.error("bad", order=17)
    app = (logging_to.path / "app.log").read_bytes().splitlines()
    assert (logging_to.path / "error.log").read_bytes().splitlines() == app[1:]


@pytest.mark.parametrize("logger", [log, library], ids=["structlog", "logging"])
def test_exception(logging_to: LogDir, logger: Any) -> None:
    """A logged exception is one record, with its type and the whole stack trace in one field."""
    try:
        fail("declined")
    except PaymentError:
        logger.exception("payment failed")

    record = logging_to.record("app")
    assert (record["level"], record["message"]) == ("ERROR", "payment failed")
    assert record["exception_type"] == f"{__name__}.PaymentError"
    assert "\nTraceback (most recent call last):\n" in record["exception"]
    assert "KeyError: 'inner'" in record["exception"]
    assert record["exception"].endswith("PaymentError: declined")


def test_exception_outside_a_handler(logging_to: LogDir) -> None:
    """Asking for a stack trace where there is none gives an ordinary record."""
    log.exception("no exception here")
    assert "exception" not in logging_to.record("app")


def test_timestamps_differ(logging_to: LogDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two records have the same time, even if the clock stands still: Loki would take equal ones for one."""
    factory = logging.getLogRecordFactory()

    def frozen(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        record.created = 1_700_000_000.5
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", frozen)
    for _ in range(100):
        log.info("tick")
    stamps = [record["timestamp"] for record in logging_to.records("app")]
    assert stamps == sorted(set(stamps))
    assert stamps[0] == "2023-11-14T22:13:20.500000000Z"
    assert stamps[-1] == "2023-11-14T22:13:20.500000099Z"


class Unprintable:
    """An object that can't even be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("not even a repr")


class BrokenMapping(dict[str, Any]):
    """A mapping that can't be read."""

    def items(self) -> Any:
        """Fail."""
        raise RuntimeError("no items")


cycle: dict[str, Any] = {}
cycle["again"] = cycle
UNPRINTABLE = f"<{__name__}.Unprintable that can't be printed>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("two\nlines\r\n", "two\nlines\r\n"),
        ("u\u0085v\u2028w\u2029x\x1cy\x9bz", "u\u0085v\u2028w\u2029x\x1cy\x9bz"),
        ("lone \udc80 surrogate", "lone \ufffd surrogate"),
        ("Grüße 🚀", "Grüße 🚀"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**63 - 1, 2**63 - 1),
        (10**30, "1" + "0" * 30),
        pytest.param(10**5000, "<int that can't be printed>", id="too many digits"),
        (b"\xff", "b'\\xff'"),
        (Path("/tmp/x"), "/tmp/x"),
        ({1: {2}, None: (float("nan"),)}, {"1": [2], "None": ["nan"]}),
        ({Unprintable(): Unprintable()}, {UNPRINTABLE: UNPRINTABLE}),
        (Unprintable(), UNPRINTABLE),
    ],
)
def test_hostile_value(logging_to: LogDir, value: object, expected: object) -> None:
    """Whatever a field holds, its record is one valid line that keeps as much of it as JSON can say."""
    log.info("hello", value=value)
    library.info("hello", extra={"value": value})
    assert [record["value"] for record in logging_to.records("app")] == [expected, expected]


@pytest.mark.parametrize("value", [cycle, [[[[[[[[[cycle]]]]]]]]]], ids=["cycle", "deep"])
def test_nested_value(logging_to: LogDir, value: object) -> None:
    """A value that contains itself ends as text at some depth."""
    log.info("hello", value=value)
    assert "'again': {...}" in str(logging_to.record("app")["value"])


@pytest.mark.parametrize(
    ("value", "problem"),
    [(BrokenMapping(), "RuntimeError"), (["x" * 10_000] * 100, "bytes")],
    ids=["raising", "too long for Loki"],
)
def test_impossible_value(logging_to: LogDir, value: object, problem: str) -> None:
    """A record whose fields can't be written is written without them, and says so."""
    log.info("hello", value=value)
    record = logging_to.record("app")
    assert record["message"] == "hello"
    assert problem in record["logging_error"]
    assert "value" not in record


@pytest.mark.parametrize("message", ["two\nlines", "\udc80", "100% %s", "", 17, Unprintable(), {"a": 1}])
def test_hostile_message(logging_to: LogDir, message: Any) -> None:
    """Any message makes one record, also one that looks like a format or can't be printed."""
    with without_pytest():
        log.info(message)
        library.info(message)
    expected = UNPRINTABLE if isinstance(message, Unprintable) else str(message).replace("\udc80", "\ufffd")
    assert [record["message"].removesuffix(" ()") for record in logging_to.records("app")] == [expected, expected]


def test_wrong_arguments(logging_to: LogDir, capfd: pytest.CaptureFixture[str]) -> None:
    """A message that doesn't fit its arguments is recorded with both, and nothing is printed."""
    with without_pytest():
        library.info("%d orders", "many")
        log.info("%d orders", "many")
    assert [record["message"] for record in logging_to.records("app")] == ["%d orders ('many',)"] * 2
    assert capfd.readouterr() == ("", "")


def test_reserved_fields(logging_to: LogDir) -> None:
    """Fields of an application can't pass for the contract's: they are kept under another name."""
    fields = dict.fromkeys(logs.CONTRACT, "mine")
    log.info("hello", **fields)
    record = logging_to.record("app")
    assert "mine" not in [record.get(name) for name in logs.CONTRACT]
    assert {name: record[f"extra_{name}"] for name in logs.CONTRACT} == fields


def test_fields_named_like_record_attributes(logging_to: LogDir) -> None:
    """Fields of structlog may have names that the standard library keeps for itself."""
    log.info("hello", name="Ada", args=[1], msg="m", exc_text="t", filename="f.txt")
    record = logging_to.record("app")
    assert (record["name"], record["args"], record["msg"], record["exc_text"], record["filename"]) == (
        "Ada", [1], "m", "t", "f.txt",
    )  # fmt: skip


def test_long_texts(logging_to: LogDir) -> None:
    """Long texts lose their middle, so that the line stays below what Loki takes."""
    try:
        fail("\x9b" * 300_000)
    except PaymentError:
        log.exception("\x9b" * 300_000)
    line = (logging_to.path / "app.log").read_bytes()
    assert len(line) < 256 * 1024
    record = logging_to.record("app")
    assert "283616 characters left out" in record["message"]
    assert record["exception"].startswith("KeyError")


def test_bound_context(logging_to: LogDir) -> None:
    """What is bound to the context is on every record, but a record's own field wins."""
    with structlog.contextvars.bound_contextvars(user="ada", order=1):
        log.info("one", order=2)
        library.info("two")
    log.info("three")
    assert [(r.get("user"), r.get("order")) for r in logging_to.records("app")] == [
        ("ada", 2),
        ("ada", 1),
        (None, None),
    ]


def test_one_write_per_record(logging_to: LogDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record reaches its file by a single write, however long it is."""
    written: list[bytes] = []
    opened = logs._File._open

    class Spy:
        def __init__(self, raw: Any) -> None:
            self.raw = raw

        def write(self, data: bytes) -> int:
            written.append(data)
            return int(self.raw.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.raw, name)

    monkeypatch.setattr(logs._File, "_open", lambda file: Spy(opened(file)))
    logs.configure("shop", logging_to.path)
    log.info("x" * 16_000, more=["y" * 16_000] * 4)
    assert len(written) == 1
    assert written[0] == (logging_to.path / "app.log").read_bytes()


def test_rename_rotation(logging_to: LogDir) -> None:
    """After a rename, records go to a new file of the old name, and the old file keeps what it has."""
    log.info("before")
    (logging_to.path / "app.log").rename(logging_to.path / "app-1.log")
    log.info("after")
    log.info("later")
    assert [record["message"] for record in logging_to.records("app-1")] == ["before"]
    assert [record["message"] for record in logging_to.records("app")] == ["after", "later"]


def test_missing_directory(logging_to: LogDir, capsys: pytest.CaptureFixture[str]) -> None:
    """While the directory is gone records are printed, and once it is back they are written again."""
    moved = logging_to.path.with_name("moved")
    logging_to.path.rename(moved)
    log.info("one")
    log.info("two")
    moved.rename(logging_to.path)
    (logging_to.path / "app.log").unlink()
    log.info("three")
    printed = capsys.readouterr().err.splitlines()
    assert ['"one"' in line or '"two"' in line for line in printed] == [True, True]
    assert logging_to.record("app")["message"] == "three"


def test_full_disk(log_dir: LogDir, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that finds the disk full is printed, for the journal to keep, and the caller notices nothing."""
    (log_dir.path / "app.log").symlink_to("/dev/full")
    logs.configure("shop", log_dir.path)
    log.error("precious")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot write {log_dir.path}/app.log: No space left on device: {{")
    assert '"message": "precious"' in line
    assert log_dir.record("error")["message"] == "precious"


def test_disk_fills_up_within_a_record(logging_to: LogDir, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that was cut short is printed in whole, and doesn't spoil the next one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        log.info("cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.info("next")
    assert '"message": "cut"' in capsys.readouterr().err
    torn, rest = (logging_to.path / "app.log").read_bytes().split(b"\n", 1)
    assert len(torn) == 100
    (logging_to.path / "app.log").write_bytes(rest)
    assert logging_to.record("app")["message"] == "next"


def test_configure_again(logging_to: LogDir, tmp_path: Path) -> None:
    """A second call replaces the first one: no record is written twice."""
    logs.configure("bakery", tmp_path, "INFO")
    log.info("hello")
    assert logging_to.records("app") == []
    assert LogDir(tmp_path).record("app")["service_name"] == "bakery"


def test_configure_fails_whole(logging_to: LogDir, tmp_path: Path) -> None:
    """A directory that is missing is an error at once, and logging stays as it was."""
    with pytest.raises(FileNotFoundError, match=r"nowhere/app\.log"):
        logs.configure("bakery", tmp_path / "nowhere")
    log.info("hello")
    assert logging_to.record("app")["service_name"] == "shop"


def test_no_span(logging_to: LogDir) -> None:
    """Outside a span the ids are empty, never zeros."""
    with trace.use_span(trace.INVALID_SPAN):
        assert logs.trace_ids() == {"trace_id": "", "span_id": ""}
        log.info("hello")
    assert logging_to.record("app")["trace_id"] == ""
