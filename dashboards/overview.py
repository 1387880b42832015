"""One page that answers: is everything healthy, and if not, where is the problem?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards import fastapi, platform_health, system, trace
from dashboards.blocks import (
    BAD,
    ERROR_RATIO_LIMIT,
    GOOD,
    HAVING_STATUS,
    NO_REQUESTS,
    NONE_IS_GOOD,
    NOTICE,
    WARN,
    alerts,
    by_level,
    datasource,
    deploys,
    drilldown,
    label_choice,
    lines,
    link_to,
    logql,
    noise,
    number,
    page,
    promql,
    readable,
    series,
)

UID = "logstead-overview"
ALL = '{job=~".+", environment=~"$environment"}'
# Raw, as the filter is a whole stage.
ERRORS = '{job=~".+", environment=~"$environment", level=~"ERROR|CRITICAL"} ${noise:raw}'
REQUESTS = f"{ALL} {HAVING_STATUS}"
FAILED_UNITS = '{job="systemd-journal", environment=~"$environment"} | identifier="systemd" |= `Failed with result`'
ON = '{environment=~"$environment"}'
WITHOUT_NOISE = "Known noise (platform_known_noise) is left out."


def dashboard() -> builders.Dashboard:
    """Return the dashboard."""
    built = page(UID, "Overview", "Is everything healthy? If not, each number links to the details.")
    for variable in (datasource(), label_choice("environment", "environment", "Environment", '{job=~".+"}'), noise()):
        built = built.with_variable(variable)
    for uid, title in (
        (fastapi.UID, "FastAPI log monitoring"),
        (system.UID, "System log monitoring"),
        (trace.UID, "Trace lookup"),
    ):
        built = built.link(link_to(uid, title))
    built = built.link(drilldown()).annotation(deploys()).annotation(alerts())

    built = built.with_row(builders.Row("Status"))
    for panel in (
        number(
            "Targets down",
            "Scrape targets that Prometheus cannot reach.",
            promql(f"count(up{ON} == 0) or vector(0)"),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Firing alerts",
            "Active alerts of Alertmanager, or of Prometheus if there is no Alertmanager, and those of Grafana.",
            promql(
                '(sum(alertmanager_alerts{state="active"})'
                ' or count(ALERTS{alertstate="firing", environment=~"$environment"}) or vector(0))'
                ' + (sum(grafana_alerting_alerts{state="alerting"}) or vector(0))'
            ),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Fullest disk",
            "Usage of the fullest disk. Above 90 %, Loki rejects lines.",
            promql(f"max({platform_health.usage(platform_health.FILES_ANYWHERE)})"),
            unit="percentunit",
            steps=[(None, GOOD), (0.8, NOTICE), (0.9, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Rejected lines (1 h)",
            "Lines that Loki rejected in the last hour. They are lost.",
            promql(f"sum(increase(loki_discarded_samples_total{ON}[1h])) or vector(0)"),
            steps=[(None, GOOD), (1, BAD)],
            link=platform_health.UID,
        ),
        number(
            "Hosts sending logs",
            "Hosts of which a line has arrived in the last 10 minutes. If one is missing, it is down, or its Promtail.",
            logql(f"count(sum by (host) (count_over_time({ALL} [10m]))) or vector(0)", instant=True),
            steps=[(None, BAD), (1, GOOD)],
            link=system.UID,
        ),
        number(
            "Request error ratio",
            "Share of the applications' requests that ended with a status of 500 or more, in the last 5 minutes. Red "
            f"from {ERROR_RATIO_LIMIT:.0%}.",
            logql(
                f"(sum(count_over_time({REQUESTS} | status_code>=500 [5m])) or vector(0))"
                f" / sum(count_over_time({REQUESTS} [5m]))"
            ),
            unit="percentunit",
            steps=[(None, GOOD), (ERROR_RATIO_LIMIT / 10, NOTICE), (ERROR_RATIO_LIMIT, BAD)],
            link=fastapi.UID,
            empty=NO_REQUESTS,
        ),
        number(
            "Errors (10 min)",
            f"Lines of the level ERROR or CRITICAL in the last 10 minutes, of all jobs. {WITHOUT_NOISE}",
            logql(f"sum(count_over_time({ERRORS} [10m])) or vector(0)"),
            steps=[(None, GOOD), (1, NOTICE), (100, WARN)],
            link=fastapi.UID,
        ),
        number(
            "Unit failures (1 h)",
            "How often systemd units failed in the last hour.",
            logql(f"sum(count_over_time({FAILED_UNITS} [1h])) or vector(0)"),
            steps=[(None, GOOD), (1, WARN)],
            link=system.UID,
        ),
    ):
        built = built.with_panel(panel.span(6))

    built = built.with_row(builders.Row("Details"))
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
            f"Lines of the level ERROR or CRITICAL. {WITHOUT_NOISE}",
            logql(f"sum by (service_name) (count_over_time({ERRORS} [$__auto]))", "{{service_name}}"),
            stacked=True,
            empty=NONE_IS_GOOD,
        ),
        series(
            "Lines by host",
            "Lines of each host. If one falls silent, it is down, or its Promtail.",
            logql(f"sum by (host) (count_over_time({ALL} [$__auto]))", "{{host}}"),
            stacked=True,
        ),
        series(
            "Scrape targets up",
            "1 while Prometheus can scrape the target.",
            promql(f"min by (job, host) (up{ON})", "{{job}} on {{host}}"),
            at_most=1,
        ),
    ):
        built = built.with_panel(chart)
    return built.with_panel(
        lines(
            "Latest errors",
            f"Lines of the level ERROR or CRITICAL of all jobs, the newest first. {WITHOUT_NOISE}",
            readable(ERRORS),
            height=10,
            limit=100,
            empty=NONE_IS_GOOD,
        )
    )
