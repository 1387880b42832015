"""What a web application logs: its requests, errors and lines. Also the template for other applications."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import trace
from dashboards.blocks import (
    BAD,
    ERROR_RATIO_LIMIT,
    GOOD,
    PROMETHEUS,
    by_level,
    choices,
    having,
    lines,
    link_to,
    logql,
    number,
    page,
    promql,
    ranking,
    series,
)

UID = "logstead-fastapi"
STREAMS = '{job="$job", environment=~"$environment", service_name=~"$service", host=~"$host"}'
REQUESTS = f"{STREAMS} {having('status_code')}"
FAILED = f"{REQUESTS} | status_code>=500"
READABLE = (
    'json logger_name="logger_name", message="message", duration_ms="duration_ms", exception="exception"'
    " | drop __error__, __error_details__"
    " | line_format `{{ if .message }}{{ .logger_name }}  {{ .message }}"
    "{{ if .duration_ms }}  ({{ .duration_ms }} ms){{ end }}"
    '{{ if .exception }}{{ "\\n" }}{{ .exception }}{{ end }}{{ else }}{{ __line__ }}{{ end }}`'
)
SEARCH = "|~ `(?i)${search:regex}`"


def percentile(share: float) -> str:
    """Return the duration below which a share of the requests stay, in milliseconds."""
    timed = f"{STREAMS} {having('duration_ms')}"
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
        "Requests, errors and lines of the application, from its log alone.",
        refresh="10s",
    )
    job = builders.ConstantVariable("job").value("fastapi")
    for variable in (job, *choices('{job="$job"}')):
        built = built.with_variable(variable)
    built = built.link(link_to(trace.UID, "Trace lookup"))

    built = built.with_row(builders.Row("Health"))
    built = built.with_panel(
        number(
            "Services that log",
            "How many services have written a line in the last 5 minutes. None: look whether the application and "
            "Promtail run, with ./manage.sh doctor.",
            logql(f"count(sum by (service_name) (count_over_time({STREAMS} [5m]))) or vector(0)", instant=True),
            steps=[(None, BAD), (1, GOOD)],
        )
    )
    built = built.with_panel(
        number(
            "Service health",
            "Hosts on which the application answers Prometheus, as a share.",
            promql('avg(up{job="demo_app", environment=~"$environment", host=~"$host"})', instant=True),
            unit="percentunit",
            steps=[(None, BAD), (1, GOOD)],
        ).datasource(PROMETHEUS)
    )
    built = built.with_panel(
        number(
            "Requests per second",
            "Average of the last 5 minutes. Needs records with a status_code.",
            logql(f"sum(rate({REQUESTS} [5m])) or vector(0)", instant=True),
            unit="reqps",
        )
    )
    built = built.with_panel(
        number(
            "Error ratio",
            f"Share of requests that ended with a status from 500 on, in the last 5 minutes. Red from "
            f"{ERROR_RATIO_LIMIT:.0%} on, as the alert HighErrorRate. Empty while there are no requests.",
            logql(error_ratio(), instant=True),
            unit="percentunit",
            steps=[(None, GOOD), (ERROR_RATIO_LIMIT / 10, "yellow"), (ERROR_RATIO_LIMIT, BAD)],
        )
    )
    built = built.with_panel(
        number(
            "95 % are faster than",
            "Duration of requests in the last 5 minutes. Needs records with a duration_ms. Empty while there are no "
            "requests.",
            logql(percentile(0.95), instant=True),
            unit="ms",
        )
    )
    built = built.with_panel(
        number(
            "Errors logged",
            "Lines of the level ERROR or CRITICAL in the last 5 minutes.",
            logql(
                "sum(count_over_time(" + STREAMS.replace("}", ', level=~"ERROR|CRITICAL"}') + " [5m])) or vector(0)",
                instant=True,
            ),
            steps=[(None, GOOD), (1, "orange")],
        )
    )

    built = built.with_row(builders.Row("Requests"))
    built = built.with_panel(
        series(
            "Request rate",
            "Requests per second by status.",
            logql(f"sum by (status_code) (rate({REQUESTS} [$__auto]))", "{{status_code}}"),
            unit="reqps",
            stacked=True,
        )
    )
    built = built.with_panel(
        series(
            "Error ratio and its limit",
            "Share of requests that ended with a status from 500 on, over 5 minutes each. The line is the limit of the "
            "alert HighErrorRate.",
            logql(error_ratio(), "failed requests"),
            unit="percentunit",
            limit=ERROR_RATIO_LIMIT,
            at_most=1,
        )
    )
    built = built.with_panel(
        series(
            "Duration",
            "How long requests take, over 5 minutes each: half of them are faster than p50.",
            *(logql(percentile(share / 100), f"p{share}") for share in (50, 95, 99)),
            unit="ms",
        )
    )
    built = built.with_panel(
        ranking(
            "Top endpoints",
            "Requests by route in the chosen time.",
            top("endpoint", REQUESTS),
            "{{endpoint}}",
        )
    )

    built = built.with_row(builders.Row("Lines"))
    built = built.with_panel(
        by_level(
            series(
                "Level distribution",
                "Lines by level.",
                logql(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),
                stacked=True,
            )
        )
    )
    built = built.with_panel(
        ranking(
            "Top exceptions",
            "Exceptions by type in the chosen time. Empty is good.",
            top("exception_type", STREAMS),
            "{{exception_type}}",
            color="orange",
        )
    )
    selected = STREAMS.replace("}", ', level=~"$level"}')
    return built.with_panel(
        lines(
            "Live stream",
            "The newest lines that match what is chosen at the top; the search takes any text, in any case. A line's "
            "details have all fields of its record, and the link to all lines of its trace. Empty when nothing "
            "matches.",
            f"{selected} {SEARCH} | {READABLE}",
        )
    )
