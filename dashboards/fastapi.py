"""What a web application logs: its requests, errors and lines. Also the template for other applications."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import trace
from dashboards.blocks import (
    BAD,
    ERROR_RATIO_LIMIT,
    GOOD,
    HAVING_DURATION,
    HAVING_STATUS,
    NO_REQUESTS,
    NONE_IS_GOOD,
    NOTICE,
    WARN,
    alerts,
    by_level,
    choices,
    deploys,
    drilldown,
    having,
    lines,
    link_to,
    logql,
    number,
    page,
    promql,
    ranking,
    readable,
    series,
)

UID = "logstead-fastapi"
STREAMS = '{job="$job", environment=~"$environment", service_name=~"$service", host=~"$host"}'
REQUESTS = f"{STREAMS} {HAVING_STATUS}"
FAILED = f"{REQUESTS} | status_code>=500"


def percentile(share: float) -> str:
    """Return the duration below which a share of the requests stay, in milliseconds."""
    timed = f"{STREAMS} {HAVING_DURATION}"
    return f'quantile_over_time({share}, {timed} | unwrap duration_ms | __error__="" [5m]) by ()'


def error_ratio(span: str = "5m") -> str:
    """Return the share of requests that the server failed."""
    return f"(sum(count_over_time({FAILED} [{span}])) or vector(0)) / sum(count_over_time({REQUESTS} [{span}]))"


def top(label: str, selected: str, of: str = "10") -> str:
    """Return how often the most frequent values of a field of the records occur."""
    found = f"{selected} {having(label)}"
    return f"sort_desc(topk({of}, sum by ({label}) (count_over_time({found} [$__range]))))"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(
        UID,
        "FastAPI log monitoring",
        "Requests, errors and lines of the application, from its logs alone.",
        refresh="10s",
    )
    job = builders.ConstantVariable("job").value("fastapi")
    for variable in (job, *choices('{job="$job"}')):
        built = built.with_variable(variable)
    built = built.link(link_to(trace.UID, "Trace lookup")).link(drilldown())
    built = built.annotation(deploys()).annotation(alerts())

    built = built.with_row(builders.Row("Status"))
    for panel in (
        number(
            "Services sending logs",
            "Services that have written a line in the last 5 minutes. If there is none, check the application and "
            "Promtail with ./manage.sh doctor.",
            logql(f"count(sum by (service_name) (count_over_time({STREAMS} [5m]))) or vector(0)", instant=True),
            steps=[(None, BAD), (1, GOOD)],
        ),
        number(
            "Targets up",
            "Share of the hosts on which Prometheus can scrape the application.",
            promql('avg(up{job="demo_app", environment=~"$environment", host=~"$host"})'),
            unit="percentunit",
            steps=[(None, BAD), (1, GOOD)],
        ),
        number(
            "Requests per second",
            "Average of 5 minutes. Requires records with status_code or status.",
            logql(f"sum(rate({REQUESTS} [5m])) or vector(0)"),
            unit="reqps",
        ),
        number(
            "Error ratio",
            "Share of requests that ended with a status of 500 or more, over 5 minutes. Red from "
            f"{ERROR_RATIO_LIMIT:.0%}, the threshold of the alert HighErrorRate.",
            logql(error_ratio()),
            unit="percentunit",
            steps=[(None, GOOD), (ERROR_RATIO_LIMIT / 10, NOTICE), (ERROR_RATIO_LIMIT, BAD)],
            empty=NO_REQUESTS,
        ),
        number(
            "p95 latency",
            "95 % of the requests of 5 minutes took less. Requires records with duration_ms or duration, in "
            "milliseconds.",
            logql(percentile(0.95)),
            unit="ms",
            empty=NO_REQUESTS,
        ),
        number(
            "Errors (5 min)",
            "Lines of the level ERROR or CRITICAL in the last 5 minutes.",
            logql("sum(count_over_time(" + STREAMS.replace("}", ', level=~"ERROR|CRITICAL"}') + " [5m])) or vector(0)"),
            steps=[(None, GOOD), (1, WARN)],
        ),
    ):
        built = built.with_panel(panel)

    built = built.with_row(builders.Row("Requests"))
    for chart in (
        series(
            "Request rate by status",
            "Requests per second by status.",
            logql(f"sum by (status_code) (rate({REQUESTS} [$__auto]))", "{{status_code}}"),
            unit="reqps",
            stacked=True,
            empty=NO_REQUESTS,
        ),
        series(
            "Error ratio and alert threshold",
            "Share of requests that ended with a status of 500 or more, over 5 minutes each. The line is the threshold "
            "of the alert HighErrorRate.",
            logql(error_ratio(), "failed requests"),
            unit="percentunit",
            limit=ERROR_RATIO_LIMIT,
            at_most=1,
            empty=NO_REQUESTS,
        ),
        series(
            "Latency percentiles",
            "Duration of requests, over 5 minutes each: half of them are faster than p50.",
            *(logql(percentile(share / 100), f"p{share}") for share in (50, 95, 99)),
            unit="ms",
            empty=NO_REQUESTS,
        ),
        ranking(
            "Top endpoints",
            "Requests by route in the selected time.",
            top("endpoint", REQUESTS),
            "{{endpoint}}",
            empty=NO_REQUESTS,
        ),
    ):
        built = built.with_panel(chart)

    built = built.with_row(builders.Row("Lines"))
    built = built.with_panel(
        by_level(
            series(
                "Lines by level",
                "Lines by level.",
                logql(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),
                stacked=True,
            )
        )
    )
    built = built.with_panel(
        ranking(
            "Top exceptions",
            "Exceptions by type in the selected time.",
            top("exception_type", STREAMS),
            "{{exception_type}}",
            color=WARN,
            empty=NONE_IS_GOOD,
        )
    )
    return built.with_panel(
        lines(
            "Live stream",
            "The newest lines that match the variables above. The search matches any text, in any case. A line's "
            "details have all fields of its record, and the link to all lines of its trace.",
            readable(STREAMS.replace("}", ', level=~"$level"}'), search=True),
        )
    )
