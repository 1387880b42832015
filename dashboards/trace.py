"""All lines of one trace, across services."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.blocks import datasource, lines, logql, number, page, series

UID = "logstead-trace"
# Without an id, nothing is found: lines that belong to no trace have none either.
TRACED = '{job=~".+"} | trace_id!="" | trace_id="$trace_id"'
WHY_EMPTY = "Empty until a trace id is pasted at the top, or while the chosen time doesn't include it."


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(
        UID,
        "Trace lookup",
        "Paste a trace id, and see every line of its request, across services and hosts.",
        since="now-24h",
        refresh="",
    )
    built = built.with_variable(datasource())
    built = built.with_variable(builders.TextBoxVariable("trace_id").label("Trace id").default_value(""))
    built = built.with_panel(
        number(
            "Lines",
            f"Lines of the trace. {WHY_EMPTY}",
            logql(f"sum(count_over_time({TRACED} [$__range]))", instant=True),
        )
    )
    built = built.with_panel(
        series(
            "Services",
            f"Which services wrote lines of the trace, and when. {WHY_EMPTY}",
            logql(f"sum by (service_name) (count_over_time({TRACED} [$__auto]))", "{{service_name}}"),
            span=20,
            stacked=True,
        )
    )
    return built.with_panel(
        lines(
            "All lines of the trace",
            f"As they were written, the newest first. {WHY_EMPTY}",
            TRACED,
            height=18,
            limit=1000,
        )
    )
