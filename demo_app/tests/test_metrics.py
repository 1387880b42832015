import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from running import LogDir, Service

from demo_app import metrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
# What Prometheus sends.
SCRAPE = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"}


def scrape(service: Service) -> list[Sample]:
    """Return the samples that Prometheus gets."""
    response = service.get("/metrics", headers=SCRAPE)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(response.text)  # type: ignore[no-untyped-call]
    return [sample for family in families for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """Return the one value that has these labels."""
    (found,) = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
    return float(found)


def test_requests_count_as_in_the_access_log(service: Service) -> None:
    """Each request counts once, with the endpoint and the status of its record, and its duration is the record's."""
    for path in ("/trace/7", "/trace/8", "/error", "/no/such/path"):
        service.get(path)
    samples = scrape(service)
    counted = {
        (sample.labels["method"], sample.labels["endpoint"], sample.labels["status_code"]): sample.value
        for sample in samples
        if sample.name == "http_requests_total"
    }
    assert counted == {
        ("GET", "/trace/{item_id}", "200"): 2,
        ("GET", "/error", "500"): 1,
        ("GET", "unmatched", "404"): 1,
    }
    records = service.log_dir.records("access")
    taken = sum(record["duration_ms"] for record in records if record["endpoint"] == "/trace/{item_id}") / 1000
    assert value(samples, "http_request_duration_seconds_count", endpoint="/trace/{item_id}") == 2
    assert value(samples, "http_request_duration_seconds_sum", endpoint="/trace/{item_id}") == pytest.approx(taken)


def test_a_duration_leads_to_its_trace(service: Service) -> None:
    """The bucket that a request fell into names its trace, as an exemplar."""
    service.get("/trace/7", headers={"traceparent": PARENT})
    exemplars = [sample.exemplar for sample in scrape(service) if sample.exemplar]
    (record,) = service.log_dir.records("access")
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": TRACE}]
    assert exemplars[0].value == pytest.approx(record["duration_ms"] / 1000)


def test_who_knows_no_openmetrics_gets_plain_text(service: Service) -> None:
    """A person with a browser or curl can read the metrics, too."""
    response = service.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "# TYPE http_request_duration_seconds histogram\n" in response.text


def test_a_scrape_is_no_request(service: Service) -> None:
    """Prometheus' own requests leave no record, and don't count: else a service without users would look busy."""
    scrape(service)
    assert not [sample for sample in scrape(service) if sample.name == "http_requests_total"]
    assert service.log_dir.records("access") == []


def test_records_count_by_the_levels_of_the_log(service: Service) -> None:
    """Records count if they are written, and under the level that they have there."""
    before = scrape(service)
    logger = logging.getLogger("shop")
    logger.debug("not written, as the level is INFO")
    logger.info("one")
    logger.log(logging.WARNING + 5, "a library's own level")
    service.get("/error")
    after = scrape(service)
    grown = {
        level: value(after, "log_records_total", level=level) - value(before, "log_records_total", level=level)
        for level in metrics.LEVELS
    }
    written = [record["level"] for file in ("app", "access") for record in service.log_dir.records(file)]
    assert grown == {"DEBUG": 0, "INFO": 1, "WARNING": 1, "ERROR": 2, "CRITICAL": 0}
    assert [written.count(level) for level in ("WARNING", "ERROR")] == [1, 2]


def test_a_clients_own_method_is_no_value_of_a_label(service: Service) -> None:
    """Nobody fills Prometheus from outside: methods that HTTP doesn't know count together."""
    for method in ("BREW", "PROPFIND"):
        service.get("/", method=method)
    assert value(scrape(service), "http_requests_total", method="other", status_code="405") == 2


def test_applications_of_one_process_count_apart(log_dir: LogDir) -> None:
    """Each application has counts of its own."""
    first, second = Service(log_dir), Service(log_dir)
    first.get("/")
    assert value(scrape(first), "http_requests_total", endpoint="/") == 1
    assert not [sample for sample in scrape(second) if sample.name == "http_requests_total"]


def test_a_response_that_breaks_off_counts_once(service: Service) -> None:
    """What fails halfway counts with the status that the client saw."""
    app: FastAPI = service.app

    @app.get("/rows")
    async def rows() -> StreamingResponse:
        async def broken() -> AsyncIterator[bytes]:
            yield b"one\n"
            raise RuntimeError("lost the database")

        return StreamingResponse(broken())

    service.get("/rows")
    assert value(scrape(service), "http_requests_total", endpoint="/rows", status_code="200") == 1
