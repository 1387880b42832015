"""One page that answers: is everything all right, and if not, where?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import fastapi, platform_health, system, trace
from dashboards.blocks import (
    BAD,
    ERROR_RATIO_LIMIT,
    GOOD,
    by_level,
    datasource,
    having,
    label_choice,
    lines,
    link_to,
    logql,
    number,
    page,
    promql,
    series,
)

UID = "logstead-overview"
ALL = '{job=~".+", environment=~"$environment"}'
ERRORS = '{job=~".+", environment=~"$environment", level=~"ERROR|CRITICAL"}'
REQUESTS = f"{ALL} {having('status_code')}"
FAILED_UNITS = '{job="systemd-journal", environment=~"$environment"} | identifier="systemd" |= `Failed with result`'
ON = '{environment=~"$environment"}'


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "Overview", "Is everything all right? If not, each number leads to where it is told.")
    for variable in (datasource(), label_choice("environment", "environment", "Environment", '{job=~".+"}')):
        built = built.with_variable(variable)
    for uid, title in (
        (fastapi.UID, "FastAPI log monitoring"),
        (system.UID, "System log monitoring"),
        (trace.UID, "Trace lookup"),
    ):
        built = built.link(link_to(uid, title))

    built = built.with_row(builders.Row("Is everything all right?"))
    for panel in (
        number(
            "Parts that are down",
            "Targets that Prometheus can't scrape.",
            promql(f"count(up{ON} == 0) or vector(0)", instant=True),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Alerts that fire",
            "Alerts that Alertmanager has, of all that send to it, or else Prometheus; and those of Grafana.",
            promql(
                '(sum(alertmanager_alerts{state="active"})'
                ' or count(ALERTS{alertstate="firing", environment=~"$environment"}) or vector(0))'
                ' + (sum(grafana_alerting_alerts{state="alerting"}) or vector(0))',
                instant=True,
            ),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Fullest disk",
            "Used share of the fullest file system; at 90 % Loki begins to refuse lines.",
            promql(
                f"max(1 - node_filesystem_avail_bytes{platform_health.FILES_ANYWHERE}"
                f" / node_filesystem_size_bytes{platform_health.FILES_ANYWHERE})",
                instant=True,
            ),
            unit="percentunit",
            steps=[(None, GOOD), (0.8, "yellow"), (0.9, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Rejected lines in an hour",
            "Lines that Loki refused; they are lost.",
            promql(f"sum(increase(loki_discarded_samples_total{ON}[1h])) or vector(0)", instant=True),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Hosts that log",
            "Hosts of which a line has arrived in the last 10 minutes. Fewer than there are: one is down, or its "
            "Promtail.",
            logql(f"count(sum by (host) (count_over_time({ALL} [10m]))) or vector(0)", instant=True),
            steps=[(None, BAD), (1, GOOD)],
            link=system.UID,
        ),
        number(
            "Error ratio of requests",
            f"Share of the applications' requests that failed in the last 5 minutes. Red from {ERROR_RATIO_LIMIT:.0%} "
            f"on. "
            "Empty while there are no requests.",
            logql(
                f"(sum(count_over_time({REQUESTS} | status_code>=500 [5m])) or vector(0))"
                f" / sum(count_over_time({REQUESTS} [5m]))",
                instant=True,
            ),
            unit="percentunit",
            steps=[(None, GOOD), (ERROR_RATIO_LIMIT / 10, "yellow"), (ERROR_RATIO_LIMIT, BAD)],
            link=fastapi.UID,
        ),
        number(
            "Errors in 10 minutes",
            "Lines of the level ERROR or CRITICAL, of all jobs.",
            logql(f"sum(count_over_time({ERRORS} [10m])) or vector(0)", instant=True),
            steps=[(None, GOOD), (1, "yellow"), (100, BAD)],
            link=fastapi.UID,
        ),
        number(
            "Failures of units in an hour",
            "How often systemd found that a unit failed.",
            logql(f"sum(count_over_time({FAILED_UNITS} [1h])) or vector(0)", instant=True),
            steps=[(None, GOOD), (1, BAD)],
            link=system.UID,
        ),
    ):
        built = built.with_panel(panel.span(6))

    built = built.with_row(builders.Row("If not, where?"))
    for chart in (
        by_level(
            series(
                "Lines by level",
                "Lines of all jobs.",
                logql(f"sum by (level) (count_over_time({ALL} [$__auto]))", "{{level}}"),
                stacked=True,
            )
        ),
        series(
            "Errors by service",
            "Lines of the level ERROR or CRITICAL. Empty is good.",
            logql(f"sum by (service_name) (count_over_time({ERRORS} [$__auto]))", "{{service_name}}"),
            stacked=True,
        ),
        series(
            "Lines by host",
            "Lines of each host. One that falls silent is down, or its Promtail is.",
            logql(f"sum by (host) (count_over_time({ALL} [$__auto]))", "{{host}}"),
            stacked=True,
        ),
        series(
            "Reachable parts",
            "1 while Prometheus can scrape the part.",
            promql(f"min by (job, host) (up{ON})", "{{job}} on {{host}}"),
            at_most=1,
        ),
    ):
        built = built.with_panel(chart)
    return built.with_panel(
        lines("Latest errors", "Of all jobs, the newest first. Empty is good.", ERRORS, height=10, limit=100)
    )
