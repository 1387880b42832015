"""All lines of one trace, across services."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import datasource, lines, logql, number, page, readable, series

UID = "logstead-trace"
# Without an id, nothing is found: lines that belong to no trace have none either.
TRACED = '{job=~".+"} | trace_id!="" | trace_id="$trace_id"'
EMPTY = "No line with this trace id in the selected time"


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(
        UID,
        "Trace lookup",
        "Paste a trace id to see all lines of its request, across services and hosts.",
        since="now-24h",
        refresh="",
    )
    built = built.with_variable(datasource())
    built = built.with_variable(builders.TextBoxVariable("trace_id").label("Trace id").default_value(""))
    built = built.with_panel(
        number(
            "Lines",
            "Number of lines of the trace.",
            logql(f"sum(count_over_time({TRACED} [$__range]))", instant=True),
            empty="None",
        )
    )
    built = built.with_panel(
        series(
            "Lines by service",
            "Which services wrote lines of the trace, and when.",
            logql(f"sum by (service_name) (count_over_time({TRACED} [$__auto]))", "{{service_name}}"),
            span=20,
            stacked=True,
            empty=EMPTY,
        )
    )
    return built.with_panel(
        lines(
            "All lines of the trace",
            "The oldest first, as in the live stream. A line's details have all fields of its record.",
            readable(TRACED),
            height=18,
            limit=1000,
            empty=EMPTY,
            oldest_first=True,
        )
    )
